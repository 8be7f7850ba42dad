//! In a cluster the webhook's certificate is a Secret: makes it, renews it, and tells the API server whom to trust.
//!
//! `app` runs [`Keeper::keep`] where the injector asks an API server. Of several injectors the first one makes the Secret
//! (a plain create), the others take it. A Secret that cert-manager or a person made is taken as it is. The certificate
//! reaches the directory that [`crate::certificate`] is loaded from only after the webhook configuration trusts its
//! authority, and while a certificate is replaced the old authority stays trusted beside the new one: so the API server
//! never meets a certificate it does not trust, whichever injector it asks.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use mesh_proto::names;
use mesh_runtime::backoff::Backoff;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    certificate::{self, AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, SelfSigned},
    problem::Problem,
};

/// How often the Secret and the webhook configuration are looked at.
const PERIOD: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Longest that one look may take, all requests together.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long before its end a certificate of our own is replaced: a third of its life.
const RENEW_BEFORE: Duration = Duration::from_hours(30 * 24);
/// Who made the Secret. One that says otherwise, or nothing, is never replaced.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Keeps Secret, webhook configuration and directory alike.
pub struct Keeper {
    secrets: Api<Secret>,
    webhooks: Api<MutatingWebhookConfiguration>,
    directory: PathBuf,
    serves: bool,
}

/// Why they are not alike; what the directory holds stays in use.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The API server refused or did not answer.
    #[error("failed to {act} the {kind} {name}: {source}{fix}", source = short(.source), fix = fix(.source))]
    Api {
        /// What was tried.
        act: &'static str,
        /// On what.
        kind: &'static str,
        /// And which.
        name: &'static str,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// Nothing asks the webhook.
    #[error(
        "there is no MutatingWebhookConfiguration {}: apply the output of `meshctl install` again",
        names::INJECTOR_NAME
    )]
    NoConfiguration,
    /// Somebody else's Secret is of no use.
    #[error("the Secret {} has no {key}: add it, or delete the Secret to have one made", names::WEBHOOK_SECRET_NAME)]
    Lacks {
        /// What it lacks.
        key: &'static str,
    },
    /// A new certificate.
    #[error("failed to make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The directory.
    #[error("failed to write the webhook's certificate to {}: {source}", directory.display())]
    Write {
        /// Which.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Slow or silent.
    #[error("the API server took more than {DEADLINE:?}")]
    Late,
}

