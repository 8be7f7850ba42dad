//! `meshctl version`: of this program, of the controller, and of the proxies by count.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use mesh_proto::names;
use serde::Serialize;

use crate::{
    cli::{self, Globals, Output},
    cluster::Cluster,
    failure::Failure,
    printer::{API_VERSION, Printer},
};

const FORMS: &[Output] = &[Output::Table, Output::Wide, Output::Json, Output::Ndjson, Output::Yaml];

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    api_version: &'static str,
    kind: &'static str,
    client: &'static str,
    /// One per version that runs; none where nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<Vec<Count>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxies: Option<Vec<Count>>,
}

/// How many pods have a version.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    version: String,
    pods: usize,
}

pub(crate) async fn run(globals: &Globals, args: &cli::Version, printer: &Printer) -> Result<(), Failure> {
    printer.only(FORMS)?;
    let mut versions = Versions {
        api_version: API_VERSION,
        kind: "Versions",
        client: env!("CARGO_PKG_VERSION"),
        controller: None,
        proxies: None,
    };
    let asked = if args.client { Ok(()) } else { ask(globals, &mut versions).await };
    match printer.output {
        Output::Table | Output::Wide => printer.data(&text(&versions))?,
        Output::Ndjson => printer.line(&versions)?,
        _ => printer.document(&versions)?,
    }
    asked
}

async fn ask(globals: &Globals, versions: &mut Versions) -> Result<(), Failure> {
    let cluster = Cluster::select(globals).await?;
    let control = cluster.pod_objects(Some(&globals.mesh_namespace)).await?;
    let proxies = cluster.pods(globals.namespace.as_deref()).await?;
    versions.controller = Some(count(control.iter().filter_map(|pod| image_version(pod, names::CONTROLLER_NAME))));
    let unknown = || "unknown".to_owned();
    let meshed = proxies.into_iter().filter(|pod| pod.meshed);
    versions.proxies = Some(count(meshed.map(|pod| pod.proxy_version.unwrap_or_else(unknown))));
    Ok(())
}

/// The tag of the image of the container that has the name of a part of the mesh.
fn image_version(pod: &Pod, part: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let mut images = spec.containers.iter().filter_map(|container| container.image.as_deref());
    images.find_map(|image| tag(image, part)).map(str::to_owned)
}

/// The tag of an image, if it is that of a part of the mesh.
pub(crate) fn tag<'a>(image: &'a str, part: &str) -> Option<&'a str> {
    let name = image.split('@').next().unwrap_or(image).rsplit('/').next()?;
    let (name, tag) = name.split_once(':').unwrap_or((name, "unknown"));
    (name == part).then_some(tag)
}

fn count(versions: impl Iterator<Item = String>) -> Vec<Count> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for version in versions {
        *counts.entry(version).or_default() += 1;
    }
    counts.into_iter().map(|(version, pods)| Count { version, pods }).collect()
}

fn text(versions: &Versions) -> String {
    let mut out = format!("meshctl      {}\n", versions.client);
    for (what, counts) in [("controller", &versions.controller), ("proxies", &versions.proxies)] {
        let Some(counts) = counts else { continue };
        if counts.is_empty() {
            out.push_str(&format!("{what:<12} none\n"));
        }
        for (place, count) in counts.iter().enumerate() {
            let what = if place == 0 { what } else { "" };
            let pods = if count.pods == 1 { "pod" } else { "pods" };
            out.push_str(&format!(
                "{what:<12} {} ({} {pods})\n",
                crate::printer::table::clean(&count.version),
                count.pods
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_version_of_a_part_is_the_tag_of_its_image() {
        for (image, expected) in [
            ("mesh-controller:0.1.0", Some("0.1.0")),
            ("registry:5000/mesh/mesh-controller:0.2.0@sha256:ab", Some("0.2.0")),
            ("mesh-controller", Some("unknown")),
            ("registry:5000/other:1", None),
        ] {
            let pod =
                json!({"metadata": {"name": "c"}, "spec": {"containers": [{"name": "controller", "image": image}]}});
            let pod = serde_json::from_value(pod).unwrap();
            assert_eq!(image_version(&pod, names::CONTROLLER_NAME).as_deref(), expected, "{image}");
        }
    }

    #[test]
    fn versions_are_counted() {
        let versions = Versions {
            api_version: API_VERSION,
            kind: "Versions",
            client: "0.2.0",
            controller: Some(vec![]),
            proxies: Some(count(["0.1.0", "0.2.0", "0.1.0"].into_iter().map(str::to_owned))),
        };
        let expected =
            "meshctl      0.2.0\ncontroller   none\nproxies      0.1.0 (2 pods)\n             0.2.0 (1 pod)\n";
        assert_eq!(text(&versions), expected);
    }
}
