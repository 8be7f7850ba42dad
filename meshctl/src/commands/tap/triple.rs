//! A finished request as the three lines that Linkerd's `tap` prints for it, for scripts that read those. Pure.

use std::fmt::Write as _;

use super::{
    line::{Header, Line},
    names::End,
};
use crate::printer::table::clean;

/// `req`, `rsp` (where an answer began) and `end` of the `number`th line, seen by the proxy at `place`; one line `tcp` for an
/// opaque connection.
pub(super) fn text(line: &Line, place: usize, number: u64) -> String {
    let proxy = if line.direction == "inbound" { "in " } else { "out" };
    let tls = if line.tls { "true" } else { "no" };
    let (from, to) = (line.source.address, line.destination.address);
    let ends = format!("id={place}:{number} proxy={proxy} src={from} dst={to} tls={tls}");
    let who = resources(&line.source, "src") + &resources(&line.destination, "dst");
    let outcome = line.outcome.as_ref().map(|outcome| format!(" mesh-error={outcome}")).unwrap_or_default();
    let (Some(method), Some(path)) = (&line.method, line.target()) else {
        let (read, written) = (line.bytes_in, line.bytes_out);
        let took = line.latency_us;
        return format!("tcp {ends} duration={took}µs read={read}B written={written}B{outcome}{who}\n");
    };
    let authority = clean(line.authority.as_deref().unwrap_or_default());
    let mut out = format!("req {ends} :method={} :authority={authority} :path={}", clean(method), clean(&path));
    headers(&mut out, line.request_headers.as_deref());
    out.push_str(&format!("{who}\n"));
    if let (Some(status), Some(answered)) = (line.status, line.answered_us) {
        out.push_str(&format!("rsp {ends} :status={status} latency={answered}µs"));
        headers(&mut out, line.response_headers.as_deref());
        out.push_str(&format!("{who}\n"));
    }
    let grpc = line.grpc_status.map(|status| format!(" grpc-status={status}")).unwrap_or_default();
    let rest = line.latency_us.saturating_sub(line.answered_us.unwrap_or_default());
    out.push_str(&format!("end {ends}{grpc} duration={rest}µs response-length={}B{outcome}{who}\n", line.bytes_out));
    out
}

/// Whose end it is, as Linkerd's `-o wide` says it.
fn resources(end: &End, which: &str) -> String {
    let (namespace, workload) = end.workload();
    if namespace.is_empty() { String::new() } else { format!(" {which}_res={workload} {which}_ns={namespace}") }
}

fn headers(out: &mut String, headers: Option<&[Header]>) {
    for header in headers.into_iter().flatten() {
        let _ = write!(out, " {}={:?}", clean(&header.name), clean(&header.value));
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::{event, pods};
    use super::{super::names::Names, *};

    #[test]
    fn a_request_is_three_lines() {
        let mut event = event();
        event.answered_us = Some(31_000);
        let line = Line::new(&Names::new(&pods()), &event);
        let ends = "id=1:7 proxy=in  src=10.244.0.5:40000 dst=10.244.0.6:8080 tls=true";
        let who = "src_res=deployment/load src_ns=shop dst_res=deployment/web dst_ns=shop";
        let expected = format!(
            "req {ends} :method=POST :authority=web :path=/checkout {who}\n\
             rsp {ends} :status=500 latency=31000µs {who}\n\
             end {ends} duration=400µs response-length=112B {who}\n"
        );
        assert_eq!(text(&line, 1, 7), expected);
    }

    #[test]
    fn a_connection_is_one_line_and_an_unanswered_request_has_no_answer() {
        let mut event = event();
        event.outcome = "denied".into();
        event.request.as_mut().unwrap().status = None;
        let unanswered = text(&Line::new(&Names::new(&pods()), &event), 0, 1);
        assert!(!unanswered.contains("rsp ") && unanswered.contains(" mesh-error=denied"), "{unanswered}");
        event.request = None;
        let opaque = text(&Line::new(&Names::new(&pods()), &event), 0, 1);
        assert!(opaque.starts_with("tcp id=0:1 proxy=in "), "{opaque}");
        assert!(opaque.contains("duration=31400µs read=0B written=112B mesh-error=denied"), "{opaque}");
    }
}