impl Keeper {
    /// Nothing is asked or made yet.
    pub fn new(client: Client, directory: PathBuf) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), names::SYSTEM_NAMESPACE),
            webhooks: Api::all(client),
            directory,
            serves: false,
        }
    }

    /// Keeps them alike for ever. A problem is told once, and again when it changes.
    pub async fn keep(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, PERIOD);
        let mut known = Problem::default();
        loop {
            let step = tokio::time::timeout(DEADLINE, self.step(SystemTime::now())).await;
            let now = step.unwrap_or(Err(KeepError::Late)).err().map(|error| error.to_string());
            let wait = if now.is_some() { backoff.wait() } else { PERIOD };
            if now.is_none() {
                backoff.reset();
            }
            if known.changes(now.as_deref()) {
                if let Some(text) = &now {
                    tracing::warn!("{text}");
                } else {
                    tracing::info!("the API server trusts the webhook's certificate");
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn step(&mut self, now: SystemTime) -> Result<(), KeepError> {
        // Read before the Secret: whoever replaced the Secret since has changed the configuration since, or is yet to do
        // it. So what is told below is refused as a conflict, or made good by them.
        let configuration = self.webhooks.get_opt(names::INJECTOR_NAME).await.map_err(configuration("read"));
        let held = self.secret(now).await?;
        let told = match configuration {
            Ok(Some(configuration)) => self.tell(&configuration, &held.authority).await,
            Ok(None) => Err(KeepError::NoConfiguration),
            Err(error) => Err(error),
        };
        // Without any certificate nobody is served; any is better. A new one waits until it is trusted.
        if told.is_ok() || !self.serves {
            let write = |source| KeepError::Write { directory: self.directory.clone(), source };
            held.write_to(&self.directory).map_err(write)?;
            self.serves = true;
        }
        told
    }

    /// What the Secret holds; made or replaced where that is due.
    async fn secret(&self, now: SystemTime) -> Result<SelfSigned, KeepError> {
        let name = names::WEBHOOK_SECRET_NAME;
        let Some(found) = self.secrets.get_opt(name).await.map_err(secret("read"))? else {
            let made = made(None)?;
            let created = self.secrets.create(&PostParams::default(), &object(&made, None)).await;
            return self.or_of_another(created, made, "create").await;
        };
        if !is_ours(&found) {
            return held(&found);
        }
        match held(&found) {
            Ok(held) if !is_due(&held.certificate, now) => Ok(held),
            old => {
                let made = made(old.ok().as_ref())?;
                let version = found.metadata.resource_version;
                let replaced = self.secrets.replace(name, &PostParams::default(), &object(&made, version)).await;
                self.or_of_another(replaced, made, "replace").await
            }
        }
    }

    /// What was made, or what another injector made a moment before.
    async fn or_of_another(
        &self,
        written: Result<Secret, kube::Error>,
        made: SelfSigned,
        act: &'static str,
    ) -> Result<SelfSigned, KeepError> {
        match written {
            Ok(_) => {
                tracing::info!(secret = names::WEBHOOK_SECRET_NAME, act, "webhook certificate made");
                Ok(made)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = self.secrets.get(names::WEBHOOK_SECRET_NAME).await.map_err(secret("read"))?;
                held(&found)
            }
            Err(error) => Err(secret(act)(error)),
        }
    }

    /// Has the API server trust this authority, in every entry. Somebody's certificate that comes without its authority
    /// is theirs to make known.
    async fn tell(&self, found: &MutatingWebhookConfiguration, authority: &str) -> Result<(), KeepError> {
        if authority.is_empty() {
            return Ok(());
        }
        let bundle = ByteString(authority.as_bytes().to_vec());
        let entries = found.webhooks.iter().flatten();
        let stale = entries.filter(|entry| entry.client_config.ca_bundle.as_ref() != Some(&bundle));
        let stale: Vec<_> =
            stale.map(|entry| json!({"name": entry.name, "clientConfig": {"caBundle": bundle}})).collect();
        if stale.is_empty() {
            return Ok(());
        }
        // Nothing but the one field, and only in what was read: an entry that is gone must not come back.
        let patch = json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "webhooks": stale});
        let patched =
            self.webhooks.patch(names::INJECTOR_NAME, &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map(drop).map_err(configuration("patch"))
    }
}

/// The name that the API server calls the webhook by.
fn service() -> String {
    format!("{}.{}.svc", names::INJECTOR_NAME, names::SYSTEM_NAMESPACE)
}

/// A new certificate; whom the old one is signed by stays trusted.
fn made(old: Option<&SelfSigned>) -> Result<SelfSigned, rcgen::Error> {
    let mut made = certificate::self_signed(&[&service()])?;
    let end = "-----END CERTIFICATE-----";
    if let Some((newest, _)) = old.and_then(|old| old.authority.split_once(end)) {
        made.authority = format!("{}\n{}{end}\n", made.authority.trim_end(), newest.trim_start());
    }
    Ok(made)
}

fn object(made: &SelfSigned, version: Option<String>) -> Secret {
    let files = [(CERTIFICATE_FILE, &made.certificate), (KEY_FILE, &made.key), (AUTHORITY_FILE, &made.authority)];
    let labels = [(names::LABEL_PART_OF, names::PART_OF), (MANAGED_BY, names::INJECTOR_NAME)];
    Secret {
        metadata: ObjectMeta {
            name: Some(names::WEBHOOK_SECRET_NAME.to_owned()),
            namespace: Some(names::SYSTEM_NAMESPACE.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            resource_version: version,
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(files.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes()))).into()),
        ..Secret::default()
    }
}

fn is_ours(secret: &Secret) -> bool {
    let label = secret.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    label.is_some_and(|label| label == names::INJECTOR_NAME)
}

fn held(secret: &Secret) -> Result<SelfSigned, KeepError> {
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let text = |key: &'static str| {
        let text = data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
        text.filter(|text| !text.trim().is_empty()).ok_or(KeepError::Lacks { key })
    };
    Ok(SelfSigned {
        certificate: text(CERTIFICATE_FILE)?,
        key: text(KEY_FILE)?,
        authority: text(AUTHORITY_FILE).unwrap_or_default(),
    })
}

/// Whether a certificate ends soon, or cannot be read at all.
fn is_due(pem: &str, now: SystemTime) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return true };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return true };
    let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(end) < now + RENEW_BEFORE
}

fn secret(act: &'static str) -> impl Fn(kube::Error) -> KeepError {
    move |source| KeepError::Api { act, kind: "Secret", name: names::WEBHOOK_SECRET_NAME, source: Box::new(source) }
}

fn configuration(act: &'static str) -> impl Fn(kube::Error) -> KeepError {
    move |source| KeepError::Api {
        act,
        kind: "MutatingWebhookConfiguration",
        name: names::INJECTOR_NAME,
        source: Box::new(source),
    }
}

/// What a parser says may quote what it has read, and that may be a key.
fn short(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.chars().take(200).collect(),
        kube::Error::SerdeError(_) => "the answer is no such object".to_owned(),
        other => other.to_string().chars().take(200).collect(),
    }
}

fn fix(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
            "; allow it to the injector's service account (Role and ClusterRole mesh-injector)"
        }
        _ => "",
    }
}
