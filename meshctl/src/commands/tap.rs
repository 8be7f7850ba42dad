//! `meshctl tap`: live requests and connections, one line for each that finished, by name.
//!
//! Every proxy filters what it can itself; `--to` and `--from` are about names that only we know, so they are decided
//! here. Lines of all proxies are merged as they come.

mod line;

use std::time::Duration;

use mesh_proto::tap::{Direction, TapEvent, TapFilter};
use tokio::sync::mpsc;

use self::line::{Line, Names};
use crate::{
    cli::{self, Output},
    cluster::{Cluster, PodInfo},
    commands::{admin, select},
    failure::{Exit, Failure},
    printer::Printer,
};

/// Lines that wait for a slow terminal; beyond, proxies wait and then drop and count.
const QUEUE: usize = 1_024;
/// After so long without a line the reason is worth a word.
const SILENCE: Duration = Duration::from_secs(5);

pub(crate) async fn run(
    cluster: &Cluster,
    namespace: Option<&str>,
    args: &cli::Tap,
    printer: &Printer,
) -> Result<(), Failure> {
    let all = cluster.pods(None).await?;
    let names = Names::new(&all);
    let in_namespace = all.into_iter().filter(|pod| namespace.is_none_or(|namespace| pod.namespace == namespace));
    let pods: Vec<PodInfo> =
        select(in_namespace.collect(), args.resource.as_ref())?.into_iter().filter(|pod| pod.meshed).collect();
    if pods.is_empty() {
        return Err(Failure::new(Exit::NotFound, "no meshed pod to tap")
            .fix("meshctl list shows which pods are meshed and why not"));
    }

    let (sender, mut events) = mpsc::channel(QUEUE);
    let mut watches = tokio::task::JoinSet::new();
    for pod in &pods {
        watches.spawn(watch(cluster.clone(), pod.clone(), filter(args), sender.clone()));
    }
    drop(sender);

    let mut screen = Screen { printer, names, args, shown: 0, seen: 0, header: false, explained: false };
    let deadline = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    let mut failures = Vec::new();
    loop {
        tokio::select! {
            Some(event) = events.recv() => {
                screen.show(&event)?;
                if args.count.is_some_and(|count| screen.shown >= count) {
                    return Ok(());
                }
            }
            Some(ended) = watches.join_next() => {
                if let Ok(Err((pod, failure))) = ended {
                    printer.say(format!("warning: tap of pod {pod}: {}", failure.message));
                    failures.push(failure);
                    if failures.len() == pods.len() {
                        return Err(failures.remove(0));
                    }
                }
            }
            () = tokio::time::sleep(SILENCE), if screen.shown == 0 && !screen.explained => {
                screen.explain_silence(pods.len() - failures.len());
            }
            () = &mut deadline => return Ok(()),
            else => return Ok(()),
        }
    }
}

/// What the proxies themselves can decide.
fn filter(args: &cli::Tap) -> TapFilter {
    TapFilter {
        direction: None,
        method: args.method.as_ref().map(|method| method.to_uppercase()),
        path_prefix: args.path.clone(),
        authority: args.authority.clone(),
        status: args.status.map(|range| (range.0, range.1)),
        latency_min_us: args.latency.map_or(0, |floor| u64::try_from(floor.0.as_micros()).unwrap_or(u64::MAX)),
        max_per_second: args.max_rps,
    }
}

async fn watch(
    cluster: Cluster,
    pod: PodInfo,
    filter: TapFilter,
    events: mpsc::Sender<TapEvent>,
) -> Result<(), (String, Failure)> {
    let name = format!("{}/{}", pod.namespace, pod.name);
    let failed = |failure: Failure| (name.clone(), failure);
    let unreachable = |error: mesh_proto::client::CallError| Failure::new(Exit::Unreachable, error.to_string());
    let mut client = admin::tap(&cluster, &pod).await.map_err(failed)?;
    let mut stream = client.watch(filter).await.map_err(|error| failed(unreachable(error)))?;
    while let Some(event) = stream.next().await.map_err(|error| failed(unreachable(error)))? {
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
    Err(failed(Failure::new(Exit::Unreachable, "the proxy ended the tap")))
}

/// A request between two meshed pods is seen by both proxies. It is shown once: by the server's, which knows the
/// application's answer; by the client's where the server's never saw it.
fn is_told_here(event: &TapEvent) -> bool {
    event.direction == Direction::Inbound || !event.tls || !event.outcome.is_empty()
}

struct Screen<'a> {
    printer: &'a Printer,
    names: Names,
    args: &'a cli::Tap,
    shown: u64,
    seen: u64,
    header: bool,
    explained: bool,
}

impl Screen<'_> {
    fn show(&mut self, event: &TapEvent) -> Result<(), Failure> {
        self.seen += 1;
        if event.dropped > 0 {
            self.printer
                .say(format!("{} more requests matched than --max-rps {} shows", event.dropped, self.args.max_rps));
        }
        let line = self.names.line(event);
        let about = |resource: &Option<crate::resource::Resource>, end: &line::End| {
            resource.as_ref().is_none_or(|resource| end.is(resource))
        };
        if !is_told_here(event) || !about(&self.args.to, &line.destination) || !about(&self.args.from, &line.source) {
            return Ok(());
        }
        self.shown += 1;
        match self.printer.output {
            Output::Json | Output::Ndjson => self.printer.line(&line),
            output => {
                let wide = output == Output::Wide;
                if !self.header && self.printer.headers {
                    self.header = true;
                    self.printer.data(&Line::header(wide))?;
                }
                self.printer.data(&line.text(wide, self.printer.color()))
            }
        }
    }

    fn explain_silence(&mut self, pods: usize) {
        self.explained = true;
        let why = if self.seen == 0 {
            "no request or connection that matches has finished"
        } else {
            "traffic flows, but --to or --from match none of it"
        };
        self.printer.say(format!("waiting… tap runs on {pods} pods; {why} (Ctrl-C ends)"));
    }
}
