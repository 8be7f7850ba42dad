//! What one more proxy costs: from exec to ready, memory when idle, size of the binary. `just bench` runs it.
//!
//! Starts the real release binary against a scripted controller, again and again, in a network namespace of its own (its
//! ports are fixed), as an ordinary user. Fails where a bar is missed.

#[path = "../tests/it/authority.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "shared with the tests, which use all of it")]
mod authority;

#[path = "../tests/it/support"]
mod support {
    //! What the scripted controller needs of its place.

    /// Longest anything is waited for.
    pub(crate) const SOON: std::time::Duration = std::time::Duration::from_secs(20);

    #[path = "controller.rs"]
    #[expect(dead_code, clippy::unwrap_used, reason = "shared with the tests, which use all of it")]
    pub(crate) mod controller;
}

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
};

use anyhow::Context as _;
use mesh_netlab::userns;
use mesh_proto::{
    config::{Key, Value},
    inbound::{InboundPolicy, PortPolicy},
    names,
};
use tokio::time::{Duration, Instant};

use crate::{
    authority::Authority,
    support::{SOON, controller::Controller},
};

/// How often it is started.
const ROUNDS: usize = 21;
/// What an idle proxy is given to let go of what its start needed.
const SETTLE: Duration = Duration::from_millis(500);
/// The bars, in milliseconds, KiB and KiB.
const READY_MS: f64 = 150.0;
const RSS_KIB: f64 = 12.0 * 1024.0;
const BINARY_KIB: f64 = 15.0 * 1024.0;

/// A started proxy; it ends with the value.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only for a process that is gone, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> anyhow::Result<ExitCode> {
    userns::enter(userns::Isolation::default()).context("make a network namespace for the benchmark")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut ready, mut rss) = runtime.block_on(measure())?;
    let binary = fs::metadata(env!("CARGO_BIN_EXE_mesh-proxy"))?.len();
    let rows = [
        ("start to ready, median", median(&mut ready), READY_MS, "ms"),
        ("idle RSS, median", median(&mut rss), RSS_KIB, "KiB"),
        ("binary", (binary / 1024) as f64, BINARY_KIB, "KiB"),
    ];
    let mut good = true;
    for (what, value, bar, unit) in rows {
        let verdict = if value <= bar { "ok" } else { "MISSED" };
        good &= value <= bar;
        writeln!(io::stdout(), "{what:24} {value:10.1} {unit:4} bar {bar:10.1} {verdict}")?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Milliseconds to ready and KiB when idle, of every round.
async fn measure() -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let authority = Arc::new(Authority::new());
    let mut controller = Controller::start(&authority).await;
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("token"), "token")?;
    let (mut ready, mut rss) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let proxy = start(&authority, controller.address, dir.path())?;
        let mut session = controller.session().await;
        session.welcome().await;
        let policy = InboundPolicy { ports: [].into(), default: PortPolicy::default() };
        session.taken(Key::Inbound, 1, Value::Inbound(policy)).await;
        session.taken(Key::TrustBundle, 1, Value::TrustBundle(authority.bundle())).await;
        while !is_ready() {
            anyhow::ensure!(begun.elapsed() < SOON, "the proxy did not become ready in round {round}");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        ready.push(begun.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(SETTLE).await;
        rss.push(resident_kib(proxy.0.id())?);
    }
    Ok((ready, rss))
}

fn start(authority: &Authority, controller: SocketAddr, dir: &Path) -> anyhow::Result<Proxy> {
    let child = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
        .arg("run")
        .env_clear()
        .env(names::ENV_POD_NAMESPACE, "shop")
        .env(names::ENV_POD_NAME, "web-1")
        .env(names::ENV_POD_UID, "uid-1")
        .env(names::ENV_POD_IPS, "127.0.0.1")
        .env(names::ENV_SERVICE_ACCOUNT, "web")
        .env(names::ENV_CONTROLLER_ADDR, controller.to_string())
        .env(names::ENV_TOKEN_FILE, dir.join("token"))
        .env(names::ENV_TRUST_BUNDLE, authority.pem())
        .env(names::ENV_LOG, "warn")
        .stdin(Stdio::null())
        .spawn()
        .context("start mesh-proxy")?;
    Ok(Proxy(child))
}

fn is_ready() -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, names::PORT_PROXY_ADMIN))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        io::Result::Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

fn resident_kib(process: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the kernel tells no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
