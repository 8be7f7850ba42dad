//! The mesh under attack: server pods with the oracle's application, a client pod, and somebody outside the mesh.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use mesh_netlab::Addresses;
use mesh_testbed::{Member, Mesh, Settings, manifests, member::Pod, talk, until};

use crate::{
    load::Load,
    oracle::{
        NUMBER, Oracle,
        backend::{BYTES, Backend, HTTP, HTTP2},
    },
    rows::Stage,
};

/// Requests to an application of the row's own, declared HTTP.
pub(crate) const WITNESS: u16 = 9003;
/// The same, declared nothing.
pub(crate) const UNDECLARED: u16 = 9004;
/// Cluster IP of the Service `web`.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Last numbers of addresses.
const CLIENT: u8 = 200;
const OUTSIDER: u8 = 201;

/// All of it; ends with this value.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) oracle: Oracle,
    pub(crate) servers: Vec<Server>,
    pub(crate) client: Member,
    pub(crate) outsider: mesh_netlab::Pod,
    pub(crate) mesh: Mesh,
}

/// One pod of the Service.
#[derive(Debug)]
pub(crate) struct Server {
    _backend: Backend,
    pub(crate) member: Member,
}

/// How a rig is made.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) servers: u8,
    pub(crate) settings: Settings,
    pub(crate) server_environment: &'a [(&'a str, &'a str)],
    pub(crate) server_descriptors: Option<u32>,
    pub(crate) client_environment: &'a [(&'a str, &'a str)],
}

impl Plan<'_> {
    pub(crate) fn new(stage: &Stage) -> Self {
        Self {
            servers: 1,
            settings: Settings::new(&stage.proxy),
            server_environment: &[],
            server_descriptors: None,
            client_environment: &[],
        }
    }
}

impl Rig {
    pub(crate) fn start(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let mesh = Mesh::start(plan.settings.clone())?;
        let addresses = Addresses { v4: WEB, v6: None };
        let http = Some("http");
        let ports =
            [(HTTP, http), (HTTP2, Some("kubernetes.io/h2c")), (BYTES, None), (WITNESS, http), (UNDECLARED, None)];
        let service = manifests::service_of_ports("web", ("app", "web"), addresses, ports.into_iter());
        mesh.control.apply("service-web.yaml", &service)?;
        let oracle = Oracle::default();
        let servers = (1..=plan.servers)
            .map(|host| Server::start(&mesh, &oracle, host, plan))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let environment = plan.client_environment;
        let client = mesh.member(&Pod { environment, ..Pod::new("client", "client", CLIENT) })?;
        let outsider = mesh.outsider("outsider", OUTSIDER)?;
        let rig = Self { oracle, servers, client, outsider, mesh };
        rig.is_reachable()?;
        Ok(rig)
    }

    /// The Service's port, for the client.
    pub(crate) fn web(port: u16) -> SocketAddr {
        (WEB, port).into()
    }

    /// The first server.
    pub(crate) fn server(&self) -> &Member {
        &self.servers[0].member
    }

    /// The first server's own address, for whoever is outside the mesh.
    pub(crate) fn direct(&self, port: u16) -> SocketAddr {
        (self.server().addresses().v4, port).into()
    }

    /// The victim of every attack: a hundred requests a second, by connections of its own, kept ones and new ones.
    pub(crate) fn victim() -> [Load; 2] {
        let kept = Load::new(Self::web(HTTP), 4, 90.0);
        [kept, Load { fresh: true, ..Load::new(Self::web(HTTP), 1, 10.0) }]
    }

    fn is_reachable(&self) -> anyhow::Result<()> {
        let ask = || {
            let number = self.oracle.number().to_string();
            self.client.run(|| talk::get(Self::web(HTTP), "/", &[(NUMBER, &number)])).ok()?.ok()
        };
        until("the client reaches the servers", || ask().filter(|answer| answer.status == 200))
            .with_context(|| self.client.log())?;
        Ok(())
    }
}

impl Server {
    pub(crate) fn start(mesh: &Mesh, oracle: &Oracle, host: u8, plan: &Plan<'_>) -> anyhow::Result<Self> {
        let name = format!("web-{host}");
        let (environment, descriptors) = (plan.server_environment, plan.server_descriptors);
        let member = mesh.member(&Pod { environment, descriptors, ..Pod::new(&name, "web", host) })?;
        let backend = Backend::start(&member, &name, oracle)?;
        Ok(Self { _backend: backend, member })
    }
}
