//! The access log: every finished request and connection as one JSON object on one line, off unless asked for.
//!
//! Workers append lines to one bounded buffer and never wait; one thread writes it out. What does not fit, because nobody
//! reads the output, is dropped and counted. Fields are those of `meshctl tap -o ndjson`: no header, no query. Every
//! character that is not printable ASCII is escaped, so that no client can begin a line, or reach a terminal, of its own.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
    thread,
    time::Duration,
};

use mesh_proto::{
    identity::Identity,
    tap::{TapEvent, TapRequestInfo},
    workload::PodRef,
};
use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

/// Most bytes of lines that wait for the writer: some 2 000 requests, a quarter of a second of a busy proxy.
const MAX_WAITING: usize = 1024 * 1024;

/// Takes lines; clones write the same log.
#[derive(Clone)]
pub struct AccessLog(Arc<Shared>);

struct Shared {
    /// `namespace` and name of the pod: what is at the near end of inbound requests.
    own: (String, String),
    waiting: Mutex<Waiting>,
    changed: Condvar,
    lines: Counter,
    dropped: Counter,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// No line comes any more.
    ended: bool,
    /// The writer has ended.
    written: bool,
}

/// What is counted of it.
pub(crate) struct Counters {
    lines: Counter,
    dropped: Counter,
}

impl Counters {
    pub(crate) fn register(metrics: &mesh_runtime::metrics::Metrics) -> Self {
        let new = Self { lines: Counter::default(), dropped: Counter::default() };
        let help = "lines given to the access log, where it is on";
        metrics.register("access_log_lines", help, &[], new.lines.clone());
        let help = "lines of the access log that were dropped, because nobody took them off in time";
        metrics.register("access_log_dropped", help, &[], new.dropped.clone());
        new
    }
}

/// The thread that writes; [`Writer::finish`] ends it.
#[must_use]
pub struct Writer(Arc<Shared>);

impl AccessLog {
    /// Begins to write to `out`, for the pod `own` (`namespace`, name).
    pub fn start(
        own: (String, String),
        out: impl Write + Send + 'static,
        metrics: &mesh_runtime::metrics::Metrics,
    ) -> io::Result<(Self, Writer)> {
        let Counters { lines, dropped } = Counters::register(metrics);
        let (waiting, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { own, waiting, changed, lines, dropped });
        let writing = Arc::clone(&shared);
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writing.write_out(out))?;
        Ok((Self(Arc::clone(&shared)), Writer(shared)))
    }

    /// Writes a line, or counts it as dropped.
    pub(crate) fn write(&self, event: &TapEvent, trace: Option<&str>) {
        let line = line(event, &self.0.own, trace);
        let mut waiting = self.0.waiting.lock();
        if waiting.ended || waiting.lines.len() + line.len() > MAX_WAITING {
            self.0.dropped.inc();
            return;
        }
        self.0.lines.inc();
        let was_empty = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(&line);
        drop(waiting);
        if was_empty {
            self.0.changed.notify_all();
        }
    }
}

impl Shared {
    fn write_out(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.waiting.lock();
            self.changed.wait_while(&mut waiting, |waiting| waiting.lines.is_empty() && !waiting.ended);
            std::mem::swap(&mut lines, &mut waiting.lines);
            let last = waiting.ended;
            drop(waiting);
            if let Err(error) = out.write_all(&lines).and_then(|()| out.flush()) {
                tracing::warn!(%error, "the access log ends: its output cannot be written");
                self.end();
                return;
            }
            lines.clear();
            if last {
                self.end();
                return;
            }
        }
    }

    fn end(&self) {
        let mut waiting = self.waiting.lock();
        (waiting.ended, waiting.written) = (true, true);
        drop(waiting);
        self.changed.notify_all();
    }
}

impl Writer {
    /// Waits until every line is written, but not longer than `limit`. Whether all of them are.
    pub fn finish(self, limit: Duration) -> bool {
        let mut waiting = self.0.waiting.lock();
        waiting.ended = true;
        self.0.changed.notify_all();
        !self.0.changed.wait_while_for(&mut waiting, |waiting| !waiting.written, limit).timed_out()
    }
}

/// One line, as it is written. Absent: what is not known, or does not apply.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: String,
    direction: &'static str,
    protocol: &'static str,
    source: End<'a>,
    destination: End<'a>,
    #[serde(flatten)]
    request: Option<Request<'a>>,
    latency_us: u64,
    bytes_in: u64,
    bytes_out: u64,
    tls: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    outcome: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    route: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

#[derive(Serialize)]
struct End<'a> {
    address: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u32>,
}

fn line(event: &TapEvent, own: &(String, String), trace_id: Option<&str>) -> Vec<u8> {
    use mesh_proto::tap::Direction::{Inbound, Outbound};
    let far = |pod: &'_ PodRef| (pod.namespace.to_string(), pod.name.to_string());
    let pod = match event.direction {
        Inbound => Some(own.clone()),
        Outbound => event.destination_pod.as_ref().map(far),
    };
    let service = event.service.as_ref();
    let request = event.request.as_ref();
    let line = Line {
        time: timestamp(event.started_us),
        direction: event.direction.as_str(),
        protocol: request.map_or("tcp", |request| if request.http2 { "http2" } else { "http1" }),
        source: End {
            address: event.source,
            namespace: match event.direction {
                Inbound => event.source_identity.as_ref().map(Identity::namespace),
                Outbound => Some(&own.0),
            },
            service: None,
            pod: (event.direction == Outbound).then_some(&own.1),
            workload: None,
            identity: event.source_identity.as_ref().map(Identity::as_str),
        },
        destination: End {
            address: event.destination,
            namespace: service
                .map(|service| &*service.namespace)
                .or(pod.as_ref().map(|(namespace, _)| namespace.as_str())),
            service: service.map(|service| &*service.name),
            pod: pod.as_ref().map(|(_, name)| name.as_str()),
            workload: event.destination_pod.as_ref().and_then(|pod| pod.workload.as_deref()),
            identity: event.destination_identity.as_ref().map(Identity::as_str),
        },
        request: request.map(|request: &TapRequestInfo| Request {
            method: &request.method,
            path: &request.path,
            authority: &request.authority,
            status: request.status,
            grpc_status: request.grpc_status,
        }),
        latency_us: event.latency_us,
        bytes_in: event.bytes_in,
        bytes_out: event.bytes_out,
        tls: event.tls,
        outcome: &event.outcome,
        route: &event.route,
        trace_id,
    };
    let mut bytes = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Ascii);
    line.serialize(&mut serializer).expect("invariant: texts and numbers go into a Vec");
    bytes.push(b'\n');
    bytes
}

