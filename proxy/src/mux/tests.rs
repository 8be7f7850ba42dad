//! Both ends of a connection with channels, in memory; and one end whose peer is no proxy of ours.

mod model;
mod rules;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{
    FutureExt as _,
    future::{AbortHandle, abortable, join_all},
};
use mesh_runtime::tasks::Tasks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use super::*;
use crate::{drain::Drain, stream::Io};

const ROOM: usize = 64 * 1024;

/// What a served connection hands out, and how it ended.
struct Served {
    channels: mpsc::UnboundedReceiver<Channel>,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl Served {
    async fn next(&mut self) -> Channel {
        self.channels.recv().await.unwrap()
    }
}

/// The end of the opener, as its user and its connection have it.
struct Opener {
    mux: Mux,
    ended: oneshot::Receiver<()>,
    cut: AbortHandle,
}

impl Opener {
    fn open(&self) -> Channel {
        self.mux.open(Carries::Http1).unwrap()
    }
}

/// Within a `LocalSet`.
fn connected(tasks: &Tasks, drain: &Drain) -> (Opener, Served) {
    let (near, far) = tokio::io::duplex(ROOM);
    let (mux, run) = Mux::dialled(Io::Local(near).into());
    let (run, cut) = abortable(run);
    let (says, ended) = oneshot::channel();
    tasks.spawn_local("opens", async move {
        let _ = run.await;
        let _ = says.send(());
    });
    let opener = Opener { mux, ended, cut };
    let ((gives, channels), (says, ended)) = (mpsc::unbounded_channel(), oneshot::channel());
    let drain = drain.clone();
    tasks.spawn_local("serves", async move {
        let served = serve(Io::Local(far).into(), drain.started(), |channel| gives.send(channel).unwrap()).await;
        let _ = says.send(served);
    });
    (opener, Served { channels, ended })
}

/// Runs `test` with both ends.
async fn with_both<F: Future<Output = ()>>(test: impl FnOnce(Opener, Served, Drain) -> F) {
    let (tasks, drain) = (Tasks::new(), Drain::new());
    LocalSet::new()
        .run_until(async {
            let (opener, served) = connected(&tasks, &drain);
            test(opener, served, drain).await;
        })
        .await;
}

async fn read_all(channel: &mut Channel) -> Vec<u8> {
    let mut all = Vec::new();
    channel.read_to_end(&mut all).await.unwrap();
    all
}

async fn read_error(channel: &mut Channel) -> io::ErrorKind {
    channel.read(&mut [0; 16]).await.unwrap_err().kind()
}

/// Sends back what comes.
async fn echo(mut channel: Channel) {
    let mut piece = [0; 1000];
    while let Ok(n @ 1..) = channel.read(&mut piece).await {
        channel.write_all(&piece[..n]).await.unwrap();
    }
    channel.shutdown().await.unwrap();
}

#[tokio::test]
async fn many_channels_at_once_each_carry_their_own_bytes() {
    with_both(|opener, mut served, _| async move {
        let ask = |n: u32| {
            let channel = opener.open();
            async move {
                let said: Vec<u8> = (0..5 * WINDOW).map(|at| (at.wrapping_mul(31) ^ n).to_le_bytes()[0]).collect();
                let (mut reads, mut writes) = tokio::io::split(channel);
                let say = async {
                    writes.write_all(&said).await.unwrap();
                    writes.shutdown().await.unwrap();
                };
                let mut heard = Vec::new();
                let (heard_all, ()) = tokio::join!(reads.read_to_end(&mut heard), say);
                heard_all.unwrap();
                assert!(heard == said, "channel {n}: {} bytes of {}", heard.len(), said.len());
            }
        };
        let asked = join_all((0..MAX_CHANNELS).map(ask));
        assert!(opener.mux.open(Carries::Http1).is_none(), "one more than there may be");
        let answered = async {
            let mut all = Vec::new();
            for _ in 0..MAX_CHANNELS {
                all.push(echo(served.next().await));
            }
            join_all(all).await;
        };
        tokio::join!(asked, answered);
        assert!(opener.mux.is_unused());
    })
    .await;
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn what_channels_write_in_one_turn_leaves_at_once() {
    let (near, mut far) = tokio::io::duplex(ROOM);
    let (mux, run) = Mux::dialled(Io::Local(near).into());
    let mut run = std::pin::pin!(run);
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    far.write_all(&greeting(WINDOW, MAX_CHANNELS)).now_or_never().unwrap().unwrap();
    assert!(run.as_mut().poll(&mut cx).is_pending());
    let mut read = vec![0; ROOM];
    assert_eq!(far.read(&mut read).now_or_never().unwrap().unwrap(), greeting(WINDOW, MAX_CHANNELS).len());
    woken.0.store(0, Ordering::Relaxed);
    let mut channels: Vec<_> = (0..5).map(|_| mux.open(Carries::Http1).unwrap()).collect();
    for channel in &mut channels {
        channel.write_all(b"hello").now_or_never().unwrap().unwrap();
        channel.flush().now_or_never().unwrap().unwrap();
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "its task is woken once");
    assert!(far.read(&mut read).now_or_never().is_none(), "nothing leaves before its task's turn");
    assert!(run.as_mut().poll(&mut cx).is_pending());
    let len = far.read(&mut read).now_or_never().unwrap().unwrap();
    assert_eq!(len, 5 * (2 * frame::HEAD + 5));
}

#[tokio::test]
async fn a_reader_that_does_nothing_holds_its_window_and_stops_nobody_else() {
    with_both(|opener, mut served, _| async move {
        let mut stuck = opener.open();
        stuck.write_all(&vec![b'x'; WINDOW as usize]).await.unwrap();
        let mut idle = served.next().await;
        let mut other = opener.open();
        let goes = async {
            let answers = echo(served.next().await);
            let asks = async {
                for _ in 0..50 {
                    other.write_all(&[b'y'; 2000]).await.unwrap();
                    other.read_exact(&mut [0; 2000]).await.unwrap();
                }
                other.shutdown().await.unwrap();
                read_all(&mut other).await;
            };
            tokio::join!(answers, asks)
        };
        tokio::select! {
            biased;
            _ = goes => {}
            written = stuck.write(b"x") => panic!("{written:?} beyond the window"),
        }
        // It goes on as soon as half of it was read.
        idle.read_exact(&mut vec![0; WINDOW as usize / 2]).await.unwrap();
        stuck.write_all(&vec![b'x'; WINDOW as usize / 2]).await.unwrap();
        idle.read_exact(&mut vec![0; WINDOW as usize]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_has_said_the_end_still_gets_an_answer() {
    with_both(|opener, mut served, _| async move {
        let mut channel = opener.open();
        channel.write_all(b"ask").await.unwrap();
        channel.shutdown().await.unwrap();
        assert_eq!(channel.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut theirs = served.next().await;
        assert_eq!(read_all(&mut theirs).await, b"ask");
        theirs.write_all(b"answer").await.unwrap();
        theirs.shutdown().await.unwrap();
        drop(theirs);
        assert_eq!(read_all(&mut channel).await, b"answer");
        assert!(!opener.mux.is_unused());
        drop(channel);
        assert!(opener.mux.is_unused());
    })
    .await;
}

#[tokio::test]
async fn who_gives_a_channel_up_is_told_from_who_ends_it_and_who_refuses_it() {
    with_both(|opener, mut served, _| async move {
        let mut ours = opener.open();
        let mut theirs = served.next().await;
        drop(theirs);
        assert_eq!(read_error(&mut ours).await, io::ErrorKind::ConnectionReset);
        assert_eq!(ours.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        ours = opener.open();
        theirs = served.next().await;
        drop(ours);
        assert_eq!(read_error(&mut theirs).await, io::ErrorKind::ConnectionReset);
        ours = opener.open();
        ours.write_all(b"unseen").await.unwrap();
        served.next().await.refuse();
        assert_eq!(read_error(&mut ours).await, io::ErrorKind::ConnectionRefused);
        drop(ours);
        assert!(opener.mux.is_unused());
    })
    .await;
}

#[tokio::test]
async fn a_drain_ends_channels_that_are_kept_then_those_in_use_when_they_are_done_then_the_connection() {
    with_both(|opener, mut served, drain| async move {
        let (kept, mut used) = (opener.open(), opener.open());
        let (mut theirs, mut working) = (served.next().await, served.next().await);
        assert!(kept.rest());
        used.write_all(b"ask").await.unwrap();
        drain.start();
        assert_eq!(read_all(&mut theirs).await, b"");
        theirs.shutdown().await.unwrap();
        drop(theirs);
        assert!(opener.mux.open(Carries::Http1).is_none());
        let mut asked = [0; 3];
        working.read_exact(&mut asked).await.unwrap();
        working.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        used.read_exact(&mut answer).await.unwrap();
        assert_eq!((&asked, &answer), (b"ask", b"answer"));
        // What was used is kept no more, and what was kept is of no use.
        assert!(!used.rest());
        assert!(!kept.resume());
        used.shutdown().await.unwrap();
        drop(used);
        assert_eq!(read_all(&mut working).await, b"");
        working.shutdown().await.unwrap();
        drop(working);
        opener.ended.await.unwrap();
        served.ended.await.unwrap().unwrap();
        drop(kept);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_no_channel_was_opened_on_is_not_asked_to_end() {
    with_both(|opener, mut served, drain| async move {
        drain.start();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let mut ours = opener.open();
        ours.write_all(b"ask").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut theirs = served.next().await;
        assert_eq!(read_all(&mut theirs).await, b"ask");
        theirs.shutdown().await.unwrap();
        assert_eq!(read_all(&mut ours).await, b"");
        drop((ours, theirs));
        opener.ended.await.unwrap();
        served.ended.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_loses_the_connection_reads_what_came_and_then_an_error() {
    with_both(|opener, mut served, _| async move {
        let mut ours: Vec<_> = (0..3).map(|_| opener.open()).collect();
        let mut theirs = Vec::new();
        for channel in &mut ours {
            channel.write_all(b"came").await.unwrap();
            theirs.push(served.next().await);
        }
        ours[2].shutdown().await.unwrap();
        theirs[0].write_all(b"there").await.unwrap();
        ours[0].poll_readable_once().await;
        opener.cut.abort();
        served.ended.await.unwrap().unwrap();
        for (n, channel) in theirs.iter_mut().enumerate() {
            let mut came = [0; 4];
            channel.read_exact(&mut came).await.unwrap();
            assert_eq!(&came, b"came");
            if n == 2 {
                assert_eq!(channel.read(&mut came).await.unwrap(), 0, "it was whole");
            } else {
                assert_eq!(read_error(channel).await, io::ErrorKind::ConnectionReset);
            }
            assert_eq!(channel.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        opener.ended.await.unwrap();
        assert!(opener.mux.open(Carries::Http1).is_none());
        let mut came = [0; 5];
        ours[0].read_exact(&mut came).await.unwrap();
        for channel in &mut ours {
            assert_eq!(read_error(channel).await, io::ErrorKind::ConnectionReset);
        }
        drop(ours);
        assert!(opener.mux.is_unused());
    })
    .await;
}

impl Channel {
    async fn poll_readable_once(&self) {
        std::future::poll_fn(|cx| self.poll_readable(cx)).await.unwrap();
    }
}

fn greeting(window: u32, channels: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frame::Frame::Hello { window, channels }.put(&mut out);
    out
}
