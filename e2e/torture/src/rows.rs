//! Every row of the programme: what is done, the bar in words, and the function that measures.
//!
//! Ids and bars are those of the reference programme; where hours are compressed to minutes, or a tool is replaced by our own,
//! the row's words say so.

mod certificates;
mod clock;
mod conformance;
mod controller;
mod ends;
mod floods;
mod garbage;
mod heads;
mod held;
mod impaired;
mod reach;
mod rolling;
mod rotation;
mod scarce;
mod slow;
mod smuggling;
mod upstream;

use std::time::Duration;

use mesh_testbed::{Member, envoy::Envoy};

use crate::row::{Row, Run};

pub(crate) const ROWS: &[Row] = &[
    Row {
        id: "L1",
        what: "2,000 requests/s by 100 connections, HTTP/1.1, HTTP/2, gRPC, 30 s each (10 min in the programme)",
        bar: "no error; resident memory of each proxy ≤ 26 MiB",
        in_ci: false,
        limit: Duration::from_mins(5),
        run: Run::Both(held::a_fixed_rate::<Member>, held::a_fixed_rate::<Envoy>),
    },
    Row {
        id: "L2",
        what: "closed loop by 1, 8 and 64 connections over HTTP/1.1 and HTTP/2, and 256 MiB of TCP there and back",
        bar: "no error, equal bytes; throughput is told",
        in_ci: false,
        limit: Duration::from_mins(5),
        run: Run::Both(held::as_fast_as_it_goes::<Member>, held::as_fast_as_it_goes::<Envoy>),
    },
    Row {
        id: "L3",
        what: "as many idle meshed connections as descriptors allow, 1 min (8,000 and 10 min in the programme)",
        bar: "all alive; ≤ 64 KiB each (a peer's in the programme); p99 of a new request ≤ 10 ms",
        in_ci: false,
        limit: Duration::from_mins(6),
        run: Run::Both(held::idle_connections::<Member>, held::idle_connections::<Envoy>),
    },
    Row {
        id: "L4",
        what: "20,000 new connections with a handshake between the proxies each, 50 at once",
        bar: "no failure; handshakes/s are told",
        in_ci: false,
        limit: Duration::from_mins(6),
        run: Run::Both(held::new_connections::<Member>, held::new_connections::<Envoy>),
    },
    Row {
        id: "L5",
        what: "soak of 4 min (60 in the programme): 500 requests/s over HTTP/1.1, HTTP/2, gRPC, and TCP; an endpoint changes each second; certificates live 30 s",
        bar: "no error; after 40 s at most 1 MiB, 8 descriptors, no thread more",
        in_ci: false,
        limit: Duration::from_mins(10),
        run: Run::Ours(held::soak),
    },
    Row {
        id: "F1",
        what: "the controller is killed for 1 min (15 in the programme) under 200 requests/s, a quarter by new connections",
        bar: "no error; the age of what is known shows",
        in_ci: true,
        limit: Duration::from_mins(5),
        run: Run::Ours(controller::killed),
    },
    Row {
        id: "F2",
        what: "the controller is stopped and not closed (SIGSTOP), 200 requests/s; one replica (two in the programme)",
        bar: "left ≤ 15 s; no error; back ≤ 10 s",
        in_ci: false,
        limit: Duration::from_mins(5),
        run: Run::Ours(controller::silent),
    },
    Row {
        id: "F3",
        what: "cold restart of the controller with 153 real proxies (200 in the programme)",
        bar: "no error; all in sync ≤ 30 s",
        in_ci: false,
        limit: Duration::from_mins(8),
        run: Run::Ours(controller::cold),
    },
    Row {
        id: "F7",
        what: "14 renewals of certificates that live 16 s (60 s in the programme) under 500 requests/s, 2 upgraded connections, 2 of bytes",
        bar: "no error, no broken connection, no failed renewal",
        in_ci: true,
        limit: Duration::from_mins(10),
        run: Run::Ours(rotation::under_load),
    },
    Row {
        id: "F10",
        what: "the controller is away for longer than certificates live (20 s), and back",
        bar: "serves until they expire; then fails closed; as before ≤ 10 s, nobody restarted",
        in_ci: true,
        limit: Duration::from_mins(5),
        run: Run::Ours(controller::past_expiry),
    },
    Row {
        id: "F11",
        what: "the clock of a proxy jumps by ±20 s, ±10 min, +25 h, and that of the controller; new pods meanwhile (libfaketime)",
        bar: "±20 s works; whoever sees a certificate out of its time refuses it, with a code; no restart; healed ≤ 10 s",
        in_ci: false,
        limit: Duration::from_mins(5),
        run: Run::Ours(clock::jumps),
    },
    Row {
        id: "F12",
        what: "1,000 rolling restarts (20 in the programme), 10 Deployments at once, under 1,000 requests/s over HTTP/1.1, HTTP/2, gRPC, streams, TCP, and from outside the mesh; endpoints go up to 2 s late (5 in the programme)",
        bar: "none lost; every end ≤ 30 s",
        in_ci: true,
        limit: Duration::from_mins(30),
        run: Run::Ours(rolling::restarts),
    },
    Row {
        id: "F13",
        what: "48 kills (-9) of server proxies, 6 of them (50 of 3 in the programme), 200 requests/s by 10 connections",
        bar: "at most one failed request for each connection and kill; ready again ≤ 2 s",
        in_ci: false,
        limit: Duration::from_mins(6),
        run: Run::Ours(ends::killed),
    },
    Row {
        id: "F16",
        what: "64 MiB there and back with 1 % and 5 % of packets lost, 2 MiB at 1 Mbit/s; no latency (tc netem)",
        bar: "equal bytes, no stall over 30 s, memory within the windows",
        in_ci: false,
        limit: Duration::from_mins(8),
        run: Run::Both(impaired::transfers::<Member>, impaired::transfers::<Envoy>),
    },
    Row {
        id: "F17",
        what: "1,000 connections to a proxy with 256 descriptors",
        bar: "lives; ≤ 20 % of a core while starved; probes ≤ 1 s; as before ≤ 2 s (it looks once a second)",
        in_ci: true,
        limit: Duration::from_mins(4),
        run: Run::Both(scarce::descriptors::<Member>, scarce::descriptors::<Envoy>),
    },
    Row {
        id: "F18",
        what: "2,000 clients that do not read answers of 1 MiB, a limit of 64 MiB (told to the proxy as 90 % of it; a cgroup in the programme)",
        bar: "never above the limit, sheds, recovers ≤ 30 s",
        in_ci: false,
        limit: Duration::from_mins(5),
        run: Run::Ours(scarce::memory),
    },
    Row {
        id: "F19",
        what: "a tenth of a core (stopped for 90 of every 100 ms), twice as many requests as that carries",
        bar: "probes ≤ 1 s; goodput ≥ 80 % of the calm; no lapse of identity",
        in_ci: false,
        limit: Duration::from_mins(5),
        run: Run::Both(scarce::processor::<Member>, scarce::processor::<Envoy>),
    },
    Row {
        id: "B1",
        what: "h2spec --strict on the inbound and the outbound side; a preface that is none is left out: it is HTTP/1 on these ports, and gets 400",
        bar: "no case failed; INV",
        in_ci: false,
        limit: Duration::from_mins(10),
        run: Run::Both(conformance::h2spec::<Member>, conformance::h2spec::<Envoy>),
    },
    Row {
        id: "B2",
        what: "19 floods of HTTP/2 frames, 3 s each (60 s in the programme), one connection",
        bar: "closed ≤ 5 s or bounded; INV",
        in_ci: true,
        limit: Duration::from_mins(8),
        run: Run::Both(floods::of_frames::<Member>, floods::of_frames::<Envoy>),
    },
    Row {
        id: "B3",
        what: "1,250 slow clients, 200 a second, for 30 s each: heads, bodies, chunks of a byte, answers not read, malformed and not read",
        bar: "INV; a head without end is closed ≤ 15 s",
        in_ci: false,
        limit: Duration::from_mins(5),
        run: Run::Both(slow::requests::<Member>, slow::requests::<Envoy>),
    },
    Row {
        id: "B4",
        what: "2,000 sockets: silent, one byte, half a ClientHello, byte by byte, none after it",
        bar: "closed ≤ 10 s; ≤ 16 KiB each; INV",
        in_ci: false,
        limit: Duration::from_mins(5),
        run: Run::Both(slow::silent::<Member>, slow::silent::<Envoy>),
    },
    Row {
        id: "B5",
        what: "29 client certificates that are not good, to a proxy's own port; 200 good handshakes",
        bar: "none let in; none resumed; TLS 1.3 only; INV",
        in_ci: true,
        limit: Duration::from_mins(4),
        run: Run::Ours(certificates::refused),
    },
    Row {
        id: "B6",
        what: "133 requests with two readings, to the server's proxy and through both, and 24 HTTP/2 heads likewise",
        bar: "the application sees none that was not sent, and none that is not canonical; no foreign answer; INV",
        in_ci: true,
        limit: Duration::from_mins(6),
        run: Run::Both(smuggling::every_case::<Member>, smuggling::every_case::<Envoy>),
    },
    Row {
        id: "B7",
        what: "fields, names, targets, methods, trailers of 70 KiB to 1 MiB, 10,000 headers; answers likewise",
        bar: "4xx or closed, never passed on; INV",
        in_ci: true,
        limit: Duration::from_mins(5),
        run: Run::Both(heads::too_large::<Member>, heads::too_large::<Envoy>),
    },
    Row {
        id: "B9",
        what: "20,000 mutated streams (10^6 in the programme) to every port of both proxies; fuzz targets are `fuzz/`",
        bar: "no crash; INV",
        in_ci: true,
        limit: Duration::from_mins(10),
        run: Run::Both(garbage::bytes::<Member>, garbage::bytes::<Envoy>),
    },
    Row {
        id: "B13",
        what: "100,000 distinct methods, paths, hosts, header names, to each proxy half of them",
        bar: "≤ 1,000 series, ≤ 1 MiB a page, +10 MiB each",
        in_ci: true,
        limit: Duration::from_mins(5),
        run: Run::Ours(garbage::names_without_end),
    },
    Row {
        id: "B14",
        what: "line breaks, escapes, formats, 60 KB in paths, hosts, methods, with the access log on",
        bar: "one event one line of printable ASCII, ≤ 4 KiB",
        in_ci: true,
        limit: Duration::from_mins(4),
        run: Run::Ours(garbage::names_that_break_lines),
    },
    Row {
        id: "B15",
        what: "11 servers that keep to no rule",
        bar: "502 with its code on that request; INV for requests to others",
        in_ci: true,
        limit: Duration::from_mins(5),
        run: Run::Ours(upstream::hostile),
    },
    Row {
        id: "B16",
        what: "endpoints that are none: loopback, multicast, port 0, the proxy's own ports, 10,000 that nobody is at (10^6 in the programme)",
        bar: "no success, none of the proxy's own pages; INV",
        in_ci: false,
        limit: Duration::from_mins(6),
        run: Run::Ours(upstream::no_endpoints),
    },
    Row {
        id: "B17",
        what: "14 impossible times: grpc-timeout, retry-after, keep-alive, dates",
        bar: "the application's answer or 400; INV",
        in_ci: true,
        limit: Duration::from_mins(4),
        run: Run::Both(heads::times::<Member>, heads::times::<Envoy>),
    },
    Row {
        id: "A2",
        what: "the header that tells an identity, forged in 35 ways; codes of the mesh, forged by an application",
        bar: "the application never sees one, nor does a client; INV",
        in_ci: true,
        limit: Duration::from_mins(4),
        run: Run::Ours(heads::who_asks),
    },
    Row {
        id: "A7",
        what: "47 requests for what is private to every port and address of a pod, from outside and from a meshed pod",
        bar: "none answered with it; nothing at loopback; ≤ 5 % of a core afterwards; INV",
        in_ci: true,
        limit: Duration::from_mins(8),
        run: Run::Ours(reach::forbidden_places),
    },
    Row {
        id: "A12",
        what: "14 ways to speak HTTP past its reading, to a port with a rule about requests and to one of HTTP",
        bar: "no byte past the rule; no stream that is no request; INV",
        in_ci: true,
        limit: Duration::from_mins(5),
        run: Run::Ours(reach::past_detection),
    },
];
