//! One file per command, and what several of them share. Commands return data or a [`Failure`]; they never exit.

pub(crate) mod admin;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod connections;
pub(crate) mod describe;
pub(crate) mod diagnostics;
pub(crate) mod explain;
pub(crate) mod identity;
pub(crate) mod inject;
pub(crate) mod install;
mod leftovers;
pub(crate) mod list;
pub(crate) mod pages;
pub(crate) mod stat;
pub(crate) mod tap;
pub(crate) mod uninstall;
pub(crate) mod upgrade;
pub(crate) mod version;

use serde::Serialize;

use crate::{
    cli,
    cluster::PodInfo,
    failure::{Exit, Failure},
    printer::Printer,
    resource::Resource,
};

/// The pods of a workload in numbers, as JSON shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counts {
    pub(crate) pods: usize,
    pub(crate) ready: usize,
    pub(crate) meshed: usize,
    /// Version of the proxies, where all have the same.
    pub(crate) proxy: Option<String>,
}

impl Counts {
    pub(crate) fn of<'a>(pods: impl Iterator<Item = &'a PodInfo> + Clone) -> Self {
        let meshed = || pods.clone().filter(|pod| pod.meshed);
        let version = meshed().find_map(|pod| pod.proxy_version.clone());
        let same = meshed().all(|pod| pod.proxy_version == version);
        Self {
            pods: pods.clone().count(),
            ready: pods.clone().filter(|pod| pod.ready).count(),
            meshed: meshed().count(),
            proxy: version.filter(|_| same),
        }
    }
}

/// Refuses an output form that the command does not have: a wrong command line is one whether or not a cluster answers.
pub(crate) fn refuse_form(command: &cli::Command, printer: &Printer) -> Result<(), Failure> {
    match command {
        cli::Command::Tap(_) => printer.only(tap::FORMS),
        cli::Command::Describe(_) => printer.only(describe::FORMS),
        cli::Command::Upgrade(_) => printer.only(upgrade::FORMS),
        cli::Command::Stat(args) if args.watch => printer.only(stat::ROUNDS),
        cli::Command::Diagnostics(args) => match args.view {
            cli::View::ProxyMetrics(_) => printer.only(diagnostics::METRICS),
            cli::View::Config(_) => printer.only(diagnostics::CONFIG),
            cli::View::Endpoints(_) => printer.only_lists(),
        },
        cli::Command::List | cli::Command::Stat(_) | cli::Command::Identity(_) | cli::Command::Connections(_) => {
            printer.only_lists()
        }
        // These have forms of their own, and look at them first.
        _ => Ok(()),
    }
}

/// The pods that a resource selects; all without one.
pub(crate) fn select(pods: Vec<PodInfo>, resource: Option<&Resource>) -> Result<Vec<PodInfo>, Failure> {
    select_any(pods, resource.map_or(&[], std::slice::from_ref))
}

/// The pods that any of the resources selects; all without one. Each must select some.
pub(crate) fn select_any(pods: Vec<PodInfo>, resources: &[Resource]) -> Result<Vec<PodInfo>, Failure> {
    for resource in resources {
        if let Resource::Service(name) = resource {
            return Err(Failure::new(Exit::Usage, format!("service/{name} is not a set of pods"))
                .fix("name a workload, pod or namespace; traffic to a Service: --to svc/NAME of tap and stat"));
        }
        if !pods.iter().any(|pod| resource.selects(pod)) {
            let mut known: Vec<String> = pods.iter().map(PodInfo::workload_or_name).collect();
            known.dedup();
            known.truncate(8);
            let failure = Failure::new(Exit::NotFound, format!("{resource} selects no pod"));
            return Err(if known.is_empty() {
                failure.fix("there are no pods at all: -n NAME or -A looks elsewhere")
            } else {
                failure.fix(format!("there is {}; meshctl list shows all", known.join(", ")))
            });
        }
    }
    let selected = |pod: &PodInfo| resources.is_empty() || resources.iter().any(|resource| resource.selects(pod));
    Ok(pods.into_iter().filter(selected).collect())
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
