//! What the mesh does on a real Kubernetes, seen through `kubectl` and `meshctl`.

mod install;
mod rollout;
mod shop;
mod workloads;
