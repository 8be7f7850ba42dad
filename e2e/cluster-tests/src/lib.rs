//! Support for tests on a real Kubernetes: `kubectl` and `meshctl` as a person has them, and namespaces that go away.
//!
//! The tests are ignored unless asked for, since they need a cluster: `just e2e` (`e2e/cluster/test.sh`) finds the one
//! that `just cluster-up` started, or takes the one of `KUBECONFIG`, and runs them one after the other.

pub mod mesh;
mod namespace;
pub mod page;
mod program;
pub mod shop;

pub use namespace::Namespace;
pub use program::{Output, kubectl, meshctl, meshctl_path, until};
