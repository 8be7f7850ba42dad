//! Volumes of a pod as directories of the private state; `mounts` puts them where containers want them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Pod, Volume};
use mesh_runtime::tasks::Tasks;

use crate::playground::{env::image_program, objects::MANIFESTS_IN_POD, store, tokens::Tokens};

/// Programs of the control plane that look at the directory of manifests, which stands for the API server here.
const READ_MANIFESTS: [&str; 2] = ["mesh-controller", "mesh-injector"];

/// Makes the directories; returns each with its path in the containers.
pub(super) fn prepare(
    pod: &Pod,
    state: &Path,
    tokens: &Tokens,
    tasks: &Tasks,
) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let spec = pod.spec.as_ref().context("it has no spec")?;
    let mut directories = BTreeMap::new();
    for volume in spec.volumes.iter().flatten() {
        let directory = directory(volume, own(state, pod, &volume.name), state)?;
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        for token in token_files(volume) {
            tokens.keep_fresh(tasks, pod, directory.join(token))?;
        }
        directories.insert(volume.name.as_str(), directory);
    }
    // Two containers may mount a volume at the same path; the pod has one tree of mounts for all of them.
    let mut mounts = BTreeMap::new();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    for container in containers {
        for mount in container.volume_mounts.iter().flatten() {
            let directory = directories.get(mount.name.as_str()).with_context(|| {
                format!("container {} mounts volume {}, which the pod does not have", container.name, mount.name)
            })?;
            if mounts.insert(mount.mount_path.clone(), directory.clone()).is_some_and(|other| other != *directory) {
                bail!("two volumes are mounted at {}; the playground has one tree of mounts a pod", mount.mount_path);
            }
        }
        if container.image.as_deref().is_some_and(|image| READ_MANIFESTS.contains(&image_program(image))) {
            mounts.insert(MANIFESTS_IN_POD.to_owned(), manifests(state));
        }
    }
    Ok(mounts.into_iter().map(|(path, directory)| (directory, path)).collect())
}

/// The directory of a pod.
pub(crate) fn root(state: &Path, pod: &Pod) -> PathBuf {
    state.join("pods").join(store::key(pod).replace('/', "_"))
}

/// The directory of a volume that belongs to a pod alone.
pub(crate) fn own(state: &Path, pod: &Pod, volume: &str) -> PathBuf {
    root(state, pod).join("volumes").join(volume)
}

/// The directory that stands for the API server.
pub(crate) fn manifests(state: &Path) -> PathBuf {
    state.join("manifests")
}

/// The directory of a Secret or ConfigMap, by name: they are empty until the supervisor has something to put in.
pub(crate) fn shared(state: &Path, name: &str) -> PathBuf {
    state.join("shared").join(name)
}

fn directory(volume: &Volume, own: PathBuf, state: &Path) -> anyhow::Result<PathBuf> {
    if volume.empty_dir.is_some() || volume.projected.is_some() {
        return Ok(own);
    }
    let secret = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_ref());
    let config_map = volume.config_map.as_ref().map(|config_map| &config_map.name);
    match secret.or(config_map) {
        Some(name) => Ok(shared(state, name)),
        None => bail!("volume {} is of a kind that the playground does not have", volume.name),
    }
}

/// Files of a volume that hold tokens.
fn token_files(volume: &Volume) -> impl Iterator<Item = &str> {
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref()).map(|token| token.path.as_str())
}
