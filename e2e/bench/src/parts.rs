//! Nanoseconds of the decisions on a request's path, each by itself: where a whole request has become dearer, this says whether one
//! of them has.

use std::{hint::black_box, time::Duration};

use anyhow::Context as _;
use http::{HeaderName, HeaderValue, Request};
use mesh_measure::{Report, Samples};
use mesh_proto::{
    identity::Identity,
    inbound::{Action, ClientMatch, DefaultPolicy, PortPolicy, Rule, Verdict},
    outbound::{Backend, Choice, HeaderMatch, PathMatch, RequestMatch, Route, ServiceTarget, WeightedBackend},
    path,
    workload::{Protocol, ServicePort},
};
use tokio::time::Instant;

/// How often a part is timed, and for how long about.
const SAMPLES: u32 = 15;
const SAMPLE: Duration = Duration::from_millis(20);

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let (target, request) = (target()?, Request::get("http://web.shop/orders/17?with=items").body(())?);
    let chosen = || matches!(target.choose(black_box(&request), 0), Choice::Backend { backend: 1, route: Some(_) });
    told(report, "part: choice of the third route", chosen)?;

    let (policy, server, client) = (policy(), identity("web")?, identity("orders")?);
    let allowed = || matches!(black_box(&policy).authorize(&server, Some(&client)), Verdict::Allow(_));
    told(report, "part: authorization by the last of three rules", allowed)?;

    let plain = || path::plain(black_box("/orders/17/items/%7Eall")).is_ok();
    told(report, "part: one form of an escaped path", plain)
}

/// Times `part`, which says whether it came to what it must.
fn told(report: &mut Report, name: &'static str, part: impl Fn() -> bool) -> anyhow::Result<()> {
    anyhow::ensure!(part(), "{name}: another outcome");
    let batch = |times: u32| {
        let begun = Instant::now();
        (0..times).for_each(|_| {
            black_box(part());
        });
        begun.elapsed()
    };
    let mut times = 1;
    while batch(times) < SAMPLE {
        times *= 2;
    }
    let samples = (0..SAMPLES).map(|_| batch(times).as_secs_f64() * 1e9 / f64::from(times));
    let samples = Samples::new(samples.collect())?;
    report.told(name, "ns", samples.median(), samples.count());
    Ok(())
}

/// A Service with three routes: by header, by an exact path, by a prefix.
fn target() -> anyhow::Result<ServiceTarget> {
    let service = ServicePort { namespace: "shop".into(), name: "web".into(), port: 80 };
    let header = HeaderMatch { name: HeaderName::from_static("x-version"), value: HeaderValue::from_static("v2") };
    let by = |path, headers| RequestMatch { path, headers, method: None };
    let matches = [
        by(None, vec![header]),
        by(Some(PathMatch::exact("/health").context("a path")?), Vec::new()),
        by(Some(PathMatch::prefix("/orders").context("a path")?), Vec::new()),
    ];
    let routes = matches.into_iter().enumerate().map(|(number, one)| Route {
        name: format!("shop/web#{number}").into(),
        matches: vec![one],
        backends: vec![WeightedBackend { backend: Some(1), weight: 1 }],
    });
    let backend = Backend { service: service.clone(), endpoints: Vec::new() };
    Ok(ServiceTarget {
        service,
        protocol: Protocol::Http1,
        routes: routes.collect(),
        backends: vec![backend.clone(), backend],
    })
}

/// A port with three rules, of which the last lets orders in.
fn policy() -> PortPolicy {
    let rule = |(name, action, account): (&str, Action, &str)| {
        let client = ClientMatch::ServiceAccount { namespace: "shop".into(), name: account.into() };
        Rule { name: format!("shop/{name}").into(), action, clients: vec![client] }
    };
    let rules = [("a", Action::Deny, "visitor"), ("b", Action::Allow, "load"), ("c", Action::Allow, "orders")];
    PortPolicy { protocol: Protocol::Http1, default: DefaultPolicy::Deny, rules: rules.map(rule).into() }
}

fn identity(account: &str) -> anyhow::Result<Identity> {
    Ok(Identity::new("cluster.local", "shop", account)?)
}
