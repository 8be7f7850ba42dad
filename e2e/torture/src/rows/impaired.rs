//! F16: a network that loses packets, and one that is narrow.

use std::{io, process::Command, time::Duration};

use tokio::time::Instant;

use crate::{
    outcome::Findings,
    party::Party,
    process,
    rig::{Plan, RigOf},
    row::{NotRun, Stage},
    rows::held::transfer,
};

/// No transfer stands still for longer: [`transfer`] gives up then.
const WINDOW: f64 = 32.0;

pub(crate) fn transfers<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let pods = [&rig.client, rig.server()];
    let memory = process::resident(rig.server().pid())?;
    for (loss, size) in [(1, stage.pick(64 << 20, 4 << 20)), (5, stage.pick(64 << 20, 4 << 20))] {
        for pod in pods {
            run(pod, "nft", &["add table inet torture"])?;
            run(pod, "nft", &["add chain inet torture out { type filter hook output priority 0; }"])?;
            run(pod, "nft", &["flush chain inet torture out"])?;
            let rule = format!("add rule inet torture out oifname != lo numgen random mod 100 < {loss} drop");
            run(pod, "nft", &[rule.as_str()])?;
        }
        one(&rig, findings, &format!("{loss} % lost"), size, memory)?;
    }
    for pod in pods {
        run(pod, "nft", &["delete table inet torture"])?;
    }
    let link = rig.server().enter(|| std::fs::read_dir("/proc/sys/net/ipv4/conf"))??;
    let link = link
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| !["all", "default", "lo"].contains(&name.as_str()));
    let link = link.ok_or_else(|| anyhow::anyhow!("the pod has no link"))?;
    let words =
        ["qdisc", "add", "dev", link.as_str(), "root", "tbf", "rate", "1mbit", "burst", "32k", "latency", "50ms"];
    run(rig.server(), "tc", &words)?;
    one(&rig, findings, "1 Mbit/s", stage.pick(2 << 20, 1 << 18), memory)
}

fn one<P: Party>(rig: &RigOf<P>, findings: &mut Findings, name: &str, size: u32, memory: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (equal, peak) = process::peak_during(rig.server().pid(), || rig.client.enter(|| transfer(size)));
    match equal? {
        Ok(equal) => findings.never(&format!("{name}: other bytes"), usize::from(!equal)),
        Err(error) => findings.none(format!("{name}: transfers that did not end ({error})"), 1),
    }
    findings.told(format!("{name}: s for {} KiB there and back", size >> 10), begun.elapsed().as_secs_f64());
    let grown = peak.saturating_sub(memory) as f64 / f64::from(1 << 20);
    findings.at_most(format!("{name}: MiB more"), grown, WINDOW);
    Ok(())
}

fn run(pod: &impl Party, program: &str, words: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(words);
    let mut running = match pod.exec(&mut command) {
        Ok(running) => running,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(NotRun(format!("needs the program {program}")).into());
        }
        Err(error) => return Err(error.into()),
    };
    let ended = running.wait()?;
    if !ended.success() {
        // Its last words come on a thread of their own.
        std::thread::sleep(Duration::from_millis(50));
        return Err(NotRun(format!("{program} {}: {}", words.join(" "), running.output().trim())).into());
    }
    Ok(())
}
