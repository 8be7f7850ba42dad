//! The mesh under attack: server pods with the oracle's application, a client pod, and somebody outside the mesh.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::Context as _;
use mesh_testbed::{Member, Settings, member::Pod, talk, until};

use crate::{
    load::Load,
    oracle::{
        NUMBER, Oracle,
        backend::{Backend, HTTP},
    },
    party::Party,
    row::Stage,
};

/// Requests to an application of the row's own, declared HTTP.
pub(crate) const WITNESS: u16 = 9003;
/// The same, declared nothing.
pub(crate) const UNDECLARED: u16 = 9004;
/// Cluster IP of the Service `web`.
pub(crate) const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Last numbers of addresses; those of further servers follow.
pub(crate) const SERVER: u8 = 1;
const CLIENT: u8 = 200;
const OUTSIDER: u8 = 201;

/// One with our proxies.
pub(crate) type Rig = RigOf<Member>;

/// All of it, with the proxies of this party; ends with this value.
#[derive(Debug)]
pub(crate) struct RigOf<P: Party> {
    pub(crate) oracle: Oracle,
    pub(crate) servers: Vec<Server<P>>,
    pub(crate) client: P,
    pub(crate) outsider: mesh_netlab::Pod,
    pub(crate) mesh: P::Mesh,
}

/// One pod of the Service.
#[derive(Debug)]
pub(crate) struct Server<P> {
    _backend: Backend,
    pub(crate) member: P,
}

/// How a rig is made.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) servers: u8,
    pub(crate) settings: Settings,
    pub(crate) server_environment: &'a [(&'a str, &'a str)],
    pub(crate) server_descriptors: Option<u32>,
    pub(crate) client_environment: &'a [(&'a str, &'a str)],
    /// The program, for a rig with Envoy's.
    pub(crate) envoy: Option<&'a Path>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(stage: &'a Stage) -> Self {
        Self {
            servers: 1,
            settings: Settings::new(&stage.proxy),
            server_environment: &[],
            server_descriptors: None,
            client_environment: &[],
            envoy: stage.envoy.as_deref(),
        }
    }
}

impl Rig {
    /// The Service's port, for the client.
    pub(crate) fn web(port: u16) -> SocketAddr {
        (WEB, port).into()
    }

    /// The victim of every attack: a hundred requests a second, by connections of its own, kept ones and new ones.
    pub(crate) fn victim() -> [Load; 2] {
        let kept = Load::new(Self::web(HTTP), 4, 90.0);
        [kept, Load { fresh: true, ..Load::new(Self::web(HTTP), 1, 10.0) }]
    }
}

impl<P: Party> RigOf<P> {
    pub(crate) fn start(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let mesh = P::mesh(plan)?;
        let oracle = Oracle::default();
        let servers = (SERVER..)
            .take(plan.servers.into())
            .map(|host| Server::start(&mesh, &oracle, host, plan))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let environment = plan.client_environment;
        let client = P::join(&mesh, plan, &Pod { environment, ..Pod::new("client", "client", CLIENT) })?;
        let outsider = P::outsider(&mesh, "outsider", OUTSIDER)?;
        let rig = Self { oracle, servers, client, outsider, mesh };
        rig.is_reachable()?;
        Ok(rig)
    }

    /// The first server.
    pub(crate) fn server(&self) -> &P {
        &self.servers[0].member
    }

    /// The first server's own address, for whoever is outside the mesh.
    pub(crate) fn direct(&self, port: u16) -> SocketAddr {
        (self.server().addresses().v4, port).into()
    }

    fn is_reachable(&self) -> anyhow::Result<()> {
        let ask = || {
            let number = self.oracle.number().to_string();
            self.client.enter(|| talk::get(Rig::web(HTTP), "/", &[(NUMBER, &number)])).ok()?.ok()
        };
        until("the client reaches the servers", || ask().filter(|answer| answer.status == 200))
            .with_context(|| self.client.log())?;
        Ok(())
    }
}

impl<P: Party> Server<P> {
    pub(crate) fn start(mesh: &P::Mesh, oracle: &Oracle, host: u8, plan: &Plan<'_>) -> anyhow::Result<Self> {
        let name = format!("web-{host}");
        let (environment, descriptors) = (plan.server_environment, plan.server_descriptors);
        let member = P::join(mesh, plan, &Pod { environment, descriptors, ..Pod::new(&name, "web", host) })?;
        let backend = Backend::start(&member, &name, oracle)?;
        Ok(Self { _backend: backend, member })
    }
}
