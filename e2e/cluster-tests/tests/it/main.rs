//! What the mesh does on a real Kubernetes, seen through `kubectl` and `meshctl`.

mod certificates;
mod faults;
mod install;
mod load;
mod rollout;
mod shop;
mod workloads;
