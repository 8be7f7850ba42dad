//! A worker: one thread with its own runtime, listeners, pools and balancers. Nothing on a request's path is shared with another
//! worker, so nothing locks or wakes across threads (design §10).
//!
//! Made by the wiring in `main`, one per configured worker; ends when the drain does.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::Future,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use mesh_proto::{admin, endpoint::Endpoint, inbound::InboundPolicy, outcome::Outcome, tap::Direction};
use mesh_runtime::tasks::Tasks;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

use crate::{
    config::DataConfig,
    connections::Connections,
    detect::sniff::within,
    drain::Drain,
    error::ProxyError,
    inbound,
    inspect::{Inspect, Question},
    limits::Limits,
    listen::{self, Listeners},
    metrics::Metrics,
    observers::Observers,
    outbound::{self, target::Target},
    policy::Policies,
    pool::{Reach, Upstream},
    record::LogLimit,
    stream::reset,
    tls::Credentials,
};

/// Pools and caches are swept so often: a coarse timer instead of one per connection.
const SWEEP: Duration = Duration::from_secs(2);
/// A target without connections keeps its endpoints' load and connections this long.
const TARGET_IDLE: Duration = Duration::from_mins(1);
/// Refusals that are said to the client at once; further ones are resets. Telling takes a descriptor for a moment.
const MAX_REFUSALS: usize = 32;
/// What the remaining tasks get when the drain is over; they have been told by `Drain::aborted`.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What workers share with the rest of the process. All of it is cheap to clone and made to be read.
#[derive(Clone)]
pub struct Shared {
    /// Settings.
    pub config: Arc<DataConfig>,
    /// Inbound policy and discovery.
    pub policies: Policies,
    /// Own certificate and roots.
    pub credentials: Credentials,
    /// Who wants to know of every request.
    pub observers: Observers,
    /// Counters.
    pub metrics: Metrics,
    /// Where the admin port asks.
    pub inspect: Inspect,
    /// What the process may hold.
    pub limits: Limits,
    /// End of the process.
    pub drain: Drain,
}

/// Everything of one worker.
pub(crate) struct Worker {
    pub(crate) shared: Shared,
    pub(crate) tasks: Tasks,
    pub(crate) log_limit: LogLimit,
    inbound_policy: watch::Receiver<Option<Arc<InboundPolicy>>>,
    own_ports: [u16; 2],
    targets: RefCell<HashMap<SocketAddr, Rc<Target>, ahash::RandomState>>,
    upstreams: RefCell<HashMap<Endpoint, Rc<Upstream>, ahash::RandomState>>,
    apps: RefCell<HashMap<SocketAddr, Rc<Upstream>, ahash::RandomState>>,
    pub(crate) open: Rc<Connections>,
    refusals: Cell<usize>,
}

/// Starts worker number `index`. It ends when the drain is over.
pub fn spawn(index: usize, shared: Shared, listeners: Listeners) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "a worker cannot start: no event loop");
                return;
            }
        };
        let local = tokio::task::LocalSet::new();
        if let Err(error) = local.block_on(&runtime, run(shared, listeners)) {
            tracing::error!(%error, "a worker cannot start: its listeners are unusable");
        }
    })
}

/// Runs a worker on the current thread, inside a `LocalSet`, until the drain is over.
pub async fn run(shared: Shared, listeners: Listeners) -> io::Result<()> {
    let own_ports = [listeners.outbound[0].local_addr()?.port(), listeners.inbound_addr()?.port()];
    let worker = Rc::new(Worker::new(shared, own_ports));
    for listener in listeners.outbound {
        let listener = TcpListener::from_std(listener)?;
        let accepting = accept_all(Rc::clone(&worker), listener, Direction::Outbound, outbound::serve);
        worker.tasks.spawn_local("outbound listener", accepting);
    }
    let listener = TcpListener::from_std(listeners.inbound)?;
    let accepting = accept_all(Rc::clone(&worker), listener, Direction::Inbound, inbound::serve);
    worker.tasks.spawn_local("inbound listener", accepting);
    worker.tasks.spawn_local("sweep", sweep(Rc::clone(&worker)));
    worker.tasks.spawn_local("inspection", inspection(Rc::clone(&worker)));

    worker.shared.drain.aborted().await;
    worker.close_idle();
    let stopped = worker.tasks.shutdown(LAST_WORDS).await;
    if !stopped.is_clean() {
        tracing::info!(%stopped, "connections were cut off at the end of the drain");
    }
    Ok(())
}

