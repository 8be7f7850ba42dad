//! The playground as a person runs it: the real binary, from start to nothing left.
//!
//! One test here, since each start is seconds of work; its steps say what they prove. What becomes of one in which
//! processes die is in [`recovery`].

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broken;
#[path = "../support/mask.rs"]
mod mask;
mod recovery;
mod starts;
mod support;
#[path = "../support/terminal.rs"]
mod terminal;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use serde_json::Value;

use support::{Playground, text};

/// The shop but for the visitor.
const MESHED: [&str; 6] = [
    "deployment/load",
    "deployment/web-v1",
    "deployment/web",
    "deployment/stock",
    "deployment/prices",
    "deployment/orders",
];

#[test]
fn from_the_first_command_to_nothing_left() {
    let playground = Playground::new();
    nothing_runs(&playground);
    of_two_starts_at_once_one_runs(&playground);

    a_second_start_is_refused(&playground);
    pods_are_listed_with_their_reasons(&playground);
    a_request_by_name_crosses_the_mesh(&playground);
    each_protocol_is_carried(&playground);
    tap_shows_what_is_asked_for_and_nothing_else(&playground);
    stat_tells_who_asks_whom(&playground);
    what_proxies_see_can_be_looked_at(&playground);
    routes_and_policies_are_in_force(&playground);
    the_planted_fault_is_found(&playground);
    identities_are_held(&playground);
    every_check_passes(&playground);
    typing_errors_are_explained(&playground);
    it_leaves_nothing(&playground);
}

fn nothing_runs(playground: &Playground) {
    for line in ["list --playground", "stat --playground", "check --playground", "playground status", "playground stop"]
    {
        let output = playground.meshctl(line);
        assert_eq!(output.status.code(), Some(3), "{line}: {}", text(&output.stderr));
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(said.contains("meshctl playground"), "{line}: {said}");
    }
}

fn of_two_starts_at_once_one_runs(playground: &Playground) {
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| playground.meshctl("playground --detach"));
        let second = playground.meshctl("playground --detach");
        (first.join().unwrap(), second)
    });
    let (runs, refused) = if first.status.success() { (first, second) } else { (second, first) };
    assert!(runs.status.success(), "{}", text(&runs.stderr));
    assert!(text(&runs.stderr).contains("ready in"), "{}", text(&runs.stderr));
    assert!(runs.stdout.is_empty(), "talk is not data");
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("already running"), "{}", text(&refused.stderr));
}