fn timestamp(microseconds: u64) -> String {
    let time = i64::try_from(microseconds).ok().and_then(|time| jiff::Timestamp::from_microsecond(time).ok());
    time.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// JSON in printable ASCII: what follows a `\u` cannot end a line in anybody's eyes (DEL, NEL, U+2028 and the like).
struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(start) = rest.find(|c: char| !(' '..='~').contains(&c)) {
            writer.write_all(&rest.as_bytes()[..start])?;
            let special = rest[start..].chars().next().expect("invariant: it was found there");
            for unit in special.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[start + special.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use mesh_proto::{tap::Direction, workload::ServicePort};

    use super::*;

    fn event(path: &str) -> TapEvent {
        let (source, destination) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:8080".parse().unwrap());
        TapEvent {
            started_us: 1_763_716_800_000_042,
            latency_us: 1500,
            source_identity: Some(Identity::new("cluster.local", "shop", "load").unwrap()),
            destination_pod: Some(PodRef {
                namespace: "shop".into(),
                name: "web-1".into(),
                workload: Some("deployment/web".into()),
            }),
            service: Some(ServicePort { namespace: "shop".into(), name: "web".into(), port: 80 }),
            tls: true,
            bytes_in: 3,
            bytes_out: 4,
            request: Some(TapRequestInfo {
                method: "GET".into(),
                path: path.into(),
                authority: "web".into(),
                status: Some(200),
                ..TapRequestInfo::default()
            }),
            ..TapEvent::between(Direction::Outbound, source, destination)
        }
    }

    fn own() -> (String, String) {
        ("shop".to_owned(), "load-1".to_owned())
    }

    #[test]
    fn a_line_says_who_what_and_how_it_ended() {
        let text = String::from_utf8(line(&event("/items"), &own(), Some("abc"))).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"time":"2025-11-21T09:20:00.000042Z","direction":"outbound","protocol":"http1","#,
                r#""source":{"address":"10.0.0.1:4000","namespace":"shop","pod":"load-1","#,
                r#""identity":"spiffe://cluster.local/ns/shop/sa/load"},"#,
                r#""destination":{"address":"10.0.0.2:8080","namespace":"shop","service":"web","pod":"web-1","#,
                r#""workload":"deployment/web"},"#,
                r#""method":"GET","path":"/items","authority":"web","status":200,"#,
                r#""latencyUs":1500,"bytesIn":3,"bytesOut":4,"tls":true,"traceId":"abc"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn nothing_in_a_request_can_begin_a_line_or_reach_a_terminal() {
        let hostile = "/\"\\\n\r\t\u{0}\u{1b}[2J\u{7f}\u{85}\u{9b}\u{2028}\u{202e}\u{1f4a9}é";
        let bytes = line(&event(hostile), &own(), None);
        let (last, rest) = bytes.split_last().unwrap();
        assert_eq!(*last, b'\n');
        assert!(rest.iter().all(|byte| (b' '..=b'~').contains(byte)), "{}", String::from_utf8_lossy(rest));
        let read: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read["path"], hostile);
    }

    /// Hands on what is written, once somebody takes it.
    struct Slow(mpsc::SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_counted_and_the_rest_arrives_whole() {
        let metrics = mesh_runtime::metrics::Metrics::new();
        let (sender, taken) = mpsc::sync_channel(0);
        let (log, writer) = AccessLog::start(own(), Slow(sender), &metrics).unwrap();
        let path = format!("/{}", "x".repeat(1000));
        for _ in 0..3000 {
            log.write(&event(&path), None);
        }
        let count = |name: &str| {
            let page = metrics.encode();
            let value = page.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
            value.parse::<usize>().unwrap()
        };
        let (lines, dropped) = (count("access_log_lines_total"), count("access_log_dropped_total"));
        assert!(dropped > 500 && lines + dropped == 3000, "{lines} {dropped}");
        let reader = thread::spawn(move || taken.iter().flatten().collect::<Vec<u8>>());
        assert!(writer.finish(Duration::from_secs(20)));
        let text = String::from_utf8(reader.join().unwrap()).unwrap();
        assert_eq!(text.lines().count(), lines);
        assert!(text.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
    }

    #[test]
    fn an_output_that_is_closed_or_stuck_holds_nobody_up() {
        let metrics = mesh_runtime::metrics::Metrics::new();
        let (sender, taken) = mpsc::sync_channel(0);
        let (log, writer) = AccessLog::start(own(), Slow(sender), &metrics).unwrap();
        log.write(&event("/"), None);
        assert!(!writer.finish(Duration::from_millis(1)), "nobody has taken the line");
        drop(taken);
        log.write(&event("/"), None);
        assert!(metrics.encode().contains("access_log_dropped_total 1"));
    }
}
