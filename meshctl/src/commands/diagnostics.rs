//! `meshctl diagnostics`: the raw views of proxies, for when a summary is not enough.
//!
//! `proxy-metrics` and `config` print what the proxy says as it is; `endpoints` is where its destinations lead, one line for each
//! endpoint.

mod endpoints;

use mesh_proto::admin;
use serde_json::Value;

use super::pages;
use crate::{
    cli::{self, Output},
    cluster::{Cluster, PodInfo},
    failure::Failure,
    printer::{Printer, table::Table},
};

pub(crate) async fn run(
    cluster: &Cluster,
    namespace: Option<&str>,
    args: &cli::Diagnostics,
    printer: &Printer,
) -> Result<(), Failure> {
    let resource = args.view.resource();
    let pods = pages::meshed(cluster, namespace, resource).await?;
    match args.view {
        cli::View::Endpoints(_) => endpoints::run(cluster, pods, printer).await,
        cli::View::ProxyMetrics(_) => metrics(cluster, pods, printer).await,
        cli::View::Config(_) => config(cluster, pods, printer).await,
    }
}

/// Forms of `proxy-metrics`: what Prometheus reads.
pub(crate) const METRICS: &[Output] = &[Output::Table];
/// Forms of `config`: one document a proxy, or a list of them.
pub(crate) const CONFIG: &[Output] = &[Output::Table, Output::Json, Output::Ndjson, Output::Yaml];

/// What each proxy counts, in the form that Prometheus reads.
async fn metrics(cluster: &Cluster, pods: Vec<PodInfo>, printer: &Printer) -> Result<(), Failure> {
    let pages = pages::of(cluster, pods, "/metrics", |_, text| Ok(text.to_owned()), printer).await;
    for (pod, text) in &pages.read {
        // A comment, so that the output of one pod still is what Prometheus reads.
        printer.data(&format!("# pod {}/{}\n{text}", pod.namespace, pod.name))?;
    }
    pages.done()
}

/// What is in force at each proxy.
async fn config(cluster: &Cluster, pods: Vec<PodInfo>, printer: &Printer) -> Result<(), Failure> {
    let read = |_: &PodInfo, text: &str| pages::json::<Value>(admin::CONFIG, text);
    let pages = pages::of(cluster, pods, admin::CONFIG, read, printer).await;
    let configs: Vec<&Value> = pages.read.iter().map(|(_, page)| page).collect();
    if printer.output == Output::Table {
        configs.iter().try_for_each(|page| printer.document(page))?;
    } else {
        printer.list("ConfigList", &configs, |_| Table::new(["CONFIG"]))?;
    }
    pages.done()
}
