//! The controller: a process of its own in the control pod, and its directories.
//!
//! The process is this very program in another role ([`crate::enter`]), so that it can be killed for real and no second
//! binary must be built and found.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::Parser;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh_controller::{
    Args, CaArgs, CaStep,
    ca::{
        store::Store,
        token::{self, Minter},
    },
};
use mesh_netlab::{Pod, Process};
use mesh_proto::{identity::Identity, names};
use serde_json::json;

use crate::{
    manifests::{self, NAMESPACE},
    mesh::Settings,
    talk,
    wait::{DEADLINE, until},
};

/// First argument of a controller's process.
const ROLE: &str = "testbed-controller";
/// How long a token is good.
const TOKEN_LIFE: Duration = Duration::from_mins(1);

#[derive(Debug, Parser)]
struct Role {
    #[command(flatten)]
    args: Args,
}

pub(crate) fn is_role() -> bool {
    std::env::args().nth(1).as_deref() == Some(ROLE)
}

pub(crate) fn role() -> anyhow::Result<()> {
    let role = Role::parse_from(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(mesh_controller::run(role.args))
}

/// The controller, running or not; what it keeps is in `directory`.
#[derive(Debug)]
pub struct Control {
    pod: Pod,
    directory: PathBuf,
    settings: Settings,
    process: Option<Process>,
}

impl Control {
    pub(crate) fn start(pod: Pod, directory: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let settings = settings.clone();
        let mut control = Self { pod, directory: directory.to_owned(), settings, process: None };
        fs::create_dir(control.manifests()).context("make the manifest directory")?;
        control.resume()?;
        Ok(control)
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the process with what the one before has left, and waits until it is ready.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE).arg("--source").arg(format!("dir:{}", self.manifests().display()));
        command.arg("--state-dir").arg(self.state()).arg("--trust-bundle-out").arg(self.trust_bundle());
        command.arg("--leaf-lifetime").arg(self.settings.leaf_lifetime.as_secs().to_string()).args(["--log", "info"]);
        command.envs(self.settings.control_environment.iter().map(|(name, value)| (name, value)));
        let process = self.pod.start(&mut command).context("start the controller")?;
        // Its gRPC port is served right after it says so.
        process.wait_for_line("controller serves", DEADLINE)?;
        self.process = Some(process);
        until("the controller is ready", || self.admin("/ready").ok().filter(|answer| answer.status == 200))?;
        Ok(())
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Takes one step towards another root of trust, as a person does beside the running process.
    pub fn rotate(&self, step: CaStep) -> anyhow::Result<()> {
        let trust_domain = names::DEFAULT_TRUST_DOMAIN.to_owned();
        mesh_controller::rotate(&CaArgs { state_dir: self.state(), trust_domain, step }).map(|_| ())
    }

    /// Asks its admin port.
    pub fn admin(&self, path: &str) -> anyhow::Result<talk::Answer> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, names::PORT_ADMIN));
        Ok(self.pod.run(|| talk::get(address, path, &[]))??)
    }

    /// Puts a manifest in force, in one step. Several may be, at the same time.
    pub fn apply(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let draft = self.directory.join(format!("draft-{name}"));
        fs::write(&draft, text)?;
        fs::rename(draft, self.manifests().join(name)).with_context(|| format!("write the manifest {name}"))
    }

    /// Takes a manifest away.
    pub fn delete(&self, name: &str) -> anyhow::Result<()> {
        fs::remove_file(self.manifests().join(name)).with_context(|| format!("remove the manifest {name}"))
    }

    /// Makes join tokens for a service account in a pod, a fresh one at every call.
    pub(crate) fn minting(
        &self,
        account: &str,
        pod: &str,
    ) -> anyhow::Result<impl Fn() -> anyhow::Result<String> + Send + 'static> {
        let identity = Identity::new(names::DEFAULT_TRUST_DOMAIN, NAMESPACE, account)?;
        let pod = token::Pod { namespace: NAMESPACE.into(), name: pod.into(), uid: manifests::uid(pod) };
        let minter = Minter::open(&Store::open(self.state())?)?;
        Ok(move || Ok(minter.mint(&identity, pod.clone(), TOKEN_LIFE)?))
    }

    /// A token that was good in every respect, until a minute ago.
    pub fn expired_token(&self, account: &str, pod: &str) -> anyhow::Result<String> {
        let identity = Identity::new(names::DEFAULT_TRUST_DOMAIN, NAMESPACE, account)?;
        let key = EncodingKey::from_ed_pem(&fs::read(self.state().join("join-token.key"))?)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "aud": names::TOKEN_AUDIENCE,
            "sub": identity.as_str(),
            "pod": {"namespace": NAMESPACE, "name": pod, "uid": manifests::uid(pod)},
            "iat": now - 120,
            "exp": now - 60,
            "jti": "expired",
        });
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key)?)
    }

    /// The issuer that signs leaves, as PEM: its certificate and its key.
    pub fn issuer(&self) -> anyhow::Result<(String, String)> {
        let read = |name| fs::read_to_string(self.state().join(name)).with_context(|| format!("read {name}"));
        Ok((read("tls.crt")?, read("tls.key")?))
    }

    /// What the process keeps to itself: its keys.
    fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    pub(crate) fn trust_bundle(&self) -> PathBuf {
        self.directory.join("roots.pem")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (self.pod.addresses().v4, names::PORT_CONTROLLER).into()
    }

    fn manifests(&self) -> PathBuf {
        self.directory.join("manifests")
    }
}
