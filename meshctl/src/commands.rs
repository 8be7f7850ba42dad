//! One file per command, and what several of them share. Commands return data or a [`Failure`]; they never exit.

pub(crate) mod admin;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod connections;
pub(crate) mod diagnostics;
pub(crate) mod explain;
pub(crate) mod identity;
pub(crate) mod inject;
pub(crate) mod list;
pub(crate) mod pages;
pub(crate) mod stat;
pub(crate) mod tap;
pub(crate) mod version;

use crate::{
    cli,
    cluster::PodInfo,
    failure::{Exit, Failure},
    install::{self, Values},
    printer::Printer,
    resource::Resource,
};

/// `meshctl install`: prints the manifest.
pub(crate) fn install(args: &cli::Install, printer: &Printer) -> Result<(), Failure> {
    let values = Values::defaults().set_all(&args.set).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    printer.data(&install::render(&values))
}

/// The pods that a resource selects; all without one.
pub(crate) fn select(pods: Vec<PodInfo>, resource: Option<&Resource>) -> Result<Vec<PodInfo>, Failure> {
    let Some(resource) = resource else { return Ok(pods) };
    if let Resource::Service(name) = resource {
        return Err(Failure::new(Exit::Usage, format!("service/{name} is not a set of pods"))
            .fix("name a workload, pod or namespace; traffic to a Service: meshctl tap --to svc/NAME"));
    }
    let known: Vec<String> = pods.iter().map(PodInfo::workload_or_name).collect();
    let selected: Vec<PodInfo> = pods.into_iter().filter(|pod| resource.selects(pod)).collect();
    if selected.is_empty() {
        let mut known = known;
        known.dedup();
        known.truncate(8);
        return Err(Failure::new(Exit::NotFound, format!("{resource} selects no pod"))
            .fix(format!("there is {}; meshctl list shows all", known.join(", "))));
    }
    Ok(selected)
}

#[cfg(test)]
pub(crate) mod fixture {
    use crate::cluster::PodInfo;

    pub(crate) fn pod(name: &str, deployment: Option<&str>, meshed: bool, ip: &str) -> PodInfo {
        PodInfo {
            namespace: "shop".into(),
            name: name.into(),
            workload: deployment.map(|name| format!("deployment/{name}")),
            service_account: "default".into(),
            ips: vec![ip.parse().unwrap()],
            meshed,
            ready: true,
            proxy_version: meshed.then(|| "0.1.0".into()),
        }
    }
}
