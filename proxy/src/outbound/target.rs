//! One original destination as a worker uses it: the policy in force and the balancers made from it, renewed when it changes.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::Request;
use mesh_proto::{
    endpoint::Endpoint,
    outbound::{Choice, OutboundPolicy, PodTarget},
    outcome::Outcome,
    tap::Direction,
    workload::{Protocol, ServicePort},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    balance::Balancer,
    error::{ProxyError, Result},
    metrics::{Edge, EdgeLabels},
    pool::{Reach, Upstream},
    worker::Worker,
};

/// What is behind one destination.
pub(crate) struct Target {
    destination: SocketAddr,
    /// None for the own pod, which nobody has to tell us about.
    updates: Option<RefCell<watch::Receiver<Arc<OutboundPolicy>>>>,
    current: RefCell<Rc<Compiled>>,
    used: Cell<Instant>,
}

/// One version of a target's policy, with its balancers.
pub(crate) struct Compiled {
    policy: Arc<OutboundPolicy>,
    backends: Vec<Balancer>,
    /// Counts what never got to an endpoint.
    pub(crate) edge: Arc<Edge>,
}

/// The backend where there are no routes.
pub(crate) const UNROUTED: usize = 0;

/// One endpoint of one target.
pub(crate) struct Member {
    /// Shared by all targets that have this endpoint.
    pub(crate) upstream: Rc<Upstream>,
    labels: EdgeLabels,
    edge: OnceCell<Arc<Edge>>,
}

impl Target {
    /// From discovery.
    pub(crate) fn discovered(
        worker: &Worker,
        destination: SocketAddr,
        mut updates: watch::Receiver<Arc<OutboundPolicy>>,
    ) -> Self {
        let policy = updates.borrow_and_update().clone();
        Self {
            destination,
            current: RefCell::new(Rc::new(Compiled::new(worker, destination, policy))),
            updates: Some(RefCell::new(updates)),
            used: Cell::new(Instant::now()),
        }
    }

    /// This pod itself.
    pub(crate) fn own(worker: &Worker, destination: SocketAddr) -> Self {
        let protocol =
            worker.inbound_policy().map(|policy| policy.port(destination.port()).protocol).unwrap_or_default();
        let identity = Some(worker.shared.credentials.identity().clone());
        let endpoint = Endpoint { address: destination, identity, pod: None };
        let policy = Arc::new(OutboundPolicy::Pod(PodTarget { endpoint, protocol }));
        Self {
            destination,
            current: RefCell::new(Rc::new(Compiled::new(worker, destination, policy))),
            updates: None,
            used: Cell::new(Instant::now()),
        }
    }

    /// The version in force now.
    pub(crate) fn current(&self, worker: &Worker) -> Rc<Compiled> {
        self.used.set(Instant::now());
        if let Some(updates) = &self.updates
            && matches!(updates.borrow().has_changed(), Ok(true))
        {
            let policy = updates.borrow_mut().borrow_and_update().clone();
            *self.current.borrow_mut() = Rc::new(Compiled::new(worker, self.destination, policy));
        }
        Rc::clone(&self.current.borrow())
    }

    /// Whether nobody will ever update it: the cache gave it up. What holds it goes on with what it has.
    pub(crate) fn is_orphan(&self) -> bool {
        self.updates.as_ref().is_some_and(|updates| updates.borrow().has_changed().is_err())
    }

    /// Whether it was used lately.
    pub(crate) fn used_within(&self, limit: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.used.get()) < limit
    }
}