fn a_second_start_is_refused(playground: &Playground) {
    let again = playground.meshctl("playground --detach");
    assert_eq!(again.status.code(), Some(1));
    let error = text(&again.stderr);
    assert!(error.contains("already running") && error.contains("meshctl playground stop"), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
}

fn pods_are_listed_with_their_reasons(playground: &Playground) {
    let rows = playground.json("list --playground");
    let row = |workload: &str| rows.iter().find(|row| row["workload"] == workload).unwrap();
    for workload in MESHED {
        assert_eq!((&row(workload)["meshed"], &row(workload)["ready"]), (&1.into(), &1.into()), "{workload}");
    }
    assert_eq!(row("deployment/visitor")["reason"], "disabled-by-pod");
    assert_eq!(row("deployment/mesh-controller")["reason"], "system-namespace");
    let status = playground.meshctl("playground status");
    assert!(status.status.success() && text(&status.stderr).contains("9 of 9 pods are ready"));
}

fn a_request_by_name_crosses_the_mesh(playground: &Playground) {
    for name in ["web", "web.shop", "web.shop.svc.cluster.local"] {
        let answer = playground.get("deploy/load", &format!("http://{name}/"));
        assert!(answer.starts_with("200 OK") && answer.contains("\"service\":\"web\""), "{answer}");
    }
    // A Service that does not exist is told at once; the machine's own DNS is not asked.
    let shop = env!("CARGO_BIN_EXE_meshctl");
    for name in ["nobody", "web.nowhere.svc.cluster.local", "example.com"] {
        let unknown =
            playground.meshctl(&format!("playground exec deploy/load -- {shop} mesh-shop get http://{name}/"));
        assert!(!unknown.status.success() && text(&unknown.stderr).contains(name), "{}", text(&unknown.stderr));
    }
    // The server's proxy says by which identity, and that it was mutual TLS.
    let tap = playground.ok("tap deploy/web-v1 --playground --from deploy/load --path /items -o ndjson -c 1");
    let event: Value = serde_json::from_str(&tap).unwrap();
    assert_eq!(event["tls"], true);
    assert_eq!(event["source"]["identity"], "spiffe://cluster.local/ns/shop/sa/load");
    assert_eq!(event["destination"]["workload"], "deployment/web-v1");
    // A pod outside the mesh gets through in the clear where policy lets it, and is seen without an identity.
    let tap = playground.ok("tap --playground --from deploy/visitor -o ndjson -c 1");
    let event: Value = serde_json::from_str(&tap).unwrap();
    assert_eq!((&event["tls"], &event["source"]["identity"]), (&false.into(), &Value::Null));
}

fn each_protocol_is_carried(playground: &Playground) {
    // What the web service asks for on its way to an answer: gRPC, a protocol in which the server speaks first, HTTP/1.1.
    for (to, method, path) in
        [("prices", "POST", "/shop.v1.Prices/Quote"), ("stock", "", ""), ("orders", "POST", "/orders")]
    {
        let tap = playground.ok(&format!("tap deploy/{to} --playground --from deploy/web-v1 -o ndjson -c 1"));
        let event: Value = serde_json::from_str(&tap).unwrap();
        let found = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        assert_eq!((found("method"), found("path")), (method.to_owned(), path.to_owned()), "{event}");
        assert_eq!((&event["tls"], &event["outcome"]), (&true.into(), &Value::Null), "{event}");
        if to == "prices" {
            assert_eq!(event["grpcStatus"], 0, "{event}");
        }
    }
}

fn tap_shows_what_is_asked_for_and_nothing_else(playground: &Playground) {
    let events = |line: &str| -> Vec<Value> {
        let text = playground.ok(&format!("tap --playground -o ndjson -c 5 {line}"));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // The client's proxy tells where the server's is not tapped, and where the Service is what is asked for.
    assert!(events("deploy/load").iter().all(|event| event["direction"] == "outbound"));
    assert!(events("--to svc/web").iter().all(|event| event["destination"]["service"] == "web"));
    assert!(events("--grpc").iter().all(|event| event["protocol"] == "http2" && event["grpc"] == true));
    assert!(events("--tcp").iter().all(|event| event["protocol"] == "tcp"));
    assert!(
        events("--not tcp --not grpc --not path=/items")
            .iter()
            .all(|event| { event["method"] != Value::Null && event["grpc"] == false && event["path"] != "/items" })
    );
    // A request that was under way when the tap began has none: they are held only while a tap runs.
    let with_headers = |event: &Value| event["requestHeaders"] != Value::Null;
    let shown: Vec<Value> = events("--grpc --show-header Content-Type").into_iter().filter(with_headers).collect();
    assert!(!shown.is_empty());
    for event in shown {
        let header = serde_json::json!([{"name": "content-type", "value": "application/grpc"}]);
        assert_eq!((&event["requestHeaders"], &event["responseHeaders"]), (&header, &header));
    }
    let triple = playground.ok("tap deploy/orders --playground -o line -c 1");
    let words: Vec<&str> = triple.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(words, ["req", "rsp", "end"], "{triple}");

    let output = playground.meshctl("tap --playground --path /nowhere --duration 300ms --fail-empty -o json");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(6), 0));
    let said = text(&output.stderr);
    assert!(said.starts_with("0 of ") && said.contains("tap ran on 6 of 6 pods"), "{said}");
    for form in ["yaml", "name"] {
        let output = playground.meshctl(&format!("tap --playground -o {form}"));
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("table|wide|line|json|ndjson"), "{}", text(&output.stderr));
    }
}

