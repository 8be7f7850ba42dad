//! F12: Deployments are restarted, several at once and again and again, under every kind of load.
//!
//! A pod ends as the kubelet ends it: its two `preStop` hooks begin together, SIGTERM goes to the application when its own is
//! answered and it takes everything with it that is still open, then SIGTERM goes to the proxy. Meanwhile Kubernetes takes the
//! pod's endpoint away, a while later than the hooks begin.

mod beside;

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use mesh_netlab::Addresses;
use mesh_proto::{admin, names};
use mesh_testbed::{Member, Mesh, manifests, member::Pod, talk, until};
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::beside::Beside;
use crate::{
    load::{self, Load},
    oracle::{
        self, NUMBER, Oracle,
        backend::{BYTES, Backend, HTTP, HTTP2},
        client::Version,
    },
    outcome::Findings,
    rig::{Plan, Rig},
    row::Stage,
};

/// Pods of a Deployment, and one more while one ends.
const REPLICAS: usize = 2;
/// An endpoint is taken away at most so late (five seconds in the programme).
const LATE: Duration = Duration::from_secs(2);
/// Clients outside the mesh hear of it at most so much later: kube-proxy's.
const KUBE_PROXY: Duration = Duration::from_millis(800);
/// What the injector has the kubelet ask before it ends an application.
const WAIT: &str = "?wait=10";

/// What all Deployments share.
struct Site<'a> {
    mesh: &'a Mesh,
    oracle: &'a Oracle,
    /// Where the kubelet asks from.
    node: &'a mesh_netlab::Pod,
    /// Last numbers of addresses that no pod has; one that was given back is taken last.
    free: Mutex<VecDeque<u8>>,
    /// Pods that clients outside the mesh are sent to.
    known_outside: Mutex<Vec<Ipv4Addr>>,
}

struct Deployment {
    name: String,
    ip: Ipv4Addr,
    made: usize,
    replicas: VecDeque<Replica>,
}

struct Replica {
    backend: Backend,
    member: Member,
    name: String,
    host: u8,
}

/// How one pod ended.
struct End {
    /// Until its application might end.
    held: Duration,
    /// Whether that was because its clients had let go.
    let_go: bool,
    /// Until nothing was left of it.
    whole: Duration,
}

pub(crate) fn restarts(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let (deployments, each) = stage.pick((10, 100), (4, 5));
    let rate = stage.pick(30.0, 10.0);
    // The rig's own server takes no part.
    let rig = Rig::start(&Plan::new(stage))?;
    let site = Site {
        mesh: &rig.mesh,
        oracle: &rig.oracle,
        node: &rig.outsider,
        free: Mutex::new((2..200).collect()),
        known_outside: Mutex::default(),
    };
    let mut all = (1..=deployments).map(|nth| site.deployment(nth)).collect::<anyhow::Result<Vec<_>>>()?;
    for deployment in &all {
        let ask = || {
            let number = rig.oracle.number().to_string();
            rig.client.run(|| talk::get(deployment.at(HTTP), "/", &[(NUMBER, &number)])).ok()?.ok()
        };
        until("the client reaches a Deployment", || ask().filter(|answer| answer.status == 200))?;
    }
    let loads: Vec<_> = all.iter().flat_map(|deployment| deployment.loads(rate)).collect();
    let places: Vec<_> = all.iter().map(|deployment| (deployment.at(HTTP2), deployment.at(BYTES))).collect();
    let beside = Beside::default();
    let (mut ends, mut tally) = thread::scope(|scope| {
        for (streams, bytes) in places {
            let (beside, client) = (&beside, &rig.client);
            scope.spawn(move || beside.streams(client, streams));
            scope.spawn(move || beside.exchanges(client, bytes));
        }
        scope.spawn(|| beside.outside(&rig, |nth| site.known_outside(nth)));
        let result = load::during(&rig.client, &rig.oracle, &loads, |_| site.restart(&mut all, each));
        beside.end();
        result
    })?;
    findings.told("restarts", ends.len() as f64);
    findings.none(format!("lost of {} requests{}", tally.all(), tally.examples()), tally.failed);
    findings.never("wrong answers", tally.wrong);
    findings.none("seen twice", rig.oracle.repeated());
    beside.judge(findings);
    findings.none("ended before their clients had let go", ends.iter().filter(|end| !end.let_go).count());
    let whole = ends.iter().map(|end| end.whole).max().unwrap_or(Duration::MAX);
    findings.at_most("s of the slowest end", whole.as_secs_f64(), 30.0);
    ends.sort_by_key(|end| end.held);
    let held = |place: usize| ends.get(place).map_or(f64::NAN, |end| end.held.as_secs_f64());
    findings.told("s an application waited, median", held(ends.len() / 2));
    findings.told("longest", held(ends.len().saturating_sub(1)));
    findings.told("p99 ms", tally.percentile(99));
    Ok(())
}

