//! Who talks to whom on one connection: what all its requests have in common.

use std::{net::SocketAddr, rc::Rc};

use mesh_proto::{identity::Identity, tap::Direction, workload::ServicePort};

use crate::{
    connections::{Live, Name},
    worker::Worker,
};

/// One connection of a client.
pub(crate) struct Side {
    pub(crate) direction: Direction,
    /// Who opened the connection.
    pub(crate) source: SocketAddr,
    /// The client's identity, where it was proved (outbound: the own).
    pub(crate) source_identity: Option<Identity>,
    /// The original destination.
    pub(crate) destination: SocketAddr,
    /// The Service that was dialled, outbound.
    pub(crate) service: Option<ServicePort>,
    /// Its entry among the open connections.
    pub(crate) live: Rc<Live>,
}

impl Side {
    /// A connection to the pod, of a client that has proved nothing.
    pub(crate) fn inbound(worker: &Worker, source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(worker, Direction::Inbound, source, None, destination)
    }

    /// A connection of the pod's application.
    pub(crate) fn outbound(worker: &Worker, source: SocketAddr, destination: SocketAddr) -> Self {
        let own = worker.shared.credentials.identity().clone();
        Self::new(worker, Direction::Outbound, source, Some(own), destination)
    }

    fn new(
        worker: &Worker,
        direction: Direction,
        source: SocketAddr,
        source_identity: Option<Identity>,
        destination: SocketAddr,
    ) -> Self {
        let live = worker.open.accepted(direction, source, destination);
        Self { direction, source, source_identity, destination, service: None, live }
    }

    /// The same connection, whose client is `identity`.
    pub(crate) fn of_client(&self, identity: Identity) -> Self {
        self.live.is_called(Name::Client(identity.clone()));
        Self {
            direction: self.direction,
            source: self.source,
            source_identity: Some(identity),
            destination: self.destination,
            service: self.service.clone(),
            live: Rc::clone(&self.live),
        }
    }

    /// The same connection, to this Service.
    pub(crate) fn with_service(self, service: Option<&ServicePort>) -> Self {
        if let Some(service) = service {
            self.live.is_called(Name::Service(service.clone()));
        }
        Self { service: service.cloned(), ..self }
    }
}
