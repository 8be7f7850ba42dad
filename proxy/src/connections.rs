//! The open connections of one worker's clients: who, where to, what it carries now; and of the last ones that ended, who
//! ended them.
//!
//! `record` counts into a connection's [`Live`] part, which costs additions to plain numbers; `/connections` of the admin
//! port reads them through [`crate::inspect`]. An entry lives as long as its connection, and goes into the ring of [`closed`]
//! then. The paths name the cause; the first one named stands. Knows no sockets.

mod closed;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::{Rc, Weak},
};

use mesh_proto::{
    admin,
    identity::Identity,
    outcome::Outcome,
    tap::Direction,
    workload::{PodRef, ServicePort},
};
use tokio::time::Instant;

pub(crate) use self::closed::{Cause, How, Why};
use self::closed::{Ended, Ring, Seen};
use crate::{drain::Client, http::Version, metrics::Metrics};

/// All of one worker, oldest first.
pub(crate) struct Connections {
    open: RefCell<BTreeMap<u64, Weak<Live>>>,
    next: Cell<u64>,
    closed: RefCell<Ring>,
    metrics: Metrics,
}

/// One open connection.
pub(crate) struct Live {
    connections: Rc<Connections>,
    number: u64,
    facts: Facts,
    cause: Cell<Option<Cause>>,
    left_http: Cell<bool>,
    /// What the mesh itself ended on it last: why it is closed, where nobody closes it.
    failed: Cell<Option<Outcome>>,
}

/// What is known of a connection.
#[derive(Clone)]
struct Facts {
    direction: Direction,
    source: SocketAddr,
    destination: SocketAddr,
    accepted: Instant,
    peer: RefCell<Option<Name>>,
    endpoint: Cell<Option<SocketAddr>>,
    carries: Cell<Carries>,
    tls: Cell<bool>,
    requests: Cell<u64>,
    in_flight: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

/// What the other side is called.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    Client(Identity),
    Service(ServicePort),
    Pod(PodRef),
}

/// What a connection was found to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carries {
    NotKnownYet,
    Requests(Version),
    Bytes,
}

/// What the last ones of a worker looked like.
pub(crate) struct Shown {
    /// The oldest open ones.
    pub(crate) open: Vec<admin::Connection>,
    /// How many are open.
    pub(crate) all: usize,
    /// Those that ended last, latest first.
    pub(crate) closed: Vec<admin::Closed>,
    /// How many ended before those.
    pub(crate) forgotten: u64,
}

impl Connections {
    /// None yet; those that end are counted in `metrics`.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { open: RefCell::default(), next: Cell::default(), closed: RefCell::default(), metrics }
    }

    /// A connection was accepted; it is among the open ones until the value is dropped.
    pub(crate) fn accepted(self: &Rc<Self>, direction: Direction, source: SocketAddr, to: SocketAddr) -> Rc<Live> {
        let number = self.next.get();
        self.next.set(number + 1);
        let facts = Facts {
            direction,
            source,
            destination: to,
            accepted: Instant::now(),
            peer: RefCell::default(),
            endpoint: Cell::default(),
            carries: Cell::new(Carries::NotKnownYet),
            tls: Cell::default(),
            requests: Cell::default(),
            in_flight: Cell::default(),
            bytes_in: Cell::default(),
            bytes_out: Cell::default(),
        };
        let live = Rc::new(Live {
            connections: Rc::clone(self),
            number,
            facts,
            cause: Cell::default(),
            left_http: Cell::default(),
            failed: Cell::default(),
        });
        self.open.borrow_mut().insert(number, Rc::downgrade(&live));
        live
    }

    /// The oldest `most` of them, and the last that ended.
    pub(crate) fn show(&self, most: usize) -> Shown {
        let now = Instant::now();
        let (closed, forgotten) = self.closed.borrow().show(now);
        let open = self.open.borrow();
        let shown = open.values().filter_map(Weak::upgrade).take(most).map(|live| live.facts.show(now)).collect();
        Shown { open: shown, all: open.len(), closed, forgotten }
    }
}

impl Live {
    /// Whose connection it is. One of the own pod to itself never left this process, and has no port.
    pub(crate) fn client(&self) -> Client {
        match self.facts.direction {
            Direction::Inbound if self.facts.source.port() == 0 => Client::Own,
            Direction::Inbound if self.facts.tls.get() => Client::Proxy,
            Direction::Inbound => Client::Stranger,
            Direction::Outbound => Client::Own,
        }
    }

    /// The other side has a name.
    pub(crate) fn is_called(&self, name: Name) {
        *self.facts.peer.borrow_mut() = Some(name);
    }

    /// The other side is called so, unless it has a name already.
    pub(crate) fn may_be_called(&self, name: impl FnOnce() -> Option<Name>) {
        let mut peer = self.facts.peer.borrow_mut();
        if peer.is_none() {
            *peer = name();
        }
    }

    /// It goes to this endpoint.
    pub(crate) fn goes_to(&self, endpoint: SocketAddr) {
        self.facts.endpoint.set(Some(endpoint));
    }

    /// Whether it is mutual TLS between two proxies.
    pub(crate) fn speaks_tls(&self, tls: bool) {
        self.facts.tls.set(tls);
    }

    /// It carries requests, and one begins.
    pub(crate) fn request_began(&self, version: Version) {
        self.facts.carries.set(Carries::Requests(version));
        self.failed.set(None);
        self.facts.requests.set(self.facts.requests.get() + 1);
        self.facts.in_flight.set(self.facts.in_flight.get() + 1);
    }

