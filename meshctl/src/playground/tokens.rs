//! Bootstrap tokens of pods: what the kubelet projects from the API server, here minted with the controller's key.
//!
//! A token is good for one certificate request and ten minutes (contracts §6), so the file always holds a fresh one.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use mesh_controller::ca::token::{self, Minter};
use mesh_proto::identity::Identity;
use mesh_runtime::tasks::Tasks;
use tokio::time::{MissedTickBehavior, interval};

/// How often a token is replaced: a proxy whose first request failed half-way finds an unused one at its next try.
const PERIOD: Duration = Duration::from_secs(2);
/// How long each is good: far longer than it stays in the file, far shorter than the longest allowed.
const LIFE: Duration = Duration::from_mins(1);

/// Mints tokens for pods.
pub(crate) struct Tokens {
    minter: Arc<Minter>,
    trust_domain: String,
}

impl Tokens {
    /// With the key that the controller checks them with.
    pub(crate) fn new(minter: Minter, trust_domain: &str) -> Self {
        Self { minter: Arc::new(minter), trust_domain: trust_domain.to_owned() }
    }

    /// Writes a token of the pod's service account to `file`, now and again and again.
    pub(crate) fn keep_fresh(&self, tasks: &Tasks, pod: &Pod, file: PathBuf) -> anyhow::Result<()> {
        let text = |value: Option<&String>| value.cloned().unwrap_or_default();
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let bound = token::Pod {
            namespace: text(pod.metadata.namespace.as_ref()),
            name: text(pod.metadata.name.as_ref()),
            uid: text(pod.metadata.uid.as_ref()),
        };
        let identity = Identity::new(&self.trust_domain, &bound.namespace, account).context("name the identity")?;
        let minter = Arc::clone(&self.minter);
        let mint = move || -> anyhow::Result<()> {
            let token = minter.mint(&identity, bound.clone(), LIFE)?;
            write(&file, &token).with_context(|| format!("write {}", file.display()))
        };
        mint()?;
        let cancelled = tasks.cancelled();
        tasks.spawn("token", async move {
            let mut tick = interval(PERIOD);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tokio::pin!(cancelled);
            loop {
                tokio::select! {
                    () = &mut cancelled => return,
                    _ = tick.tick() => {}
                }
                // The old token stays; the proxy says so if it is no good any more.
                let _ = mint();
            }
        });
        Ok(())
    }
}

/// Replaces the file in one step; mode 0600.
fn write(file: &Path, token: &str) -> io::Result<()> {
    let draft = file.with_extension("draft");
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    out.write_all(token.as_bytes())?;
    fs::rename(draft, file)
}
