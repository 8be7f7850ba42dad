//! What callgrind writes (its format 1): costs by line, below the object and the function that they belong to.

use std::{collections::HashMap, iter::Sum, path::Path};

use anyhow::Context as _;

/// What one process did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Instructions of the program's own file.
    pub(super) own: u64,
    /// Instructions of libraries.
    pub(super) others: u64,
    /// How often it had the kernel read, write or wait.
    pub(super) system_calls: u64,
}

const SYSTEM_CALLS: &[&str] =
    &["read", "readv", "recv", "recvfrom", "recvmsg", "write", "writev", "send", "sendto", "sendmsg", "epoll_wait"];

impl Sum for Count {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            own: sum.own + one.own,
            others: sum.others + one.others,
            system_calls: sum.system_calls + one.system_calls,
        })
    }
}

/// What a process spent itself, by where; what it called is told once more behind each call, which does not count again.
pub(super) fn count(text: &str, program: &Path) -> anyhow::Result<Count> {
    let program = program.file_name().context("a program has a name")?;
    // Names are written out once, as `(number) name`, and then by number.
    let (mut objects, mut functions): (HashMap<&str, bool>, HashMap<&str, &str>) = (HashMap::new(), HashMap::new());
    let (mut count, mut own, mut call, mut called) = (Count::default(), false, false, "");
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=").or_else(|| line.strip_prefix("cob=")) {
            let (number, name) = object.split_once(' ').unwrap_or((object, ""));
            if !name.is_empty() {
                objects.insert(number, Path::new(name).file_name() == Some(program));
            }
            if line.starts_with("ob=") {
                own = *objects.get(number).with_context(|| format!("an object without a name: {line}"))?;
            }
        } else if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                functions.insert(number, name);
            }
            called = functions.get(number).copied().unwrap_or_default();
        } else if let Some(calls) = line.strip_prefix("calls=") {
            call = true;
            // What a library calls itself is how it does what it was asked for.
            let calls = calls.split(' ').next().and_then(|calls| calls.parse::<u64>().ok()).filter(|_| own);
            if SYSTEM_CALLS.contains(&called) {
                count.system_calls += calls.unwrap_or_default();
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
            if std::mem::take(&mut call) {
                continue;
            }
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            let cost = cost.with_context(|| format!("a line without its cost: {line}"))?;
            if own {
                count.own += cost;
            } else {
                count.others += cost;
            }
        }
    }
    let all = text.lines().rev().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<u64>().ok());
    let all = all.context("no total: it was not written to its end")?;
    anyhow::ensure!(count.own + count.others == all, "{count:?} is not the total, {all}");
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "\
# callgrind format
version: 1
positions: line
events: Ir
summary: 1111

ob=(1) /lib/ld.so
fl=(1) ???
fn=(1) start
0 1
cob=(2) /build/mesh-proxy
cfi=(1)
cfn=(2) main
calls=1 0
0 1110

ob=(2)
fn=(2)
0 10
+3 100
cob=(3) /lib/libc.so
cfn=(3) malloc
calls=7 0
* 900
cob=(3)
cfn=(4) recv
calls=2 0
* 100

ob=(3)
fn=(3)
-2 900
cfn=(3)
calls=20 0
* 900

fn=(4)
-2 100

totals: 1111
";

    #[test]
    fn what_a_function_spends_itself_counts_where_it_is() {
        let counted = count(WRITTEN, Path::new("/somewhere/mesh-proxy")).unwrap();
        assert_eq!(counted, Count { own: 110, others: 1001, system_calls: 2 });
    }

    #[test]
    fn a_file_that_was_cut_off_is_an_error() {
        let (cut, _) = WRITTEN.split_once("totals").unwrap();
        assert!(count(cut, Path::new("mesh-proxy")).is_err());
    }
}
