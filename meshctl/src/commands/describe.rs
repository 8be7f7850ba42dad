//! `meshctl describe`: what the mesh makes of a workload, a Service or a namespace: meshed or not and why, what is on its
//! ports, who is let in, and what of it deserves a word.
//!
//! What is in force is told by the proxy itself; what would be, by the injector's own decision.

mod service;
mod text;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mesh_injector::decide::{self, Namespace, NamespaceMeta, Verdict};
use mesh_proto::{admin as pages, names};
use serde::Serialize;
use serde_json::Value;

use super::{Counts, admin, select};
use crate::{
    cli::{self, Output},
    cluster::{Cluster, PodInfo},
    failure::{Exit, Failure},
    printer::{API_VERSION, Printer},
    reason::{self, RESTART},
    resource::Resource,
};

/// Forms that it has.
pub(crate) const FORMS: &[Output] = &[Output::Table, Output::Wide, Output::Json, Output::Ndjson, Output::Yaml];

/// A workload, or a pod without one.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    namespace: String,
    workload: String,
    #[serde(flatten)]
    counts: Counts,
    /// Why pods are not meshed.
    not_meshed: Option<Why>,
    /// What the first of its proxies says; of a workload all pods are alike.
    in_force: Option<InForce>,
    /// What Services and containers declare.
    ports: Vec<Declared>,
    /// Annotations that set something, as `name: value`.
    settings: BTreeMap<String, String>,
    warnings: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Why {
    code: String,
    text: String,
    fix: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct InForce {
    pod: String,
    identity: String,
    ready: bool,
    controller: bool,
    certificate_ends: Option<String>,
    /// By port; the last one, without a number, is every other.
    ports: Vec<pages::Port>,
    /// Why the proxy does not say.
    unknown: Option<String>,
}

/// A port of a container or a Service.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Declared {
    port: u16,
    container: Option<String>,
    /// `name:port`, with what it says of the protocol.
    services: Vec<String>,
    udp: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    /// The Service that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a service::Said>,
    items: &'a [Described],
}

pub(crate) async fn run(
    cluster: &Cluster,
    namespace: Option<&str>,
    args: &cli::Describe,
    printer: &Printer,
) -> Result<(), Failure> {
    // A namespace that is named is looked at, whichever is the context's.
    let namespace = if let Resource::Namespace(name) = &args.resource { Some(name.as_str()) } else { namespace };
    let objects = cluster.pod_objects(namespace).await?;
    let infos: Vec<PodInfo> = objects.iter().map(PodInfo::from_object).collect();
    let (namespaces, services) = tokio::join!(cluster.objects("namespaces"), cluster.objects("services"));
    let services: Vec<Service> =
        services?.into_iter().filter_map(|object| serde_json::from_value(object).ok()).collect();
    let (said, selected) = match &args.resource {
        Resource::Service(name) => {
            let (said, picked) = behind(name, namespace, &services, &objects)?;
            (Some(said), picked)
        }
        resource => (None, select(infos, Some(resource))?),
    };
    let metas: HashMap<String, NamespaceMeta> = namespaces?
        .iter()
        .filter_map(|object| Some((object["metadata"]["name"].as_str()?.to_owned(), reason::meta(object))))
        .collect();
    let mut workloads: BTreeMap<(String, String), Vec<PodInfo>> = BTreeMap::new();
    for pod in selected {
        workloads.entry((pod.namespace.clone(), pod.workload_or_name())).or_default().push(pod);
    }
    let mut all = Vec::new();
    for ((namespace, workload), pods) in workloads {
        let object = |pod: &PodInfo| {
            let is_it = |object: &&Pod| PodInfo::from_object(object) == *pod;
            objects.iter().find(is_it).and_then(|object| serde_json::to_value(object).ok()).unwrap_or_default()
        };
        let meta = metas.get(&namespace).cloned().unwrap_or_default();
        let mut one = described(&Namespace { name: namespace, meta }, workload, &pods, object, &services);
        if let Some(pod) = pods.iter().find(|pod| pod.meshed) {
            one.in_force = Some(in_force(cluster, pod).await);
        }
        all.push(one);
    }
    match printer.output {
        Output::Ndjson => all.iter().try_for_each(|one| printer.line(one)),
        Output::Json | Output::Yaml => {
            let service = said.as_ref();
            printer.document(&Document { api_version: API_VERSION, kind: "DescriptionList", service, items: &all })
        }
        _ => printer.data(&text::of(said.as_ref(), &all, printer.text_width())),
    }
}

