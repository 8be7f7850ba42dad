//! One finished request or connection as a line of text or JSON, with names in place of addresses. Pure.

use std::time::Duration;

use mesh_proto::tap::{Direction, TapEvent, TapHeader};
use serde::Serialize;

use super::{
    layout::{ERROR, Layout},
    names::{End, Names},
};
use crate::{
    filter::{show_bytes, show_latency},
    printer::table::{Tone, clean},
};

/// One finished request or connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    /// RFC 3339, UTC.
    time: String,
    /// The side that tells: `inbound` or `outbound`.
    pub(super) direction: &'static str,
    pub(super) source: End,
    pub(super) destination: End,
    protocol: &'static str,
    pub(super) method: Option<String>,
    path: Option<String>,
    /// Only where `--show-query` asks for it.
    query: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) status: Option<u16>,
    grpc: bool,
    pub(super) grpc_status: Option<u32>,
    pub(super) latency_us: u64,
    /// Until the answer began.
    pub(super) answered_us: Option<u64>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) tls: bool,
    /// Code of the outcome where the mesh itself answered or closed.
    pub(super) outcome: Option<String>,
    route: Option<String>,
    /// Only those that `--show-header` names.
    pub(super) request_headers: Option<Vec<Header>>,
    pub(super) response_headers: Option<Vec<Header>>,
}

/// A header that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) value: String,
}

/// None where none was asked for, or none of them was there.
fn headers(headers: &[TapHeader]) -> Option<Vec<Header>> {
    let header = |it: &TapHeader| Header { name: it.name.clone(), value: it.value.clone() };
    (!headers.is_empty()).then(|| headers.iter().map(header).collect())
}

impl Line {
    pub(super) fn new(names: &Names, event: &TapEvent) -> Self {
        let (source, destination) = names.ends(event);
        let request = event.request.as_ref();
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Self {
            time: rfc3339(event.started_us),
            direction: match event.direction {
                Direction::Inbound => "inbound",
                Direction::Outbound => "outbound",
            },
            source,
            destination,
            protocol: request.map_or("tcp", |request| if request.http2 { "http2" } else { "http1" }),
            method: request.map(|request| request.method.clone()),
            path: request.map(|request| request.path.clone()),
            query: request.and_then(|request| given(&request.query)),
            authority: request.and_then(|request| given(&request.authority)),
            status: request.and_then(|request| request.status),
            grpc: request.is_some_and(|request| request.grpc),
            grpc_status: request.and_then(|request| request.grpc_status),
            latency_us: event.latency_us,
            answered_us: event.answered_us,
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
            tls: event.tls,
            outcome: given(&event.outcome),
            route: given(&event.route),
            request_headers: request.and_then(|request| headers(&request.request_headers)),
            response_headers: request.and_then(|request| headers(&request.response_headers)),
        }
    }

    pub(super) fn header(layout: Layout) -> String {
        let names = ["TIME", "SOURCE", "DESTINATION", "METHOD", "PATH", "STATUS", "LATENCY"];
        let tail = match layout {
            Layout { wide: true, .. } => "BYTES    TLS  CLIENT → SERVER  ROUTE",
            Layout { compact: true, .. } => "TLS",
            Layout { .. } => "BYTES    TLS",
        };
        format!("{}{tail}\n", layout.row(&names.map(str::to_owned)))
    }

