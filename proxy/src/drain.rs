//! The end of a proxy's life: draining keeps serving what is open and what still arrives, until clients have let go or
//! the deadline passes.
//!
//! The wiring starts a drain at SIGTERM or `mesh-proxy drain`; the data path asks whether one runs, holds a [`Guard`]
//! per live connection and says when something comes for the application ([`Drain::comes`]). Knows no connections.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_proto::config::Holding;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Clients have let go of the application when for so long nothing came, nothing was open, and the controller knew of nobody
/// who still sends here: longer than kube-proxy takes to tell those outside the mesh (a second between its rounds) and than
/// the mesh takes where the controller is away (300 ms, docs/benchmarks.md).
const QUIET: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Who waits for a drain waits so long for its begin: the kubelet runs the hooks of a pod at the same time, and one of them
/// begins it. It runs the same hooks when it only restarts a container, and then there is none.
const BEGIN: Duration = Duration::from_secs(2);

/// Shared by all parts of a proxy; clones are the same drain.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    started: CancellationToken,
    begun: Arc<OnceLock<Instant>>,
    ending: CancellationToken,
    aborted: CancellationToken,
    live: Arc<watch::Sender<usize>>,
    work: Arc<Work>,
    /// None where the controller has not said, or is away.
    holding: Arc<watch::Sender<Option<Holding>>>,
}

/// Whose connection it is that a drain is to end, and with it how its client learns to go elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The application of the own pod: it stays here as long as it lives.
    Own,
    /// A proxy of the mesh: the controller tells it.
    Proxy,
    /// Anybody else: nobody tells it.
    Stranger,
}

/// What came for the application, and what of it is over. Both only grow.
#[derive(Debug, Default)]
struct Work {
    came: AtomicU64,
    over: AtomicU64,
}

/// Something for the application, not yet answered; dropping it says that it is.
#[derive(Debug)]
pub struct Open(Arc<Work>);

/// What is seen of clients at one moment.
#[derive(Debug, Clone, Copy)]
struct Seen {
    came: u64,
    over: u64,
    holding: Option<Holding>,
}

/// Since when no client has wanted anything.
#[derive(Debug)]
struct Quiet {
    since: Instant,
    came: u64,
}

/// A live connection; dropping it says that it has ended.
#[derive(Debug)]
pub struct Guard(Arc<watch::Sender<usize>>);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Nothing was open any more.
    Idle,
    /// The deadline passed, or a second signal came, with so many connections open.
    Cut(usize),
}

impl Drain {
    /// Not draining.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins. Idempotent.
    pub fn start(&self) {
        self.begun.get_or_init(Instant::now);
        self.started.cancel();
    }

    /// Ends everything now. Idempotent.
    pub fn abort(&self) {
        self.start();
        self.aborted.cancel();
    }

    /// Whether it has begun.
    pub fn is_draining(&self) -> bool {
        self.begun.get().is_some()
    }

    /// Whether it is over, and what is left is cut.
    pub fn is_aborted(&self) -> bool {
        self.aborted.is_cancelled()
    }

    /// Waits until it begins.
    pub async fn started(&self) {
        self.started.cancelled().await;
    }

    /// Waits until everything has to end.
    pub async fn aborted(&self) {
        self.aborted.cancelled().await;
    }

    /// Counts a connection as live.
    pub fn guard(&self) -> Guard {
        self.live.send_modify(|live| *live += 1);
        Guard(Arc::clone(&self.live))
    }

