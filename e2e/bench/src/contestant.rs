//! One contestant, up and running: a client's pod, a server's pod, what is between them, and how the client reaches the server.
//!
//! Each is a network of its own with the same links. The redirect of all is the one that `mesh-proxy redirect` sets up.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use mesh_netlab::{Addresses, Lab};
use mesh_testbed::{
    Member, Mesh, Settings,
    envoy::{Envoy, Port, Program, Sidecar, Speech},
    manifests, member,
    wait::ready_after,
};
use nix::{sys::signal::Signal, time::clock_getcpuclockid, unistd::Pid};

use crate::{
    footprint::of_status,
    load::server::{BYTES_PORT, CALLS_PORT, HTTP_PORT, Server},
};

/// Last numbers of the pods' addresses.
const CLIENT: u8 = 1;
const SERVER: u8 = 2;
/// The Service that the client of our proxy dials.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// What two Envoys speak with each other for an application's HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    Http1,
    Http2,
}

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// No proxies: what the machine can do.
    Direct,
    Envoy(Between),
    Ours,
}

impl Contestant {
    /// In the order in which they have their turns.
    pub(crate) const ALL: [Self; 4] =
        [Self::Direct, Self::Envoy(Between::Http1), Self::Envoy(Between::Http2), Self::Ours];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Envoy(Between::Http1) => "envoy-h1",
            Self::Envoy(Between::Http2) => "envoy-h2",
            Self::Ours => "ours",
        }
    }
}

/// The programs under test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Programs<'a> {
    pub(crate) ours: &'a Path,
    /// None where it could not be had.
    pub(crate) envoy: Option<&'a Program>,
}

/// A contestant with its pods; everything ends with it.
#[derive(Debug)]
pub(crate) struct Running {
    /// The application; it ends before its network does.
    pub(crate) server: Server,
    client: Place,
    server_pod: Place,
    /// Where the client finds the server.
    ip: Ipv4Addr,
    _network: Network,
}

#[derive(Debug)]
enum Place {
    Bare(mesh_netlab::Pod),
    Envoy(Envoy),
    Meshed { member: Box<Member>, ready: Duration },
}

