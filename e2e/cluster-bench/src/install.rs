//! From `meshctl install` to `meshctl check` with exit code 0, and the way back.

use anyhow::ensure;
use mesh_measure::{Report, Samples};
use mesh_proto::names;
use tokio::time::Instant;

use crate::{cluster::Cluster, program::Programs};

/// Seconds, with the images on the nodes.
const INSTALLED: f64 = 45.0;

/// The mesh, by its command line.
pub(crate) struct Mesh {
    programs: Programs,
}

impl Mesh {
    /// Refuses where there is a mesh: it is somebody's.
    pub(crate) async fn on(cluster: &Cluster) -> anyhow::Result<Self> {
        let namespace = format!("/api/v1/namespaces/{}", names::SYSTEM_NAMESPACE);
        ensure!(
            !cluster.has(&namespace).await?,
            "a mesh is installed, and the benchmark installs its own: meshctl uninstall | kubectl delete -f -"
        );
        Ok(Self { programs: Programs::default() })
    }

    /// Installs it so many times, and leaves it there.
    pub(crate) async fn measure(&self, times: u8, report: &mut Report) -> anyhow::Result<()> {
        let mut took = Vec::new();
        for number in 1..=times {
            let begun = Instant::now();
            let manifest = self.programs.meshctl(&["install"], String::new()).await?;
            self.programs.kubectl(&["apply", "--filename", "-"], manifest).await?;
            self.programs.meshctl(&["check", "--wait", "--timeout=180s"], String::new()).await?;
            took.push(begun.elapsed().as_secs_f64());
            if number < times {
                self.remove().await?;
            }
        }
        let took = Samples::new(took)?;
        report.told("install to check: median", "s", took.median(), took.count());
        report.promised("install to check: slowest", "s", took.most(), INSTALLED, took.count());
        Ok(())
    }

    /// Uninstalls it, in whatever state it is.
    pub(crate) async fn remove(&self) -> anyhow::Result<()> {
        let manifest = self.programs.meshctl(&["uninstall", "--force"], String::new()).await?;
        let delete = &["delete", "--ignore-not-found", "--timeout=240s", "--filename", "-"];
        self.programs.kubectl(delete, manifest).await.map(drop)
    }
}
