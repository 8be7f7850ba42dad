//! How many instructions one request costs in the two proxies: what does not depend on how busy a machine is, so that CI can hold it.
//!
//! The real program runs under valgrind's callgrind, which plays a processor of its own: one more request costs the same there
//! on every machine. What the C library does of it depends on its version, and is held more loosely.

mod callgrind;

use std::{
    collections::BTreeMap, fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, process::Command,
};

use anyhow::Context as _;
use mesh_proto::names;
use nix::sys::signal::Signal;

use self::callgrind::Count;
use crate::{
    contestant::Running,
    load::{
        client::{self, What},
        server::{CALLS_PORT, HTTP_PORT, LENGTHS},
    },
};

/// How much more than held is too much: of the program's own instructions, and of the libraries', which differ from one version of
/// the C library to the next.
const MARGIN: (f64, f64) = (0.05, 0.25);
/// How often it is tried to run both proxies.
const ATTEMPTS: u8 = 3;
/// Requests of each kind: in every run, and how many more in the run that counts them.
const REQUESTS: (u32, u32) = (100, 1000);
/// The numbers that hold, in the tree.
const HELD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// What they say of themselves.
const PREFACE: &str = "\
# Instructions of both proxies together for one request, counted by callgrind: the program's own, and those of the C library.
# `.ci/run instructions` fails on 5 % more of the first, 25 % of the second. After a change that is worth it:
# just instructions --update
";
const KINDS: [(&str, What, u16); 2] =
    [("http1", What::Http1(LENGTHS[0]), HTTP_PORT), ("grpc", What::Calls(1), CALLS_PORT)];

/// Counts, prints, and compares with the numbers in the tree, or writes those.
pub(crate) fn measure(proxy: &Path, update: bool) -> anyhow::Result<()> {
    Command::new("valgrind").arg("--version").output().context("start valgrind; install the package of this name")?;
    let before = tried(proxy, None)?;
    let mut counted = BTreeMap::new();
    for (name, what, _) in KINDS {
        let after = tried(proxy, Some(what))?;
        let each = |pick: fn(&Count) -> u64| pick(&after).saturating_sub(pick(&before)) / u64::from(REQUESTS.1);
        let count = Count { own: each(|count| count.own), others: each(|count| count.others) };
        mesh_measure::tell(&format!("{name}: {} instructions a request, and {} of libraries", count.own, count.others));
        counted.insert(name, count);
    }
    if update {
        let line = |(name, count): (&&str, &Count)| format!("{name} {} {}\n", count.own, count.others);
        let lines: String = counted.iter().map(line).collect();
        return fs::write(HELD, PREFACE.to_owned() + &lines).with_context(|| format!("write {HELD}"));
    }
    let held = fs::read_to_string(HELD).with_context(|| format!("read {HELD}"))?;
    let worse = worse(&parse(&held)?, &counted)?;
    anyhow::ensure!(
        worse.is_empty(),
        "more instructions than e2e/bench/instructions.txt holds: {}; find out why, or after a change that is worth it: \
         just instructions --update",
        worse.join("; ")
    );
    Ok(())
}

/// Lines of a name and two numbers.
fn parse(held: &str) -> anyhow::Result<BTreeMap<&str, Count>> {
    let lines = held.lines().filter(|line| !line.starts_with('#'));
    let parsed = lines.map(|line| {
        let mut words = line.split(' ');
        let name = words.next()?;
        let mut number = || words.next()?.parse().ok();
        Some((name, Count { own: number()?, others: number()? }))
    });
    parsed.collect::<Option<_>>().context("a line that is not a name and two numbers")
}

/// What has become dearer than it may.
fn worse(held: &BTreeMap<&str, Count>, counted: &BTreeMap<&str, Count>) -> anyhow::Result<Vec<String>> {
    let mut worse = Vec::new();
    for (name, count) in counted {
        let held = held.get(name).with_context(|| format!("no number for {name}"))?;
        for (whose, count, held, margin) in
            [("its own", count.own, held.own, MARGIN.0), ("of libraries", count.others, held.others, MARGIN.1)]
        {
            if count as f64 > held as f64 * (1.0 + margin) {
                let percent = (count as f64 / held as f64 - 1.0) * 100.0;
                worse.push(format!("{name}: {count} {whose} instead of {held} (+{percent:.1} %)"));
            }
        }
    }
    Ok(worse)
}

/// As [`run`]; once more where it fails, which a machine that does ten other things can make it do. What is counted depends on none
/// of them.
fn tried(proxy: &Path, more: Option<What>) -> anyhow::Result<Count> {
    for _ in 1..ATTEMPTS {
        match run(proxy, more) {
            Ok(counted) => return Ok(counted),
            Err(error) => mesh_measure::complain(&error.context("tries once more")),
        }
    }
    run(proxy, more)
}

/// Both proxies' instructions of a whole life with some requests of each kind, and more of one.
fn run(proxy: &Path, more: Option<What>) -> anyhow::Result<Count> {
    let directory = tempfile::tempdir()?;
    let wrapper = directory.path().join("mesh-proxy");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = run ] || exec '{proxy}' \"$@\"\n\
         exec valgrind --quiet --tool=callgrind --callgrind-out-file='{out}/%p.count' '{proxy}' \"$@\"\n",
        proxy = proxy.display(),
        out = directory.path().display(),
    );
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    // Everything takes fifty times as long: nothing may be given up for that.
    let running = Running::ours(
        &wrapper,
        &[(names::ENV_CONNECT_TIMEOUT_MS, "60000"), (names::ENV_APP_CONNECT_TIMEOUT_MS, "60000")],
    )?;
    let ask = |to: SocketAddr, what, requests| running.as_client(|| client::one_by_one(to, what, requests));
    for (_, what, port) in KINDS {
        let requests = REQUESTS.0 + if more == Some(what) { REQUESTS.1 } else { 0 };
        ask(running.to(port), what, requests)??;
    }
    let pids = running.end(Signal::SIGTERM)?;
    pids.iter()
        .map(|pid| {
            let path = directory.path().join(format!("{pid}.count"));
            let text =
                fs::read_to_string(&path).with_context(|| format!("read what valgrind counted of process {pid}"))?;
            callgrind::count(&text, proxy)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_more_is_too_much() {
        let held = format!("{PREFACE}grpc 1 1\nhttp1 1000 100\n");
        for (own, others, dearer) in [(500, 50, 0), (1000, 100, 0), (1050, 125, 0), (1051, 125, 1), (1060, 126, 2)] {
            let counted = BTreeMap::from([("http1", Count { own, others })]);
            assert_eq!(worse(&parse(&held).unwrap(), &counted).unwrap().len(), dearer, "{own} {others}");
        }
        let nobody = BTreeMap::from([("other", Count::default())]);
        assert!(worse(&parse(&held).unwrap(), &nobody).is_err(), "one that nobody holds");
        assert!(parse("http1 1000\n").is_err());
    }
}
