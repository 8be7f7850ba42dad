//! Manifests of the playground: embedded text to the objects that the other modules work with.
//!
//! Does what an API server does to them on the way in, and nothing else: the namespace's name becomes its label,
//! Services get cluster IPs, Deployments become pods (see [`super::expand`]). Pure.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    apps::v1::Deployment,
    core::v1::{Namespace, Pod, Service},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{addresses::Allocator, expand};
use crate::install;

/// The demo shop, as `kubectl apply -f deploy/demo -f deploy/demo/gateway-api` would apply it.
const DEMO: [(&str, &str); 3] = [
    ("deploy/demo/shop.yaml", include_str!("../../../deploy/demo/shop.yaml")),
    ("deploy/demo/policy.yaml", include_str!("../../../deploy/demo/policy.yaml")),
    ("deploy/demo/gateway-api/traffic.yaml", include_str!("../../../deploy/demo/gateway-api/traffic.yaml")),
];
/// Label that the API server puts on every namespace.
const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Where the controller's pod sees the directory of manifests.
pub(crate) const MANIFESTS_IN_POD: &str = "/var/run/mesh/manifests";

/// Everything the playground was told to run.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// By name.
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    /// With cluster IPs.
    pub(crate) services: Vec<Service>,
    /// Of all Deployments, with the address that each will have. Not injected yet.
    pub(crate) pods: Vec<(Pod, Ipv4Addr)>,
    /// Whom to ask about pods.
    pub(crate) webhooks: Vec<MutatingWebhookConfiguration>,
    /// What only the controller reads: routes and policies.
    pub(crate) others: Vec<Value>,
}

impl World {
    /// The control plane as `meshctl install` renders it for a directory of manifests, and the demo shop.
    pub(crate) fn embedded() -> anyhow::Result<Self> {
        let values = install::Values::defaults().set("controller.source", &format!("dir:{MANIFESTS_IN_POD}"))?;
        let control_plane = install::render(&values);
        let mut texts = vec![("deploy/", control_plane.as_str())];
        texts.extend(DEMO);
        Self::from_manifests(&texts)
    }

    /// From texts with the names that errors call them by, in order.
    pub(crate) fn from_manifests(texts: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut world = Self::default();
        let mut addresses = Allocator::default();
        let mut deployments = Vec::new();
        for (name, text) in texts {
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(text).map_err(|error| anyhow!("read {name}: {error}"))?;
            for document in documents.into_iter().filter(|document| !document.is_null()) {
                world.add(document, &mut addresses, &mut deployments).with_context(|| format!("read {name}"))?;
            }
        }
        for deployment in &deployments {
            for pod in expand::pods(deployment)? {
                let address = addresses.pod()?;
                world.pods.push((pod, address));
            }
        }
        Ok(world)
    }

    fn add(
        &mut self,
        document: Value,
        addresses: &mut Allocator,
        deployments: &mut Vec<Deployment>,
    ) -> anyhow::Result<()> {
        match document["kind"].as_str().context("an object has no kind")? {
            "Namespace" => {
                let mut namespace: Namespace = typed(document)?;
                let name = namespace.metadata.name.clone().context("a Namespace has no name")?;
                let labels = namespace.metadata.labels.get_or_insert_default();
                labels.insert(LABEL_NAMESPACE_NAME.to_owned(), name.clone());
                self.namespaces.insert(name, namespace);
            }
            "Service" => {
                let mut service: Service = typed(document)?;
                let spec = service.spec.get_or_insert_default();
                if spec.cluster_ip.is_none() {
                    let address = addresses.service()?.to_string();
                    spec.cluster_ips = Some(vec![address.clone()]);
                    spec.cluster_ip = Some(address);
                }
                self.services.push(service);
            }
            "Deployment" => deployments.push(typed(document)?),
            "MutatingWebhookConfiguration" => self.webhooks.push(typed(document)?),
            "HTTPRoute" | "AuthorizationPolicy" | "EndpointSlice" => self.others.push(document),
            // Of no consequence without an API server.
            "ServiceAccount"
            | "Role"
            | "RoleBinding"
            | "ClusterRole"
            | "ClusterRoleBinding"
            | "NetworkPolicy"
            | "PodDisruptionBudget"
            | "ConfigMap"
            | "ValidatingAdmissionPolicy"
            | "ValidatingAdmissionPolicyBinding"
            | "CustomResourceDefinition" => {}
            kind => return Err(anyhow!("the playground cannot run objects of kind {kind}")),
        }
        Ok(())
    }

    /// Labels of a namespace; one that nobody declared has its name only.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        self.namespaces
            .get(namespace)
            .and_then(|namespace| namespace.metadata.labels.clone())
            .unwrap_or_else(|| BTreeMap::from([(LABEL_NAMESPACE_NAME.to_owned(), namespace.to_owned())]))
    }
}

fn typed<T: DeserializeOwned>(document: Value) -> anyhow::Result<T> {
    let what =
        format!("{} {}", document["kind"].as_str().unwrap_or(""), document["metadata"]["name"].as_str().unwrap_or(""));
    serde_json::from_value(document).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_embedded_can_be_run() {
        let world = World::embedded().unwrap();
        let names: Vec<&str> = world
            .pods
            .iter()
            .filter_map(|(pod, _)| pod.metadata.labels.as_ref()?.get("app"))
            .map(String::as_str)
            .collect();
        assert_eq!(names, ["load", "web", "web", "stock", "prices", "orders", "visitor"]);
        assert_eq!(world.pods.len(), 9, "and the control plane");
        assert_eq!(world.webhooks[0].webhooks.as_ref().map(Vec::len), Some(2));
        assert!(world.services.iter().all(|service| service.spec.as_ref().unwrap().cluster_ip.is_some()));
        assert_eq!(world.namespace_labels("shop")[LABEL_NAMESPACE_NAME], "shop");
    }

    #[test]
    fn a_malformed_manifest_is_named_with_line_and_reason() {
        let error = World::from_manifests(&[("bad.yaml", "kind: Service\nmetadata: [1\n")]).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("bad.yaml") && text.contains("line"), "{text}");
        let wrong = "kind: Service\nmetadata: {name: web}\nspec: {ports: 80}\n";
        let text = format!("{:#}", World::from_manifests(&[("wrong.yaml", wrong)]).unwrap_err());
        assert!(text.contains("wrong.yaml") && text.contains("Service web"), "{text}");
        let text = format!("{:#}", World::from_manifests(&[("x.yaml", "kind: Gizmo")]).unwrap_err());
        assert!(text.contains("kind Gizmo"), "{text}");
    }
}