/// Accepts for as long as the process lives: also while draining, because whoever dials has not heard of it yet.
async fn accept_all<S, F>(worker: Rc<Worker>, listener: TcpListener, direction: Direction, serve: S)
where
    S: Fn(Rc<Worker>, TcpStream, SocketAddr) -> F,
    F: Future<Output = ()> + 'static,
{
    let stop = worker.tasks.token();
    loop {
        let (socket, peer) = tokio::select! {
            accepted = listen::accept(&listener) => accepted,
            () = stop.cancelled() => return,
        };
        let held = match worker.shared.limits.hold(direction) {
            Ok(held) => held,
            Err(error) => {
                refuse(&worker, direction, socket, peer, error);
                continue;
            }
        };
        // Boxed here: in an async block it would be there twice, as what is captured and as what is awaited.
        let mut connection = Box::pin(serve(Rc::clone(&worker), socket, peer));
        let guard = worker.shared.drain.guard();
        let aborted = worker.shared.drain.clone();
        worker.tasks.spawn_local("client connection", async move {
            let (_held, _guard) = (held, guard);
            tokio::select! {
                // What carries bytes reacts to the abort itself, so that the ends of a connection that is cut see that.
                biased;
                () = &mut connection => {}
                // It may have come between the two looks, from another thread: then the connection has not seen it yet.
                () = aborted.aborted() => drop(futures_util::poll!(connection)),
            }
        });
    }
}

async fn sweep(worker: Rc<Worker>) {
    let stop = worker.tasks.token();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => worker.sweep(Instant::now()),
            () = stop.cancelled() => return,
        }
    }
}

/// Answers what the admin port asks. A closed answer is of somebody who has left.
async fn inspection(worker: Rc<Worker>) {
    let mut questions = worker.shared.inspect.join();
    let stop = worker.tasks.token();
    loop {
        let question = tokio::select! {
            question = questions.recv() => question,
            () = stop.cancelled() => return,
        };
        match question {
            Some(Question::Connections(answer)) => drop(answer.send(worker.open.show(admin::MAX_ITEMS))),
            Some(Question::Loads(answer)) => drop(answer.send(worker.loads())),
            None => return,
        }
    }
}

/// Refuses a connection that there is no place for. An application of the pod that asks by HTTP is told the code, as long
/// as few are being told.
fn refuse(worker: &Rc<Worker>, direction: Direction, socket: TcpStream, peer: SocketAddr, error: ProxyError) {
    let telling = worker.refusals.get();
    if direction == Direction::Inbound || telling >= MAX_REFUSALS {
        worker.shared.metrics.error(direction, error.outcome);
        return reset(&socket);
    }
    worker.refusals.set(telling + 1);
    let telling = Rc::clone(worker);
    worker.tasks.spawn_local("refusal", async move {
        outbound::overloaded(&telling, socket, peer, error).await;
        telling.refusals.set(telling.refusals.get() - 1);
    });
}

impl Worker {
    /// With nothing open; `own_ports` are those of its listeners.
    pub(crate) fn new(shared: Shared, own_ports: [u16; 2]) -> Self {
        Self {
            tasks: Tasks::new(),
            log_limit: LogLimit::new(),
            inbound_policy: shared.policies.inbound(),
            own_ports,
            targets: RefCell::default(),
            upstreams: RefCell::default(),
            apps: RefCell::default(),
            open: Rc::new(Connections::new(shared.metrics.clone())),
            refusals: Cell::new(0),
            shared,
        }
    }

    /// Settings.
    pub(crate) fn config(&self) -> &DataConfig {
        &self.shared.config
    }

    /// The pod's own inbound policy; none until it was received.
    pub(crate) fn inbound_policy(&self) -> Option<Arc<InboundPolicy>> {
        self.inbound_policy.borrow().clone()
    }

    /// Waits at most `limit` for the first inbound policy; the certificate is there before it.
    pub(crate) async fn is_told(&self, limit: Duration) {
        if self.inbound_policy.borrow().is_none() {
            let _ = within(limit, self.inbound_policy.clone().wait_for(Option::is_some)).await;
        }
    }

    /// To wait for the next inbound policy.
    pub(crate) fn inbound_policy_changes(&self) -> watch::Receiver<Option<Arc<InboundPolicy>>> {
        self.inbound_policy.clone()
    }

    /// Whether connections to `address` would come back to a listener of this proxy.
    pub(crate) fn is_own_listener(&self, address: SocketAddr) -> bool {
        self.own_ports.contains(&address.port()) && (address.ip().is_loopback() || self.is_own_pod(address))
    }

    /// Whether `address` is this pod's.
    pub(crate) fn is_own_pod(&self, address: SocketAddr) -> bool {
        self.config().pod_ips.contains(&address.ip())
    }

    /// What is behind `destination`: at once where it is known, else from the controller.
    pub(crate) async fn target(self: &Rc<Self>, destination: SocketAddr) -> Result<Rc<Target>, ProxyError> {
        if let Some(target) = self.targets.borrow().get(&destination).filter(|target| !target.is_orphan()) {
            return Ok(Rc::clone(target));
        }
        let target = if self.is_own_pod(destination) {
            // Needs no controller: it is here.
            Target::own(self, destination)
        } else {
            let policy =
                self.shared.policies.outbound(destination).await.map_err(|error| {
                    ProxyError::new(Outcome::DiscoveryUnavailable, format!("{destination}: {error}"))
                })?;
            Target::discovered(self, destination, policy)
        };
        let target = Rc::new(target);
        self.targets.borrow_mut().insert(destination, Rc::clone(&target));
        Ok(target)
    }

