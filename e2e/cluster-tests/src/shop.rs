//! Manifests of the demo shop's parts, for tests that need a server and are not about it.

/// The order service, on port 8080, as the pods of a workload: the last fields of its `spec`.
pub const ORDERS_PODS: &str = "  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec:
      containers:
        - name: orders
          image: mesh-shop:dev
          args: [orders]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
          livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
";

/// The order service as a pod, and the Service `orders` with port 80 before it.
pub const ORDERS_POD: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: orders}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: orders, labels: {app: orders}}
spec:
  containers: [{name: orders, image: "mesh-shop:dev", args: [orders]}]
"#;

/// The order service as a Deployment of two, and the Service `orders` with port 80 before it.
pub fn orders() -> String {
    [ORDERS, ORDERS_PODS].concat()
}

const ORDERS: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: http, appProtocol: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders}
spec:
  replicas: 2
";
