//! What one more proxy costs: from its start to ready, its memory when idle, its size on disk.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::Context as _;
use mesh_measure::{Report, Samples};
use mesh_testbed::{Mesh, Settings, manifests, member::Pod, wait::ready_after};

/// Milliseconds from start to ready, median.
const READY: f64 = 150.0;
/// Resident MiB of an idle proxy, median.
const MEMORY: f64 = 12.0;
/// MiB of the stripped binary.
const SIZE: f64 = 15.0;
/// Before an idle proxy's memory is read: what its start needed may be given back by then.
const IDLE: Duration = Duration::from_secs(1);

pub(crate) fn measure(proxy: &Path, starts: u8, report: &mut Report) -> anyhow::Result<()> {
    let mesh = Mesh::start(Settings::new(proxy))?;
    let (mut ready, mut resident, mut anonymous) = (Vec::new(), Vec::new(), Vec::new());
    mesh.control.apply("service.yaml", &manifests::service("web", ("app", "web"), [10, 96, 0, 1].into()))?;
    // Each start is of another pod: one that starts again and again is held back after ten certificates (contracts §5).
    let names: Vec<_> = (1..=starts).map(|host| (host, format!("web-{host}"))).collect();
    let pods: Vec<_> = names.iter().map(|(host, name)| Pod::new(name, "web", *host)).collect();
    for pod in &pods {
        mesh.control.apply(&pod.file(), &pod.manifest(true))?;
    }
    for pod in &pods {
        let member = mesh.unready_member(pod)?;
        let took = ready_after(member.started(), || member.is_ready()).with_context(|| member.log())?;
        ready.push(took.as_secs_f64() * 1000.0);
        member.redirect()?;
        thread::sleep(IDLE);
        let memory = |field| of_status(member.pid(), field);
        resident.push(memory("VmRSS:")?);
        anonymous.push(memory("RssAnon:")?);
    }
    let (ready, resident, anonymous) = (Samples::new(ready)?, Samples::new(resident)?, Samples::new(anonymous)?);
    report.promised("proxy: start to ready, median", "ms", ready.median(), READY, ready.count());
    report.told("proxy: start to ready, slowest", "ms", ready.most(), ready.count());
    report.promised("proxy: idle memory (RSS), median", "MiB", resident.median(), MEMORY, resident.count());
    report.told("  of it not backed by the binary", "MiB", anonymous.median(), anonymous.count());
    let size = fs::metadata(proxy).with_context(|| format!("look at {}", proxy.display()))?.len();
    report.promised("proxy: size of the binary", "MiB", size as f64 / f64::from(1 << 20), SIZE, 1);
    Ok(())
}

/// A field of `/proc/PID/status`, which is in KiB, as MiB.
pub(crate) fn of_status(process: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.with_context(|| format!("the kernel tells no {field}"))? / 1024.0)
}
