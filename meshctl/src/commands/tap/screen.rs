//! What a tap prints: its lines, the silence explained, and how much there was in the end.

use std::{fmt, time::Duration};

use mesh_proto::tap::{Direction, TapEvent};

use super::{
    count::Tellers,
    filter::Except,
    layout::Layout,
    line::Line,
    names::{End, Names},
    triple,
};
use crate::{
    cli::{self, Output},
    cluster::PodInfo,
    failure::Failure,
    golden::samples::Samples,
    printer::Printer,
    resource::Resource,
};

pub(super) struct Screen<'a> {
    pub(super) printer: &'a Printer,
    names: Names,
    tellers: Tellers,
    pub(super) args: &'a cli::Tap,
    pub(super) shown: u64,
    seen: u64,
    dropped: u64,
    header: bool,
    pub(super) explained: bool,
}

impl<'a> Screen<'a> {
    pub(super) fn new(printer: &'a Printer, names: Names, tellers: Tellers, args: &'a cli::Tap) -> Self {
        Self { printer, names, tellers, args, shown: 0, seen: 0, dropped: 0, header: false, explained: false }
    }

    /// Who is who now.
    pub(super) fn learn(&mut self, pods: &[PodInfo]) {
        self.names.learn(pods);
    }

    /// A proxy more that tells.
    pub(super) fn hear(&mut self, pod: &PodInfo) {
        self.tellers.hear(pod);
    }

    pub(super) fn show(&mut self, place: usize, event: &TapEvent) -> Result<(), Failure> {
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

    /// Says why nothing is to be seen, once.
    pub(super) fn explain_silence(&mut self, tapped: Tapped) {
        self.explained = true;
        let why = if self.seen == 0 {
            "no request or connection that matches has finished"
        } else {
            "traffic flows, but none of it is between those who are named"
        };
        self.printer.say(format!("waiting… tap runs on {tapped}; {why} (Ctrl-C ends)"));
    }

    /// The last line: how much there was beside what was shown, by the readings of each proxy before and after.
    pub(super) fn sum_up(&self, took: Duration, tapped: Tapped, readings: &[(Option<Samples>, Option<Samples>)]) {
        let both = readings.iter().filter_map(|(before, after)| before.as_ref().zip(after.as_ref()));
        let (read, ended) =
            both.fold((0, 0.0), |(read, sum), (before, after)| (read + 1, sum + self.tellers.ended(before, after)));
        let matched = self.shown + self.dropped;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
        let ended = matched.max(ended as u64);
        let least = if read < readings.len() { "at least " } else { "" };
        let hidden = if self.dropped > 0 { format!(", {} of them not shown", self.dropped) } else { String::new() };
        self.printer.say(format!(
            "{matched} of {least}{ended} requests and connections matched{hidden} in {:.1}s (tap ran on {tapped})",
            took.as_secs_f64(),
        ));
    }
}

/// How many of the proxies that were meant are tapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tapped {
    pub(super) of: usize,
    pub(super) pods: usize,
}

impl fmt::Display for Tapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} pods", self.of, self.pods)
    }
}