fn stat_tells_who_asks_whom(playground: &Playground) {
    let rows = playground.json("stat deploy/web-v1 deploy/stock --playground --from deploy/load -t 1s");
    let rps = |workload: &str| {
        let row = rows.iter().find(|row| row["workload"] == workload).unwrap();
        row["requestsPerSecond"].as_f64().unwrap()
    };
    assert!(rps("deployment/web-v1") > 0.0 && rps("deployment/stock") == 0.0, "{rows:?}");
    let rows = playground.json("stat deploy/web-v1 --playground --to svc/prices -t 1s");
    assert!(rows.len() == 1 && rows[0]["requestsPerSecond"].as_f64().unwrap() > 0.0, "{rows:?}");
    assert_eq!((&rows[0]["direction"], &rows[0]["retries"]), (&"outbound".into(), &0.0.into()));
    let rows = playground.json("stat deploy/load --playground --by backend -t 1s");
    let workloads: BTreeSet<&str> = rows.iter().filter_map(|row| row["backend"]["workload"].as_str()).collect();
    assert_eq!(workloads, BTreeSet::from(["deployment/web-v1", "deployment/web"]), "{rows:?}");

    // Round after round until the reader has seen enough.
    let mut rounds = playground.command("stat deploy/web-v1 --playground --watch -t 100ms -o ndjson");
    let mut rounds = rounds.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(rounds.stdout.take().unwrap()).lines().take(3);
    assert!(lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()).all(|row| row["pods"] == 1));
    assert!(rounds.wait().unwrap().success(), "a closed pipe is the end of it");
}

fn what_proxies_see_can_be_looked_at(playground: &Playground) {
    // The load generator keeps one connection to the web service, over mutual TLS.
    let rows = playground.json("connections deploy/load --playground");
    let to_web = rows.iter().find(|row| row["direction"] == "outbound").unwrap();
    assert_eq!((&to_web["peerName"], &to_web["protocol"]), (&"shop/web:80".into(), &"http/1".into()), "{to_web}");
    assert!(to_web["tls"] == true && to_web["requests"].as_u64().unwrap() > 0, "{to_web}");

    // Every order asks for stock on a connection of its own. Which side is done first is a race between the two.
    let to_stock = || {
        let rows = playground.json("connections deploy/stock --closed --playground");
        rows.into_iter().find(|row| row["protocol"] == "tcp" && row["bytesIn"].as_u64().unwrap() > 0)
    };
    recovery::until("a connection to stock has ended", || to_stock().is_some());
    let ended = to_stock().unwrap();
    let (peer, by) = (ended["peerName"].as_str().unwrap(), ended["by"].as_str().unwrap());
    assert!(ended["direction"] == "inbound" && peer.starts_with("shop/web"), "{ended}");
    assert!(["app", "peer-app", "peer-proxy"].contains(&by) && ended["reason"].as_str().is_some(), "{ended}");

    let stock = playground.ok("describe deploy/stock --playground");
    for part in [
        "deployment/stock in namespace shop\n",
        "1 of 1 ready, 1 meshed, proxy 0.1.0",
        "spiffe://cluster.local/ns/shop/sa/stock",
        "Service stock:7000",
        "allow shop/",
    ] {
        assert!(stock.contains(part), "{part}: {stock}");
    }
    let visitor = playground.ok("describe deploy/visitor --playground");
    assert!(visitor.contains("(disabled-by-pod)") && visitor.contains("fix: take the label off"), "{visitor}");

    let rows = playground.json("diagnostics endpoints deploy/load --playground");
    let pods: BTreeSet<&str> = rows.iter().filter_map(|row| row["workload"].as_str()).collect();
    assert_eq!(pods, BTreeSet::from(["deployment/web-v1", "deployment/web"]), "{rows:?}");
    assert!(rows.iter().any(|row| row["load"]["latencyMs"].as_f64().is_some()), "{rows:?}");

    let metrics = playground.ok("diagnostics proxy-metrics deploy/stock --playground");
    assert!(metrics.starts_with("# pod shop/stock-") && metrics.contains("\ntcp_open_total{"), "{metrics}");
    let config = playground.ok("diagnostics config deploy/stock --playground -o ndjson");
    let config: Value = serde_json::from_str(&config).unwrap();
    let ports = config["inbound"]["ports"].as_array().unwrap();
    let of_stock = ports.iter().find(|port| port["port"] == 7000).unwrap();
    assert_eq!(of_stock["rules"][0], "allow shop/stock", "{of_stock}");
}

