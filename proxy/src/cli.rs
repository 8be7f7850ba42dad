//! The command line of the proxy: `run`, `redirect`, `drain`. `mesh-proxy` is nothing else, and `meshctl` runs the same
//! commands in the playground.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::Context as _;
use mesh_proto::names;
use mesh_runtime::{build_info, shutdown::Signals, telemetry};

use crate::{admin, app::App, config::env, identity::Schedule, limits, redirect};

/// Longest the running proxy may take to answer `mesh-proxy drain`.
const ANSWER: Duration = Duration::from_secs(5);
/// Most of its answer that is read.
const MAX_ANSWER: u64 = 4096;

/// What the proxy's binary does.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the proxy. It is configured by the environment that the injector writes.
    Run,
    /// Redirect the TCP of this network namespace through the proxy.
    Redirect(redirect::Args),
    /// Ask the proxy in this pod to drain: it serves on until clients have let go, and ends when it is told to.
    Drain(DrainArgs),
}

/// Of `drain`.
#[derive(Debug, Clone, clap::Args)]
pub struct DrainArgs {
    /// Admin port of the proxy, on loopback.
    #[arg(long, default_value_t = names::PORT_PROXY_ADMIN, value_name = "PORT")]
    pub port: u16,
}

impl Command {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Run => run(),
            Self::Redirect(args) => redirect::run(&args),
            Self::Drain(args) => drain(args.port),
        }
    }
}

fn run() -> anyhow::Result<()> {
    let config = env::parse(&env::Process)?;
    let log = telemetry::init(&config.log, config.log_format)?;
    // The key is in this memory: no core dump, no debugger of the same user (contracts §8).
    nix::sys::prctl::set_dumpable(false).context("forbid dumps of the proxy's memory")?;
    limits::raise_descriptors();
    let given = config.settings().into_iter().filter(|setting| setting.source == "environment");
    let settings: Vec<_> = given.map(|setting| format!("{}={}", setting.name, setting.value)).collect();
    tracing::info!(version = build_info::VERSION, commit = build_info::COMMIT, ?settings, "mesh-proxy starts");
    // Everything heavy is on the workers; the one blocking thread is the resolver's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
    runtime.block_on(async {
        let mut signals = Signals::install().context("take over SIGTERM and SIGINT")?;
        let app = App::start(config, Schedule::default(), log).await?;
        app.run(async || signals.next().await).await;
        anyhow::Ok(())
    })
}

/// By hand over a socket: an HTTP client of a runtime would be most of what this command costs at every end of a pod.
fn drain(port: u16) -> anyhow::Result<()> {
    let address = admin::local(port);
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let (path, header, meant) = (admin::DRAIN, names::HEADER_ADMIN, names::ADMIN_MEANT);
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{header}: {meant}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    let answer = ask().with_context(|| format!("ask the proxy at {address} to drain: is it running in this pod?"))?;
    let status = answer.lines().next().unwrap_or_default();
    anyhow::ensure!(status.contains(" 200 "), "the proxy at {address} refused to drain: {status:?}");
    Ok(())
}