    pub(super) fn text(&self, layout: Layout, color: bool) -> String {
        let wide = layout.wide;
        let status = match (self.status, self.grpc_status, &self.outcome) {
            (_, Some(grpc), _) => format!("gRPC {grpc}"),
            (Some(status), None, _) => status.to_string(),
            (None, None, Some(_)) => ERROR.to_owned(),
            (None, None, None) if self.method.is_some() => "none".to_owned(),
            (None, None, None) => "closed".to_owned(),
        };
        let time = if layout.compact { 11..19 } else { 11..23 };
        let cells = [
            self.time.get(time).unwrap_or(&self.time).to_owned(),
            self.source.text(wide),
            self.destination.text(wide),
            self.method.clone().unwrap_or_else(|| "TCP".to_owned()),
            self.target().unwrap_or_else(|| format!(":{}", self.destination.address.port())),
            status,
            show_latency(Duration::from_micros(self.latency_us)),
        ]
        .map(|cell| clean(&cell));
        let beside = self.outcome.as_deref().filter(|_| layout.cuts);
        let mut text = match beside {
            Some(code) => layout.row_with_code(cells, code),
            None => layout.row(&cells),
        };
        let tls = if self.tls { "√" } else { "-" };
        if !layout.compact {
            text.push_str(&format!("{:<9}", show_bytes(self.bytes_in + self.bytes_out)));
        }
        text.push_str(tls);
        if wide {
            let name = |end: &End| end.identity.clone().unwrap_or_else(|| "-".to_owned());
            let route = self.route.as_deref().unwrap_or("-");
            text.push_str(&format!("    {} → {}  {}", name(&self.source), name(&self.destination), clean(route)));
        }
        if let Some(outcome) = self.outcome.as_ref().filter(|_| beside.is_none()) {
            text.push_str(&format!("  [{outcome}]"));
        }
        for (mark, headers) in [(">", &self.request_headers), ("<", &self.response_headers)] {
            for Header { name, value } in headers.iter().flatten() {
                text.push_str(&format!("  {mark} {}: {}", clean(name), clean(value)));
            }
        }
        let text = if color { self.tone().paint(&text) } else { text };
        format!("{}\n", text.trim_end())
    }

    /// The path, and the query where it was asked for; none for an opaque connection.
    pub(super) fn target(&self) -> Option<String> {
        let path = self.path.as_ref()?;
        Some(self.query.as_ref().map_or_else(|| path.clone(), |query| format!("{path}?{query}")))
    }

    fn tone(&self) -> Tone {
        match (self.status, self.grpc_status, &self.outcome) {
            (Some(500..), _, _) | (_, _, Some(_)) => Tone::Bad,
            (Some(400..), _, _) | (_, Some(1..), _) => Tone::Warn,
            _ => Tone::Plain,
        }
    }
}

