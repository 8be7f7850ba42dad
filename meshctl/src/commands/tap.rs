//! `meshctl tap`: live requests and connections, one line for each that finished, by name.
//!
//! Every proxy filters what it can itself; `--to` and `--from` are about names that only we know, so they are decided
//! here. Lines of all proxies are merged as they come.

mod count;
mod filter;
mod layout;
mod line;
mod names;
mod triple;

use std::time::Duration;

use futures_util::future::join_all;
use mesh_proto::tap::{Direction, TapEvent, TapFilter};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

pub(crate) use self::filter::{Except, header};
use self::{
    count::Tellers,
    layout::Layout,
    line::Line,
    names::{End, Names},
};
use crate::{
    cli::{self, Output},
    cluster::{Cluster, PodInfo},
    commands::{admin, select},
    failure::{Exit, Failure},
    golden::samples::Samples,
    printer::{self, Printer},
    resource::Resource,
};

/// Forms of a stream.
pub(crate) const FORMS: &[Output] = &[Output::Table, Output::Wide, Output::Line, Output::Json, Output::Ndjson];
/// Lines that wait for a slow terminal; beyond, proxies wait and then drop and count.
const QUEUE: usize = 1_024;
/// After so long without a line the reason is worth a word.
const SILENCE: Duration = Duration::from_secs(5);
/// Longest that the count in the last line may keep a person who wants to see something, or to leave.
const READING: Duration = Duration::from_secs(1);

/// What a proxy showed, and which: its place among the tapped.
type Seen = (usize, TapEvent);
/// A proxy that is tapped no more, and why.
type Ended = Result<(), (String, Failure)>;

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
        let (names, pods) = find(cluster, namespace, args).await?;
        Ok::<_, Failure>((names, Instant::now(), readings(cluster, &pods).await, pods))
    };
    let (names, started, before, pods) = tokio::select! {
        found = found => found?,
        _ = &mut interrupt => return Err(interrupted()),
    };

    let (sender, events) = mpsc::channel(QUEUE);
    let mut watches = JoinSet::new();
    for (place, pod) in pods.iter().enumerate() {
        watches.spawn(watch(cluster.clone(), place, pod.clone(), filter.clone(), sender.clone()));
    }
    drop(sender);

    let tellers = Tellers::new(&pods, filter::names_a_service(args));
    let mut screen = Screen::new(printer, names, tellers, args, pods.len());
    let result = tokio::select! {
        result = follow(&mut screen, events, &mut watches) => result,
        _ = &mut interrupt => Err(interrupted()),
    };
    if result.as_ref().is_err_and(printer::is_broken_pipe) {
        return result;
    }
    let took = started.elapsed();
    let after = readings(cluster, &pods).await;
    screen.sum_up(took, &before, &after);
    match result {
        Ok(()) if screen.shown == 0 && args.duration.is_some() => printer.nothing("nothing that matches has finished"),
        result => result,
    }
}

/// Who is who, and the meshed pods whose proxies are tapped.
async fn find(cluster: &Cluster, namespace: Option<&str>, args: &cli::Tap) -> Result<(Names, Vec<PodInfo>), Failure> {
    let all = cluster.pods(None).await?;
    let names = Names::new(&all);
    let in_namespace = all.into_iter().filter(|pod| namespace.is_none_or(|namespace| pod.namespace == namespace));
    let selected = select(in_namespace.collect(), args.resource.as_ref())?;
    let pods: Vec<PodInfo> = selected.into_iter().filter(|pod| pod.meshed).collect();
    if pods.is_empty() {
        return Err(Failure::new(Exit::NotFound, "no meshed pod to tap")
            .fix("meshctl list shows which pods are meshed and why not"));
    }
    Ok((names, pods))
}

/// Shows what comes until there is enough of it, or nobody is left to tell.
async fn follow(
    screen: &mut Screen<'_>,
    mut events: mpsc::Receiver<Seen>,
    watches: &mut JoinSet<Ended>,
) -> Result<(), Failure> {
    let duration = screen.args.duration;
    let deadline = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    let silence = tokio::time::sleep(SILENCE);
    tokio::pin!(silence);
    loop {
        tokio::select! {
            Some((place, event)) = events.recv() => {
                screen.show(place, &event)?;
                if screen.args.count.is_some_and(|count| screen.shown >= count) {
                    return Ok(());
                }
            }
            Some(ended) = watches.join_next() => {
                if let Ok(Err((pod, failure))) = ended {
                    screen.printer.warn(format!("tap of pod {pod}: {}", failure.message));
                    screen.lost += 1;
                    if screen.lost == screen.pods {
                        return Err(failure);
                    }
                }
            }
            () = &mut silence, if !screen.explained => screen.explain_silence(),
            () = &mut deadline => return Ok(()),
            else => return Ok(()),
        }
    }
}

/// What every proxy has counted; none where it did not say.
async fn readings(cluster: &Cluster, pods: &[PodInfo]) -> Vec<Option<Samples>> {
    let read = |pod| async move {
        let page = tokio::time::timeout(READING, admin::get(cluster, pod, "/metrics")).await;
        page.ok()?.ok().map(|text| Samples::parse(&text))
    };
    join_all(pods.iter().map(read)).await
}

