//! The open connections of one worker's clients: who, where to, what it carries now.
//!
//! `record` counts into a connection's [`Live`] part, which costs additions to plain numbers; `/connections` of the admin
//! port reads them through [`crate::inspect`]. An entry lives as long as its connection. Knows no sockets.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::{Rc, Weak},
};

use mesh_proto::{admin, identity::Identity, tap::Direction, workload::PodRef, workload::ServicePort};
use tokio::time::Instant;

use crate::http::Version;

/// All of one worker, oldest first.
#[derive(Default)]
pub(crate) struct Connections {
    open: RefCell<BTreeMap<u64, Weak<Live>>>,
    next: Cell<u64>,
}

/// One open connection.
pub(crate) struct Live {
    connections: Rc<Connections>,
    number: u64,
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

impl Connections {
    /// A connection was accepted; it is among the open ones until the value is dropped.
    pub(crate) fn accepted(self: &Rc<Self>, direction: Direction, source: SocketAddr, to: SocketAddr) -> Rc<Live> {
        let number = self.next.get();
        self.next.set(number + 1);
        let live = Rc::new(Live {
            connections: Rc::clone(self),
            number,
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
        });
        self.open.borrow_mut().insert(number, Rc::downgrade(&live));
        live
    }

    /// The oldest `most` of them, and how many there are.
    pub(crate) fn show(&self, most: usize) -> (Vec<admin::Connection>, usize) {
        let open = self.open.borrow();
        let now = Instant::now();
        let shown = open.values().filter_map(Weak::upgrade).take(most).map(|live| live.show(now)).collect();
        (shown, open.len())
    }
}

impl Live {
    /// The other side has a name.
    pub(crate) fn is_called(&self, name: Name) {
        *self.peer.borrow_mut() = Some(name);
    }

    /// The other side is called so, unless it has a name already.
    pub(crate) fn may_be_called(&self, name: impl FnOnce() -> Option<Name>) {
        let mut peer = self.peer.borrow_mut();
        if peer.is_none() {
            *peer = name();
        }
    }

    /// It goes to this endpoint.
    pub(crate) fn goes_to(&self, endpoint: SocketAddr) {
        self.endpoint.set(Some(endpoint));
    }

    /// Whether it is mutual TLS between two proxies.
    pub(crate) fn speaks_tls(&self, tls: bool) {
        self.tls.set(tls);
    }

    /// It carries requests, and one begins.
    pub(crate) fn request_began(&self, version: Version) {
        self.carries.set(Carries::Requests(version));
        self.requests.set(self.requests.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A request has ended.
    pub(crate) fn request_ended(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// It carries bytes.
    pub(crate) fn carries_bytes(&self) {
        self.carries.set(Carries::Bytes);
    }

    /// So many bytes came from the client.
    pub(crate) fn received(&self, bytes: u64) {
        self.bytes_in.set(self.bytes_in.get() + bytes);
    }

    /// So many bytes went to the client.
    pub(crate) fn sent(&self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
    }

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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_shown_while_it_is_open_and_the_oldest_come_first() {
        let connections = Rc::new(Connections::default());
        let address = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let mut open: Vec<_> =
            (1..=3).map(|port| connections.accepted(Direction::Outbound, address(port), address(80))).collect();
        open[1].request_began(Version::Http2);
        open[1].received(5);
        let sources = |most| {
            let (shown, all) = connections.show(most);
            (shown.iter().map(|connection| connection.source.port()).collect::<Vec<_>>(), all)
        };
        assert_eq!(sources(2), (vec![1, 2], 3));
        drop(open.remove(0));
        assert_eq!(sources(9), (vec![2, 3], 2));
        let (shown, _) = connections.show(1);
        assert_eq!((shown[0].protocol.as_str(), shown[0].in_flight, shown[0].bytes_in), ("http/2", 1, 5));
        open.clear();
        assert_eq!(sources(9), (vec![], 0));
    }
}
