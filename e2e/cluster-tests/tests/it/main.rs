//! What the mesh does on a real Kubernetes, seen through `kubectl` and `meshctl`.

mod admission;
mod certificates;
mod check;
mod dry_run;
mod expired;
mod faults;
mod install;
mod load;
mod outage;
mod probes;
mod rollout;
mod services;
mod shop;
mod workloads;
