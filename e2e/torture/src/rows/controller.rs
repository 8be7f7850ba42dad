//! F1, F2, F3, F10: the controller is killed, silent, back with nothing in its head, or away for longer than a certificate lives.

use std::{thread, time::Duration};

use mesh_testbed::{Member, Settings, member::Pod, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;

use crate::{
    load::{self, Load, Tally},
    oracle::backend::{BYTES, HTTP},
    outcome::Findings,
    raw,
    rig::{Plan, Rig},
    row::Stage,
};

/// How soon a silent controller is left.
const NOTICED: f64 = 15.0;
/// How soon all is as before once it is back.
const RECOVERED: f64 = 10.0;

/// Two hundred requests a second, a quarter of them by new connections.
fn asking() -> [Load; 2] {
    [Load::new(Rig::web(HTTP), 8, 150.0), Load { fresh: true, ..Load::new(Rig::web(HTTP), 2, 50.0) }]
}

fn judge(findings: &mut Findings, rig: &Rig, tally: &mut Tally) {
    findings.none(format!("errors of {}{}", tally.all(), tally.examples()), tally.failed);
    findings.never("wrong answers", tally.wrong);
    findings.none("seen twice", rig.oracle.repeated());
    findings.told("p99 ms", tally.percentile(99));
}

fn is_connected(member: &Member, connected: u64) -> Option<()> {
    (member.count("controller_connected", &[]).ok()? == connected).then_some(())
}

pub(crate) fn killed(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let mut rig = Rig::start(&Plan { servers: 2, ..Plan::new(stage) })?;
    let length = stage.pick(Duration::from_mins(1), Duration::from_secs(10));
    let Rig { mesh, client, oracle, .. } = &mut rig;
    let (age, mut tally) = load::during(&*client, oracle, &asking(), |_| {
        mesh.control.kill();
        until("the proxy notices", || is_connected(client, 0))?;
        thread::sleep(length);
        let age = client.gauge("discovery_age_seconds", &[])?;
        mesh.control.resume()?;
        until("the proxy is back", || is_connected(client, 1))?;
        Ok(age)
    })?;
    findings.at_least("age shown, s", age, length.as_secs_f64() / 2.0);
    judge(findings, &rig, &mut tally);
    Ok(())
}

pub(crate) fn silent(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = Rig::start(&Plan { servers: 2, ..Plan::new(stage) })?;
    let signal = |signal| -> anyhow::Result<()> {
        let pid = rig.mesh.control.pid().unwrap_or_default();
        anyhow::ensure!(pid > 0, "the controller is not there");
        Ok(kill(Pid::from_raw(pid.cast_signed()), signal)?)
    };
    let ((noticed, recovered), mut tally) = load::during(&rig.client, &rig.oracle, &asking(), |_| {
        let begun = Instant::now();
        signal(Signal::SIGSTOP)?;
        let left = until("the proxy leaves it", || is_connected(&rig.client, 0));
        let noticed = begun.elapsed();
        // A while longer, so that what is tried again is tried.
        thread::sleep(stage.pick(Duration::from_secs(20), Duration::from_secs(3)));
        signal(Signal::SIGCONT)?;
        left?;
        let begun = Instant::now();
        until("the proxy is back", || is_connected(&rig.client, 1))?;
        Ok((noticed, begun.elapsed()))
    })?;
    findings.at_most("s until it is left", noticed.as_secs_f64(), NOTICED);
    findings.timed_at_most("s until it is back", recovered.as_secs_f64(), RECOVERED);
    judge(findings, &rig, &mut tally);
    Ok(())
}

pub(crate) fn cold(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let mut rig = Rig::start(&Plan { servers: 2, ..Plan::new(stage) })?;
    let count: u8 = stage.pick(150, 10);
    let names: Vec<_> = (10..10 + count).map(|host| (host, format!("many-{host}"))).collect();
    let many: Vec<Member> = names
        .iter()
        .map(|(host, name)| rig.mesh.member(&Pod::new(name, "many", *host)))
        .collect::<anyhow::Result<_>>()?;
    let Rig { mesh, client, oracle, .. } = &mut rig;
    let ((synced, peak), mut tally) = load::during(&*client, oracle, &asking(), |_| {
        mesh.control.kill();
        until("a proxy notices", || is_connected(client, 0))?;
        thread::sleep(stage.pick(Duration::from_secs(15), Duration::from_secs(2)));
        mesh.control.resume()?;
        let begun = Instant::now();
        // How many are there, ten times a second: what comes at once shows.
        let mut there = vec![0.0_f64];
        let all = f64::from(count) + 3.0;
        while there.last().is_some_and(|now| *now < all) && begun.elapsed() < Duration::from_mins(1) {
            thread::sleep(Duration::from_millis(100));
            let page = mesh.control.admin("/metrics")?.body;
            let line = page.lines().find_map(|line| line.strip_prefix("mesh_controller_streams "));
            there.push(line.and_then(|value| value.parse().ok()).unwrap_or_default());
        }
        let synced = begun.elapsed().as_secs_f64();
        let peak = there.windows(11).map(|second| second[10] - second[0]).fold(0.0, f64::max);
        Ok((synced, peak))
    })?;
    findings.told("proxies", many.len() as f64 + 3.0);
    findings.at_most("s until all are in sync", synced, 30.0);
    findings.told("most in one second", peak);
    let lost = many.iter().filter(|member| !member.is_ready()).count();
    findings.none("proxies that are not ready", lost);
    judge(findings, &rig, &mut tally);
    Ok(())
}

pub(crate) fn past_expiry(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    // The shortest life that leaves no gap is 15 s.
    let life = Duration::from_secs(20);
    let settings = Settings { leaf_lifetime: life, ..Plan::new(stage).settings };
    let mut rig = Rig::start(&Plan { settings, ..Plan::new(stage) })?;
    let Rig { mesh, client, .. } = &mut rig;
    // A connection of its own each time, and with it a handshake between the proxies.
    let carried = || client.run(|| raw::carries(Rig::web(BYTES))).unwrap_or(false);
    until("a connection is carried", || carried().then_some(()))?;
    mesh.control.kill();
    let killed = Instant::now();
    let (mut last_good, mut after_last) = (Duration::ZERO, 0);
    while killed.elapsed() < life + Duration::from_secs(8) {
        if carried() {
            last_good = killed.elapsed();
            after_last = 0;
        } else {
            after_last += 1;
        }
        thread::sleep(Duration::from_millis(100));
    }
    // It was renewed at 70 % of its life at the latest, so it outlives the controller by 30 % at least.
    findings.at_least("s served without a controller", last_good.as_secs_f64(), life.as_secs_f64() * 0.2);
    let late = last_good.saturating_sub(life + Duration::from_secs(1));
    findings.never("s that an expired certificate was taken", usize::try_from(late.as_secs()).unwrap_or(usize::MAX));
    findings.at_least("connections refused after expiry", f64::from(after_last), 10.0);
    mesh.control.resume()?;
    let back = Instant::now();
    until("connections are carried again", || carried().then_some(()))?;
    findings.timed_at_most("s until it is as before", back.elapsed().as_secs_f64(), RECOVERED);
    let restarted = client.gauge("process_start_time_seconds", &[])?;
    findings.told("client's proxy up, s", client.started().elapsed().as_secs_f64());
    anyhow::ensure!(restarted > 0.0, "the proxy is gone");
    Ok(())
}