impl Site<'_> {
    /// A Service, and its pods.
    fn deployment(&self, nth: u8) -> anyhow::Result<Deployment> {
        let (name, ip) = (format!("shop{nth}"), Ipv4Addr::new(10, 96, 1, nth));
        let ports = [(HTTP, Some("http")), (HTTP2, Some("kubernetes.io/h2c")), (BYTES, None)];
        let addresses = Addresses { v4: ip, v6: None };
        let service = manifests::service_of_ports(&name, ("app", &name), addresses, ports.into_iter());
        self.mesh.control.apply(&format!("service-{name}.yaml"), &service)?;
        let mut deployment = Deployment { name, ip, made: 0, replicas: VecDeque::new() };
        for _ in 0..REPLICAS {
            deployment.grow(self)?;
        }
        Ok(deployment)
    }

    /// Restarts each so many times, all of them at once, one pod of each after the other.
    fn restart(&self, all: &mut [Deployment], each: usize) -> anyhow::Result<Vec<End>> {
        thread::scope(|scope| {
            let roll = |deployment: &mut Deployment| (0..each).map(|_| deployment.restart(self)).collect();
            let rolling: Vec<_> = all.iter_mut().map(|deployment| scope.spawn(move || roll(deployment))).collect();
            let mut ends = Vec::new();
            for rolling in rolling {
                let one: anyhow::Result<Vec<End>> =
                    rolling.join().map_err(|_| anyhow::anyhow!("a Deployment panicked"))?;
                ends.extend(one?);
            }
            Ok(ends)
        })
    }

    /// Any of the pods that clients outside the mesh are sent to.
    fn known_outside(&self, nth: u64) -> Option<SocketAddr> {
        let known = self.known_outside.lock();
        let place = oracle::mix(nth) % u64::try_from(known.len()).ok().filter(|count| *count > 0)?;
        Some((*known.get(usize::try_from(place).ok()?)?, HTTP).into())
    }

    fn host(&self) -> anyhow::Result<u8> {
        self.free.lock().pop_front().context("no address is free")
    }
}

impl Deployment {
    fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    fn loads(&self, rate: f64) -> [Load; 4] {
        [
            Load::new(self.at(HTTP), 4, rate),
            Load { version: Version::Http2, ..Load::new(self.at(HTTP2), 1, rate) },
            Load { version: Version::Grpc, ..Load::new(self.at(HTTP2), 1, rate) },
            Load { fresh: true, ..Load::new(self.at(HTTP), 1, rate / 3.0) },
        ]
    }

    /// One more pod, which is an endpoint only once its application answers.
    fn grow(&mut self, site: &Site<'_>) -> anyhow::Result<()> {
        let (name, host) = (format!("{}-{}", self.name, self.made), site.host()?);
        self.made += 1;
        let pod = Pod { ready: false, ..Pod::new(&name, &self.name, host) };
        let member = site.mesh.member(&pod)?;
        let backend = Backend::start(&member, &name, site.oracle)?;
        site.mesh.control.apply(&pod.file(), &pod.manifest(true))?;
        site.known_outside.lock().push(pod.ip());
        self.replicas.push_back(Replica { backend, member, name, host });
        Ok(())
    }

    /// As a Deployment does it: the new pod is ready before the old one ends.
    fn restart(&mut self, site: &Site<'_>) -> anyhow::Result<End> {
        self.grow(site)?;
        let replica = self.replicas.pop_front().context("no pod")?;
        replica.end(site, &self.name)
    }
}

impl Replica {
    fn end(self, site: &Site<'_>, account: &str) -> anyhow::Result<End> {
        let Self { backend, mut member, name, host } = self;
        let pod = Pod::new(&name, account, host);
        let begun = Instant::now();
        // Any time within it, another one for each pod and the same in each run.
        let share = |which: u64| (oracle::mix(oracle::hash(name.as_bytes()) ^ which) % 1000) as f64 / 1000.0;
        let (held, let_go) = thread::scope(|scope| {
            let withdrawn = scope.spawn(|| {
                thread::sleep(LATE.mul_f64(share(0)));
                site.mesh.control.apply(&pod.file(), &pod.manifest(false))?;
                thread::sleep(KUBE_PROXY.mul_f64(share(1)));
                site.known_outside.lock().retain(|ip| *ip != pod.ip());
                anyhow::Ok(())
            });
            let admin = SocketAddr::from((member.addresses().v4, names::PORT_PROXY_ADMIN));
            let asked =
                scope.spawn(move || site.node.run(|| talk::get(admin, &format!("{}{WAIT}", admin::DRAINED), &[])));
            member.drain()?;
            let panicked = |_| anyhow::anyhow!("the kubelet panicked");
            let answer = asked.join().map_err(panicked)???;
            let held = begun.elapsed();
            drop(backend);
            member.signal(Signal::SIGTERM)?;
            withdrawn.join().map_err(panicked)??;
            anyhow::Ok((held, answer.body == admin::LET_GO))
        })?;
        anyhow::ensure!(member.ended()?.success(), "{}", member.log());
        let whole = begun.elapsed();
        drop(member);
        site.mesh.control.delete(&pod.file())?;
        site.free.lock().push_back(host);
        Ok(End { held, let_go, whole })
    }
}
