//! Whose proxies a rig has: ours, in a mesh with its controller, or Envoy's, which need none.
//!
//! [`Party`] is what rows that are run with both use of a pod, and no more: a row that asks for more is ours alone. What is measured
//! of a proxy comes from the kernel ([`crate::process`]), for both alike.

use std::{fmt, io, path::Path, process::Command};

use anyhow::Context as _;
use mesh_netlab::{Addresses, Lab, Process};
use mesh_testbed::{
    Member, Mesh,
    envoy::{Authority, Envoy, Port, Program, Sidecar, Speech},
    manifests,
    member::Pod,
    mesh::addresses,
    talk::Answer,
};
use nix::sys::signal::Signal;

use crate::{
    load::Place,
    oracle::backend::{BYTES, HTTP, HTTP2},
    rig::{Plan, SERVER, UNDECLARED, WEB, WITNESS},
    row::NotRun,
};

/// Last number of the address of the node between Envoy's pods.
const NODE: u8 = 254;
/// What Envoy is told of ports; ours is told by a Service, and what declares nothing is of no row that Envoy runs.
const PORTS: [Port<'static>; 4] = [
    Port { name: "http", number: HTTP, between: Speech::Http2, app: Speech::Http1 },
    Port { name: "http2", number: HTTP2, between: Speech::Http2, app: Speech::Http2 },
    Port { name: "bytes", number: BYTES, between: Speech::Bytes, app: Speech::Bytes },
    Port { name: "witness", number: WITNESS, between: Speech::Http2, app: Speech::Http1 },
];

/// A pod with a proxy.
pub(crate) trait Party: Place + fmt::Debug + Send + Sized {
    /// What its pods are in.
    type Mesh: fmt::Debug + Send + Sync;

    /// Path of the admin port that says whether the proxy lives.
    const LIVE: &'static str;

    fn mesh(plan: &Plan<'_>) -> anyhow::Result<Self::Mesh>;
    /// A pod whose proxy is ready.
    fn join(mesh: &Self::Mesh, plan: &Plan<'_>, pod: &Pod<'_>) -> anyhow::Result<Self>;
    /// A pod that has no proxy.
    fn outsider(mesh: &Self::Mesh, name: &str, host: u8) -> anyhow::Result<mesh_netlab::Pod>;

    fn addresses(&self) -> Addresses;
    /// Process id of the proxy.
    fn pid(&self) -> u32;
    /// What the proxy has printed.
    fn log(&self) -> String;
    /// Asks the proxy's admin port.
    fn admin(&self, path: &str) -> io::Result<Answer>;
    /// Sends the proxy a signal.
    fn signal(&self, signal: Signal) -> io::Result<()>;
    /// Starts another program in the pod.
    fn exec(&self, command: &mut Command) -> io::Result<Process>;
    /// For what only our proxy tells of itself.
    fn ours(&self) -> Option<&Member>;
}

impl Party for Member {
    type Mesh = Mesh;

    const LIVE: &'static str = "/live";

    fn mesh(plan: &Plan<'_>) -> anyhow::Result<Mesh> {
        let mesh = Mesh::start(plan.settings.clone())?;
        let http = Some("http");
        let ports =
            [(HTTP, http), (HTTP2, Some("kubernetes.io/h2c")), (BYTES, None), (WITNESS, http), (UNDECLARED, None)];
        let addresses = Addresses { v4: WEB, v6: None };
        let service = manifests::service_of_ports("web", ("app", "web"), addresses, ports.into_iter());
        mesh.control.apply("service-web.yaml", &service)?;
        Ok(mesh)
    }

    fn join(mesh: &Mesh, _: &Plan<'_>, pod: &Pod<'_>) -> anyhow::Result<Self> {
        mesh.member(pod)
    }

    fn outsider(mesh: &Mesh, name: &str, host: u8) -> anyhow::Result<mesh_netlab::Pod> {
        mesh.outsider(name, host)
    }

    fn addresses(&self) -> Addresses {
        self.addresses()
    }

    fn pid(&self) -> u32 {
        self.pid()
    }

    fn log(&self) -> String {
        self.log()
    }

    fn admin(&self, path: &str) -> io::Result<Answer> {
        self.admin(path)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.signal(signal)
    }

    fn exec(&self, command: &mut Command) -> io::Result<Process> {
        self.exec(command)
    }

    fn ours(&self) -> Option<&Member> {
        Some(self)
    }
}

/// Pods that know nothing of a mesh, and who signs their certificates.
#[derive(Debug)]
pub(crate) struct Bare {
    lab: Lab,
    authority: Authority,
}

impl Party for Envoy {
    type Mesh = Bare;

    // It has no page for that alone.
    const LIVE: &'static str = "/ready";

    fn mesh(plan: &Plan<'_>) -> anyhow::Result<Bare> {
        let program = plan.envoy.map(Path::to_owned).context("there is no Envoy")?;
        Ok(Bare { lab: Lab::new(addresses(NODE))?, authority: Program::at(program).authority()? })
    }

    fn join(mesh: &Bare, plan: &Plan<'_>, pod: &Pod<'_>) -> anyhow::Result<Self> {
        let sidecar = Sidecar {
            account: pod.account,
            peer: if pod.account == "client" { "web" } else { "client" },
            ports: &PORTS,
            server: Some(addresses(SERVER).v4),
            plaintext: true,
            hardened: true,
            descriptors: pod.descriptors,
        };
        let started = mesh.authority.start(mesh.lab.pod(pod.name, pod.addresses())?, &sidecar, &plan.settings.proxy);
        started.map_err(|error| NotRun(format!("{error:#}")).into())
    }

    fn outsider(mesh: &Bare, name: &str, host: u8) -> anyhow::Result<mesh_netlab::Pod> {
        Ok(mesh.lab.pod(name, addresses(host))?)
    }

    fn addresses(&self) -> Addresses {
        self.pod().addresses()
    }

    fn pid(&self) -> u32 {
        self.process().id()
    }

    fn log(&self) -> String {
        self.process().output()
    }

    fn admin(&self, path: &str) -> io::Result<Answer> {
        self.admin(path)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.process().signal(signal)
    }

    fn exec(&self, command: &mut Command) -> io::Result<Process> {
        self.pod().start(command)
    }

    fn ours(&self) -> Option<&Member> {
        None
    }
}
