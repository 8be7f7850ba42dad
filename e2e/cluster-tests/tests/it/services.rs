//! The kinds of Services, and of pods behind them: what a meshed pod reaches by each of them, and as whom.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, mesh, meshctl, until};
use mesh_proto::names;
use serde_json::Value;

/// `first` and `second` let in only who proves an identity, so that every answer of them came by mutual TLS. The same name
/// means another port on each. `first` has several containers, and one that speaks UDP.
fn pods() -> String {
    format!(
        r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: first, labels: {{app: web, pod: first}}, annotations: {{{policy}: authenticated}}}}
spec:
  containers:
    - name: web
      image: mesh-shop:dev
      args: [web, --name=first, "--listen=[::]:8080"]
      ports: [{{name: http, containerPort: 8080}}]
      readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
    - name: stock
      image: mesh-shop:dev
      args: [stock]
      ports: [{{name: stock, containerPort: 7000}}]
    - name: echo
      image: mesh-shop:dev
      args: [echo]
      ports: [{{name: echo, containerPort: 7007, protocol: UDP}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: second, labels: {{app: web, pod: second}}, annotations: {{{policy}: authenticated}}}}
spec:
  containers:
    - name: web
      image: mesh-shop:dev
      args: [web, --name=second, --version=v2, "--listen=0.0.0.0:8081", "--stock=several:7000"]
      ports: [{{name: http, containerPort: 8081}}]
      readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
---
# Its probe never passes.
apiVersion: v1
kind: Pod
metadata: {{name: unready, labels: {{pod: unready}}}}
spec:
  containers:
    - name: web
      image: mesh-shop:dev
      args: [web, --name=unready]
      readinessProbe: {{tcpSocket: {{port: 9999}}, periodSeconds: 5}}
---
apiVersion: v1
kind: Pod
metadata: {{name: on-the-node, labels: {{pod: on-the-node}}}}
spec:
  hostNetwork: true
  containers: [{{name: web, image: "mesh-shop:dev", args: [web, --name=on-the-node, "--listen=0.0.0.0:{NODE_PORT}"]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: plain, labels: {{{inject}: disabled}}}}
spec:
  containers: [{{name: web, image: "mesh-shop:dev", args: [web, --name=plain]}}]
"#,
        policy = names::ANNOTATION_DEFAULT_POLICY,
        inject = names::LABEL_INJECT,
    )
}

/// Nothing else of a cluster's nodes has it.
const NODE_PORT: u16 = 28_080;

const SERVICES: &str = r"
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: h2c}
spec:
  selector: {app: web}
  ports: [{name: web, port: 80, targetPort: http, appProtocol: kubernetes.io/h2c}]
---
apiVersion: v1
kind: Service
metadata: {name: unheard-of}
spec:
  selector: {app: web}
  ports: [{name: web, port: 80, targetPort: http, appProtocol: example.com/own}]
---
apiVersion: v1
kind: Service
metadata: {name: close}
spec:
  selector: {app: web}
  trafficDistribution: PreferClose
  ports: [{name: web, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: several}
spec:
  selector: {pod: first}
  ports:
    - {name: http, port: 80, targetPort: http}
    - {name: stock, port: 7000, targetPort: stock, appProtocol: tcp}
    - {name: echo, port: 7007, targetPort: echo, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: both}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {pod: first}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {pod: unready}
---
apiVersion: v1
kind: Service
metadata: {name: early}
spec:
  publishNotReadyAddresses: true
  selector: {pod: unready}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: late}
spec:
  selector: {pod: unready}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: node}
spec:
  selector: {pod: on-the-node}
  ports: [{name: http, port: 80, targetPort: 28080}]
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.mesh-e2e-services.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: kubernetes.default.svc.cluster.local}
";

/// A Service without a selector, and its one endpoint, which somebody else keeps. Hints of a topology may lead nowhere.
fn by_hand(name: &str, address: &str, port: u16, hints: &str) -> String {
    format!(
        r"
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  ports: [{{name: http, port: 80, targetPort: {port}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-by-hand, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [{address}]{hints}}}]
ports: [{{name: http, port: {port}, protocol: TCP}}]
"
    )
}

