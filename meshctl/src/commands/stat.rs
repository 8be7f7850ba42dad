//! `meshctl stat`: success, rate and latency of each workload, from two readings of proxies' own counters.
//!
//! A workload's numbers are those of its own proxies, as servers. Between whom is what clients know: `--to`, `--from` and
//! `--by backend` read the clients' proxies instead. [`lines`] decides, [`row`] shows; here is the reading and the rounds.

mod lines;
mod row;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IsTerminal as _},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::Instant;

pub(crate) use self::{lines::By, row::Sort};
use self::{lines::Question, row::Row};
use crate::{
    cli::{self, Output},
    cluster::{Cluster, PodInfo},
    commands::{admin, pages::Unread},
    failure::Failure,
    golden::samples::Samples,
    printer::Printer,
};

/// Forms of a stream of rounds; once there are all of a list.
pub(crate) const ROUNDS: &[Output] = &[Output::Table, Output::Wide, Output::Ndjson];
/// To the corner, and nothing below it.
const REDRAW: &str = "\x1b[H\x1b[2J";

/// What proxies had counted at one time.
struct Reading {
    at: Instant,
    /// Every pod that is looked at, meshed or not.
    pods: Vec<PodInfo>,
    /// Of the proxies that are read, by namespace and pod.
    proxies: BTreeMap<(String, String), Result<Samples, Failure>>,
}

pub(crate) async fn run(
    cluster: &Cluster,
    namespace: Option<&str>,
    args: &cli::Stat,
    printer: &Printer,
) -> Result<(), Failure> {
    let question = Question::new(namespace, args)?;
    let waiting = printer.waiting(&format!("watching for {:?}…", args.window));
    let mut before = Reading::take(cluster, &question, None).await?;
    let mut told = BTreeSet::new();
    for round in 0_u64.. {
        tokio::time::sleep(args.window).await;
        let after = Reading::take(cluster, &question, Some(&before).filter(|_| !args.watch)).await?;
        let mut rows = lines::rows(&question, &before, &after);
        row::sort(&mut rows, args.sort);
        waiting.end();
        let unread = warn(cluster, &before, &after, &mut told, printer);
        show(&rows, round, args, &question, printer)?;
        if !args.watch {
            return unread.done();
        }
        before = after;
    }
    Ok(())
}

impl Reading {
    /// Who has not answered `before` is not waited for again.
    async fn take(cluster: &Cluster, question: &Question<'_>, before: Option<&Self>) -> Result<Self, Failure> {
        let pods = cluster.pods(question.namespace_to_list()).await?;
        let selected = question.select(pods)?;
        // Of those who answer at once, which is nearly all.
        let at = Instant::now();
        let read = |pod: PodInfo| async move {
            let name = (pod.namespace.clone(), pod.name.clone());
            if let Some(Err(failure)) = before.and_then(|before| before.proxies.get(&name)) {
                return (name, Err(failure.clone()));
            }
            let text = admin::get(cluster, &pod, "/metrics").await;
            (name, text.map(|text| Samples::parse(&text)))
        };
        let proxies = join_all(selected.proxies.into_iter().map(read)).await.into_iter().collect();
        Ok(Self { at, pods: selected.pods, proxies })
    }

    /// The proxies that were read both times. One that came or went in between has nothing to say yet, or no more.
    fn both<'a>(
        before: &'a Self,
        after: &'a Self,
    ) -> impl Iterator<Item = (&'a (String, String), &'a Samples, &'a Samples)> {
        after.proxies.iter().filter_map(|(pod, after)| {
            let before = before.proxies.get(pod)?.as_ref().ok()?;
            Some((pod, before, after.as_ref().ok()?))
        })
    }
}

/// Says which proxies could not be read, each once.
fn warn(
    cluster: &Cluster,
    before: &Reading,
    after: &Reading,
    told: &mut BTreeSet<(String, String)>,
    printer: &Printer,
) -> Unread {
    let mut unread = Unread::of(cluster, after.proxies.len());
    for (pod, reading) in after.proxies.iter().chain(&before.proxies) {
        let Err(failure) = reading else { continue };
        if told.insert(pod.clone()) {
            unread.add(&pod.0, &pod.1, failure.clone(), printer);
        }
    }
    unread
}

fn show(rows: &[Row], round: u64, args: &cli::Stat, question: &Question<'_>, printer: &Printer) -> Result<(), Failure> {
    if rows.is_empty() && (round == 0 || !args.watch) {
        printer.nothing(question.nothing())?;
    }
    if args.watch && printer.output != Output::Ndjson {
        if io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb") {
            printer.data(REDRAW)?;
        } else if round > 0 {
            printer.data("\n")?;
        }
    }
    printer.list("StatList", rows, |wide| row::table(rows, wide))
}

/// Between two readings.
fn window(before: &Reading, after: &Reading) -> Duration {
    after.at.duration_since(before.at)
}
