//! A Deployment is restarted while it is asked. Its manifest has no preStop and no sleep, and its application ends at once when it
//! is told to, as most do.

use mesh_cluster_tests::{Namespace, mesh, shop};

use crate::load;

/// How often: a fault that shows once in a while shows.
const RESTARTS: usize = 20;

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_deployment_restarts_twenty_times_under_load_and_no_request_fails() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-rollout")?;
    namespace.apply(&shop::orders())?;
    namespace.rolled_out("deployment/orders")?;
    load::start(&namespace)?;
    for _ in 0..RESTARTS {
        namespace.run(&["rollout", "restart", "deployment/orders"])?.ok()?;
        namespace.rolled_out("deployment/orders")?;
    }
    load::never_failed(&namespace)
}
