//! How many instructions and system calls one request costs in the two proxies: what does not depend on how busy a machine is, so that CI can hold it.
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

/// How much more than held is too much, of what is counted in this order. What the C library does itself differs from one version
/// of it to the next.
const MARGINS: [f64; 3] = [0.05, 0.25, 0.05];
/// In the same order.
const COUNTED: [&str; 3] = ["instructions of its own", "instructions of libraries", "system calls"];
/// How often it is tried to run both proxies.
const ATTEMPTS: u8 = 3;
/// Requests of each kind: in every run, and how many more in the run that counts them.
const REQUESTS: (u32, u32) = (100, 1000);
/// The numbers that hold, in the tree.
const HELD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// What they say of themselves.
const PREFACE: &str = "\
# What one request costs both proxies together, counted by callgrind: instructions of the program's own and of the C library, and
# calls of the kernel that read, write or wait. `.ci/run instructions` fails on 5 % more, 25 % of the second.
# After a change that is worth it: just instructions --update
";
/// What is counted, each, in the order of [`COUNTED`].
type Each = [f64; 3];
const KINDS: [(&str, What, u16); 2] =
    [("http1", What::Http1(LENGTHS[0]), HTTP_PORT), ("grpc", What::Calls(1), CALLS_PORT)];

/// Counts, prints, and compares with the numbers in the tree, or writes those.
pub(crate) fn measure(proxy: &Path, update: bool) -> anyhow::Result<()> {
    Command::new("valgrind").arg("--version").output().context("start valgrind; install the package of this name")?;
    let before = tried(proxy, None)?;
    let mut counted = BTreeMap::new();
    for (name, what, _) in KINDS {
        let after = tried(proxy, Some(what))?;
        let each = each(&before, &after);
        let told: Vec<String> =
            COUNTED.iter().zip(each).map(|(counted, each)| format!("{each:.1} {counted}")).collect();
        mesh_measure::tell(&format!("{name}: {} a request", told.join(", ")));
        counted.insert(name, each);
    }
    if update {
        let line =
            |(name, each): (&&str, &Each)| format!("{name} {}\n", each.map(|each| format!("{each:.1}")).join(" "));
        let lines: String = counted.iter().map(line).collect();
        return fs::write(HELD, PREFACE.to_owned() + &lines).with_context(|| format!("write {HELD}"));
    }
    let held = fs::read_to_string(HELD).with_context(|| format!("read {HELD}"))?;
    let worse = worse(&parse(&held)?, &counted)?;
    anyhow::ensure!(
        worse.is_empty(),
        "more than e2e/bench/instructions.txt holds: {}; find out why, or after a change that is worth it: \
         just instructions --update",
        worse.join("; ")
    );
    Ok(())
}

/// What the run with more requests did more, by request.
fn each(before: &Count, after: &Count) -> Each {
    let of = |count: &Count| [count.own, count.others, count.system_calls];
    let (before, after) = (of(before), of(after));
    std::array::from_fn(|i| after[i].saturating_sub(before[i]) as f64 / f64::from(REQUESTS.1))
}

/// Lines of a name and the numbers.
fn parse(held: &str) -> anyhow::Result<BTreeMap<&str, Each>> {
    let lines = held.lines().filter(|line| !line.starts_with('#'));
    let parsed = lines.map(|line| {
        let (name, numbers) = line.split_once(' ')?;
        let numbers: Option<Vec<f64>> = numbers.split(' ').map(|number| number.parse().ok()).collect();
        Some((name, numbers?.try_into().ok()?))
    });
    parsed.collect::<Option<_>>().context("a line that is not a name and three numbers")
}

/// What has become dearer than it may.
fn worse(held: &BTreeMap<&str, Each>, counted: &BTreeMap<&str, Each>) -> anyhow::Result<Vec<String>> {
    let mut worse = Vec::new();
    for (name, each) in counted {
        let held = held.get(name).with_context(|| format!("no number for {name}"))?;
        for (((counted, each), held), margin) in COUNTED.iter().zip(each).zip(held).zip(MARGINS) {
            if *each > held * (1.0 + margin) {
                let percent = (each / held - 1.0) * 100.0;
                worse.push(format!("{name}: {each:.1} {counted} instead of {held:.1} (+{percent:.1} %)"));
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
        let held = format!("{PREFACE}grpc 1 1 1\nhttp1 1000.0 100 4.5\n");
        for (counted, dearer) in [
            ([500.0, 50.0, 2.0], 0),
            ([1000.0, 100.0, 4.5], 0),
            ([1050.0, 125.0, 4.7], 0),
            ([1051.0, 125.0, 4.7], 1),
            ([1051.0, 126.0, 4.8], 3),
        ] {
            let counted = BTreeMap::from([("http1", counted)]);
            assert_eq!(worse(&parse(&held).unwrap(), &counted).unwrap().len(), dearer, "{counted:?}");
        }
        let nobody = BTreeMap::from([("other", Each::default())]);
        assert!(worse(&parse(&held).unwrap(), &nobody).is_err(), "one that nobody holds");
        assert!(parse("http1 1000\n").is_err());
    }
}
