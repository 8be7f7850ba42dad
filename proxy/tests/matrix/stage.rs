//! Where the matrix is played, as a behaviour sees it: an application's listener, and clients whose connections reach it through
//! the mesh. How the pods came to be, and whether they are processes, is the runner's affair.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use mesh_proto::workload::Protocol;
use mesh_runtime::tasks::Tasks;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// Longest any test waits for anything, on a machine that does ten other things too; only what fails waits for it.
pub(crate) const SOON: Duration = Duration::from_mins(2);
/// Between two questions of [`until`].
const PAUSE: Duration = Duration::from_millis(5);

/// Two pods, each with its proxy.
pub(crate) trait Stage {
    /// The application's addresses: one for every family that the machine has.
    fn families(&self) -> Vec<IpAddr>;

    /// A port that nobody has used before and that is declared as `protocol`: the application's listener, and the way there.
    fn open(&self, protocol: Protocol, ip: IpAddr) -> (TcpListener, Way);
}

/// What lies between a client and the application.
pub(crate) trait Between {
    /// As the client's application connects.
    fn connect(&self, destination: SocketAddr) -> io::Result<std::net::TcpStream>;

    /// What the proxy of this side counts.
    fn metrics(&self, side: Side) -> String;
}

/// Whose proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

/// To one port of the application.
#[derive(Clone)]
pub(crate) struct Way {
    /// Where the client believes to connect to.
    pub(crate) destination: SocketAddr,
    between: Rc<dyn Between>,
}

impl Way {
    pub(crate) fn new(destination: SocketAddr, between: Rc<dyn Between>) -> Self {
        Self { destination, between }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let socket = self.between.connect(self.destination).unwrap();
        socket.set_nonblocking(true).unwrap();
        TcpStream::from_std(socket).unwrap()
    }

    /// Waits until the series of a family with all these labels come to `at_least`: it may be written after the answer.
    pub(crate) async fn counted(&self, side: Side, family: &str, labels: &[&str], at_least: u64) {
        until(async || {
            let text = self.between.metrics(side);
            let of_family = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{'));
            let series = text.lines().filter(of_family).filter(|line| labels.iter().all(|label| line.contains(label)));
            let sum: u64 = series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
            if sum >= at_least { Ok(()) } else { Err(format!("{family} {labels:?}: {sum} of {at_least}\n{text}")) }
        })
        .await;
    }
}

/// An application: its tasks end with it.
pub(crate) struct App(Tasks);

impl Drop for App {
    fn drop(&mut self) {
        self.0.token().cancel();
    }
}

impl App {
    /// Runs `serve` for every connection.
    pub(crate) fn on<F: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> Self {
        let tasks = Tasks::new();
        let (owner, stop) = (tasks.clone(), tasks.token());
        tasks.spawn("app", async move {
            loop {
                let socket = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = stop.cancelled() => return,
                };
                owner.spawn("app connection", serve(socket));
            }
        });
        Self(tasks)
    }
}

/// Fails the test when it takes too long.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it takes too long")
}

/// Asks again and again, about what nobody reports, until it is so; fails the test with the last answer when it takes too long.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(not_yet) => assert!(Instant::now() < deadline, "after {SOON:?}: {not_yet}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// So many bytes without a pattern.
pub(crate) fn noise(length: u32) -> Vec<u8> {
    (0..length).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}