    /// Something comes for the application.
    pub fn comes(&self) -> Open {
        self.work.came.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.work))
    }

    /// The controller says who still sends here; none: it is away.
    pub fn held(&self, holding: Option<Holding>) {
        self.holding.send_replace(holding);
    }

    /// What the controller said last.
    pub fn holding(&self) -> Option<Holding> {
        *self.holding.borrow()
    }

    /// Waits until a client of HTTP/2 is to be told that its connection ends (GOAWAY). What it has on the way at that moment may be
    /// refused, because a connection's library answers the PING that comes with it before it sends what waits (h2 0.4), so whoever
    /// learns by other means to go elsewhere is told only when it has gone.
    pub async fn is_over_for(&self, client: Client) {
        let told = async {
            self.started().await;
            match client {
                Client::Own => std::future::pending().await,
                Client::Stranger => tokio::time::sleep(QUIET).await,
                Client::Proxy => self.is_held_by_nobody().await,
            }
        };
        tokio::select! {
            () = told => {}
            () = self.ending.cancelled() => {}
        }
    }

    /// Waits until nobody is known to send here any more, or nobody has said who does for a while.
    async fn is_held_by_nobody(&self) {
        let mut holding = self.holding.subscribe();
        loop {
            let said = *holding.borrow_and_update();
            match said {
                Some(Holding::NOBODY) => return,
                // The sender is in `self`, so it cannot be gone.
                Some(_) => drop(holding.changed().await),
                None if tokio::time::timeout(QUIET, holding.changed()).await.is_err() => return,
                None => {}
            }
        }
    }

    /// Waits until the application may end: a drain has begun and its clients have let go, or no drain begins. Says which.
    pub async fn let_go(&self) -> bool {
        if tokio::time::timeout(BEGIN, self.started()).await.is_err() {
            return false;
        }
        let mut quiet = Quiet { since: Instant::now(), came: self.seen().came };
        while !quiet.has_lasted(Instant::now(), self.seen()) {
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    fn seen(&self) -> Seen {
        // In this order: what ends meanwhile came before.
        let over = self.work.over.load(Ordering::Acquire);
        Seen { came: self.work.came.load(Ordering::Relaxed), over, holding: self.holding() }
    }

    /// Waits until no connection is live; when aborted, or so long after the drain began, the rest is cut. The time that
    /// a pod has for its end begins with the preStop hook, not with the signal.
    pub async fn finish(&self, deadline: Duration) -> Drained {
        self.start();
        let begun = *self.begun.get_or_init(Instant::now);
        self.ending.cancel();
        let mut live = self.live.subscribe();
        tokio::select! {
            // The sender is in `self`, so it cannot be gone.
            _ = live.wait_for(|live| *live == 0) => Drained::Idle,
            () = self.aborted.cancelled() => Drained::Cut(*self.live.borrow()),
            () = tokio::time::sleep_until(begun + deadline) => {
                let cut = *self.live.borrow();
                self.aborted.cancel();
                Drained::Cut(cut)
            }
        }
    }
}

impl Quiet {
    /// Whether it has lasted for long enough.
    fn has_lasted(&mut self, now: Instant, seen: Seen) -> bool {
        let held = seen.holding.is_some_and(|holding| holding != Holding::NOBODY);
        if held || seen.came != self.came || seen.came != seen.over {
            *self = Self { since: now, came: seen.came };
        }
        now.duration_since(self.since) >= QUIET
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send_modify(|live| *live -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_when_the_last_connection_does() {
        let drain = Drain::new();
        let (first, second) = (drain.guard(), drain.guard());
        drain.start();
        assert!(drain.is_draining());
        let finish = drain.finish(LONG);
        tokio::pin!(finish);
        drop(first);
        assert!(futures_util::poll!(&mut finish).is_pending());
        drop(second);
        assert_eq!(finish.await, Drained::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_cuts_what_is_left() {
        let drain = Drain::new();
        let _open = drain.guard();
        drain.start();
        assert_eq!(drain.finish(Duration::from_secs(5)).await, Drained::Cut(1));
        drain.aborted().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_counts_from_the_begin_of_the_drain() {
        let drain = Drain::new();
        let _open = drain.guard();
        drain.start();
        tokio::time::advance(Duration::from_secs(20)).await;
        drain.start();
        let waited = Instant::now();
        assert_eq!(drain.finish(Duration::from_secs(25)).await, Drained::Cut(1));
        assert_eq!(waited.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_have_let_go_once_nothing_came_and_nothing_was_open_for_a_while() {
        let drain = Drain::new();
        drop(drain.comes());
        let open = drain.comes();
        drain.start();
        let waited = drain.let_go();
        tokio::pin!(waited);
        let begun = Instant::now();
        assert!(tokio::time::timeout(5 * QUIET, &mut waited).await.is_err());
        drop(open);
        assert!(tokio::time::timeout(QUIET / 2, &mut waited).await.is_err());
        drop(drain.comes());
        assert!(waited.await);
        let waited = begun.elapsed();
        assert!(waited >= 6 * QUIET + QUIET / 2 && waited <= 8 * QUIET, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_the_controller_knows_of_are_waited_for() {
        let drain = Drain::new();
        drain.start();
        let waited = drain.let_go();
        tokio::pin!(waited);
        for holding in [Holding { offered: true, clients: 0 }, Holding { offered: false, clients: 1 }] {
            drain.held(Some(holding));
            assert!(tokio::time::timeout(5 * QUIET, &mut waited).await.is_err(), "{holding:?}");
        }
        // Nobody holds it, or nobody knows.
        drain.held(Some(Holding::NOBODY));
        let begun = Instant::now();
        assert!(waited.await);
        assert!(begun.elapsed() >= QUIET && begun.elapsed() <= QUIET + 2 * LOOK, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_otherwise_to_go_elsewhere_has_gone_before_its_connection_ends() {
        let nobody = Some(Holding::NOBODY);
        let clients = Some(Holding { offered: false, clients: 1 });
        // What the controller says, a while after the begin, and how long after the begin it is over.
        for (client, says, over) in [
            (Client::Proxy, vec![(5 * QUIET, clients), (7 * QUIET, nobody)], Some(7 * QUIET)),
            (Client::Proxy, vec![(QUIET / 2, clients), (7 * QUIET, None)], Some(8 * QUIET)),
            (Client::Proxy, vec![(QUIET / 2, clients)], None),
            (Client::Proxy, vec![], Some(QUIET)),
            (Client::Stranger, vec![(QUIET / 2, clients)], Some(QUIET)),
            (Client::Own, vec![(QUIET / 2, nobody)], None),
        ] {
            let drain = Drain::new();
            assert!(tokio::time::timeout(LONG, drain.is_over_for(client)).await.is_err(), "no drain has begun");
            if says.first().is_some_and(|(after, _)| *after > QUIET) {
                drain.held(clients);
            }
            drain.start();
            let begun = Instant::now();
            let controller = async {
                for (after, holding) in &says {
                    tokio::time::sleep_until(begun + *after).await;
                    drain.held(*holding);
                }
                std::future::pending::<()>().await;
            };
            let ended = tokio::select! {
                ended = tokio::time::timeout(LONG, drain.is_over_for(client)) => ended.ok().map(|()| begun.elapsed()),
                () = controller => None,
            };
            assert_eq!(ended.map(|ended| ended.as_millis()), over.map(|over| over.as_millis()), "{client:?} {says:?}");
            assert_eq!(drain.finish(2 * LONG).await, Drained::Idle);
            drain.is_over_for(client).await;
        }
    }

    #[test]
    fn quiet_is_a_while_in_which_nothing_came_nothing_was_open_and_nobody_was_known_to_send() {
        let begun = Instant::now();
        let (nobody, offered, clients) = (
            Some(Holding::NOBODY),
            Some(Holding { offered: true, clients: 0 }),
            Some(Holding { offered: false, clients: 3 }),
        );
        // What came, what of it is over, and who is known to send, at each half of the time that it takes.
        for (seen, ends) in [
            (vec![(0, 0, None); 3], Some(2)),
            (vec![(0, 0, nobody); 3], Some(2)),
            (vec![(1, 1, nobody), (1, 1, nobody), (1, 1, nobody)], Some(2)),
            (vec![(1, 0, None), (1, 0, None), (1, 1, None), (1, 1, None)], Some(3)),
            (vec![(0, 0, None), (0, 0, None), (1, 1, None), (1, 1, None), (1, 1, None)], Some(4)),
            (vec![(0, 0, None), (1, 1, None), (2, 2, None), (2, 2, None), (2, 2, None)], Some(4)),
            (vec![(0, 0, offered), (0, 0, clients), (0, 0, nobody), (0, 0, nobody)], Some(3)),
            (vec![(0, 0, offered), (0, 0, offered), (0, 0, None), (0, 0, None)], Some(3)),
            (vec![(0, 0, clients); 9], None),
        ] {
            let mut quiet = Quiet { since: begun, came: 0 };
            let looks = seen.iter().zip(0..).map(|((came, over, holding), half)| {
                quiet.has_lasted(begun + QUIET / 2 * half, Seen { came: *came, over: *over, holding: *holding })
            });
            assert_eq!(looks.into_iter().position(|lasted| lasted), ends, "{seen:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_drain_begins_nobody_waits_long() {
        let begun = Instant::now();
        assert!(!Drain::new().let_go().await);
        assert_eq!(begun.elapsed(), BEGIN);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abort_does_not_wait() {
        let drain = Drain::new();
        let _open = drain.guard();
        drain.abort();
        assert_eq!(drain.finish(LONG).await, Drained::Cut(1));
    }
}
