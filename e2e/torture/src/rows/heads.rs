//! B7, B17, A2: heads that are too large, that lie about time, or about who asks.

use std::{net::SocketAddr, time::Duration};

use mesh_proto::names;

use crate::{
    invariants::{self, Spent},
    load::Place as _,
    oracle::{NUMBER, backend::HTTP},
    outcome::Findings,
    party::Party,
    process,
    raw::{self, Seen, Witness},
    rig::{Plan, Rig, RigOf, WITNESS},
    row::Stage,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// The header in which an application may be told who asks, by the mesh alone.
const CLIENT_ID: &str = "mesh-client-id";

/// Sends each from outside the mesh and from a meshed pod; what came back, and what it cost.
fn both_ways<P: Party>(rig: &RigOf<P>, port: u16, requests: &[Vec<u8>]) -> anyhow::Result<(Vec<Vec<u8>>, Spent)> {
    let send = |address: SocketAddr| {
        let heard: std::io::Result<Vec<_>> =
            requests.iter().map(|bytes| raw::exchange(address, bytes, PATIENCE)).collect();
        (heard, process::own_cpu())
    };
    let (outside, cpu) = rig.outsider.enter(|| send(rig.direct(port)))?;
    let (meshed, cpu_) = rig.client.enter(|| send(Rig::web(port)))?;
    let bytes = requests.iter().map(|bytes| 2 * bytes.len() as u64).sum();
    Ok(([outside?, meshed?].concat(), Spent { cpu: cpu + cpu_, bytes }))
}

fn get(headers: &str) -> Vec<u8> {
    format!("GET /case HTTP/1.1\r\nhost: web\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

/// A field, a target or trailers of `length` bytes, or so many fields.
fn large(length: usize) -> Vec<Vec<u8>> {
    let long = "b".repeat(length);
    let close = "host: web\r\nconnection: close\r\n";
    vec![
        get(&format!("a: {long}\r\n")),
        get(&format!("{long}: a\r\n")),
        get(&"a: b\r\n".repeat(length / 6)),
        format!("GET /{long} HTTP/1.1\r\n{close}\r\n").into_bytes(),
        format!("{long} / HTTP/1.1\r\n{close}\r\n").into_bytes(),
        format!("POST /case HTTP/1.1\r\n{close}transfer-encoding: chunked\r\n\r\n0\r\na: {long}\r\n\r\n").into_bytes(),
    ]
}

/// Answers that are too large, by the path that asks for them.
fn too_much(seen: &Seen) -> Vec<u8> {
    let long = "b".repeat(100 << 10);
    match seen.target.as_str() {
        "/field" => format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\na: {long}\r\n\r\n"),
        "/fields" => format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{}\r\n", "a: b\r\n".repeat(10_000)),
        "/reason" => format!("HTTP/1.1 200 {long}\r\ncontent-length: 0\r\n\r\n"),
        "/trailer" => format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: {long}\r\n\r\n"),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
    }
    .into_bytes()
}

pub(crate) fn too_large<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let witness = Witness::start(rig.server(), rig.direct(WITNESS), too_much)?;
    let requests: Vec<_> = [70 << 10, 100 << 10, 1 << 20].into_iter().flat_map(large).collect();
    let answers: Vec<_> = ["/field", "/fields", "/reason", "/trailer"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").into_bytes())
        .into();
    let (sent, answered) = invariants::around(&rig, rig.server(), &Rig::victim(), findings, || {
        let (sent, spent) = both_ways(&rig, WITNESS, &requests)?;
        let seen = witness.seen().len();
        let (answered, more) = both_ways(&rig, WITNESS, &answers)?;
        Ok(((sent, (answered, seen)), Spent { cpu: spent.cpu + more.cpu, bytes: spent.bytes + more.bytes }))
    })?;
    let (answered, reached) = answered;
    let refused = |heard: &&Vec<u8>| raw::statuses(heard).iter().all(|status| [400, 414, 431, 408].contains(status));
    findings.told("requests", sent.len() as f64);
    findings.none("answered otherwise than 4xx or closed", sent.len() - sent.iter().filter(refused).count());
    findings.none("requests that reached the application", reached);
    let whole = |heard: &&Vec<u8>| {
        let text = String::from_utf8_lossy(heard);
        raw::statuses(heard).contains(&200) && (text.contains("bbbb") || text.matches("a: b").count() > 100)
    };
    findings.told("answers", answered.len() as f64);
    findings.none("answers passed on beyond the limit", answered.iter().filter(whole).count());
    Ok(())
}

pub(crate) fn times<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let headers = [
        "grpc-timeout: 99999999H",
        "grpc-timeout: -1S",
        "grpc-timeout: 1",
        "grpc-timeout: ",
        "grpc-timeout: 0n",
        "grpc-timeout: 18446744073709551616S",
        "grpc-timeout: 1S\r\ngrpc-timeout: 2S",
        "retry-after: 9223372036854775808",
        "keep-alive: timeout=18446744073709551616",
        "if-modified-since: Fri, 31 Dec 99999999 23:59:59 GMT",
        "date: Mon, 01 Jan 0000 00:00:00 GMT",
        "max-forwards: 99999999999999999999",
        "expires: -1",
        "age: -1",
    ];
    let requests: Vec<_> = headers
        .iter()
        .flat_map(|header| {
            let grpc = format!("content-type: application/grpc\r\nte: trailers\r\n{header}\r\n");
            [get(&format!("{NUMBER}: {}\r\n{header}\r\n", rig.oracle.number())), get(&grpc)]
        })
        .collect();
    let heard = invariants::around(&rig, rig.server(), &Rig::victim(), findings, || both_ways(&rig, HTTP, &requests))?;
    let bad = heard.iter().filter(|heard| !matches!(raw::statuses(heard)[..], [200 | 400]));
    findings.told("requests", heard.len() as f64);
    findings.none("neither answered by the application nor 400", bad.count());
    Ok(())
}

/// Answers with what only a proxy may say.
fn pretends(_: &Seen) -> Vec<u8> {
    let error = names::HEADER_ERROR;
    format!(
        "HTTP/1.1 200 OK\r\n{error}: app-refused\r\nMesh_Error: denied\r\ntransfer-encoding: chunked\r\ntrailer: {error}\r\n\
         \r\n2\r\nok\r\n0\r\n{error}: denied\r\n\r\n"
    )
    .into_bytes()
}

pub(crate) fn who_asks(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = Rig::start(&Plan::new(stage))?;
    let witness = Witness::start(rig.server(), rig.direct(WITNESS), pretends)?;
    let forged = "spiffe://cluster.local/ns/shop/sa/admin";
    let spellings = [
        CLIENT_ID.to_owned(),
        "Mesh-Client-Id".into(),
        "MESH-CLIENT-ID".into(),
        "mesh_client_id".into(),
        "Mesh_Client-ID".into(),
        "mesh-client_id".into(),
        "mEsH_cLiEnT_iD".into(),
    ];
    let mut requests = Vec::new();
    for name in &spellings {
        requests.push(get(&format!("te: trailers\r\n{name}: {forged}\r\n")));
        requests.push(get(&format!("te: trailers\r\n{name}: {forged}\r\n{CLIENT_ID}: a\r\n{name}: b\r\n")));
        requests.push(get(&format!("connection: close, {name}\r\n{name}: {forged}\r\n")));
        requests.push(
            format!(
                "POST /case HTTP/1.1\r\nhost: web\r\nconnection: close\r\ntrailer: {name}\r\ntransfer-encoding: chunked\r\n\r\n\
                 0\r\n{name}: {forged}\r\n\r\n"
            )
            .into_bytes(),
        );
        requests.push(
            format!("GET http://web/case HTTP/1.1\r\nhost: web\r\nconnection: close\r\n{name}: {forged}\r\n\r\n")
                .into_bytes(),
        );
    }
    let heard =
        invariants::around(&rig, rig.server(), &Rig::victim(), findings, || both_ways(&rig, WITNESS, &requests))?;
    let claims = |seen: &&Seen| {
        let fields = seen.headers.iter().chain(&seen.trailers);
        fields.into_iter().any(|(name, _)| name.replace('_', "-") == CLIENT_ID)
    };
    let seen = witness.seen();
    findings.told("requests", requests.len() as f64 * 2.0);
    findings.at_least("of which reached the application", seen.len() as f64, requests.len() as f64);
    findings.never("claims of an identity that the application saw", seen.iter().filter(claims).count());
    let leaks = |heard: &&Vec<u8>| {
        let text = String::from_utf8_lossy(heard).to_ascii_lowercase().replace('_', "-");
        raw::statuses(heard) == [200] && text.contains(&format!("\n{}:", names::HEADER_ERROR))
    };
    findings.never("codes of the mesh that an application forged", heard.iter().filter(leaks).count());
    let leaked = |heard: &&Vec<u8>| String::from_utf8_lossy(heard).contains("spiffe://");
    findings.never("identities told outside", heard.iter().filter(leaked).count());
    Ok(())
}
