//! `kubectl` and `meshctl` as a person runs them, one after the other: what cleans up waits for the one that still runs.

use std::sync::Arc;

use anyhow::Context as _;
use mesh_cluster_tests::Output;
use tokio::sync::Mutex;

/// Runs programs, one at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    running: Arc<Mutex<()>>,
}

impl Programs {
    /// `meshctl`; what it printed.
    pub(crate) async fn meshctl(&self, arguments: &'static [&str], stdin: String) -> anyhow::Result<String> {
        self.run(move || mesh_cluster_tests::meshctl(arguments, &stdin)).await
    }

    /// `kubectl`; what it printed.
    pub(crate) async fn kubectl(&self, arguments: &'static [&str], stdin: String) -> anyhow::Result<String> {
        self.run(move || mesh_cluster_tests::kubectl(arguments, &stdin)).await
    }

    async fn run(&self, program: impl FnOnce() -> anyhow::Result<Output> + Send + 'static) -> anyhow::Result<String> {
        // Goes with the program, which goes on when nobody waits for it any more.
        let turn = Arc::clone(&self.running).lock_owned().await;
        let ended = tokio::task::spawn_blocking(move || {
            let output = program();
            drop(turn);
            output
        });
        ended.await.context("run a program")??.ok()
    }
}
