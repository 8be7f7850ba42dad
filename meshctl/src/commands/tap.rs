//! `meshctl tap`: live requests and connections, one line for each that finished, by name.
//!
//! Every proxy filters what it can itself; `--to` and `--from` are about names that only we know, so they are decided
//! here. Lines of all proxies are merged as they come; a pod that comes while the tap runs is tapped too.

mod count;
mod crowd;
mod filter;
mod layout;
mod line;
mod names;
mod screen;
mod triple;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

pub(crate) use self::filter::{Except, header};
use self::{
    count::Tellers,
    crowd::{Crowd, News, reading},
    names::Names,
    screen::Screen,
};
use crate::{
    cli::{self, Output},
    cluster::{Cluster, PodInfo},
    commands::select,
    failure::{Exit, Failure},
    printer::{self, Printer},
};

/// Forms of a stream.
pub(crate) const FORMS: &[Output] = &[Output::Table, Output::Wide, Output::Line, Output::Json, Output::Ndjson];
/// After so long without a line the reason is worth a word.
const SILENCE: Duration = Duration::from_secs(5);
/// So long a tap that nobody tells any more waits for one who does: a workload that is restarted comes back.
const ALONE: Duration = Duration::from_mins(2);

pub(crate) async fn run(
    cluster: &Cluster,
    namespace: Option<&str>,
    args: &cli::Tap,
    printer: &Printer,
) -> Result<(), Failure> {
    let filter = filter::of_proxies(args)?;
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let interrupted = || Failure::new(Exit::Interrupted, "interrupted");
    let found = async {
        let all = cluster.pods(None).await?;
        let pods = meant(&all, namespace, args)?;
        if pods.is_empty() {
            return Err(Failure::new(Exit::NotFound, "no meshed pod to tap")
                .fix("meshctl list shows which pods are meshed and why not"));
        }
        let started = Instant::now();
        let before = join_all(pods.iter().map(|pod| reading(cluster, pod))).await;
        Ok::<_, Failure>((Names::new(&all), started, before, pods))
    };
    let (names, started, before, pods) = tokio::select! {
        found = found => found?,
        _ = &mut interrupt => return Err(interrupted()),
    };

    let tellers = Tellers::new(&pods, filter::names_a_service(args));
    let (mut crowd, news) = Crowd::new(cluster, filter);
    for (pod, before) in pods.into_iter().zip(before) {
        crowd.join(pod, before);
    }
    let mut screen = Screen::new(printer, names, tellers, args);
    let result = tokio::select! {
        result = follow(&mut screen, &mut crowd, namespace, news) => result,
        _ = &mut interrupt => Err(interrupted()),
    };
    if result.as_ref().is_err_and(printer::is_broken_pipe) {
        return result;
    }
    let (took, tapped) = (started.elapsed(), crowd.tapped());
    screen.sum_up(took, tapped, &crowd.readings().await);
    match result {
        Ok(()) if screen.shown == 0 && args.duration.is_some() => printer.nothing("nothing that matches has finished"),
        result => result,
    }
}

/// The meshed pods whose proxies are to be tapped.
fn meant(all: &[PodInfo], namespace: Option<&str>, args: &cli::Tap) -> Result<Vec<PodInfo>, Failure> {
    let in_namespace = all.iter().filter(|pod| namespace.is_none_or(|namespace| pod.namespace == namespace));
    let selected = select(in_namespace.cloned().collect(), args.resource.as_ref())?;
    Ok(selected.into_iter().filter(|pod| pod.meshed).collect())
}

/// Shows what comes until there is enough of it, or nobody is left to tell.
async fn follow(
    screen: &mut Screen<'_>,
    crowd: &mut Crowd,
    namespace: Option<&str>,
    mut news: mpsc::Receiver<News>,
) -> Result<(), Failure> {
    let (printer, duration) = (screen.printer, screen.args.duration);
    let deadline = async {
        match duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    let silence = sleep(SILENCE);
    tokio::pin!(silence);
    // Since when nobody tells, and why the last one does not.
    let mut alone: Option<(Instant, Failure)> = None;
    loop {
        let patience = alone.as_ref().map_or_else(Instant::now, |(since, _)| *since) + ALONE;
        tokio::select! {
            Some(news) = news.recv() => match news {
                News::Event(place, event) => {
                    screen.show(place, &event)?;
                    if screen.args.count.is_some_and(|count| screen.shown >= count) {
                        return Ok(());
                    }
                }
                News::Begun(place) => {
                    alone = None;
                    if crowd.begun(place) {
                        printer.say(format!("tap of pod {} goes on", crowd.name(place)));
                    }
                }
                News::Ended(place, failure) => {
                    if crowd.ended(place) {
                        printer.warn(format!("tap of pod {}: {}", crowd.name(place), failure.message));
                    }
                    if crowd.is_silent() && !crowd.has_begun() {
                        return Err(failure);
                    }
                    if crowd.is_silent() {
                        alone.get_or_insert((Instant::now(), failure));
                    }
                }
                News::Pods(all) => {
                    screen.learn(&all);
                    // That nothing is selected any more is no failure here: it may come back.
                    let (words, come) = crowd.follow(meant(&all, namespace, screen.args).unwrap_or_default());
                    for words in words {
                        printer.say(words);
                    }
                    for pod in &come {
                        screen.hear(pod);
                    }
                }
            },
            () = sleep_until(patience), if alone.is_some() => {
                return alone.map_or(Ok(()), |(_, failure)| Err(failure));
            }
            () = &mut silence, if !screen.explained => screen.explain_silence(crowd.tapped()),
            () = &mut deadline => return Ok(()),
        }
    }
}