    /// A request has ended.
    pub(crate) fn request_ended(&self) {
        self.facts.in_flight.set(self.facts.in_flight.get().saturating_sub(1));
    }

    /// It carries bytes.
    pub(crate) fn carries_bytes(&self) {
        self.facts.carries.set(Carries::Bytes);
    }

    /// So many bytes came from the client.
    pub(crate) fn received(&self, bytes: u64) {
        self.facts.bytes_in.set(self.facts.bytes_in.get() + bytes);
    }

    /// So many bytes went to the client.
    pub(crate) fn sent(&self, bytes: u64) {
        self.facts.bytes_out.set(self.facts.bytes_out.get() + bytes);
    }

    /// It carried a request to speak something else, and was agreed with.
    pub(crate) fn leaves_http(&self) {
        self.left_http.set(true);
    }

    /// Whether it did.
    pub(crate) fn has_left_http(&self) -> bool {
        self.left_http.get()
    }

    /// It comes to its end, for this reason, unless there was one before.
    pub(crate) fn ends(&self, cause: Cause) {
        if self.cause.get().is_none() {
            self.cause.set(Some(cause));
        }
    }

    /// The mesh failed, or refused, what it carried; where nobody ends it, that did.
    pub(crate) fn failed(&self, outcome: Outcome) {
        self.failed.set(Some(outcome));
    }

    /// What failed on it since its last request began.
    pub(crate) fn failure(&self) -> Option<Outcome> {
        self.failed.get()
    }
}

impl Facts {
    fn show(&self, now: Instant) -> admin::Connection {
        admin::Connection {
            direction: self.direction.as_str().to_owned(),
            source: self.source,
            destination: self.destination,
            peer: self.peer.borrow().as_ref().map(|name| match name {
                Name::Client(identity) => identity.to_string(),
                Name::Service(service) => service.to_string(),
                Name::Pod(pod) => pod.to_string(),
            }),
            protocol: match self.carries.get() {
                Carries::NotKnownYet => "detecting",
                Carries::Requests(Version::Http1) => "http/1",
                Carries::Requests(Version::Http2) => "http/2",
                Carries::Bytes => "tcp",
            }
            .to_owned(),
            tls: self.tls.get(),
            endpoint: self.endpoint.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            age_seconds: now.saturating_duration_since(self.accepted).as_secs_f64(),
            requests: self.requests.get(),
            in_flight: self.in_flight.get(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.number);
        let (facts, failed) = (&self.facts, self.failed.get());
        // Dropped without a word: only the end of the drain does that.
        let cause = self.cause.get().unwrap_or(Cause::Us(failed.map_or(Why::DrainOver, Why::Failed)));
        let (direction, tls) = (facts.direction, facts.tls.get());
        let http = matches!(facts.carries.get(), Carries::Requests(_)) && !self.left_http.get();
        let by = cause.by(Seen { direction, tls, http });
        self.connections.metrics.closed(direction, by.as_str(), cause.reason());
        let ended = Ended { at: Instant::now(), connection: facts.clone(), by, cause };
        self.connections.closed.borrow_mut().push(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Rc<Connections> {
        Rc::new(Connections::new(Metrics::new(&mesh_runtime::metrics::Metrics::new())))
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn a_connection_is_shown_while_it_is_open_and_the_oldest_come_first() {
        let connections = connections();
        let mut open: Vec<_> =
            (1..=3).map(|port| connections.accepted(Direction::Outbound, address(port), address(80))).collect();
        open[1].request_began(Version::Http2);
        open[1].received(5);
        let sources = |most| {
            let Shown { open, all, .. } = connections.show(most);
            (open.iter().map(|connection| connection.source.port()).collect::<Vec<_>>(), all)
        };
        assert_eq!(sources(2), (vec![1, 2], 3));
        drop(open.remove(0));
        assert_eq!(sources(9), (vec![2, 3], 2));
        let shown = connections.show(1).open;
        assert_eq!((shown[0].protocol.as_str(), shown[0].in_flight, shown[0].bytes_in), ("http/2", 1, 5));
        open.clear();
        assert_eq!(sources(9), (vec![], 0));
    }

    #[test]
    fn of_those_that_ended_the_last_are_kept_with_the_first_cause_that_was_named() {
        let connections = connections();
        for port in 1..=502 {
            let live = connections.accepted(Direction::Outbound, address(port), address(80));
            match port {
                500 => live.failed(Outcome::NoEndpoints),
                501 => {
                    live.carries_bytes();
                    live.received(7);
                    live.ends(Cause::Client(How::Reset));
                    live.ends(Cause::Us(Why::Done));
                }
                _ => {}
            }
        }
        let Shown { open, closed, forgotten, .. } = connections.show(9);
        assert_eq!((open.len(), closed.len(), forgotten), (0, 500, 2));
        let ended = |n: usize| (closed[n].connection.source.port(), closed[n].by.as_str(), closed[n].reason.as_str());
        assert_eq!(ended(0), (502, "us", "drain-over"));
        assert_eq!((ended(1), closed[1].connection.bytes_in), ((501, "app", "reset"), 7));
        assert_eq!(ended(2), (500, "us", "no-endpoints"));
        assert_eq!(ended(499).0, 3);
    }
}
