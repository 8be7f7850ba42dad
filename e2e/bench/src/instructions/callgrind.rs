//! What callgrind writes (its format 1): costs by line, below the object and the function that they belong to.

use std::{collections::HashMap, iter::Sum, path::Path};

use anyhow::Context as _;

/// Instructions of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Of the program's own file.
    pub(super) own: u64,
    /// Of libraries.
    pub(super) others: u64,
}

impl Sum for Count {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self { own: sum.own + one.own, others: sum.others + one.others })
    }
}

/// What a process spent itself, by where; what it called is told once more behind each call, which does not count again.
pub(super) fn count(text: &str, program: &Path) -> anyhow::Result<Count> {
    let program = program.file_name().context("a program has a name")?;
    // Names are written out once, as `(number) name`, and then by number.
    let mut objects: HashMap<&str, bool> = HashMap::new();
    let (mut count, mut own, mut call) = (Count::default(), false, false);
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=").or_else(|| line.strip_prefix("cob=")) {
            let (number, name) = object.split_once(' ').unwrap_or((object, ""));
            if !name.is_empty() {
                objects.insert(number, Path::new(name).file_name() == Some(program));
            }
            if line.starts_with("ob=") {
                own = *objects.get(number).with_context(|| format!("an object without a name: {line}"))?;
            }
        } else if line.starts_with("calls=") {
            call = true;
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
cfn=(3) memcpy
calls=7 0
* 1000

ob=(3)
fn=(3)
-2 1000

totals: 1111
";

    #[test]
    fn what_a_function_spends_itself_counts_where_it_is() {
        let counted = count(WRITTEN, Path::new("/somewhere/mesh-proxy")).unwrap();
        assert_eq!(counted, Count { own: 110, others: 1001 });
    }

    #[test]
    fn a_file_that_was_cut_off_is_an_error() {
        let (cut, _) = WRITTEN.split_once("totals").unwrap();
        assert!(count(cut, Path::new("mesh-proxy")).is_err());
    }
}