/// Both pods, on ports of their own, each meant for the clients of another zone, of which one is the node's.
fn in_zones(node: &str, zone: &str, pods: [(&str, u16, &str); 2]) -> String {
    let slices = pods.map(|(address, port, meant)| {
        format!(
            r"
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: near-{port}, labels: {{kubernetes.io/service-name: near}}}}
addressType: IPv4
endpoints: [{{addresses: [{address}], nodeName: {node}, zone: {zone}, hints: {{forZones: [{{name: {meant}}}]}}}}]
ports: [{{name: http, port: {port}, protocol: TCP}}]
"
        )
    });
    let service = "
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec: {ports: [{name: http, port: 80}]}
";
    [service, &slices.concat()].concat()
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_meshed_pod_reaches_whatever_a_service_of_any_kind_leads_to() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-services")?;
    namespace.apply(&[&pods(), SERVICES].concat())?;
    for pod in ["first", "second", "on-the-node", "plain"] {
        namespace.run(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=240s"])?.ok()?;
    }
    let first = address(&namespace, "first")?;
    let node = address(&namespace, "on-the-node")?;
    namespace.apply(
        &[
            by_hand("to-a-pod", &first, 8080, ""),
            by_hand("hinted", &first, 8080, ", hints: {forZones: [{name: nowhere}]}"),
            by_hand("outside", &node, NODE_PORT, ""),
        ]
        .concat(),
    )?;

    // Of both pods each is picked sooner or later, on its own port.
    for service in ["web", "h2c", "unheard-of", "close", "alias"] {
        for pod in ["first", "second"] {
            answers(&namespace, &format!("http://{service}/"), &format!("200 OK {pod}"))?;
        }
    }
    for (url, expected) in [
        ("http://several/", "200 OK first"),
        ("http://to-a-pod/", "200 OK first"),
        ("http://hinted/", "200 OK first"),
        ("http://outside/", "200 OK on-the-node"),
        ("http://node/", "200 OK on-the-node"),
        ("http://early/", "200 OK unready"),
        ("http://each:8080/", "200 OK unready"),
        ("http://late/", "503 Service Unavailable no-endpoints"),
        // The API server is outside the mesh, and says what it says to whoever does not speak TLS.
        ("http://elsewhere:443/", "400 Bad Request"),
    ] {
        answers(&namespace, url, expected)?;
    }
    the_endpoints_that_hints_mean_for_its_zone_are_used(&namespace, &first)?;
    every_address_of_a_service_and_of_a_pod_leads_there(&namespace)?;
    a_pod_reaches_itself_as_itself(&namespace, &first)?;
    who_proves_no_identity_is_not_let_in(&namespace)?;
    udp_goes_past_the_mesh_and_describe_says_so(&namespace)?;
    tcp_in_which_the_server_speaks_first_goes_through(&namespace)
}

/// From `second`.
fn answers(namespace: &Namespace, url: &str, expected: &str) -> anyhow::Result<()> {
    until(&format!("{url} answers {expected}"), || {
        let answer = get(namespace, "second", url)?;
        ensure!(answer == expected, "{url}: {answer}");
        Ok(())
    })
}

/// Status, and the name of the pod or the code of the mesh.
fn get(namespace: &Namespace, from: &str, url: &str) -> anyhow::Result<String> {
    let exec = ["exec", from, "--container=web", "--", "/mesh-shop", "get", "-i", url];
    let answer = namespace.run(&exec)?.ok()?;
    let status = answer.lines().next().unwrap_or_default();
    let code = answer.lines().find_map(|line| line.strip_prefix("mesh-error: "));
    let body: Option<Value> = answer.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let pod = body.as_ref().and_then(|body| body["pod"].as_str());
    Ok(format!("{status} {}", pod.or(code).unwrap_or_default()).trim_end().to_owned())
}

