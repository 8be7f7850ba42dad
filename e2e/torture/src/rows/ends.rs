//! F13: proxies end as they should not.

use std::{thread, time::Duration};

use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::{
    load::{self, Load},
    oracle::backend::HTTP,
    outcome::Findings,
    rig::{Plan, Rig},
    row::Stage,
};

/// How soon a proxy that was killed is ready again.
const READY: f64 = 2.0;

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
