//! Envoy, as a sidecar of the same shape: the same redirect, mutual TLS with the same kind of certificates, the same identities
//! checked, one worker. It has nothing else to do: no control plane, no telemetry filters, protocols told by port.

mod config;
mod fetch;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use mesh_netlab::{Pod, Process};
use mesh_proto::names;
use mesh_testbed::{talk, wait::DEADLINE};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) use self::fetch::Program;
use crate::contestant::PAUSE;

/// What the two proxies speak with each other for an application's HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    Http1,
    Http2,
}

/// Signs the certificates of one run's proxies.
pub(crate) struct Authority<'a> {
    program: &'a Program,
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A running Envoy in its pod.
#[derive(Debug)]
pub(crate) struct Envoy {
    pub(crate) process: Process,
    pub(crate) pod: Pod,
    /// From the start of the process.
    pub(crate) ready: Duration,
    _directory: TempDir,
}

impl Program {
    /// A new root of trust.
    pub(crate) fn authority(&self) -> anyhow::Result<Authority<'_>> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let root = params.self_signed(&key)?.pem();
        Ok(Authority { program: self, root, issuer: Issuer::new(params, key) })
    }
}

impl Authority<'_> {
    /// Starts a sidecar for the service account `name` in `pod`, waits until it is ready, and brings in the redirect.
    pub(crate) fn start(&self, pod: Pod, name: &str, between: Between, redirect: &Path) -> anyhow::Result<Envoy> {
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
        params.subject_alt_names = vec![SanType::URI(identity(name).as_str().try_into()?)];
        let files = config::Files {
            certificate: write("certificate.pem", &params.signed_by(&key, &self.issuer)?.pem())?,
            key: write("key.pem", &key.serialize_pem())?,
            roots: write("roots.pem", &self.root)?,
        };
        let peer = identity(if name == "client" { "server" } else { "client" });
        let bootstrap = write("envoy.json", &config::bootstrap(&files, &peer, between).to_string())?;
        let mut command = Command::new(self.program.path());
        command.arg("--config-path").arg(bootstrap);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        let started = Instant::now();
        let process = pod.start(&mut command).context("start Envoy")?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, names::PORT_PROXY_ADMIN));
        while !pod.run(|| talk::get(admin, "/ready", &[]))?.is_ok_and(|answer| answer.status == 200) {
            anyhow::ensure!(started.elapsed() < DEADLINE, "Envoy is not ready:\n{}", process.output());
            thread::sleep(PAUSE);
        }
        let ready = started.elapsed();
        let mut redirect = Command::new(redirect);
        redirect.args(["redirect", "--socket-mark"]).arg(names::PROXY_MARK.to_string());
        let mut redirect = pod.start(&mut redirect)?;
        anyhow::ensure!(redirect.wait()?.success(), "mesh-proxy redirect:\n{}", redirect.output());
        Ok(Envoy { process, pod, ready, _directory: directory })
    }
}

fn identity(account: &str) -> String {
    format!("spiffe://{}/ns/{}/sa/{account}", names::DEFAULT_TRUST_DOMAIN, mesh_testbed::manifests::NAMESPACE)
}
