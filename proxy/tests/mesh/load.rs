//! Requests that go on while something is done to the mesh: on one connection that lives on and on a new one each time.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::Context as _;
use mesh_testbed::{
    Member,
    talk::{Http, get},
    until,
};

use crate::{WEB, http};

/// Fewer requests than this are no load.
const ENOUGH: u64 = 100;

/// Does `change` while `client` asks. Every answer has to be 200; `change` is told by its argument that one was not, and
/// had better end then.
pub(crate) fn under_load(
    client: &Member,
    change: impl FnOnce(&dyn Fn() -> bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (stop, requests) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            client.run(|| -> anyhow::Result<()> {
                let mut kept = Http::connect(http(WEB))?;
                while !stop.load(Ordering::Relaxed) {
                    for answer in [kept.get("/", &[])?, get(http(WEB), "/", &[])?] {
                        anyhow::ensure!(answer.status == 200, "{answer:?}");
                        requests.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            })
        });
        let changed = change(&|| load.is_finished()).and_then(|()| {
            let enough = || load.is_finished() || requests.load(Ordering::Relaxed) > ENOUGH;
            until("enough was asked meanwhile", || enough().then_some(()))
        });
        stop.store(true, Ordering::Relaxed);
        load.join().expect("the load does not panic")?.context("a request failed")?;
        changed
    })
}
