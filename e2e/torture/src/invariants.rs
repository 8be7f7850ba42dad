//! The five invariants around every attack (INV): the proxy lives, others do not notice, nothing stays behind, the log stays
//! readable, and an attack costs the proxy little more than the attacker.
//!
//! Called by the rows of bad input. What an attack does is theirs; here is what must be true whatever it is.

use std::{thread, time::Duration};

use tokio::time::Instant;

use crate::{
    load::{self, Load, Tally},
    outcome::Findings,
    party::Party,
    process,
    rig::RigOf,
};

/// How long the victim is watched before the attack.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_IN_CI: Duration = Duration::from_millis(700);
/// What may stay behind.
const MEMORY: u64 = 16 << 20;
/// Connections that a pool may keep where it had none before.
const DESCRIPTORS: usize = 32;
/// Milliseconds of the victim's 99th percentile that are always fine.
const FINE: f64 = 50.0;
/// What an attack may cost, times what the attacker spent.
const AMPLIFIED: f64 = 10.0;
/// Processor time of the proxy that is not worth a comparison: the kernel counts in hundredths of a second.
const LITTLE: f64 = 0.5;
/// Lines a second.
const LINES: f64 = 100.0;

/// What an attacker spent, as it knows itself.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) cpu: Duration,
    pub(crate) bytes: u64,
}

/// Attacks `target`, a proxy of the rig, and adds the five invariants to the findings. The victim asks by `victim`.
pub(crate) fn around<T, P: Party>(
    rig: &RigOf<P>,
    target: &P,
    victim: &[Load],
    findings: &mut Findings,
    attack: impl FnOnce() -> anyhow::Result<(T, Spent)>,
) -> anyhow::Result<T> {
    let quiet = if findings.is_timed() { QUIET } else { QUIET_IN_CI };
    let before = Before::of(rig, target, victim, quiet)?;
    let begun = Instant::now();
    let (((told, spent), mut tally), peak) = {
        let (asked, peak) =
            process::peak_during(target.pid(), || load::during(&rig.client, &rig.oracle, victim, |_| attack()));
        (asked?, peak)
    };
    let took = begun.elapsed().as_secs_f64();
    let (cpu, lines) = (process::cpu(target.pid())?, lines(target));

    findings.never("panics", target.log().matches("panicked").count());
    findings.never("other process", usize::from(!process::is_still(target.pid(), before.start)));
    judge_victim(findings, &mut tally, before.p99);
    let left = || process::resident(target.pid()).unwrap_or(u64::MAX).saturating_sub(before.memory);
    within_half_a_minute(|| left() <= MEMORY);
    findings.at_most("MiB left", left() as f64 / f64::from(1 << 20), (MEMORY >> 20) as f64);
    let open = || process::descriptors(target.pid()).unwrap_or(usize::MAX).saturating_sub(before.descriptors);
    within_half_a_minute(|| open() <= DESCRIPTORS);
    findings.at_most("fds left", open() as f64, DESCRIPTORS as f64);
    let per_second = lines.saturating_sub(before.lines) as f64 / took.max(1.0);
    findings.at_most("log lines/s", per_second, LINES);
    let ours = (cpu.saturating_sub(before.cpu).as_secs_f64() - before.cpu_per_second * took).max(0.0);
    let theirs = spent.cpu.as_secs_f64();
    findings.timed_at_most("CPU s beyond the victim's", ours, (AMPLIFIED * theirs).max(LITTLE));
    let grown = peak.saturating_sub(before.memory) as f64 / f64::from(1 << 20);
    let received = AMPLIFIED * spent.bytes as f64 / f64::from(1 << 20);
    findings.at_most("MiB at peak", grown, received.max((MEMORY >> 20) as f64));
    Ok(told)
}

/// Errors and latency of those who were not meant.
pub(crate) fn judge_victim(findings: &mut Findings, tally: &mut Tally, quiet_p99: f64) {
    findings.none(format!("victim's errors of {}{}", tally.all(), tally.examples()), tally.failed);
    findings.never("victim's wrong answers", tally.wrong);
    findings.timed_at_most("victim's p99 ms", tally.percentile(99), (3.0 * quiet_p99).max(FINE));
}

/// Waits for that; what is then, is measured.
fn within_half_a_minute(is_so: impl Fn() -> bool) {
    let late = Instant::now() + Duration::from_secs(30);
    while !is_so() && Instant::now() < late {
        thread::sleep(Duration::from_millis(100));
    }
}

struct Before {
    start: u64,
    p99: f64,
    memory: u64,
    descriptors: usize,
    lines: usize,
    cpu: Duration,
    cpu_per_second: f64,
}

impl Before {
    fn of<P: Party>(rig: &RigOf<P>, target: &P, victim: &[Load], quiet: Duration) -> anyhow::Result<Self> {
        let (begun, cpu) = (Instant::now(), process::cpu(target.pid())?);
        // Its connections are open when they are counted.
        let (descriptors, mut tally) = load::during(&rig.client, &rig.oracle, victim, |_| {
            thread::sleep(quiet);
            process::descriptors(target.pid())
        })?;
        anyhow::ensure!(tally.failed + tally.wrong == 0, "before the attack:{}", tally.examples());
        let after = process::cpu(target.pid())?;
        Ok(Self {
            start: process::started(target.pid())?,
            p99: tally.percentile(99),
            memory: process::resident(target.pid())?,
            descriptors,
            lines: lines(target),
            cpu: after,
            cpu_per_second: after.saturating_sub(cpu).as_secs_f64() / begun.elapsed().as_secs_f64(),
        })
    }
}

fn lines(member: &impl Party) -> usize {
    member.log().lines().count()
}
