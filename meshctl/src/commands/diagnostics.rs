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
    printer::Printer,
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

/// What each proxy counts, in the form that Prometheus reads.
async fn metrics(cluster: &Cluster, pods: Vec<PodInfo>, printer: &Printer) -> Result<(), Failure> {
    printer.only(&[Output::Table])?;
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
    printer.only(&[Output::Table, Output::Json, Output::Ndjson, Output::Yaml])?;
    for (_, page) in &pages.read {
        if printer.output == Output::Ndjson { printer.line(page)? } else { printer.document(page)? }
    }
    pages.done()
}