fn address(namespace: &Namespace, pod: &str) -> anyhow::Result<String> {
    namespace.run(&["get", "pod", pod, "--output", "jsonpath={.status.podIP}"])?.ok()
}

/// What the zone of the client's node is, slices say.
fn the_endpoints_that_hints_mean_for_its_zone_are_used(namespace: &Namespace, first: &str) -> anyhow::Result<()> {
    let second = address(namespace, "second")?;
    let node = namespace.run(&["get", "pod", "second", "--output", "jsonpath={.spec.nodeName}"])?.ok()?;
    let zone = r"jsonpath={.metadata.labels.topology\.kubernetes\.io/zone}";
    let zone = namespace.run(&["get", "node", &node, "--output", zone])?.ok()?;
    let zone = if zone.is_empty() { "here" } else { &zone };
    let pods = [(first, 8080, zone), (&second, 8081, "elsewhere")];
    namespace.apply(&in_zones(&node, zone, pods))?;
    until("only the pod of the zone answers", || {
        // Without hints about one in two would come from the other: ten are not chance.
        for _ in 0..10 {
            let answer = get(namespace, "second", "http://near/")?;
            ensure!(answer == "200 OK first", "{answer}");
        }
        Ok(())
    })
}

/// Of both families, where the cluster has both.
fn every_address_of_a_service_and_of_a_pod_leads_there(namespace: &Namespace) -> anyhow::Result<()> {
    let services = namespace.objects("services", "")?;
    let service = services.iter().find(|service| service["metadata"]["name"] == "both").context("the Service")?;
    let pod = &namespace.objects("pods", "pod=first")?[0];
    let text = |value: &Value| value.as_str().map(str::to_owned).context("an address");
    let of_service = service["spec"]["clusterIPs"].as_array().context("clusterIPs")?.iter().map(|ip| (text(ip), 80));
    let of_pod = pod["status"]["podIPs"].as_array().context("podIPs")?.iter().map(|ip| (text(&ip["ip"]), 8080));
    for (ip, port) in of_service.chain(of_pod) {
        let authority = SocketAddr::new(ip?.parse()?, port);
        answers(namespace, &format!("http://{authority}/"), "200 OK first")?;
    }
    Ok(())
}

/// It is let in only because it proves who it is.
fn a_pod_reaches_itself_as_itself(namespace: &Namespace, address: &str) -> anyhow::Result<()> {
    for url in ["http://several/", "http://to-a-pod/", &format!("http://{address}:8080/")] {
        let answer = get(namespace, "first", url)?;
        ensure!(answer == "200 OK first", "{url}: {answer}");
    }
    Ok(())
}

fn who_proves_no_identity_is_not_let_in(namespace: &Namespace) -> anyhow::Result<()> {
    let answer = get(namespace, "plain", "http://several/")?;
    ensure!(answer == "403 Forbidden denied", "{answer}");
    Ok(())
}

fn udp_goes_past_the_mesh_and_describe_says_so(namespace: &Namespace) -> anyhow::Result<()> {
    for from in ["plain", "second"] {
        let ask = ["exec", from, "--container=web", "--", "/mesh-shop", "echo", "--ask=several:7007"];
        let heard = namespace.run(&ask)?.ok()?;
        ensure!(heard == "hello\n", "{from}: {heard}");
    }
    let said = meshctl(&["describe", "-n", namespace.name(), "pod/first"], "")?.ok()?;
    ensure!(said.lines().any(|line| line.contains("7007") && line.contains("UDP")), "{said}");
    Ok(())
}

/// The planted fault of this version comes after the answer of its stock.
fn tcp_in_which_the_server_speaks_first_goes_through(namespace: &Namespace) -> anyhow::Result<()> {
    let checkout = "http://127.0.0.1:8081/checkout?item=3";
    let exec = ["exec", "second", "--container=web", "--", "/mesh-shop", "get", "-X", "POST", checkout];
    let answer = namespace.run(&exec)?.ok()?;
    ensure!(answer.contains("discount table"), "{answer}");
    Ok(())
}
