//! One mesh in order, and for each check the smallest change that it is there to find.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mesh_proto::{admin, names};
use serde_json::{Value, json};

use super::*;
use crate::check::{
    Verdict,
    observe::{Admission, Certificate, Controller, Key, Objects, Registered, Rejected, Served, Stream},
};

const NOW: &str = "2026-11-21T10:00:00Z";

fn pod(namespace: &str, name: &str, account: &str, meshed: bool) -> Value {
    let sidecar = json!([
        {"name": names::CONTAINER_PROXY, "restartPolicy": "Always"},
        {"name": names::CONTAINER_REDIRECT},
    ]);
    json!({
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"serviceAccountName": account, "containers": [{"name": "app"}], "initContainers": if meshed { sidecar } else { json!([]) }},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn config() -> Value {
    json!({
        "apiVersion": admin::API_VERSION, "kind": "Config", "version": env!("CARGO_PKG_VERSION"), "commit": "c",
        "pod": "shop/web", "identity": "spiffe://cluster.local/ns/shop/sa/web", "log": "info", "ready": true,
        "waitingFor": [], "draining": false, "ageSeconds": 60.0, "settings": [],
        "controller": {"connected": true, "ageSeconds": 0}, "targets": 0,
        "certificate": {"serial": "1", "issuer": "CN=root", "notBefore": "2026-11-21T04:00:00Z", "notAfter": "2026-11-22T04:00:00Z"},
        "trustBundle": {"trustDomain": "cluster.local", "source": "stream", "roots": 1,
            "rootList": [{"subject": "CN=root", "notAfter": "2036-11-21T00:00:00Z"}]},
    })
}

/// A mesh in order, as JSON where a test may change it.
struct Mesh {
    pods: Vec<Value>,
    config: Value,
    namespace: Value,
    observed: Observed,
}

fn mesh() -> Mesh {
    let time = |text: &str| -> Timestamp { text.parse().unwrap() };
    let keys = BTreeMap::from([("inbound".to_owned(), Key { sent: Some(3), acked: Some(3), rejected: None })]);
    let streams = vec![Stream { pod: "shop/web".into(), draining: false, keys }];
    Mesh {
        pods: vec![
            pod(names::SYSTEM_NAMESPACE, "controller", names::CONTROLLER_NAME, false),
            pod(names::SYSTEM_NAMESPACE, "injector", names::INJECTOR_NAME, false),
            pod("shop", "web", "web", true),
        ],
        config: config(),
        namespace: json!({"metadata": {"name": "shop", "labels": {names::LABEL_INJECT: names::INJECT_ENABLED}}}),
        observed: Observed {
            now: time(NOW),
            playground: false,
            mesh_namespace: names::SYSTEM_NAMESPACE.into(),
            scope: None,
            pods: Vec::new(),
            hidden: None,
            namespaces_hidden: None,
            namespaces: BTreeMap::new(),
            proxies: Vec::new(),
            controller: Some(Ok(Controller {
                objects: Objects::default(),
                proxies: streams,
                issuer_ends: Some(time("2027-11-01T00:00:00Z")),
            })),
            webhook: Some(Ok(Certificate {
                names: vec!["mesh-injector.mesh-system.svc".into()],
                not_before: time("2026-11-01T00:00:00Z"),
                not_after: time("2027-01-30T00:00:00Z"),
                chain: Vec::new(),
            })),
            registered: Some(Ok(Registered::default())),
            served: Some(Ok(Vec::new())),
            admission: Some(Ok(Admission::Meshed)),
        },
    }
}

impl Mesh {
    fn observed(self) -> Observed {
        let Self { pods, config, namespace, mut observed } = self;
        observed.pods = pods.into_iter().map(|pod| serde_json::from_value(pod).unwrap()).collect();
        observed.namespaces = BTreeMap::from([("shop".to_owned(), namespace)]);
        let meshed = observed.pods.iter().map(PodInfo::from_object).filter(|pod| pod.meshed);
        let answers = meshed.enumerate().map(|(place, pod)| {
            // `null` is a proxy that does not answer.
            let one = config.as_array().map_or(&config, |all| &all[place]);
            let answer = serde_json::from_value(one.clone()).map_err(|_| "connection refused".into());
            (pod, answer)
        });
        observed.proxies = answers.collect();
        observed
    }

    fn controller(&mut self) -> &mut Controller {
        self.observed.controller.as_mut().unwrap().as_mut().unwrap()
    }

    fn webhook(&mut self) -> &mut Certificate {
        self.observed.webhook.as_mut().unwrap().as_mut().unwrap()
    }
}

fn bad(observed: &Observed) -> Vec<(Check, Verdict, Vec<String>)> {
    let outcomes = judge(observed, Extent::Whole).into_iter().filter(|one| one.verdict != Verdict::Ok);
    outcomes.map(|one| (one.check, one.verdict, one.findings.into_iter().map(|found| found.text).collect())).collect()
}

#[test]
fn a_mesh_in_order_passes_every_check() {
    assert_eq!(bad(&mesh().observed()), Vec::new());
}

/// The change that breaks the mesh, the checks that must say so, and a part of what the first of them says.
type Broken = (&'static [Check], &'static str, fn(&mut Mesh));

const BROKEN: &[Broken] = &[
    (&[Check::ControllerReady], "there is no mesh-controller in namespace mesh-system", |mesh| {
        mesh.pods.remove(0);
        mesh.observed.controller = None;
    }),
    (&[Check::ControllerReady], "pod mesh-system/controller is not ready", |mesh| {
        mesh.pods[0]["status"]["conditions"][0]["status"] = "False".into();
    }),
    (&[Check::ControllerAnswers], "refused", |mesh| mesh.observed.controller = Some(Err("refused".into()))),
    (&[Check::InjectorReady], "there is no mesh-injector", |mesh| {
        mesh.pods.remove(1);
        mesh.observed.webhook = None;
    }),
    (&[Check::WebhookCertValid], "the webhook cannot be asked: refused", |mesh| {
        mesh.observed.webhook = Some(Err("refused".into()));
    }),
    (&[Check::WebhookCertValid], "it expired at 2026-11-20", |mesh| {
        mesh.webhook().not_after = "2026-11-20T00:00:00Z".parse().unwrap();
    }),
    (&[Check::WebhookCertValid], "it is not valid before", |mesh| {
        mesh.webhook().not_before = "2026-11-22T00:00:00Z".parse().unwrap();
    }),
    (&[Check::WebhookCertValid], "asks for mesh-injector.mesh-system.svc; the certificate is for other", |mesh| {
        mesh.webhook().names = vec!["other".into()];
    }),
    (&[Check::WebhookCertExpiring], "it expires in 3d14h", |mesh| {
        mesh.webhook().not_after = "2026-11-25T00:00:00Z".parse().unwrap();
    }),
    (&[Check::WebhookTrusted], "pod.inject has no caBundle", |mesh| {
        mesh.observed.registered = Some(Ok(Registered(vec![("pod.inject".into(), None)])));
    }),
    (&[Check::WebhookTrusted], "caBundle of pod.inject: it holds no certificate", |mesh| {
        mesh.observed.registered = Some(Ok(Registered(vec![("pod.inject".into(), Some(b"nonsense".to_vec()))])));
    }),
    (&[Check::WebhookTrusted], "has no webhook configuration to go by: not found", |mesh| {
        mesh.observed.registered = Some(Err("not found".into()));
    }),
    (&[Check::ResourceVersions], "things.example is served as v1beta9 and not as v1", |mesh| {
        let (name, version) = ("things.example".to_owned(), "v1".to_owned());
        let versions = vec!["v1beta9".to_owned()];
        mesh.observed.served = Some(Ok(vec![Served { name, version, is_ours: true, versions }]));
    }),
    (&[Check::ResourceVersions], "the API server does not say: timed out", |mesh| {
        mesh.observed.served = Some(Err("timed out".into()));
    }),
    (&[Check::AdmissionWorks], "a pod of namespace shop was admitted as it was written", |mesh| {
        mesh.observed.admission = Some(Ok(Admission::Plain("shop".into())));
    }),
    (&[Check::AdmissionWorks], "failed calling webhook", |mesh| {
        mesh.observed.admission = Some(Err("failed calling webhook: connection refused".into()));
    }),
    (&[Check::TrustAnchorsValid], "root \"CN=root\" expired", |mesh| {
        mesh.config["trustBundle"]["rootList"][0]["notAfter"] = "2026-11-20T00:00:00Z".into();
    }),
    (&[Check::TrustAnchorsExpiring], "expires in 9d14h", |mesh| {
        mesh.config["trustBundle"]["rootList"][0]["notAfter"] = "2026-12-01T00:00:00Z".into();
    }),
    (&[Check::TrustAnchorsAgree], "shop/web-2 trusts other roots than most: CN=other, CN=root", |mesh| {
        mesh.pods.extend([pod("shop", "web-1", "web", true), pod("shop", "web-2", "web", true)]);
        let mut other = config();
        let list = other["trustBundle"]["rootList"].as_array_mut().unwrap();
        list.push(json!({"subject": "CN=other", "notAfter": "2036-11-21T00:00:00Z"}));
        mesh.config = json!([config(), config(), other]);
    }),
    (&[Check::IssuerValid], "it expired at 2026-11-20", |mesh| {
        mesh.controller().issuer_ends = "2026-11-20T00:00:00Z".parse().ok();
    }),
    (&[Check::IssuerExpiring], "it expires in 3d14h", |mesh| {
        mesh.controller().issuer_ends = "2026-11-25T00:00:00Z".parse().ok();
    }),
    (&[Check::ProxiesAnswer], "pod shop/web: connection refused", |mesh| mesh.config = Value::Null),
    (&[Check::ProxiesReady], "pod shop/web waits for certificate", |mesh| {
        mesh.config["ready"] = false.into();
        mesh.config["waitingFor"] = json!(["certificate"]);
    }),
    (&[Check::ProxyCertsValid], "has no certificate", |mesh| mesh.config["certificate"] = Value::Null),
    (&[Check::ProxyCertsValid], "expired at 2026-11-21T09:00:00Z", |mesh| {
        mesh.config["certificate"]["notAfter"] = "2026-11-21T09:00:00Z".into();
    }),
    (&[Check::ProxyCertsValid], "compare the clocks", |mesh| {
        mesh.config["certificate"]["notBefore"] = "2026-11-21T10:30:00Z".into();
    }),
    (&[Check::ProxyCertsRenewing], "1h0m is left", |mesh| {
        mesh.config["certificate"]["notAfter"] = "2026-11-21T11:00:00Z".into();
    }),
    (&[Check::ProxyVersions], "9.9.9", |mesh| mesh.config["version"] = "9.9.9".into()),
    (&[Check::ProxiesConnected], "no stream to the controller for 5m0s", |mesh| {
        mesh.config["controller"] = json!({"connected": false, "ageSeconds": 300});
    }),
    (&[Check::ProxiesCurrent], "rejects inbound version 4, keeps 3: unknown field", |mesh| {
        let key = mesh.controller().proxies[0].keys.get_mut("inbound").unwrap();
        key.sent = Some(4);
        key.rejected = Some(Rejected { version: 4, reason: "unknown field".into() });
    }),
    (&[Check::ProxiesCurrent], "was sent inbound version 4 and runs 3", |mesh| {
        mesh.controller().proxies[0].keys.get_mut("inbound").unwrap().sent = Some(4);
    }),
    (&[Check::RedirectPresent], "has a sidecar and no mesh-redirect", |mesh| {
        mesh.pods[2]["spec"]["initContainers"].as_array_mut().unwrap().pop();
    }),
    (&[Check::RedirectPresent], "mesh-redirect ended with 1", |mesh| {
        mesh.pods[2]["status"]["initContainerStatuses"] = json!([{"name": names::CONTAINER_REDIRECT, "ready": false,
            "restartCount": 3, "image": "", "imageID": "", "state": {"terminated": {"exitCode": 1}}}]);
    }),
    (&[Check::PodsMeshed], "pod shop/old: it is older", |mesh| mesh.pods.push(pod("shop", "old", "web", false))),
    (&[Check::PodsMeshed], "namespaces cannot be read: timed out", |mesh| {
        mesh.observed.namespaces_hidden = Some("timed out".into());
    }),
    (&[Check::PodsMeshed], "(other-mesh)", |mesh| {
        let mut other = pod("shop", "old", "web", false);
        other["spec"]["containers"][0]["name"] = "istio-proxy".into();
        mesh.pods.push(other);
    }),
    (&[Check::OneMesh], "namespace shop asks for this mesh and, by istio-injection=enabled, for another", |mesh| {
        mesh.namespace["metadata"]["labels"]["istio-injection"] = "enabled".into();
    }),
    (&[Check::OneMesh], "pod shop/web has a sidecar of this mesh and linkerd-proxy", |mesh| {
        mesh.pods[2]["spec"]["containers"][0]["name"] = "linkerd-proxy".into();
    }),
    (&[Check::PodsReady], "pod shop/web is not ready: container app runs and its probe does not pass", |mesh| {
        mesh.pods[2]["status"]["conditions"][0] =
            json!({"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-21T09:00:00Z"});
        mesh.pods[2]["status"]["containerStatuses"] = json!([{"name": "app", "ready": false, "restartCount": 0,
            "image": "", "imageID": "", "state": {"running": {}}}]);
    }),
    (&[Check::ObjectsInForce], "/m/a.yaml:3: HTTPRoute shop/web: wrong", |mesh| {
        let reasons = vec!["/m/a.yaml:3: HTTPRoute shop/web: wrong".to_owned()];
        mesh.controller().objects.problems = BTreeMap::from([("/m/a.yaml".to_owned(), reasons)]);
    }),
    (&[Check::ObjectsInForce], "HTTPRoute shop/web: parentRefs: 0 is not a port", |mesh| {
        let reasons = vec!["parentRefs: 0 is not a port".to_owned()];
        mesh.controller().objects.problems = BTreeMap::from([("HTTPRoute shop/web".to_owned(), reasons)]);
    }),
];

#[test]
fn each_check_finds_what_it_is_for_and_no_other_does() {
    for (checks, says, break_it) in BROKEN {
        let mut mesh = mesh();
        break_it(&mut mesh);
        let bad = bad(&mesh.observed());
        let found: Vec<Check> = bad.iter().map(|(check, ..)| *check).collect();
        assert_eq!(found, *checks, "{says}: {bad:#?}");
        assert!(bad[0].2.iter().any(|text| text.contains(says)), "{says}: {bad:#?}");
    }
}

#[test]
fn every_check_of_a_mesh_has_a_failing_fixture() {
    for check in Check::ALL.into_iter().filter(|check| Extent::Whole.has(check.facts().category)) {
        let broken = BROKEN.iter().any(|(checks, ..)| checks.contains(&check));
        // Where the cluster does not answer there is nothing to judge.
        assert!(broken || check == Check::ClusterReachable, "{}", check.id());
    }
    let failure = Failure::new(crate::failure::Exit::Unreachable, "refused");
    assert_eq!(unreachable(&failure)[0].verdict, Verdict::Error);
    assert_eq!(unreachable(&Failure { forbidden: true, ..failure })[0].verdict, Verdict::NotAllowed);
}

#[test]
fn what_may_not_be_looked_at_is_neither_good_nor_absent() {
    let mut mesh = mesh();
    mesh.pods.drain(..2);
    mesh.observed.controller = None;
    mesh.observed.webhook = None;
    let mut observed = mesh.observed();
    observed.hidden = Some("not allowed to list pods in namespace mesh-system: no".into());
    observed.registered = Some(Err(Unseen { reason: "get is refused".into(), not_allowed: true }));
    observed.namespaces_hidden =
        Some(Unseen { reason: "not allowed to get namespace shop: no".into(), not_allowed: true });
    observed.proxies[0].1 = Err(Unseen { reason: "port-forward is refused".into(), not_allowed: true });
    let bad = bad(&observed);
    assert!(
        bad.iter().all(|(_, verdict, texts)| *verdict == Verdict::NotAllowed && !texts[0].contains("there is no")),
        "{bad:#?}"
    );
    assert_eq!(bad.len(), 12, "{bad:#?}");
    let own = judge(&observed, Extent::Proxies);
    let open: Vec<Check> = own.iter().filter(|one| one.verdict != Verdict::Ok).map(|one| one.check).collect();
    assert_eq!(open, [Check::ProxiesAnswer, Check::PodsMeshed], "the control plane was not asked for");
}

#[test]
fn an_admission_that_may_not_be_tried_is_said_and_no_finding() {
    let mut mesh = mesh();
    mesh.observed.admission = Some(Ok(Admission::NotTried("pods is forbidden".into())));
    let outcomes = judge(&mesh.observed(), Extent::Whole);
    let one = outcomes.iter().find(|one| one.check == Check::AdmissionWorks).unwrap();
    assert_eq!((one.verdict, one.note.as_deref()), (Verdict::Ok, Some("it could not be tried: pods is forbidden")));
}

#[test]
fn what_starts_or_ends_right_now_is_no_finding() {
    let mut mesh = mesh();
    mesh.pods[2]["status"]["conditions"][0] =
        json!({"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-21T09:59:30Z"});
    mesh.config["draining"] = true.into();
    mesh.config["ready"] = false.into();
    mesh.config["controller"]["connected"] = false.into();
    assert_eq!(bad(&mesh.observed()), Vec::new());
}

#[test]
fn another_namespace_is_not_looked_at() {
    let mut mesh = mesh();
    mesh.pods.push(pod("shop", "old", "web", false));
    mesh.controller().proxies[0].keys.get_mut("inbound").unwrap().sent = Some(4);
    mesh.observed.scope = Some("other".into());
    assert_eq!(bad(&mesh.observed()), Vec::new());
}
