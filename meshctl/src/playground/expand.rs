//! Deployments to pods, named as the controller manager names them, but the same at every start. Pure.

use anyhow::Context as _;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

/// Label by which the pods of one revision of a Deployment are told apart.
const LABEL_TEMPLATE_HASH: &str = "pod-template-hash";
/// Letters and digits of generated names: no vowels, so no words (as Kubernetes).
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The pods of a Deployment, not scheduled and not injected yet.
pub(crate) fn pods(deployment: &Deployment) -> anyhow::Result<Vec<Pod>> {
    let name = deployment.metadata.name.as_deref().context("a Deployment has no name")?;
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or("default");
    let spec = deployment.spec.as_ref().with_context(|| format!("Deployment {namespace}/{name} has no spec"))?;
    let template = serde_json::to_string(&spec.template).context("write the template")?;
    let hash = suffix(&template, 10);
    let replica_set = format!("{name}-{hash}");
    let replicas = u32::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);

    let pod = |index: u32| {
        let mut metadata = spec.template.metadata.clone().unwrap_or_default();
        metadata.labels.get_or_insert_default().insert(LABEL_TEMPLATE_HASH.to_owned(), hash.clone());
        let pod_name = format!("{replica_set}-{}", suffix(&format!("{namespace}/{replica_set}/{index}"), 5));
        let mut pod_spec = spec.template.spec.clone().unwrap_or_default();
        pod_spec.service_account_name.get_or_insert_with(|| "default".to_owned());
        pod_spec.node_name = Some("playground".to_owned());
        Pod {
            metadata: ObjectMeta {
                uid: Some(uid(&format!("{namespace}/{pod_name}"))),
                name: Some(pod_name),
                generate_name: Some(format!("{replica_set}-")),
                namespace: Some(namespace.to_owned()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "apps/v1".to_owned(),
                    kind: "ReplicaSet".to_owned(),
                    name: replica_set.clone(),
                    uid: uid(&format!("replicaset {namespace}/{replica_set}")),
                    controller: Some(true),
                    block_owner_deletion: Some(true),
                }]),
                ..metadata
            },
            spec: Some(pod_spec),
            status: None,
        }
    };
    Ok((0..replicas).map(pod).collect())
}

/// `length` characters that depend on the text alone.
fn suffix(text: &str, length: usize) -> String {
    let mut hash = hash(text);
    let mut suffix = String::with_capacity(length);
    for _ in 0..length {
        let index = usize::try_from(hash % 27).expect("below 27");
        suffix.push(char::from(ALPHABET[index]));
        hash /= 27;
    }
    suffix
}

/// A uid that depends on the text alone, in the shape of a UUID.
fn uid(text: &str) -> String {
    let (high, low) = (hash(text), hash(&format!("{text}.")));
    let node = low & 0xffff_ffff_ffff;
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{node:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        (low >> 48) & 0xfff
    )
}

/// FNV-1a: short, and the same in every release. Names need no protection against collisions made on purpose.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn deployment(replicas: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web-v1", "namespace": "shop"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
                    "spec": {"serviceAccountName": "web", "containers": [{"name": "web", "image": "mesh-shop:dev"}]},
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_deployment_becomes_pods_of_a_replica_set_with_the_template_s_labels() {
        let pods = pods(&deployment(2)).unwrap();
        assert_eq!(pods.len(), 2);
        let [first, second] = &pods[..] else { unreachable!() };
        assert_ne!(first.metadata.name, second.metadata.name);
        let labels = first.metadata.labels.as_ref().unwrap();
        let owner = &first.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!(labels["app"], "web");
        assert_eq!(owner.name, format!("web-v1-{}", labels[LABEL_TEMPLATE_HASH]));
        assert!(first.metadata.name.as_ref().unwrap().starts_with(&owner.name));
        assert_eq!(first.metadata.annotations.as_ref().unwrap()["a"], "b");
        let info = crate::cluster::PodInfo::from_object(first);
        assert_eq!(info.workload.as_deref(), Some("deployment/web-v1"));
    }

    #[test]
    fn names_and_uids_are_the_same_at_every_start_and_differ_between_pods() {
        assert_eq!(pods(&deployment(3)).unwrap(), pods(&deployment(3)).unwrap());
        let uids: BTreeSet<_> =
            pods(&deployment(50)).unwrap().into_iter().map(|pod| pod.metadata.uid.unwrap()).collect();
        assert_eq!(uids.len(), 50);
        assert!(uids.iter().all(|uid| uid.len() == 36), "{uids:?}");
    }
}
