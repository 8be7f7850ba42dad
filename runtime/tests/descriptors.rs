//! An accept loop in a process that has no file descriptor left. Its own program: the limit is the whole process's.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use mesh_runtime::serve;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::{Duration, timeout},
};
use tracing_subscriber::fmt::MakeWriter;

/// Enough for a runtime, and soon used up.
const DESCRIPTORS: u64 = 64;

/// Counts the lines of the log.
#[derive(Clone, Default)]
struct Lines(Arc<AtomicUsize>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(usize::from(bytes.ends_with(b"\n")), Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_descriptor_it_pauses_instead_of_spinning_and_goes_on_once_there_is_one() {
    let lines = Lines::default();
    let _logged = tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(lines.clone()).finish());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS.min(hard), hard).unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let _client = socket.connect(listener.local_addr().unwrap()).await.unwrap();

    // The clock is the test's: it moves on when everybody waits for it, so that a loop that spins would never end.
    timeout(Duration::from_secs(1), serve::accept(&listener)).await.expect_err("nothing can be accepted");
    let tries = lines.0.load(Ordering::Relaxed);
    assert!((19..=21).contains(&tries), "{tries} lines in a second for one try each 50 ms");

    taken.pop();
    timeout(Duration::from_mins(10), serve::accept(&listener)).await.expect("there is room again");
}
