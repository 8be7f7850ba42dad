//! Manifests in, domain values out: one table per rule.

mod inbound;
mod order;
mod outbound;
mod touched;
mod unreadable;

use crate::{
    index::Facts,
    source::{
        Object,
        manifest::{self, Format},
    },
};

/// Objects of a manifest; every document must be readable.
fn objects(manifest: &str) -> Vec<std::sync::Arc<Object>> {
    let read = manifest::parse(manifest, Format::Yaml);
    assert!(read.mistakes.is_empty(), "{:?}", read.mistakes);
    read.objects.into_iter().map(|(_, object)| object).collect()
}

/// Facts of a manifest, and what is not in force as written.
fn facts(manifest: &str) -> (Facts, Vec<String>) {
    let mut facts = Facts::new("cluster.local");
    let problems = objects(manifest).iter().flat_map(|object| facts.apply(object).problems).collect();
    (facts, problems)
}

/// A ready pod with labels `app: NAME` and a container port `http` 8080; `sidecar` gives it one that skips port 9000.
fn pod(name: &str, ip: &str, sidecar: bool) -> String {
    let sidecar = if sidecar {
        "initContainers: [{name: mesh-proxy, env: [{name: MESH_SKIP_INBOUND_PORTS, value: '9000'}]}]"
    } else {
        "hostname: plain"
    };
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}-1, namespace: shop, uid: u, labels: {{app: {name}}}}}
spec:
  serviceAccountName: {name}
  {sidecar}
  containers: [{{name: app, ports: [{{name: http, containerPort: 8080}}]}}]
status: {{phase: Running, podIPs: [{{ip: '{ip}'}}], conditions: [{{type: Ready, status: 'True'}}]}}
"
    )
}

/// A Service of these pods: port 80 `http` to the named port, 5432 and 9000 to the same numbers.
fn service(name: &str, ip: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  clusterIP: '{ip}'
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: http}}, {{name: db, port: 5432}}, {{name: web, port: 9000}}]
"
    )
}