fn routes_and_policies_are_in_force(playground: &Playground) {
    for _ in 0..5 {
        let answer = playground.get("deploy/load", "http://web/ -H x-version:v2");
        assert!(answer.contains("\"version\":\"v2\""), "{answer}");
    }
    // Only the web service may ask for stock; others are told so before a byte of them reaches it.
    for pod in ["deploy/load", "deploy/visitor"] {
        let refused = playground.get(pod, "http://stock:7000/");
        assert!(refused.starts_with("403") && refused.contains("mesh-error: denied"), "{pod}: {refused}");
    }
}

fn the_planted_fault_is_found(playground: &Playground) {
    let events = playground.ok("tap --playground --status 5xx -o ndjson -c 3");
    for event in events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        assert!(event["status"].as_u64().unwrap() >= 500, "{event}");
        assert_eq!(event["destination"]["workload"], "deployment/web");
        assert_eq!(event["path"], "/checkout", "and no query");
    }
    // The fault shows in version two and nowhere else. It hits one in seven requests of a fifth of the traffic: a window
    // without it is rare, five in a row are not to be seen.
    let is_seen = (0..5).any(|_| {
        let rows = playground.json("stat --playground --window 4s");
        let success = |workload: &str| {
            let row = rows.iter().find(|row| row["workload"] == workload).unwrap();
            row["success"].as_f64()
        };
        assert_eq!(success("deployment/web-v1"), Some(1.0));
        success("deployment/web").is_some_and(|share| share < 1.0)
    });
    assert!(is_seen);
}

fn identities_are_held(playground: &Playground) {
    let rows = playground.json("identity --playground --all");
    assert_eq!(rows.len(), MESHED.len(), "the meshed pods");
    for row in &rows {
        assert!(row["remainingSeconds"].as_i64().unwrap() > 23 * 3600, "{row}");
        assert_eq!((&row["trustDomain"], &row["roots"]), (&"cluster.local".into(), &1.into()));
    }
}

fn every_check_passes(playground: &Playground) {
    let report: Value = serde_json::from_str(&playground.ok("check --playground --wait -o json")).unwrap();
    let bad = report["checks"].as_array().unwrap().iter().filter(|check| check["result"] != "ok").collect::<Vec<_>>();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(report["summary"]["ok"].as_u64().unwrap() > 15, "{report}");
    let proxies = playground.ok("version --playground -o json");
    let versions: Value = serde_json::from_str(&proxies).unwrap();
    assert_eq!(versions["controller"][0]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(versions["proxies"][0]["version"], env!("CARGO_PKG_VERSION"));
}

fn typing_errors_are_explained(playground: &Playground) {
    for (line, code, part) in [
        ("stat deploy/wbe --playground", 6, "deployment/web"),
        ("tap svc/web --playground", 2, "--to svc/NAME"),
        ("identity deploy/visitor --playground", 6, "meshctl list"),
        ("playground exec deploy/nobody -- true", 6, "selects no pod"),
        ("playground logs deploy/load -c nothing", 6, "mesh-proxy"),
    ] {
        let output = playground.meshctl(line);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {error}");
        assert!(error.contains(part), "{line}: {error}");
    }
}

fn it_leaves_nothing(playground: &Playground) {
    let inside = playground.inside();
    assert!(inside.processes().len() > 10, "controller, injector, six proxies, seven containers");
    playground.ok("playground stop");
    assert_eq!(fs::read_dir(playground.runtime()).unwrap().count(), 0, "no file");
    // The kernel closes the namespace when the first process in it is gone, and with it everything else.
    assert!(inside.processes().is_empty(), "no process, and so no namespace and no mount");
    nothing_runs(playground);
}
