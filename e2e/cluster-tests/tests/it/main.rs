//! What the mesh does on a real Kubernetes, seen through `kubectl` and `meshctl`.

mod admission;
mod certificates;
mod faults;
mod install;
mod load;
mod probes;
mod rollout;
mod services;
mod shop;
mod workloads;
