//! A namespace for one test, deleted when the test is through with it.

use anyhow::Context as _;
use mesh_proto::names;
use serde_json::Value;

use crate::program::{Output, kubectl};

/// Longest that `kubectl` waits for what the API server announces.
const TIMEOUT: &str = "--timeout=240s";

/// A namespace and all that is in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
        // One that stays does not make the next run fail: it is looked for by name.
        drop(kubectl(&["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"], ""));
    }
}

impl Namespace {
    /// A new one of this name, none of whose pods are meshed until they ask for it.
    ///
    /// # Errors
    /// What `kubectl` said.
    pub fn plain(name: &str) -> anyhow::Result<Self> {
        Self::with_labels(name, &[])
    }

    /// A new one of this name, labelled for injection.
    ///
    /// # Errors
    /// What `kubectl` said.
    pub fn meshed(name: &str) -> anyhow::Result<Self> {
        Self::with_labels(name, &[format!("{}=enabled", names::LABEL_INJECT)])
    }

    fn with_labels(name: &str, labels: &[String]) -> anyhow::Result<Self> {
        // Left behind by a run that was ended.
        kubectl(&["delete", "namespace", name, "--wait=true", "--ignore-not-found", TIMEOUT], "")?.ok()?;
        kubectl(&["create", "namespace", name], "")?.ok()?;
        let namespace = Self { name: name.to_owned() };
        for label in labels {
            kubectl(&["label", "namespace", name, label], "")?.ok()?;
        }
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `kubectl --namespace …`.
    ///
    /// # Errors
    /// Where it cannot be run; an exit code is no error.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        kubectl(&[&["--namespace", &self.name], arguments].concat(), "")
    }

    /// `kubectl apply`, of manifests.
    ///
    /// # Errors
    /// What `kubectl` said.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        kubectl(&["--namespace", &self.name, "apply", "--filename", "-"], manifests)?.ok()
    }

    /// Until the workload (`deployment/web`) is as wanted, all its pods ready.
    ///
    /// # Errors
    /// What `kubectl` said.
    pub fn rolled_out(&self, workload: &str) -> anyhow::Result<()> {
        self.run(&["rollout", "status", workload, TIMEOUT])?.ok().map(drop)
    }

    /// Objects of a kind that a selector of labels picks (an empty one: all).
    ///
    /// # Errors
    /// What `kubectl` said.
    pub fn objects(&self, kind: &str, selector: &str) -> anyhow::Result<Vec<Value>> {
        let list = self.run(&["get", kind, "--selector", selector, "--output", "json"])?.ok()?;
        let list: Value = serde_json::from_str(&list).context("kubectl get -o json")?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// What is seen of it, for whoever has to find out why a test failed.
    #[expect(clippy::print_stderr, reason = "shown with the test that failed")]
    fn explain(&self) {
        let looks: [&[&str]; 3] = [
            &["get", "pods", "--output", "wide"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &["logs", "--all-pods", "--all-containers", "--tail=20", "--selector", "!absent", "--prefix"],
        ];
        for look in looks {
            if let Ok(output) = self.run(look) {
                eprintln!("{output}");
            }
        }
    }
}
