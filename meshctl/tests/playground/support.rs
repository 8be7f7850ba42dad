//! A playground of the real binary in a runtime directory of its own, as its tests drive it.

use std::{
    fs,
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    unistd::Pid,
};
use serde_json::Value;

pub(crate) struct Playground {
    runtime: tempfile::TempDir,
}

impl Playground {
    pub(crate) fn new() -> Self {
        Self { runtime: tempfile::tempdir().unwrap() }
    }

    /// The directory that is empty while nothing runs.
    pub(crate) fn runtime(&self) -> &Path {
        self.runtime.path()
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        command.args(line.split_whitespace()).env("XDG_RUNTIME_DIR", self.runtime());
        command
    }

    pub(crate) fn meshctl(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// What a command that must succeed prints.
    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.meshctl(line);
        assert!(output.status.success(), "meshctl {line}: {}\n{}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) fn json(&self, line: &str) -> Vec<Value> {
        items(&self.ok(&format!("{line} -o json")))
    }

    /// Runs the shop's own `curl` in a pod.
    pub(crate) fn get(&self, pod: &str, arguments: &str) -> String {
        self.ok(&format!("playground exec {pod} -- {} mesh-shop get -i {arguments}", env!("CARGO_BIN_EXE_meshctl")))
    }

    /// The first process inside.
    pub(crate) fn supervisor(&self) -> Pid {
        let socket = UnixStream::connect(self.runtime().join("meshctl-playground/control.sock")).unwrap();
        let supervisor = getsockopt(&socket, PeerCredentials).unwrap().pid();
        socket.shutdown(Shutdown::Both).unwrap();
        Pid::from_raw(supervisor)
    }

    pub(crate) fn inside(&self) -> Inside {
        let supervisor = self.supervisor();
        Inside { supervisor, namespace: fs::read_link(format!("/proc/{supervisor}/ns/pid")).unwrap() }
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        // Also where an assertion failed before; refused where it has ended in order.
        self.meshctl("playground stop");
    }
}

/// Everything inside.
pub(crate) struct Inside {
    supervisor: Pid,
    namespace: PathBuf,
}

impl Inside {
    /// Its processes, as this machine numbers them, with their command lines.
    pub(crate) fn processes(&self) -> Vec<(Pid, String)> {
        let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_inside = |pid: &Pid| {
            // Proxies show their namespaces to nobody, but their parent.
            fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link == self.namespace)
                || parent(*pid) == Some(self.supervisor)
        };
        let line = |pid: Pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&words).replace('\0', " "))
        };
        numbers.map(Pid::from_raw).filter(is_inside).map(line).collect()
    }

    /// The sidecar of a workload that has one pod.
    pub(crate) fn proxy_of(&self, workload: &str) -> Pid {
        let is_its = |pid: &Pid| {
            let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            // A pod of a Deployment is WORKLOAD-HASH-RANDOM; another workload's name may begin with this one's.
            let is_of_it = |name: &[u8]| {
                let mut parts = name.rsplitn(3, |byte| *byte == b'-').skip(2);
                parts.next() == Some(workload.as_bytes())
            };
            let name = |variable: &[u8]| variable.strip_prefix(b"MESH_POD_NAME=").is_some_and(is_of_it);
            variables.split(|byte| *byte == 0).any(name)
        };
        let proxies = self.processes().into_iter().filter(|(_, line)| line.contains("mesh-proxy run"));
        proxies.map(|(pid, _)| pid).find(is_its).unwrap()
    }

    /// Signals all processes whose command line contains this, and tells how many.
    pub(crate) fn signal(&self, words: &str, signal: Signal) -> usize {
        let found: Vec<_> = self.processes().into_iter().filter(|(_, line)| line.contains(words)).collect();
        for (pid, _) in &found {
            kill(*pid, signal).unwrap();
        }
        found.len()
    }
}

/// Who started a process that runs.
pub(crate) fn parent(process: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}

/// The items of a list in JSON.
pub(crate) fn items(json: &str) -> Vec<Value> {
    let list: Value = serde_json::from_str(json).unwrap();
    list["items"].as_array().unwrap().clone()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
