//! The network with its control pod; pods are added one by one.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use mesh_netlab::{Addresses, Lab};
use tempfile::TempDir;

use crate::{
    control::Control,
    manifests,
    member::{Member, Pod},
};

/// How a mesh is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program `mesh-proxy`.
    pub proxy: PathBuf,
    /// Life of a certificate, in whole seconds.
    pub leaf_lifetime: Duration,
    /// Further environment of the controller.
    pub control_environment: Vec<(String, String)>,
}

impl Settings {
    /// With certificates that live for a day.
    pub fn new(proxy: impl Into<PathBuf>) -> Self {
        Self { proxy: proxy.into(), leaf_lifetime: Duration::from_hours(24), control_environment: Vec::new() }
    }
}

/// A mesh; everything ends with it.
#[derive(Debug)]
pub struct Mesh {
    /// The controller.
    pub control: Control,
    settings: Settings,
    lab: Lab,
    directory: TempDir,
}

impl Mesh {
    /// The network and a running controller that knows the namespace and nothing else.
    pub fn start(settings: Settings) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let lab = Lab::new(addresses(254))?;
        let pod = lab.pod("control", addresses(253))?;
        let control = Control::start(pod, directory.path(), &settings)?;
        control.apply("namespace.yaml", &manifests::namespace())?;
        Ok(Self { control, settings, lab, directory })
    }

    /// A meshed pod that is ready, with its manifest in force. Its token is replaced all the time, as a kubelet does.
    pub fn member(&self, pod: &Pod<'_>) -> anyhow::Result<Member> {
        let member = self.unready_member(pod)?;
        member.until_ready()?;
        member.redirect()?;
        Ok(member)
    }

    /// The same as far as the start of the proxy, which has no redirect then.
    pub fn unready_member(&self, pod: &Pod<'_>) -> anyhow::Result<Member> {
        let network = self.lab.pod(pod.name, pod.addresses())?;
        self.control.apply(&pod.file(), &pod.manifest(pod.ready))?;
        Member::start(network, pod, &self.settings.proxy, &self.control, self.directory.path())
    }

    /// A network outside the mesh, with nothing in it. The controller has never heard of its address.
    pub fn outsider(&self, name: &str, host: u8) -> anyhow::Result<mesh_netlab::Pod> {
        Ok(self.lab.pod(name, addresses(host))?)
    }
}

/// The addresses of the pod with this number.
pub fn addresses(host: u8) -> Addresses {
    Addresses { v4: Ipv4Addr::new(10, 0, 0, host), v6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into())) }
}
