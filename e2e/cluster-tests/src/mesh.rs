//! The mesh on the cluster: installed once for all tests of a run, and left there.

use std::sync::OnceLock;

use anyhow::{anyhow, ensure};
use mesh_proto::names;

use crate::program::{kubectl, meshctl};

/// What `meshctl install` prints.
///
/// # Errors
/// What it said.
pub fn manifest() -> anyhow::Result<String> {
    meshctl(&["install"], "")?.ok()
}

/// Applies the manifest and waits for the control plane, the first time it is called.
///
/// # Errors
/// What `meshctl` or `kubectl` said.
pub fn install() -> anyhow::Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let install = || {
                kubectl(&["apply", "--filename", "-"], &manifest()?)?.ok()?;
                for deployment in [names::CONTROLLER_NAME, names::INJECTOR_NAME] {
                    let name = format!("deployment/{deployment}");
                    let arguments =
                        ["--namespace", names::SYSTEM_NAMESPACE, "rollout", "status", &name, "--timeout=240s"];
                    kubectl(&arguments, "")?.ok()?;
                }
                let check = meshctl(&["check", "--wait", "--timeout=120s"], "")?;
                ensure!(check.code == Some(0), "{check}");
                Ok(())
            };
            install().map_err(|error: anyhow::Error| format!("{error:#}"))
        })
        .clone()
        .map_err(|error| anyhow!(error))
}
