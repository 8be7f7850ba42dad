//! Admission as an API server does it: the rendered webhook configuration says whom to ask about a pod, and the pod is
//! what comes back. A real AdmissionReview over HTTPS, verified against the authority that `caBundle` would hold.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhook, ServiceReference},
    core::v1::Pod,
};
use mesh_runtime::tls;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;

use super::{
    network::Network,
    objects::World,
    select::{Labels, matches},
    store::Store,
};

/// Where a webhook gives no timeout (as Kubernetes).
const DEFAULT_TIMEOUT: i32 = 10;
/// Longest answer that is read.
const ANSWER_LIMIT: usize = 16 << 20;

/// Asks webhooks about pods.
pub(crate) struct Admission {
    webhooks: Vec<MutatingWebhook>,
    namespaces: Vec<(String, Labels)>,
    store: Store,
    network: Arc<Network>,
    tls: TlsConnector,
}

/// A pod as it may run.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// After all patches.
    pub(crate) pod: Pod,
    /// What the webhooks want the person to know.
    pub(crate) warnings: Vec<String>,
}

impl Admission {
    /// With the webhooks of the world, whose certificates this authority (PEM) has signed.
    pub(crate) fn new(world: &World, store: Store, network: Arc<Network>, authority: &str) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).context("read the webhook's authority")?)?;
        let config = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(tls::TLS13)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let webhooks = world.webhooks.iter().flat_map(|webhooks| webhooks.webhooks.iter().flatten()).cloned();
        let namespaces = world.namespaces.keys().map(|name| (name.clone(), world.namespace_labels(name)));
        Ok(Self {
            webhooks: webhooks.collect(),
            namespaces: namespaces.collect(),
            store,
            network,
            tls: Arc::new(config).into(),
        })
    }

    /// The pod that may be created in place of this one.
    pub(crate) async fn admit(&self, pod: &Pod) -> anyhow::Result<Admitted> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut object = serde_json::to_value(pod)?;
        let mut warnings = Vec::new();
        for webhook in self.webhooks.iter().filter(|webhook| self.asks(webhook, namespace, &labels)) {
            let limit = u64::try_from(webhook.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT)).unwrap_or(1);
            let answer = tokio::time::timeout(Duration::from_secs(limit), self.ask(webhook, &review(pod, &object)))
                .await
                .with_context(|| format!("webhook {} did not answer within {limit} s", webhook.name))?
                .with_context(|| format!("ask webhook {}", webhook.name))?;
            warnings.extend(apply(&answer, &mut object).with_context(|| format!("use what {} answers", webhook.name))?);
        }
        Ok(Admitted { pod: serde_json::from_value(object).context("read the pod that the webhooks made")?, warnings })
    }

    /// Whether a webhook is asked about pods of this namespace with these labels.
    fn asks(&self, webhook: &MutatingWebhook, namespace: &str, labels: &Labels) -> bool {
        let of_namespace = self.namespaces.iter().find(|(name, _)| name == namespace).map(|(_, labels)| labels);
        let listed = |list: Option<&Vec<String>>, wanted: &str| {
            list.is_some_and(|list| list.iter().any(|one| one == wanted || one == "*"))
        };
        let about_pods = webhook.rules.iter().flatten().any(|rule| {
            listed(rule.resources.as_ref(), "pods")
                && listed(rule.operations.as_ref(), "CREATE")
                && listed(rule.api_groups.as_ref(), "")
        });
        about_pods
            && matches(webhook.namespace_selector.as_ref(), of_namespace.unwrap_or(&Labels::new()))
            && matches(webhook.object_selector.as_ref(), labels)
    }

    async fn ask(&self, webhook: &MutatingWebhook, review: &Value) -> anyhow::Result<Value> {
        let service = webhook.client_config.service.as_ref().context("it has no service")?;
        let address = self.endpoint(service)?;
        let host = format!("{}.{}.svc", service.name, service.namespace);
        let network = Arc::clone(&self.network);
        let dial = tokio::task::spawn_blocking(move || network.dial(address, Duration::from_secs(2)));
        let stream = dial.await.map_err(io::Error::other)?.with_context(|| format!("connect to {address}"))?;
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        let name = ServerName::try_from(host.clone()).context("name the service")?;
        let stream = self.tls.connect(name, stream).await.with_context(|| format!("verify {host}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with this call.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = http::Request::post(service.path.as_deref().unwrap_or("/"))
            .header(http::header::HOST, host)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(serde_json::to_vec(review)?)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(io::Error::other)?.to_bytes();
        ensure!(status.is_success(), "it answers {status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).context("it answers no JSON")
    }

    /// A ready pod behind the service: as an API server that knows endpoints, past the cluster IP.
    fn endpoint(&self, service: &ServiceReference) -> anyhow::Result<SocketAddr> {
        let port = u16::try_from(service.port.unwrap_or(443)).context("it has no port")?;
        let found = self.store.endpoint(&service.namespace, &service.name, port);
        found
            .with_context(|| format!("service {}/{} has no ready pod for port {port}", service.namespace, service.name))
    }
}

fn review(pod: &Pod, object: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": pod.metadata.uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": pod.metadata.name,
            "namespace": pod.metadata.namespace,
            "operation": "CREATE",
            "userInfo": {"username": "playground"},
            "object": object,
            "dryRun": false,
        },
    })
}

/// Applies a webhook's patch; returns its warnings.
fn apply(answer: &Value, object: &mut Value) -> anyhow::Result<Vec<String>> {
    let response = &answer["response"];
    if response["allowed"] != true {
        bail!("it refuses the pod: {}", response["status"]["message"].as_str().unwrap_or("no reason given"));
    }
    if let Some(patch) = response["patch"].as_str() {
        ensure!(response["patchType"] == "JSONPatch", "its patch is no JSON patch");
        let patch = base64::engine::general_purpose::STANDARD.decode(patch).context("read its patch")?;
        let patch: json_patch::Patch = serde_json::from_slice(&patch).context("read its patch")?;
        json_patch::patch(object, &patch).context("apply its patch")?;
    }
    let warnings = response["warnings"].as_array().into_iter().flatten();
    Ok(warnings.filter_map(Value::as_str).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_applied_and_a_refusal_keeps_its_reason() {
        let patch = base64::engine::general_purpose::STANDARD.encode(r#"[{"op":"add","path":"/a","value":1}]"#);
        let mut object = json!({});
        let answer =
            json!({"response": {"allowed": true, "patchType": "JSONPatch", "patch": patch, "warnings": ["w"]}});
        assert_eq!(apply(&answer, &mut object).unwrap(), ["w"]);
        assert_eq!(object, json!({"a": 1}));
        let refused = json!({"response": {"allowed": false, "status": {"message": "no room"}}});
        assert!(apply(&refused, &mut object).unwrap_err().to_string().contains("no room"));
        assert!(apply(&json!({}), &mut object).is_err(), "silence is no consent");
    }
}