#[derive(Debug)]
enum Network {
    Lab(#[expect(dead_code, reason = "kept for its pods")] Lab),
    Mesh(#[expect(dead_code, reason = "kept for its pods")] Box<Mesh>),
}

impl Running {
    pub(crate) fn start(contestant: Contestant, programs: Programs<'_>) -> anyhow::Result<Self> {
        let running = match contestant {
            Contestant::Direct => Self::bare(|pod, _| Ok(Place::Bare(pod))),
            Contestant::Envoy(between) => {
                let program = programs.envoy.context("there is no Envoy")?;
                let authority = program.authority()?;
                let ports = ports(between);
                Self::bare(|pod, account| {
                    let peer = if account == "client" { "server" } else { "client" };
                    let sidecar = Sidecar {
                        account,
                        peer,
                        ports: &ports,
                        server: None,
                        plaintext: false,
                        hardened: false,
                        descriptors: None,
                    };
                    Ok(Place::Envoy(authority.start(pod, &sidecar, programs.ours)?))
                })
            }
            Contestant::Ours => Self::ours(programs.ours, &[]),
        }?;
        running.as_client(use_all_ports)??;
        Ok(running)
    }

    /// Pods that know nothing of a mesh; the client dials the server's pod.
    fn bare(mut place: impl FnMut(mesh_netlab::Pod, &'static str) -> anyhow::Result<Place>) -> anyhow::Result<Self> {
        let lab = Lab::new(addresses(254))?;
        let server = place(lab.pod("server", addresses(SERVER))?, "server")?;
        let client = place(lab.pod("client", addresses(CLIENT))?, "client")?;
        let ip = addresses(SERVER).v4;
        let application = server.run(|| Server::start(ip.into()))??;
        Ok(Self { server: application, client, server_pod: server, ip, _network: Network::Lab(lab) })
    }

    /// Two meshed pods; the client dials a Service, as applications do. `environment` is for both proxies.
    pub(crate) fn ours(program: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mesh = Mesh::start(Settings::new(program))?;
        let pods = [("server", SERVER), ("client", CLIENT)];
        let pods = pods.map(|(name, host)| member::Pod { environment, ..member::Pod::new(name, name, host) });
        let service = Addresses { v4: SERVICE, v6: None };
        let ports = [(HTTP_PORT, Some("http")), (CALLS_PORT, Some("grpc")), (BYTES_PORT, Some("tcp"))];
        let service = manifests::service_of_ports("server", ("app", "server"), service, ports.into_iter());
        mesh.control.apply("service.yaml", &service)?;
        // As in a cluster: the pod is known to the API server before its sidecar starts.
        for pod in &pods {
            mesh.control.apply(&pod.file(), &pod.manifest(true))?;
        }
        let [server, client] = [Place::meshed(&mesh, &pods[0])?, Place::meshed(&mesh, &pods[1])?];
        let ip = IpAddr::from(pods[0].ip());
        let application = server.run(|| Server::start(ip))??;
        Ok(Self {
            server: application,
            client,
            server_pod: server,
            ip: SERVICE,
            _network: Network::Mesh(Box::new(mesh)),
        })
    }

    /// How long each proxy took from its start until it was ready.
    pub(crate) fn ready(&self) -> impl Iterator<Item = Duration> {
        [&self.client, &self.server_pod].into_iter().filter_map(Place::ready)
    }

    /// Resident memory of both proxies, MiB.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        [&self.client, &self.server_pod].into_iter().filter_map(Place::pid).map(|pid| of_status(pid, "VmRSS:")).sum()
    }

    /// Ends both proxies by a signal, in order, and says which processes they were.
    pub(crate) fn end(mut self, signal: Signal) -> anyhow::Result<Vec<u32>> {
        let mut ended = Vec::new();
        for place in [&mut self.client, &mut self.server_pod] {
            if let Place::Meshed { member, .. } = place {
                member.signal(signal)?;
                member.ended()?;
                ended.push(member.pid());
            }
        }
        Ok(ended)
    }

    /// Runs `f` in the client's network.
    pub(crate) fn as_client<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.client.run(f)
    }

    /// Where the client reaches this port of the server.
    pub(crate) fn to(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// Processors' time that both proxies have had so far, user and system.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let mut sum = Duration::ZERO;
        for place in [&self.client, &self.server_pod] {
            if let Some(pid) = place.pid() {
                // What utime and stime of /proc add up to, but to the nanosecond: those are told in hundredths of a second.
                let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).context("a proxy has ended")?;
                sum += Duration::from(clock.now().context("a proxy has ended")?);
            }
        }
        Ok(sum)
    }
}

impl Place {
    fn meshed(mesh: &Mesh, pod: &member::Pod<'_>) -> anyhow::Result<Self> {
        let member = mesh.unready_member(pod)?;
        let ready = ready_after(member.started(), || member.is_ready()).with_context(|| member.log())?;
        member.redirect()?;
        Ok(Self::Meshed { member: Box::new(member), ready })
    }

    /// How long its proxy took to be ready.
    fn ready(&self) -> Option<Duration> {
        match self {
            Self::Bare(_) => None,
            Self::Envoy(envoy) => Some(envoy.ready()),
            Self::Meshed { ready, .. } => Some(*ready),
        }
    }

    fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        match self {
            Self::Bare(pod) => pod.run(f),
            Self::Envoy(envoy) => envoy.pod().run(f),
            Self::Meshed { member, .. } => member.run(f),
        }
    }

    /// The proxy's process.
    fn pid(&self) -> Option<u32> {
        match self {
            Self::Bare(_) => None,
            Self::Envoy(envoy) => Some(envoy.process().id()),
            Self::Meshed { member, .. } => Some(member.pid()),
        }
    }
}

/// Of the server, for Envoy.
fn ports(between: Between) -> [Port<'static>; 3] {
    let between = match between {
        Between::Http1 => Speech::Http1,
        Between::Http2 => Speech::Http2,
    };
    [
        Port { name: "http", number: HTTP_PORT, between, app: Speech::Http1 },
        Port { name: "calls", number: CALLS_PORT, between: Speech::Http2, app: Speech::Http2 },
        Port { name: "bytes", number: BYTES_PORT, between: Speech::Bytes, app: Speech::Bytes },
    ]
}

/// Thousands of connections a second, each closed by the client, would use up the ports that it has otherwise.
fn use_all_ports() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 65535")?;
    fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")
}

fn addresses(host: u8) -> Addresses {
    Addresses { v4: Ipv4Addr::new(10, 0, 0, host), v6: None }
}