    /// The upstream of an endpoint: the same one for every target that has it, so that load and connections are kept when
    /// policies change.
    pub(crate) fn upstream(&self, endpoint: &Endpoint) -> Rc<Upstream> {
        let mut upstreams = self.upstreams.borrow_mut();
        if let Some(upstream) = upstreams.get(endpoint) {
            return Rc::clone(upstream);
        }
        let reach = match &endpoint.identity {
            _ if self.is_own_pod(endpoint.address) => Reach::Own,
            Some(identity) => Reach::Mesh(identity.clone()),
            None => Reach::Plain,
        };
        let upstream = Rc::new(Upstream::new(endpoint.clone(), reach));
        upstreams.insert(endpoint.clone(), Rc::clone(&upstream));
        upstream
    }

    /// The own application behind `address`.
    pub(crate) fn app(&self, address: SocketAddr) -> Rc<Upstream> {
        let mut apps = self.apps.borrow_mut();
        Rc::clone(apps.entry(address).or_insert_with(|| {
            let identity = Some(self.shared.credentials.identity().clone());
            Rc::new(Upstream::new(Endpoint { address, identity, pod: None }, Reach::App))
        }))
    }

    /// Gives up every connection that carries nothing.
    fn close_idle(&self) {
        self.upstreams.borrow().values().chain(self.apps.borrow().values()).for_each(|upstream| upstream.close_idle());
    }

    /// How every endpoint in use looks to the balancers.
    fn loads(&self) -> Vec<(Endpoint, admin::Load)> {
        let now = Instant::now();
        let upstreams = self.upstreams.borrow();
        upstreams.values().map(|upstream| (upstream.endpoint.clone(), upstream.show(now))).collect()
    }

    fn sweep(&self, now: Instant) {
        self.targets
            .borrow_mut()
            .retain(|_, target| Rc::strong_count(target) > 1 || target.used_within(TARGET_IDLE, now));
        // Held only by this map, and without connections: nothing is lost with it.
        let keep = |upstream: &Rc<Upstream>| upstream.sweep(now) || Rc::strong_count(upstream) > 1;
        self.upstreams.borrow_mut().retain(|_, upstream| keep(upstream));
        self.apps.borrow_mut().retain(|_, upstream| keep(upstream));
    }
}

#[cfg(test)]
impl Worker {
    /// Of a pod at 10.0.0.9 that knows nothing, for tests.
    pub(crate) fn of_tests(observers: Observers) -> Self {
        let identity = mesh_proto::identity::Identity::new("cluster.local", "shop", "web").unwrap();
        let registry = mesh_runtime::metrics::Metrics::new();
        let shared = Shared {
            config: Arc::new(DataConfig::new(identity.clone(), vec!["10.0.0.9".parse().unwrap()])),
            policies: Policies::fixed(None, []),
            credentials: Credentials::new(identity),
            observers,
            metrics: Metrics::new(&registry),
            inspect: Inspect::default(),
            limits: Limits::new(&registry, &crate::config::Limits::default()),
            drain: Drain::new(),
        };
        Self::new(shared, [4140, 4143])
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::inbound::PortPolicy;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_waits_for_the_first_policy_and_not_for_ever() {
        let (worker, limit) = (Worker::of_tests(Observers::default()), Duration::from_secs(2));
        let begun = Instant::now();
        worker.is_told(limit).await;
        assert_eq!(begun.elapsed(), limit);
        let told = async {
            tokio::time::sleep(limit / 4).await;
            worker.shared.policies.set_inbound(InboundPolicy { ports: [].into(), default: PortPolicy::default() }, 1);
        };
        tokio::join!(worker.is_told(limit), told);
        assert_eq!(begun.elapsed(), limit * 5 / 4);
        worker.is_told(limit).await;
        assert_eq!(begun.elapsed(), limit * 5 / 4, "nobody waits after that");
    }

    #[test]
    fn a_connection_costs_a_bounded_future() {
        fn size<S, F>(_serve: S) -> usize
        where
            S: Fn(Rc<Worker>, TcpStream, SocketAddr) -> F,
        {
            size_of::<F>()
        }
        let (out, inn) = (size(outbound::serve), size(inbound::serve));
        // Idle connections of a pod are many.
        assert!(out < 2 * 1024, "outbound {out} bytes");
        // Anybody may open one of these and say nothing.
        assert!(inn < 3 * 1024, "inbound {inn} bytes");
    }
}