impl Compiled {
    fn new(worker: &Worker, destination: SocketAddr, policy: Arc<OutboundPolicy>) -> Self {
        let balancer = |service: Option<&ServicePort>, endpoints: &[Endpoint]| {
            let member = |endpoint| Member::new(service, worker.upstream(endpoint));
            Balancer::new(endpoints.iter().map(member).collect())
        };
        let backends = match &*policy {
            OutboundPolicy::Service(target) => {
                target.backends.iter().map(|backend| balancer(Some(&backend.service), &backend.endpoints)).collect()
            }
            OutboundPolicy::Pod(pod) => vec![balancer(None, std::slice::from_ref(&pod.endpoint))],
            // Where it was going; plain, as it would be without us.
            OutboundPolicy::External => {
                let endpoint = Endpoint { address: destination, identity: None, pod: None };
                vec![Balancer::new(vec![Member::new(None, Rc::new(Upstream::new(endpoint, Reach::External)))])]
            }
        };
        let labels = labels(service_of(&policy), None, destination.port(), false);
        Self { backends, edge: worker.shared.metrics.edge(labels), policy }
    }

    /// The Service that was dialled.
    pub(crate) fn service(&self) -> Option<&ServicePort> {
        service_of(&self.policy)
    }

    /// Whether it is known to be outside the mesh.
    pub(crate) fn is_external(&self) -> bool {
        matches!(*self.policy, OutboundPolicy::External)
    }

    /// What it was declared to speak.
    pub(crate) fn protocol(&self) -> Protocol {
        match &*self.policy {
            OutboundPolicy::Service(target) => target.protocol,
            OutboundPolicy::Pod(pod) => pod.protocol,
            OutboundPolicy::External => Protocol::Opaque,
        }
    }

    /// Whether rules about requests exist, which an opaque connection would get past.
    pub(crate) fn has_routes(&self) -> bool {
        matches!(&*self.policy, OutboundPolicy::Service(target) if !target.routes.is_empty())
    }

    /// The backend of a connection that carries no requests: the Service itself.
    pub(crate) fn unrouted(&self) -> Result<&Balancer> {
        self.backend(UNROUTED)
    }

    /// The endpoints of a backend.
    pub(crate) fn backend(&self, backend: usize) -> Result<&Balancer> {
        self.backends
            .get(backend)
            .ok_or_else(|| ProxyError::new(Outcome::NoBackend, format!("the target has no backend {backend}")))
    }

    /// The backend of a request, and the name of the route that chose it.
    pub(crate) fn choose<B>(&self, request: &Request<B>) -> Result<(usize, Option<&Arc<str>>)> {
        let OutboundPolicy::Service(target) = &*self.policy else {
            return Ok((UNROUTED, None));
        };
        // Only weights need chance.
        let random = if target.routes.is_empty() { 0 } else { rand::random() };
        match target.choose(request, random) {
            Choice::Backend { backend, route } => Ok((backend, route.map(|route| &route.name))),
            Choice::NoRoute => {
                Err(ProxyError::new(Outcome::NoRoute, format!("no route of {} matches", target.service)))
            }
            Choice::PathAmbiguous(why) => {
                let detail = format!("a route of {} decides by the path, which {why}", target.service);
                Err(ProxyError::new(Outcome::PathAmbiguous, detail))
            }
            Choice::NoBackend(route) => {
                Err(ProxyError::new(Outcome::NoBackend, format!("route {} leads nowhere", route.name)))
            }
        }
    }
}

impl Member {
    fn new(service: Option<&ServicePort>, upstream: Rc<Upstream>) -> Rc<Self> {
        let tls = matches!(upstream.reach, Reach::Mesh(_));
        let labels = labels(service, Some(&upstream.endpoint), upstream.address().port(), tls);
        Rc::new(Self { upstream, labels, edge: OnceCell::new() })
    }

    /// Its counters; made at first use, so that endpoints never used are no time series.
    pub(crate) fn edge(&self, worker: &Worker) -> &Arc<Edge> {
        self.edge.get_or_init(|| worker.shared.metrics.edge(self.labels.clone()))
    }
}

fn service_of(policy: &OutboundPolicy) -> Option<&ServicePort> {
    match policy {
        OutboundPolicy::Service(target) => Some(&target.service),
        OutboundPolicy::Pod(_) | OutboundPolicy::External => None,
    }
}

