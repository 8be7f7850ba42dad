//! F17, F18, F19: descriptors, memory and processor run short.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use mesh_proto::names;
use mesh_testbed::until;
use nix::sys::signal::Signal;
use tokio::{io::AsyncWriteExt as _, time::Instant};

use crate::{
    load::{self, Load, Place as _},
    oracle::{NUMBER, SIZE, backend::HTTP},
    outcome::Findings,
    party::Party,
    process,
    rig::{Plan, Rig, RigOf},
    row::Stage,
};

/// Descriptors that the proxy is allowed.
const DESCRIPTORS: u32 = 256;
/// Bytes that a container would be allowed.
const MEMORY: u64 = 64 << 20;
/// Where a proxy in it refuses what is new: at 90 %, as of a cgroup's limit.
const REFUSED: u64 = MEMORY / 10 * 9;

pub(crate) fn descriptors<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan { server_descriptors: Some(DESCRIPTORS), ..Plan::new(stage) })?;
    let server = rig.server();
    let start = process::started(server.pid())?;
    // What is open stays: it asks all the while.
    let kept = [Load::new(Rig::web(HTTP), 4, 50.0)];
    let ((cpu, slowest), mut tally) = load::during(&rig.client, &rig.oracle, &kept, |done| {
        until("the kept connections are open", || (done() > 50).then_some(()))?;
        let held = rig.outsider.enter(|| {
            let patience = Duration::from_secs(2);
            (0..1000).filter_map(|_| TcpStream::connect_timeout(&rig.direct(HTTP), patience).ok()).collect::<Vec<_>>()
        })?;
        let (begun, before) = (Instant::now(), process::cpu(server.pid())?);
        let mut slowest = Duration::ZERO;
        while begun.elapsed() < stage.pick(Duration::from_secs(5), Duration::from_secs(2)) {
            let asked = Instant::now();
            anyhow::ensure!(server.admin(P::LIVE)?.status == 200, "a probe failed");
            slowest = slowest.max(asked.elapsed());
            thread::sleep(Duration::from_millis(100));
        }
        let cpu = process::cpu(server.pid())?.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
        drop(held);
        Ok((cpu, slowest))
    })?;
    let over = Instant::now();
    let ask = || rig.outsider.run(|| mesh_testbed::talk::get(rig.direct(HTTP), "/", &[(NUMBER, "1")]));
    until("new connections are let in", || (ask().ok()?.ok()?.status == 200).then_some(()))?;
    findings.timed_at_most("s until new connections are let in", over.elapsed().as_secs_f64(), 2.0);
    findings.timed_at_most("% of a core, starved", 100.0 * cpu, 20.0);
    findings.timed_at_most("s of the slowest probe", slowest.as_secs_f64(), 1.0);
    if let Some(ours) = server.ours() {
        let refused = ours.count("overloaded_total", &[r#"direction="inbound""#])?;
        findings.at_least("connections refused, and counted", refused as f64, 1.0);
    }
    finish(findings, server, start);
    // A request that needs one more connection between the proxies finds none.
    findings.told(
        format!("errors of {} on connections that are kept{}", tally.all(), tally.examples()),
        tally.failed as f64,
    );
    findings.never("wrong answers", tally.wrong);
    findings.told("p99 ms on them", tally.percentile(99));
    Ok(())
}

pub(crate) fn memory(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let limit = REFUSED.to_string();
    let environment = [(names::ENV_MEMORY_LIMIT, limit.as_str())];
    let rig = Rig::start(&Plan { server_environment: &environment, ..Plan::new(stage) })?;
    let server = rig.server();
    let start = process::started(server.pid())?;
    let readers = stage.pick(2000_usize, 300);
    let length = stage.pick(Duration::from_secs(10), Duration::from_secs(3));
    let request = format!("GET / HTTP/1.1\r\nhost: web\r\n{NUMBER}: 1\r\n{SIZE}: {}\r\n\r\n", 1 << 20);
    let (opened, peak) = process::peak_during(server.pid(), || {
        rig.outsider.block_on(|| async {
            // They ask, and do not read.
            let mut held = Vec::new();
            for _ in 0..readers {
                let connect = tokio::net::TcpStream::connect(rig.direct(HTTP));
                let Ok(Ok(mut socket)) = tokio::time::timeout(Duration::from_secs(2), connect).await else { continue };
                if socket.write_all(request.as_bytes()).await.is_ok() {
                    held.push(socket);
                }
            }
            tokio::time::sleep(length).await;
            Ok(held.len())
        })
    });
    findings.told("slow readers of 1 MiB", opened? as f64);
    findings.at_most("MiB at peak", peak as f64 / f64::from(1 << 20), (MEMORY >> 20) as f64);
    findings.told("refused", server.count("overloaded_total", &[r#"direction="inbound""#])? as f64);
    let over = Instant::now();
    let ask = || rig.client.run(|| mesh_testbed::talk::get(Rig::web(HTTP), "/", &[(NUMBER, "1")]));
    until("requests are served again", || (ask().ok()?.ok()?.status == 200).then_some(()))?;
    findings.at_most("s until requests are served again", over.elapsed().as_secs_f64(), 30.0);
    finish(findings, server, start);
    Ok(())
}

pub(crate) fn processor<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let server = rig.server();
    let start = process::started(server.pid())?;
    let length = stage.pick(Duration::from_secs(10), Duration::from_secs(3));
    let over = AtomicBool::new(false);
    let measured = thread::scope(|scope| {
        // A tenth of a core, in the periods of the kernel's own quota, without a cgroup: anybody may do this.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = server.signal(Signal::SIGSTOP);
                thread::sleep(Duration::from_millis(90));
                let _ = server.signal(Signal::SIGCONT);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let measured = (|| {
            let closed = [Load::new(Rig::web(HTTP), 8, None)];
            let ((), calm) = load::during(&rig.client, &rig.oracle, &closed, |_| {
                thread::sleep(length);
                Ok(())
            })?;
            let capacity = calm.good as f64 / length.as_secs_f64();
            let doubled = [Load::new(Rig::web(HTTP), 64, 2.0 * capacity)];
            let (slowest, busy) = load::during(&rig.client, &rig.oracle, &doubled, |_| {
                let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
                while begun.elapsed() < length {
                    let asked = Instant::now();
                    anyhow::ensure!(server.admin("/ready")?.status == 200, "a probe failed");
                    slowest = slowest.max(asked.elapsed());
                    thread::sleep(Duration::from_millis(200));
                }
                Ok(slowest)
            })?;
            anyhow::Ok((capacity, busy, slowest))
        })();
        over.store(true, Ordering::Relaxed);
        measured
    });
    server.signal(Signal::SIGCONT)?;
    let (capacity, busy, slowest) = measured?;
    findings.told("requests/s at a tenth of a core", capacity);
    let goodput = busy.good as f64 / length.as_secs_f64();
    findings.at_least("% of that at twice as many", 100.0 * goodput / capacity, 80.0);
    findings.timed_at_most("s of the slowest probe", slowest.as_secs_f64(), 1.0);
    findings.never("wrong answers", busy.wrong);
    if let Some(ours) = server.ours() {
        let failures = ours.count("control_identity_cert_failures_total", &[])?;
        findings.none("failed renewals", usize::try_from(failures)?);
    }
    finish(findings, server, start);
    Ok(())
}

/// The same process as before, that did not panic.
fn finish(findings: &mut Findings, server: &impl Party, start: u64) {
    findings.never("other process", usize::from(!process::is_still(server.pid(), start)));
    findings.never("panics", server.log().matches("panicked").count());
}
