//! What the containers print: the last of it, in memory, so that no log can fill anything.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::Arc,
};

use mesh_runtime::tasks::Tasks;
use parking_lot::Mutex;
use tokio::{io::AsyncReadExt as _, net::unix::pipe};

/// Kept of each container, in bytes.
const KEPT: usize = 256 << 10;

/// The logs of all containers, by pod (`namespace/name`) and container.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logs {
    rings: Arc<Mutex<BTreeMap<(String, String), Ring>>>,
}

type Ring = Arc<Mutex<VecDeque<u8>>>;

impl Logs {
    /// A pipe for a new process of a container to print into; it is read until everyone who holds it has ended.
    pub(crate) fn pipe(&self, tasks: &Tasks, pod: &str, container: &str) -> io::Result<OwnedFd> {
        let (reader, writer) = io::pipe()?;
        let mut reader = pipe::Receiver::from_owned_fd(reader.into())?;
        let ring = self.ring(pod, container);
        tasks.spawn("container log", async move {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                let mut ring = ring.lock();
                ring.extend(&buffer[..length]);
                let excess = ring.len().saturating_sub(KEPT);
                ring.drain(..excess);
            }
        });
        Ok(writer.into())
    }

    /// What a container printed last.
    pub(crate) fn text(&self, pod: &str, container: &str) -> String {
        let ring = self.ring(pod, container);
        let mut ring = ring.lock();
        String::from_utf8_lossy(ring.make_contiguous()).into_owned()
    }

    /// The last lines of a container, for an error text.
    pub(crate) fn last_lines(&self, pod: &str, container: &str, count: usize) -> String {
        let text = self.text(pod, container);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// The containers of a pod that were ever started, by name.
    pub(crate) fn containers(&self, pod: &str) -> Vec<String> {
        self.rings.lock().keys().filter(|(owner, _)| owner == pod).map(|(_, container)| container.clone()).collect()
    }

    fn ring(&self, pod: &str, container: &str) -> Ring {
        self.rings.lock().entry((pod.to_owned(), container.to_owned())).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn the_last_of_a_long_log_is_kept() {
        let (tasks, logs) = (Tasks::new(), Logs::default());
        let pipe = logs.pipe(&tasks, "shop/web", "web").unwrap();
        let writer = std::thread::spawn(move || {
            let mut file = std::fs::File::from(pipe);
            for number in 0..40_000 {
                writeln!(file, "line {number}").unwrap();
            }
        });
        // The reader ends with the writer's end of the pipe.
        let stopped = tasks.shutdown(std::time::Duration::from_secs(30)).await;
        assert!(stopped.is_clean(), "{stopped}");
        writer.join().unwrap();
        assert_eq!(logs.last_lines("shop/web", "web", 2), "line 39998\nline 39999");
        assert!(logs.text("shop/web", "web").len() <= KEPT);
        assert_eq!(logs.containers("shop/web"), ["web"]);
        assert_eq!(logs.last_lines("shop/web", "none", 2), "");
    }
}
