//! B1: the public suite of HTTP/2, h2spec.

use std::{path::PathBuf, process::Command};

use crate::{
    invariants::{self, Spent},
    oracle::backend::HTTP2,
    outcome::Findings,
    party::Party,
    rig::{Plan, Rig, RigOf},
    row::{NotRun, Stage},
};

/// Where the program is, if not on the path.
const PROGRAM: &str = "H2SPEC";
/// A case that is none here: what does not begin as HTTP/2 is HTTP/1 on the same port (RFC 9112), and gets its 400, where the case
/// expects the end and no answer.
const OF_HTTP1: &str = "Sends invalid connection preface";

pub(crate) fn h2spec<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let program = std::env::var_os(PROGRAM).map_or_else(|| PathBuf::from("h2spec"), PathBuf::from);
    if Command::new(&program).arg("--version").output().is_err() {
        let fix = "go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible";
        return Err(NotRun(format!("needs h2spec on the path, or named by {PROGRAM}: {fix}")).into());
    }
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let ways: [(&str, std::net::SocketAddr); 2] = [("inbound", rig.direct(HTTP2)), ("outbound", Rig::web(HTTP2))];
    let outputs = invariants::around(&rig, rig.server(), &Rig::victim(), findings, || {
        let mut outputs = Vec::new();
        for (name, address) in ways {
            let mut command = Command::new(&program);
            command.args(["--strict", "-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
            let mut running =
                if name == "inbound" { rig.outsider.start(&mut command)? } else { rig.client.exec(&mut command)? };
            let _ = running.wait_for_line("tests, ", std::time::Duration::from_mins(4));
            let _ = running.wait();
            outputs.push((name, running.output()));
        }
        Ok((outputs, Spent { cpu: std::time::Duration::from_secs(5), bytes: 1 << 20 }))
    })?;
    for (name, output) in outputs {
        let line = output.lines().rev().find(|line| line.contains("tests, ")).unwrap_or_default().to_owned();
        let number = |word: &str| {
            let part = line.split(", ").find(|part| part.contains(word))?;
            part.split(' ').next()?.parse::<usize>().ok()
        };
        let (all, passed) = (number("tests").unwrap_or_default(), number("passed").unwrap_or_default());
        let skipped = number("skipped").unwrap_or_default();
        anyhow::ensure!(all > 0, "h2spec says no result:\n{output}");
        let mut failed: Vec<_> = output.lines().map(str::trim).filter(|line| line.starts_with('×')).collect();
        failed.sort_unstable();
        failed.dedup();
        let counted = failed.len();
        failed.retain(|case| !case.contains(OF_HTTP1));
        let left_out = counted - failed.len();
        let failures = all.saturating_sub(passed + skipped + left_out);
        findings.none(format!("{name}: failed of {all} {failed:?}"), failures);
        findings.told(format!("{name}: left out"), left_out as f64);
        findings.told(format!("{name}: skipped"), skipped as f64);
    }
    Ok(())
}
