//! F12, F13: pods end as they should, and as they should not.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use mesh_testbed::member::Pod;
use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::{
    load::{self, Load},
    oracle::{
        backend::{BYTES, HTTP, HTTP2},
        client::Version,
    },
    outcome::Findings,
    raw,
    rig::{Plan, Rig, Server},
    rows::Stage,
};

/// How late the endpoint of a pod that ends is taken away (five seconds in the programme).
const LATE: Duration = Duration::from_secs(1);
/// How soon a proxy that was killed is ready again.
const READY: f64 = 2.0;

pub(crate) fn rolling(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let plan = Plan { servers: 3, ..Plan::new(stage) };
    let mut rig = Rig::start(&plan)?;
    let (rate, restarts) = (stage.pick(300.0, 40.0), stage.pick(20_u8, 3));
    let loads = [
        Load::new(Rig::web(HTTP), 16, rate),
        Load { version: Version::Http2, ..Load::new(Rig::web(HTTP2), 4, rate) },
        Load { version: Version::Grpc, ..Load::new(Rig::web(HTTP2), 4, rate) },
        Load { fresh: true, ..Load::new(Rig::web(HTTP), 2, rate / 3.0) },
    ];
    let (over, bytes, lost_bytes) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let Rig { servers, client, oracle, mesh, .. } = &mut rig;
    let (slowest, mut tally) = thread::scope(|scope| {
        scope.spawn(|| {
            client.run(|| {
                while !over.load(Ordering::Relaxed) {
                    let counter = if raw::carries(Rig::web(BYTES)) { &bytes } else { &lost_bytes };
                    counter.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(20));
                }
            })
        });
        let result = load::during(&*client, oracle, &loads, |_| {
            let mut slowest = Duration::ZERO;
            for nth in 0..restarts {
                // As a Deployment does it: the new pod is ready before the old one ends.
                servers.push(Server::start(mesh, oracle, 10 + nth, &plan)?);
                let mut old = servers.remove(0);
                let begun = Instant::now();
                old.member.drain()?;
                thread::sleep(LATE);
                let host = if nth < 3 { nth + 1 } else { nth + 7 };
                let name = format!("web-{host}");
                let pod = Pod::new(&name, "web", host);
                mesh.control.apply(&pod.file(), &pod.manifest(false))?;
                old.member.signal(Signal::SIGTERM)?;
                anyhow::ensure!(old.member.ended()?.success(), "{}", old.member.log());
                slowest = slowest.max(begun.elapsed());
            }
            Ok(slowest)
        });
        over.store(true, Ordering::Relaxed);
        result
    })?;
    findings.told("restarts", f64::from(restarts));
    findings.none(format!("lost of {} requests{}", tally.all(), tally.examples()), tally.failed);
    findings.never("wrong answers", tally.wrong);
    findings.none("seen twice", rig.oracle.repeated());
    let carried = bytes.load(Ordering::Relaxed);
    findings.none(format!("lost of {carried} TCP exchanges"), lost_bytes.load(Ordering::Relaxed));
    findings.at_most("s of the slowest end", slowest.as_secs_f64(), 30.0);
    findings.told("p99 ms", tally.percentile(99));
    Ok(())
}

pub(crate) fn killed(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    // The controller gives a pod ten certificates at once: so not more than eight ends of each.
    let mut rig = Rig::start(&Plan { servers: 6, ..Plan::new(stage) })?;
    let kills = stage.pick(48_usize, 6);
    let loads = [Load::new(Rig::web(HTTP), 8, 150.0), Load { fresh: true, ..Load::new(Rig::web(HTTP), 2, 50.0) }];
    let Rig { servers, client, oracle, .. } = &mut rig;
    let (slowest, mut tally) = load::during(&*client, oracle, &loads, |_| {
        let mut slowest = Duration::ZERO;
        let count = servers.len();
        for nth in 0..kills {
            let member = &mut servers[nth % count].member;
            member.signal(Signal::SIGKILL)?;
            let begun = Instant::now();
            member.restart()?;
            slowest = slowest.max(begun.elapsed());
            thread::sleep(Duration::from_millis(500));
        }
        Ok(slowest)
    })?;
    findings.told("kills", kills as f64);
    findings.at_most("s until ready again", slowest.as_secs_f64(), READY);
    // One request on each of ten connections.
    let per_kill = tally.failed as f64 / kills as f64;
    findings.at_most(format!("failed for each kill{}", tally.examples()), per_kill, 10.0);
    findings.told("failed", tally.failed as f64);
    findings.told("asked", tally.all() as f64);
    findings.never("wrong answers", tally.wrong);
    findings.told("p99 ms", tally.percentile(99));
    Ok(())
}