async fn watch(cluster: Cluster, place: usize, pod: PodInfo, filter: TapFilter, events: mpsc::Sender<Seen>) -> Ended {
    let name = format!("{}/{}", pod.namespace, pod.name);
    let failed = |failure: Failure| (name.clone(), failure);
    let unreachable = |error: mesh_proto::client::CallError| Failure::new(Exit::Unreachable, error.to_string());
    let limit = cluster.limit();
    let begun = tokio::time::timeout(limit, async {
        let mut client = admin::tap(&cluster, &pod).await?;
        client.watch(filter.clone()).await.map_err(unreachable)
    });
    let late = || {
        Failure::new(Exit::TimedOut, format!("timed out: the proxy did not answer within {limit:?}"))
            .fix(format!("meshctl check{} --proxy -o short says what is wrong there", cluster.option()))
    };
    let mut stream = begun.await.unwrap_or_else(|_| Err(late())).map_err(failed)?;
    while let Some(event) = stream.next().await.map_err(|error| failed(unreachable(error)))? {
        // A proxy of an older release does not know every filter.
        if filter.matches(&event) && events.send((place, event)).await.is_err() {
            return Ok(());
        }
    }
    Err(failed(Failure::new(Exit::Unreachable, "the proxy ended the tap")))
}

struct Screen<'a> {
    printer: &'a Printer,
    names: Names,
    tellers: Tellers,
    args: &'a cli::Tap,
    /// Proxies that are tapped, and those of them that are no more.
    pods: usize,
    lost: usize,
    shown: u64,
    seen: u64,
    dropped: u64,
    header: bool,
    explained: bool,
}

impl<'a> Screen<'a> {
    fn new(printer: &'a Printer, names: Names, tellers: Tellers, args: &'a cli::Tap, pods: usize) -> Self {
        Self {
            printer,
            names,
            tellers,
            args,
            pods,
            lost: 0,
            shown: 0,
            seen: 0,
            dropped: 0,
            header: false,
            explained: false,
        }
    }

    fn show(&mut self, place: usize, event: &TapEvent) -> Result<(), Failure> {
        self.seen += 1;
        if event.dropped > 0 {
            self.dropped += event.dropped;
            self.printer
                .say(format!("{} more requests matched than --max-rps {} shows", event.dropped, self.args.max_rps));
        }
        let line = Line::new(&self.names, event);
        if !self.is_told_here(event, &line) || !self.is_wanted(&line) {
            return Ok(());
        }
        self.shown += 1;
        self.explained = true;
        match self.printer.output {
            Output::Json | Output::Ndjson => self.printer.line(&line),
            Output::Line => self.printer.data(&triple::text(&line, place, self.shown)),
            output => {
                let layout = Layout::new(output == Output::Wide, self.printer.width());
                if !self.header && self.printer.headers {
                    self.header = true;
                    self.printer.data(&Line::header(layout))?;
                }
                self.printer.data(&line.text(layout, self.printer.color()))
            }
        }
    }

    /// A request between two meshed pods is seen by both proxies. It is shown once: by the server's, which knows the
    /// application's answer; by the client's where the server's never saw it, is not tapped, or does not know enough.
    fn is_told_here(&self, event: &TapEvent, line: &Line) -> bool {
        match event.direction {
            Direction::Inbound => self.tellers.is_told_by_server(),
            Direction::Outbound if !event.tls || !event.outcome.is_empty() => true,
            Direction::Outbound => {
                let (namespace, workload) = line.destination.workload();
                self.tellers.is_told_by_client(&namespace, &workload)
            }
        }
    }

    /// Whether it is between those who are named.
    fn is_wanted(&self, line: &Line) -> bool {
        let about = |resource: &Option<Resource>, end: &End| resource.as_ref().is_none_or(|resource| end.is(resource));
        let left_out = self.args.except.iter().any(|except| match except {
            Except::To(resource) => line.destination.is(resource),
            Except::From(resource) => line.source.is(resource),
            // The proxy has decided it.
            Except::Seen(_) => false,
        });
        about(&self.args.to, &line.destination) && about(&self.args.from, &line.source) && !left_out
    }

    fn explain_silence(&mut self) {
        self.explained = true;
        let why = if self.seen == 0 {
            "no request or connection that matches has finished"
        } else {
            "traffic flows, but none of it is between those who are named"
        };
        let pods = self.pods - self.lost;
        self.printer.say(format!("waiting… tap runs on {pods} of {} pods; {why} (Ctrl-C ends)", self.pods));
    }

    /// The last line: how much there was beside what was shown.
    fn sum_up(&self, took: Duration, before: &[Option<Samples>], after: &[Option<Samples>]) {
        let both = before.iter().zip(after).filter_map(|(before, after)| before.as_ref().zip(after.as_ref()));
        let (read, ended) =
            both.fold((0, 0.0), |(read, sum), (before, after)| (read + 1, sum + self.tellers.ended(before, after)));
        let matched = self.shown + self.dropped;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
        let ended = matched.max(ended as u64);
        let least = if read < self.pods { "at least " } else { "" };
        let hidden = if self.dropped > 0 { format!(", {} of them not shown", self.dropped) } else { String::new() };
        self.printer.say(format!(
            "{matched} of {least}{ended} requests and connections matched{hidden} in {:.1}s (tap ran on {} of {} pods)",
            took.as_secs_f64(),
            self.pods - self.lost,
            self.pods
        ));
    }
}