fn labels(service: Option<&ServicePort>, endpoint: Option<&Endpoint>, port: u16, tls: bool) -> EdgeLabels {
    let pod = endpoint.and_then(|endpoint| endpoint.pod.as_ref());
    let namespace = service.map(|service| &service.namespace).or(pod.map(|pod| &pod.namespace));
    EdgeLabels {
        direction: Direction::Outbound.as_str(),
        dst_namespace: namespace.map(ToString::to_string).unwrap_or_default(),
        dst_service: service.map(|service| service.name.to_string()).unwrap_or_default(),
        dst_port: service.map_or(port, |service| service.port),
        dst_workload: pod.and_then(|pod| pod.workload.as_ref()).map(ToString::to_string).unwrap_or_default(),
        client_id: String::new(),
        tls,
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::{
        identity::Identity,
        outbound::{Backend, ServiceTarget},
    };

    use super::*;
    use crate::observers::Observers;

    fn worker() -> Worker {
        Worker::of_tests(Observers::default())
    }

    fn endpoint(last: u8, meshed: bool) -> Endpoint {
        let identity = meshed.then(|| Identity::new("cluster.local", "shop", "server").unwrap());
        Endpoint { address: ([10, 0, 0, last], 80).into(), identity, pod: None }
    }

    fn service(endpoints: &[Endpoint]) -> Arc<OutboundPolicy> {
        let service = ServicePort { namespace: "shop".into(), name: "server".into(), port: 80 };
        Arc::new(OutboundPolicy::Service(ServiceTarget {
            service: service.clone(),
            protocol: Protocol::Detect,
            routes: vec![],
            backends: vec![Backend { service, endpoints: endpoints.to_vec() }],
        }))
    }

    fn upstreams(target: &Target, worker: &Worker) -> Vec<Rc<Upstream>> {
        let compiled = target.current(worker);
        let mut found: Vec<Rc<Upstream>> = Vec::new();
        for _ in 0..200 {
            let Some(member) = compiled.unrouted().unwrap().pick(None) else { break };
            if !found.iter().any(|known| Rc::ptr_eq(known, &member.upstream)) {
                found.push(Rc::clone(&member.upstream));
            }
        }
        found.sort_by_key(|upstream| upstream.address());
        found
    }

    #[tokio::test]
    async fn the_next_request_goes_by_the_new_policy_and_an_endpoint_that_stays_keeps_its_connections() {
        let worker = worker();
        let (updates, watch) = watch::channel(service(&[endpoint(1, true), endpoint(2, true)]));
        let target = Target::discovered(&worker, "10.96.0.1:80".parse().unwrap(), watch);
        let before = upstreams(&target, &worker);
        assert_eq!(before.len(), 2);

        updates.send_replace(service(&[endpoint(2, true), endpoint(3, false)]));
        let after = upstreams(&target, &worker);
        assert_eq!(
            after.iter().map(|upstream| upstream.endpoint.clone()).collect::<Vec<_>>(),
            [endpoint(2, true), endpoint(3, false)]
        );
        assert!(Rc::ptr_eq(&before[1], &after[0]), "the same upstream, with its load and pool");
        assert_eq!(after[1].reach, Reach::Plain);

        updates.send_replace(service(&[]));
        assert!(upstreams(&target, &worker).is_empty());

        // The cache gives it up: what holds it goes on, and a new connection asks anew.
        assert!(!target.is_orphan());
        drop(updates);
        assert!(target.is_orphan() && upstreams(&target, &worker).is_empty());
    }

    #[tokio::test]
    async fn how_an_endpoint_is_reached_follows_from_who_it_is() {
        let worker = worker();
        let identity = endpoint(1, true).identity.unwrap();
        for (endpoint, reach) in [
            (endpoint(1, true), Reach::Mesh(identity)),
            (endpoint(1, false), Reach::Plain),
            (endpoint(9, true), Reach::Own),
        ] {
            assert_eq!(worker.upstream(&endpoint).reach, reach, "{endpoint:?}");
        }
        let (_updates, watch) = watch::channel(Arc::new(OutboundPolicy::External));
        let outside = Target::discovered(&worker, "192.0.2.1:443".parse().unwrap(), watch);
        assert_eq!(upstreams(&outside, &worker)[0].reach, Reach::External);
    }
}