async fn in_force(cluster: &Cluster, pod: &PodInfo) -> InForce {
    let page = admin::get(cluster, pod, pages::CONFIG).await.and_then(|text| super::pages::json(pages::CONFIG, &text));
    let page: Result<pages::Config, Failure> = page;
    let mut said = InForce {
        pod: pod.name.clone(),
        identity: String::new(),
        ready: false,
        controller: false,
        certificate_ends: None,
        ports: Vec::new(),
        unknown: None,
    };
    match page {
        Err(failure) => said.unknown = Some(failure.message),
        Ok(config) => {
            said.identity = config.identity;
            said.ready = config.ready;
            said.controller = config.controller.connected;
            said.certificate_ends = config.certificate.and_then(|certificate| certificate.not_after);
            said.ports =
                config.inbound.map(|inbound| [inbound.ports, vec![inbound.default]].concat()).unwrap_or_default();
        }
    }
    said
}

/// A Service, and the pods that it picks.
fn behind(
    name: &str,
    namespace: Option<&str>,
    services: &[Service],
    pods: &[Pod],
) -> Result<(service::Said, Vec<PodInfo>), Failure> {
    let is_seen =
        |service: &&Service| namespace.is_none_or(|wanted| service.metadata.namespace.as_deref() == Some(wanted));
    let mut seen = services.iter().filter(is_seen);
    let Some(found) = seen.clone().find(|service| service.metadata.name.as_deref() == Some(name)) else {
        let failure = Failure::new(Exit::NotFound, format!("there is no service/{name}"));
        let known: Vec<&str> = seen.by_ref().filter_map(|service| service.metadata.name.as_deref()).take(8).collect();
        return Err(failure.fix(if known.is_empty() {
            "-n NAME or -A looks elsewhere".to_owned()
        } else {
            format!("there is {}; -n NAME or -A looks elsewhere", known.join(", "))
        }));
    };
    let mut picked = Vec::new();
    for pod in pods {
        let info = PodInfo::from_object(pod);
        if leads_here(found, &info.namespace, pod.metadata.labels.as_ref().unwrap_or(&BTreeMap::new())) {
            picked.push((info, serde_json::to_value(pod).unwrap_or_default()));
        }
    }
    let said = service::of(found, &picked);
    Ok((said, picked.into_iter().map(|(info, _)| info).collect()))
}

/// All that follows from objects.
fn described(
    namespace: &Namespace,
    workload: String,
    pods: &[PodInfo],
    object: impl Fn(&PodInfo) -> Value,
    services: &[Service],
) -> Described {
    let first = pods.iter().find(|pod| !pod.meshed).or(pods.first()).map(object).unwrap_or_default();
    // What the injector would say of the pod as its owner wrote it.
    let written = mesh_injector::uninject::uninject(&first).ok().flatten().unwrap_or_else(|| first.clone());
    let decision = decide::decide(&written, namespace);
    let warnings = decision.warnings.into_iter().filter(|warning| !warning.starts_with("no sidecar")).collect();
    let not_meshed = pods.iter().any(|pod| !pod.meshed).then(|| why(decision.verdict, namespace, &workload));
    Described {
        namespace: namespace.name.clone(),
        counts: Counts::of(pods.iter()),
        not_meshed,
        in_force: None,
        ports: ports(&first, &namespace.name, services),
        settings: settings(&first, namespace),
        warnings,
        workload,
    }
}

fn why(verdict: Verdict, namespace: &Namespace, workload: &str) -> Why {
    match verdict {
        Verdict::Inject(_) => Why {
            code: RESTART.to_owned(),
            text: "it is older than the label that asks for a sidecar, or than the mesh".to_owned(),
            fix: Some(match workload.split_once('/') {
                Some(("deployment" | "statefulset" | "daemonset", _)) => {
                    format!("kubectl -n {} rollout restart {workload}", namespace.name)
                }
                _ => "create it anew".to_owned(),
            }),
        },
        Verdict::Skip(reason) | Verdict::Refuse(reason) => {
            let (text, fix) = (reason.text(), reason.code.fix());
            // Its sentence ends with the fix, which has a line of its own here.
            let end = fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
            Why {
                code: reason.code().to_owned(),
                text: text.strip_suffix(&end).unwrap_or(&text).to_owned(),
                fix: fix.map(|fix| fix.replace("NAME", &namespace.name)),
            }
        }
    }
}

