//! What the kernel says about this process, read from /proc at each scrape, under the names that every Prometheus
//! client library uses. A value that cannot be read is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads /proc/self at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector;

/// Ticks per second of the times in /proc. Fixed by the kernel's interface (`USER_HZ`) on every architecture that we
/// build for.
const TICKS: f64 = 100.0;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            let cpu = ConstCounter::new(stat.cpu_ticks / TICKS);
            put(&mut encoder, "process_cpu", "processor time used", Some(&Unit::Seconds), &cpu)?;
            put(&mut encoder, "process_threads", "threads", None, &ConstGauge::new(stat.threads))?;
            if let Some(boot) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_seconds) {
                let start = ConstGauge::new(boot + stat.start_ticks / TICKS);
                put(&mut encoder, "process_start_time", "start, since the epoch", Some(&Unit::Seconds), &start)?;
            }
        }
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
            let resident = ConstGauge::new(bytes);
            put(&mut encoder, "process_resident_memory", "resident memory", Some(&Unit::Bytes), &resident)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            let open = i64::try_from(open.count().saturating_sub(1)).unwrap_or(i64::MAX);
            put(&mut encoder, "process_open_fds", "file descriptors open", None, &ConstGauge::new(open))?;
        }
        if let Some(limit) = fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(fd_limit) {
            put(&mut encoder, "process_max_fds", "file descriptors allowed", None, &ConstGauge::new(limit))?;
        }
        Ok(())
    }
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

/// What we read of /proc/PID/stat (proc_pid_stat(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: i64,
    start_ticks: f64,
}

impl Stat {
    fn parse(stat: &str) -> Option<Self> {
        // The second field is the program's name in brackets and may hold anything, brackets included.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // Field N of the manual, whose third is the first here.
        let field = |n: usize| fields.get(n - 3).copied();
        let ticks = |n| field(n)?.parse::<f64>().ok();
        Some(Self { cpu_ticks: ticks(14)? + ticks(15)?, threads: field(20)?.parse().ok()?, start_ticks: ticks(22)? })
    }
}

fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

fn resident_bytes(status: &str) -> Option<i64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The soft limit; none when unlimited.
fn fd_limit(limits: &str) -> Option<i64> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 1234 10000 500";
        let expected = Stat { cpu_ticks: 300.0, threads: 3, start_ticks: 1234.0 };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn values_are_read_or_left_out() {
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
        assert_eq!(resident_bytes("Name: x\nVmRSS:\t    2048 kB\n"), Some(2_097_152));
        assert_eq!(resident_bytes("VmRSS: lots"), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(fd_limit(limits), Some(1024));
        assert_eq!(fd_limit("Max open files            unlimited            unlimited            files"), None);
    }
}
