//! A Deployment is restarted while it is asked.

use mesh_cluster_tests::{Namespace, mesh, shop::ORDERS_PODS};

use crate::load;

/// How often: a fault that shows once in a while shows.
const RESTARTS: usize = 20;

/// No preStop, no sleep: the application ends at once when it is told to, as most do.
const SERVER: &str = r"
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

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_deployment_restarts_twenty_times_under_load_and_no_request_fails() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-rollout")?;
    namespace.apply(&[SERVER, ORDERS_PODS].concat())?;
    namespace.rolled_out("deployment/orders")?;
    load::start(&namespace)?;
    for _ in 0..RESTARTS {
        namespace.run(&["rollout", "restart", "deployment/orders"])?.ok()?;
        namespace.rolled_out("deployment/orders")?;
    }
    load::never_failed(&namespace)
}
