//! Envoy, as a sidecar of the same shape: the same redirect, mutual TLS with the same kind of certificates, the same identities
//! checked, one worker. It has nothing else to do: no control plane, no telemetry filters, protocols told by port.
//!
//! Measured by `e2e/bench` and attacked by `e2e/torture`, which say by [`Sidecar`] what it is to do.

mod config;
mod fetch;
mod hardened;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use mesh_netlab::{Pod, Process};
use mesh_proto::names;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use tempfile::TempDir;
use tokio::time::Instant;

pub use self::{
    config::{Port, Sidecar, Speech},
    fetch::Program,
};
use crate::{member, talk, wait::ready_after};

/// Signs the certificates of one run's proxies.
pub struct Authority {
    program: Program,
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A running Envoy in its pod.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    pod: Pod,
    ready: Duration,
    _directory: TempDir,
}

impl Program {
    /// A new root of trust.
    pub fn authority(&self) -> anyhow::Result<Authority> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let root = params.self_signed(&key)?.pem();
        Ok(Authority { program: self.clone(), root, issuer: Issuer::new(params, key) })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("program", &self.program).finish_non_exhaustive()
    }
}

impl Authority {
    /// Starts a sidecar in `pod`, waits until it is ready, and brings in the redirect, which the program `redirect` (ours) makes.
    pub fn start(&self, pod: Pod, sidecar: &Sidecar<'_>, redirect: &Path) -> anyhow::Result<Envoy> {
        let directory = tempfile::tempdir()?;
        let write = |file: &str, text: &str| {
            let path = directory.path().join(file);
            fs::write(&path, text).map(|()| path).with_context(|| format!("write {file}"))
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // None, as those of our certificates.
        params.distinguished_name = DistinguishedName::new();
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![SanType::URI(identity(sidecar.account).as_str().try_into()?)];
        let files = config::Files {
            certificate: write("certificate.pem", &params.signed_by(&key, &self.issuer)?.pem())?,
            key: write("key.pem", &key.serialize_pem())?,
            roots: write("roots.pem", &self.root)?,
        };
        let text = config::bootstrap(&files, &identity(sidecar.peer), sidecar).to_string();
        let bootstrap = write("envoy.json", &text)?;
        let mut command = member::command(self.program.path(), sidecar.descriptors);
        command.arg("--config-path").arg(bootstrap);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        let started = Instant::now();
        let process = pod.start(&mut command).context("start Envoy")?;
        let mut envoy = Envoy { process, pod, ready: Duration::ZERO, _directory: directory };
        envoy.ready = ready_after(started, || envoy.admin("/ready").is_ok_and(|answer| answer.status == 200))
            .with_context(|| format!("Envoy says:\n{}", envoy.process.output()))?;
        let mut redirect = Command::new(redirect);
        redirect.args(["redirect", "--socket-mark"]).arg(names::PROXY_MARK.to_string());
        let mut redirect = envoy.pod.start(&mut redirect)?;
        anyhow::ensure!(redirect.wait()?.success(), "mesh-proxy redirect:\n{}", redirect.output());
        Ok(envoy)
    }
}

impl Envoy {
    /// The pod it is in.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// How long it took from its start until it was ready.
    pub fn ready(&self) -> Duration {
        self.ready
    }

    /// Asks its admin port on loopback.
    pub fn admin(&self, path: &str) -> io::Result<talk::Answer> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, names::PORT_PROXY_ADMIN));
        self.pod.run(|| talk::get(address, path, &[]))?
    }
}

fn identity(account: &str) -> String {
    format!("spiffe://{}/ns/{}/sa/{account}", names::DEFAULT_TRUST_DOMAIN, crate::manifests::NAMESPACE)
}
