//! Kubernetes objects as text, as a person would write them. All live in the namespace [`NAMESPACE`].

use std::{fmt::Write as _, net::Ipv4Addr};

use mesh_netlab::Addresses;
use mesh_proto::names;

use crate::apps::{HTTP_PORT, LINES_PORT};

/// Where everything is.
pub const NAMESPACE: &str = "shop";

/// The namespace itself.
pub fn namespace() -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n")
}

/// A meshed pod with the label `app` and its own name as the label `pod`.
pub fn pod(name: &str, account: &str, app: &str, addresses: Addresses, ready: bool) -> String {
    let sidecar = names::CONTAINER_PROXY;
    let sidecar = format!("\n  initContainers:\n    - {{name: {sidecar}, image: proxy, restartPolicy: Always}}");
    any_pod(name, account, app, &sidecar, addresses, ready)
}

/// A pod without a sidecar; account and labels are called like it, and it is ready.
pub fn plain_pod(name: &str, addresses: Addresses) -> String {
    any_pod(name, name, name, "", addresses, true)
}

fn any_pod(name: &str, account: &str, app: &str, sidecar: &str, addresses: Addresses, ready: bool) -> String {
    let ready = if ready { "True" } else { "False" };
    format!(
        r"apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}, uid: {uid}, labels: {{app: {app}, pod: {name}}}}}
spec:
  serviceAccountName: {account}{sidecar}
  containers:
    - name: app
      image: app
      ports: [{{name: http, containerPort: {HTTP_PORT}}}, {{containerPort: {LINES_PORT}}}]
status:
  phase: Running
  podIP: {ip}
  podIPs: [{ips}]
  conditions: [{{type: Ready, status: {ready:?}}}]
",
        uid = uid(name),
        ip = addresses.v4,
        ips = addresses.iter().map(|ip| format!("{{ip: \"{ip}\"}}")).collect::<Vec<_>>().join(", "),
    )
}

/// The uid of a pod.
pub fn uid(pod: &str) -> String {
    format!("uid-{pod}")
}

/// A Service that picks pods by one label: port 80 is declared HTTP, port 7000 says nothing about itself.
pub fn service(name: &str, (label, value): (&str, &str), ip: Ipv4Addr) -> String {
    format!(
        r"apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  clusterIP: {ip}
  clusterIPs: [{ip}]
  selector: {{{label}: {value}}}
  ports:
    - {{name: http, port: 80, targetPort: http, appProtocol: http}}
    - {{name: lines, port: {LINES_PORT}, targetPort: {LINES_PORT}}}
"
    )
}

/// A Service of both families that picks pods by one label; each port leads to the same one of the pod, and says what
/// `appProtocol` it has, or nothing.
pub fn service_of_ports(
    name: &str,
    (label, value): (&str, &str),
    addresses: Addresses,
    ports: impl Iterator<Item = (u16, Option<&'static str>)>,
) -> String {
    let ips = addresses.iter().map(|ip| format!("{:?}", ip.to_string())).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        r"apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  clusterIPs: [{ips}]
  selector: {{{label}: {value}}}
  ports:
"
    );
    for (port, protocol) in ports {
        let protocol = protocol.map(|protocol| format!(", appProtocol: {protocol}")).unwrap_or_default();
        // Writing to text cannot fail.
        let _ = writeln!(text, "    - {{name: p{port}, port: {port}, targetPort: {port}{protocol}}}");
    }
    text
}

/// A Service among many, with so many pods of its own that nobody runs.
pub fn crowd(number: u16, pods: u8) -> String {
    let [high, low] = number.to_be_bytes();
    let name = format!("crowd-{number}");
    let mut text = service(&name, ("app", &name), Ipv4Addr::new(10, 97, high, low));
    for pod in 1..=pods {
        let addresses = Addresses { v4: Ipv4Addr::new(10, 100 + high, low, pod), v6: None };
        text += "---\n";
        text += &self::pod(&format!("{name}-{pod}"), "crowd", &name, addresses, true);
    }
    text
}

/// The endpoints of port 80 of a Service, whatever pods it picks: one address.
pub fn endpoints(service: &str, ip: Ipv4Addr) -> String {
    format!(
        r"apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-1, namespace: {NAMESPACE}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: http, port: {HTTP_PORT}, protocol: TCP}}]
endpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]
"
    )
}

/// An HTTPRoute for port 80 of a Service. Requests with the header `x-to: SERVICE` go to it, for each of `by_header`; the others
/// by `weights`.
pub fn route(service: &str, by_header: &[&str], weights: &[(&str, u32)]) -> String {
    let mut text = format!(
        r#"apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {service}, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: {service}, port: 80}}]
  rules:
"#
    );
    for to in by_header {
        text += &format!(
            "    - matches: [{{headers: [{{name: x-to, value: {to}}}]}}]\n      backendRefs: [{{name: {to}, port: 80}}]\n"
        );
    }
    text += "    - backendRefs:\n";
    for (to, weight) in weights {
        text += &format!("        - {{name: {to}, port: 80, weight: {weight}}}\n");
    }
    text
}

/// An AuthorizationPolicy for the pods of a Service: only these service accounts.
pub fn only(service: &str, accounts: &[&str]) -> String {
    format!(
        r"apiVersion: {group}/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: {service}, namespace: {NAMESPACE}}}
spec:
  targetRefs: [{{kind: Service, name: {service}}}]
  from: [{{serviceAccounts: [{accounts}]}}]
",
        group = names::GROUP,
        accounts = accounts.join(", "),
    )
}