/// Microseconds since the epoch as UTC with microseconds.
fn rfc3339(micros: u64) -> String {
    let time = i64::try_from(micros).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    time.map(|time| format!("{time:.6}")).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use mesh_proto::tap::TapRequestInfo;

    use super::*;
    use crate::{cluster::PodInfo, commands::fixture};

    pub(in super::super) fn pods() -> Vec<PodInfo> {
        vec![
            fixture::pod("load-1", Some("load"), true, "10.244.0.5"),
            fixture::pod("web-1", Some("web"), true, "10.244.0.6"),
        ]
    }

    pub(in super::super) fn event() -> TapEvent {
        TapEvent {
            direction: Direction::Inbound,
            started_us: 1_795_234_451_201_000,
            latency_us: 31_400,
            answered_us: None,
            source: "10.244.0.5:40000".parse().unwrap(),
            destination: "10.244.0.6:8080".parse().unwrap(),
            source_identity: "spiffe://cluster.local/ns/shop/sa/load".parse().ok(),
            destination_identity: None,
            destination_pod: None,
            service: None,
            tls: true,
            outcome: String::new(),
            bytes_in: 0,
            bytes_out: 112,
            request: Some(TapRequestInfo {
                method: "POST".into(),
                path: "/checkout".into(),
                authority: "web".into(),
                status: Some(500),
                ..TapRequestInfo::default()
            }),
            dropped: 0,
            route: String::new(),
        }
    }

    #[test]
    fn a_request_is_one_line_with_names() {
        let line = Line::new(&Names::new(&pods()), &event());
        assert_eq!(
            line.text(Layout::WHOLE, false),
            "04:14:11.201  shop/load         shop/web          POST    /checkout         500     31ms     112B     √\n"
        );
        let wide = line.text(Layout::new(true, None), false);
        assert!(wide.contains("shop/load-1 ") && wide.contains("spiffe://cluster.local/ns/shop/sa/load"), "{wide}");
        let columns = |text: &str, word: &str| text.find(word);
        let header = Line::header(Layout::WHOLE);
        assert_eq!(columns(&header, "DESTINATION"), columns(&line.text(Layout::WHOLE, false), "shop/web"));
        assert_eq!(columns(&header, "STATUS"), columns(&line.text(Layout::WHOLE, false), "500"));
    }

    #[test]
    fn a_line_fits_the_terminal_and_is_whole_elsewhere() {
        let mut event = event();
        event.request.as_mut().unwrap().path = "/shop.v1.Prices/QuoteAllOfThem".into();
        let line = Line::new(&Names::new(&pods()), &event);
        for columns in [80, 100, 103, 104, 120, 200] {
            let layout = Layout::new(false, Some(columns));
            for text in [Line::header(layout), line.text(layout, false)] {
                assert!(text.trim_end().chars().count() <= columns, "{columns}: {text}");
            }
            let text = line.text(layout, false);
            assert!(text.contains("AllOfThem") && text.contains("shop/load"), "{columns}: {text}");
            let place = |text: &str, word: &str| text.find(word).map(|at| text[..at].chars().count());
            assert_eq!(place(&Line::header(layout), "STATUS"), place(&text, "500"), "{columns}: {text}");
        }
        assert!(line.text(Layout::WHOLE, false).contains("/shop.v1.Prices/QuoteAllOfThem  500"));
    }

    #[test]
    fn json_has_names_addresses_and_no_query() {
        let json = serde_json::to_value(Line::new(&Names::new(&pods()), &event())).unwrap();
        assert_eq!(json["time"], "2026-11-21T04:14:11.201000Z");
        assert_eq!(json["source"]["workload"], "deployment/load");
        assert_eq!(json["source"]["identity"], "spiffe://cluster.local/ns/shop/sa/load");
        assert_eq!(json["status"], 500);
        for nothing in ["outcome", "query", "requestHeaders"] {
            assert_eq!(json[nothing], serde_json::Value::Null, "{nothing}");
        }
    }

    #[test]
    fn queries_and_headers_are_shown_where_they_were_asked_for() {
        let mut event = event();
        let request = event.request.as_mut().unwrap();
        request.query = "id=7".into();
        let header = |name: &str, value: &str| TapHeader { name: name.into(), value: value.into() };
        request.request_headers = vec![header("x-id", "a\x1bb")];
        request.response_headers = vec![header("server", "shop")];
        let line = Line::new(&Names::new(&pods()), &event);
        let text = line.text(Layout::WHOLE, false);
        assert!(text.contains("  /checkout?id=7  "), "{text}");
        assert!(text.ends_with("  > x-id: a\u{fffd}b  < server: shop\n"), "{text}");
        let json = serde_json::to_value(line).unwrap();
        assert_eq!(json["query"], "id=7");
        assert_eq!(json["requestHeaders"], serde_json::json!([{"name": "x-id", "value": "a\u{1b}b"}]));
    }

    #[test]
    fn an_error_of_the_mesh_shows_its_code() {
        let mut event = event();
        event.outcome = "denied".into();
        event.request = None;
        let text = Line::new(&Names::new(&pods()), &event).text(Layout::WHOLE, false);
        assert!(text.contains("TCP") && text.contains(":8080") && text.contains("error"), "{text}");
        assert!(text.ends_with("[denied]\n"), "{text}");
    }

    #[test]
    fn control_characters_of_a_path_never_reach_the_terminal() {
        let mut event = event();
        event.request.as_mut().unwrap().path = "/a\x1b[2J\nb".into();
        let text = Line::new(&Names::new(&pods()), &event).text(Layout::new(true, None), false);
        assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
    }
}