/// Annotations of ours, the pod's own before its namespace's.
fn settings(pod: &Value, namespace: &Namespace) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = namespace.meta.annotations.clone();
    let own: BTreeMap<String, String> =
        serde_json::from_value(pod["metadata"]["annotations"].clone()).unwrap_or_default();
    all.extend(own);
    // What the injector notes is no setting.
    all.retain(|key, _| mesh_injector::settings::is_ours(key) && key != names::ANNOTATION_PROXY_VERSION);
    all
}

/// Ports that containers name and Services lead to.
fn ports(pod: &Value, namespace: &str, services: &[Service]) -> Vec<Declared> {
    let mut all: BTreeMap<(u16, bool), Declared> = BTreeMap::new();
    let mut by_name: HashMap<String, u16> = HashMap::new();
    let containers = mesh_injector::pod::list(pod, "containers");
    for container in containers {
        for port in container["ports"].as_array().into_iter().flatten() {
            let Some(number) = port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok()) else {
                continue;
            };
            let udp = port["protocol"] == "UDP";
            if let Some(name) = port["name"].as_str() {
                by_name.insert(name.to_owned(), number);
            }
            let container = container["name"].as_str().map(str::to_owned);
            all.insert((number, udp), Declared { port: number, container, services: Vec::new(), udp });
        }
    }
    let labels: BTreeMap<String, String> =
        serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default();
    for service in services.iter().filter(|service| leads_here(service, namespace, &labels)) {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
            let Some(target) = target(port, &by_name) else { continue };
            let udp = port.protocol.as_deref() == Some("UDP");
            let entry = all.entry((target, udp));
            let entry = entry.or_insert_with(|| Declared { port: target, container: None, services: Vec::new(), udp });
            entry.services.push(format!("{name}:{}", port.port));
        }
    }
    all.into_values().collect()
}

fn target(port: &ServicePort, by_name: &HashMap<String, u16>) -> Option<u16> {
    match &port.target_port {
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => by_name.get(name).copied(),
        None => u16::try_from(port.port).ok(),
    }
}

fn leads_here(service: &Service, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let picks = selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    });
    service.metadata.namespace.as_deref() == Some(namespace) && picks
}

/// Every port about which something is known: those that are declared, and those that the policy names.
fn numbers(one: &Described) -> BTreeSet<u16> {
    let declared = one.ports.iter().filter(|port| !port.udp).map(|port| port.port);
    let ruled = one.in_force.iter().flat_map(|said| &said.ports).filter(|port| !port.rules.is_empty());
    declared.chain(ruled.filter_map(|port| port.port)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_those_of_containers_and_those_that_services_lead_to() {
        let pod = json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "ports": [
                {"containerPort": 8080, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}]}]},
        });
        let service = |name: &str, namespace: &str, selector: &str, target: Value| -> Service {
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": {"app": selector}, "ports": [{"port": 80, "targetPort": target}]},
            }))
            .unwrap()
        };
        let services = [
            service("web", "shop", "web", json!("http")),
            service("admin", "shop", "web", json!(9990)),
            service("other", "shop", "other", json!(8080)),
            service("elsewhere", "other", "web", json!(8080)),
        ];
        let found = ports(&pod, "shop", &services);
        let found: Vec<(u16, bool, String)> =
            found.into_iter().map(|port| (port.port, port.udp, port.services.join(" "))).collect();
        let expected = [(53, true, ""), (8080, false, "web:80"), (9990, false, "admin:80")];
        assert_eq!(found, expected.map(|(port, udp, services)| (port, udp, services.to_owned())));
    }

    #[test]
    fn why_a_pod_is_not_meshed_is_the_injectors_word_and_its_fix_names_the_namespace() {
        let meta = reason::meta(&json!({"metadata": {"labels": {}}}));
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}});
        let namespace = Namespace { name: "shop".into(), meta };
        let answer = why(decide::decide(&pod, &namespace).verdict, &namespace, "deployment/web");
        assert_eq!(answer.code, "not-labelled");
        assert_eq!(answer.fix.as_deref(), Some("kubectl label namespace shop meshctl.dev/inject=enabled"));
        let asked = Namespace { meta: namespace.meta.clone().opted_in(), ..namespace };
        let answer = why(decide::decide(&pod, &asked).verdict, &asked, "deployment/web");
        assert_eq!(answer.fix.as_deref(), Some("kubectl -n shop rollout restart deployment/web"));
    }
}
