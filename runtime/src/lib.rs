//! What every long-running process of the mesh does alike: logs, metrics, the admin server, readiness, shutdown, the
//! owner of every task, the one TLS provider.
//!
//! Called by proxy, controller, injector and meshctl. It knows no domain type and no Kubernetes type (of `mesh-proto`
//! only names), and that is what keeps it small: a thing that one process alone needs belongs in that process.

pub mod admin;
pub mod backoff;
pub mod build_info;
pub mod metrics;
pub mod readiness;
pub mod serve;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod tls;
