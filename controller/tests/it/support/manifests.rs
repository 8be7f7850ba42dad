//! Manifests, as a person would write them.

/// A pod with a sidecar.
pub(crate) fn pod(namespace: &str, name: &str, account: &str, ip: &str, ready: bool) -> String {
    let ready = if ready { "True" } else { "False" };
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: {namespace}, uid: uid-{name}, labels: {{ app: {account} }} }}
spec:
  serviceAccountName: {account}
  initContainers:
  - {{ name: mesh-proxy, image: proxy, restartPolicy: Always, env: [{{ name: MESH_SKIP_INBOUND_PORTS, value: "9000" }}] }}
  containers:
  - {{ name: app, image: app, ports: [{{ name: http, containerPort: 8080 }}] }}
status:
  phase: Running
  podIP: {ip}
  podIPs: [{{ ip: {ip} }}]
  conditions: [{{ type: Ready, status: "{ready}" }}]
---
"#
    )
}

/// A Service on port 80 that leads to the port `http` of the pods of an account.
pub(crate) fn service(namespace: &str, name: &str, ip: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  clusterIP: {ip}
  clusterIPs: [{ip}]
  selector: {{ app: {name} }}
  ports: [{{ name: http, port: 80, targetPort: http, appProtocol: http }}]
---
"
    )
}
