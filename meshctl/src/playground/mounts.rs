//! The files of a pod: the machine's own, except for a private `/run` with the pod's volumes in it, its hosts file and
//! its resolver configuration, which are as a kubelet would write them.
//!
//! All volumes of our manifests live under `/var/run`, which is `/run` on every common distribution. So nothing has to
//! be created on the machine, and nothing of another pod, or of the person's own runtime directory, is in sight.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::mount::{MsFlags, mount};

use super::{addresses::NODE, dns};

/// What a pod's mount namespace gets. Made of directories of the supervisor's private state.
#[derive(Debug)]
pub(crate) struct Mounts {
    /// The pod's directory in the state.
    root: PathBuf,
    /// A volume's directory, and where it goes below the pod's `/run`.
    volumes: Vec<(PathBuf, PathBuf)>,
    /// Where the resolver's file really is.
    resolver: PathBuf,
}

impl Mounts {
    /// Prepares the directories: `volumes` are directories and the paths where containers want them.
    pub(crate) fn prepare(root: &Path, names: &Names<'_>, volumes: &[(PathBuf, String)]) -> anyhow::Result<Self> {
        let run = root.join("run");
        fs::create_dir_all(&run).with_context(|| format!("create {}", run.display()))?;
        fs::write(root.join("hosts"), names.hosts()).context("write the hosts file")?;
        let mut mounted = Vec::new();
        for (directory, path) in volumes {
            let Some(below) = below_run(path) else {
                bail!("a volume is mounted at {path}; the playground can mount below /var/run only");
            };
            let target = run.join(below);
            fs::create_dir_all(&target).with_context(|| format!("create {}", target.display()))?;
            mounted.push((directory.clone(), target));
        }
        let resolver = fs::canonicalize("/etc/resolv.conf").unwrap_or_default();
        // A link into /run would dangle there: put the file where the link leads.
        if let Ok(below) = resolver.strip_prefix("/run") {
            let file = run.join(below);
            fs::create_dir_all(file.parent().unwrap_or(&run)).context("create the resolver's directory")?;
            fs::write(file, names.resolver()).context("write resolv.conf")?;
        }
        fs::write(root.join("resolv.conf"), names.resolver()).context("write resolv.conf")?;
        Ok(Self { root: root.to_owned(), volumes: mounted, resolver })
    }

    /// Mounts everything, in the new mount namespace of the calling thread.
    pub(crate) fn make(&self) -> io::Result<()> {
        for (directory, target) in &self.volumes {
            bind(directory, target)?;
        }
        bind(&self.root.join("hosts"), Path::new("/etc/hosts"))?;
        if self.resolver.is_file() && !self.resolver.starts_with("/run") {
            bind(&self.root.join("resolv.conf"), &self.resolver)?;
        }
        let run = self.root.join("run");
        // A machine whose /var/run is no link to /run has two of them.
        if fs::canonicalize("/var/run").is_ok_and(|path| path != Path::new("/run")) {
            bind(&run, Path::new("/var/run"))?;
        }
        bind(&run, Path::new("/run"))
    }
}

/// What the resolver's files of a pod depend on.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    /// The pod.
    pub(crate) pod: &'a str,
    /// Its namespace.
    pub(crate) namespace: &'a str,
    /// Its address.
    pub(crate) address: Ipv4Addr,
}

impl Names<'_> {
    fn hosts(&self) -> String {
        format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n{} {}\n", self.address, self.pod)
    }

    /// As a kubelet writes it (`dnsPolicy: ClusterFirst`), but for a server that is known to answer at once.
    fn resolver(&self) -> String {
        let (namespace, zone) = (self.namespace, dns::ZONE);
        format!(
            "search {namespace}.svc.{zone} svc.{zone} {zone}\nnameserver {NODE}\noptions ndots:5 timeout:2 attempts:2\n"
        )
    }
}

/// The part of a path below `/run`.
fn below_run(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let below = path.strip_prefix("/var/run").or_else(|_| path.strip_prefix("/run")).ok()?;
    let plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    (plain && below.components().next().is_some()).then_some(below)
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| io::Error::other(format!("mount {} at {}: {error}", source.display(), target.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_go_below_run_and_nowhere_else() {
        for (path, below) in [
            ("/var/run/mesh/token", Some("mesh/token")),
            ("/run/x", Some("x")),
            ("/run", None),
            ("/var/run/../etc", None),
            ("/etc/x", None),
            ("relative", None),
        ] {
            assert_eq!(below_run(path), below.map(Path::new), "{path}");
        }
        let temp = tempfile::tempdir().unwrap();
        let names = Names { pod: "web-1", namespace: "shop", address: Ipv4Addr::new(10, 244, 0, 2) };
        let error = Mounts::prepare(temp.path(), &names, &[(temp.path().to_owned(), "/data".to_owned())]).unwrap_err();
        assert!(error.to_string().contains("/data"), "{error}");
    }
}
