//! One meshed pod: applications, a token that is kept fresh, the proxy's process, the redirect.

use std::{
    fs, io,
    iter::Sum,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    sync::mpsc::{self, RecvTimeoutError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use mesh_netlab::{Addresses, Process};
use mesh_proto::names;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    apps::Apps,
    control::Control,
    manifests::{self, NAMESPACE},
    mesh, talk,
    tap::Tap,
    wait::until,
};

/// How often a token is replaced. Each is good for one request.
const TOKEN_PERIOD: Duration = Duration::from_millis(500);

/// What a pod is made from.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its service account.
    pub account: &'a str,
    /// Value of its label `app`.
    pub app: &'a str,
    /// Last number of its address.
    pub host: u8,
    /// Where its token comes from.
    pub token: Token<'a>,
    /// Further settings of its proxy.
    pub environment: &'a [(&'a str, &'a str)],
    /// File descriptors that its proxy is allowed; none: as many as the test.
    pub descriptors: Option<u32>,
    /// Whether its manifest says from the begin that it is ready, before anything of it runs.
    pub ready: bool,
}

/// Where the token of a pod comes from.
#[derive(Debug, Clone, Copy)]
pub enum Token<'a> {
    /// Minted for the pod and its service account, always a fresh one.
    Own,
    /// Minted for another service account, always a fresh one.
    Of(&'a str),
    /// This one, once.
    Fixed(&'a str),
}

impl<'a> Pod<'a> {
    /// A pod whose service account and label `app` have one name.
    pub fn new(name: &'a str, account: &'a str, host: u8) -> Self {
        Self { name, account, app: account, host, token: Token::Own, environment: &[], descriptors: None, ready: true }
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.addresses().v4
    }

    /// The same, and that of IPv6, which it has where the machine has IPv6.
    pub fn addresses(&self) -> Addresses {
        mesh::addresses(self.host)
    }

    /// Name of its manifest.
    pub fn file(&self) -> String {
        format!("pod-{}.yaml", self.name)
    }

    /// Its manifest.
    pub fn manifest(&self, ready: bool) -> String {
        manifests::pod(self.name, self.account, self.app, self.addresses(), ready)
    }
}

/// A running pod; ends with this value.
#[derive(Debug)]
pub struct Member {
    proxy: Process,
    command: Command,
    started: Instant,
    program: PathBuf,
    _apps: Apps,
    _token: Option<Refresher>,
    _directory: TempDir,
    pod: mesh_netlab::Pod,
}

impl Member {
    pub(crate) fn start(
        network: mesh_netlab::Pod,
        pod: &Pod<'_>,
        program: &Path,
        control: &Control,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let own = tempfile::tempdir_in(directory).context("make the pod's directory")?;
        let token_file = own.path().join("token");
        let token = match pod.token {
            Token::Own => Some(Refresher::start(control, pod.account, pod.name, &token_file)?),
            Token::Of(account) => Some(Refresher::start(control, account, pod.name, &token_file)?),
            Token::Fixed(token) => {
                fs::write(&token_file, token)?;
                None
            }
        };
        let apps = Apps::start(&network).with_context(|| format!("start the applications of {}", pod.name))?;
        let ips: Vec<_> = network.addresses().iter().map(|ip| ip.to_string()).collect();
        let mut command = command(program, pod.descriptors);
        command.arg("run").envs([
            (names::ENV_POD_NAMESPACE, NAMESPACE.to_owned()),
            (names::ENV_POD_NAME, pod.name.to_owned()),
            (names::ENV_POD_UID, manifests::uid(pod.name)),
            (names::ENV_POD_IPS, ips.join(",")),
            (names::ENV_SERVICE_ACCOUNT, pod.account.to_owned()),
            (names::ENV_CONTROLLER_ADDR, control.address().to_string()),
            (names::ENV_TOKEN_FILE, token_file.display().to_string()),
            (names::ENV_TRUST_BUNDLE_FILE, control.trust_bundle().display().to_string()),
            (names::ENV_STATE_DIR, own.path().display().to_string()),
            (names::ENV_SOCKET_MARK, names::PROXY_MARK.to_string()),
        ]);
        command.envs(pod.environment.iter().copied());
        let started = Instant::now();
        let proxy = network.start(&mut command).with_context(|| format!("start {}", program.display()))?;
        Ok(Self {
            proxy,
            command,
            started,
            program: program.to_owned(),
            _apps: apps,
            _token: token,
            _directory: own,
            pod: network,
        })
    }

    /// Waits until the proxy says that it is.
    pub fn until_ready(&self) -> anyhow::Result<()> {
        let ready = until("the proxy is ready", || self.is_ready().then_some(()));
        ready.with_context(|| format!("{}:\n{}", self.pod.name(), self.log()))
    }

    /// What `/ready` says.
    pub fn is_ready(&self) -> bool {
        self.admin("/ready").is_ok_and(|answer| answer.status == 200)
    }

    /// Brings the redirect into the pod's network, by the program itself.
    pub fn redirect(&self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["redirect", "--socket-mark"]).arg(names::PROXY_MARK.to_string());
        let mut redirect = self.pod.start(&mut command)?;
        anyhow::ensure!(redirect.wait()?.success(), "mesh-proxy redirect:\n{}", redirect.output());
        Ok(())
    }

    /// What it is reached at.
    pub fn addresses(&self) -> Addresses {
        self.pod.addresses()
    }

    /// Runs `f` in the pod's network. A panic in it is one here.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.pod.run(f)
    }

    /// Asks the proxy's admin port on loopback.
    pub fn admin(&self, path: &str) -> io::Result<talk::Answer> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, names::PORT_PROXY_ADMIN));
        self.run(|| talk::get(address, path, &[]))?
    }

    /// The sum of a counter's series that have all these label texts; 0 where there is none.
    pub fn count(&self, family: &str, labels: &[&str]) -> io::Result<u64> {
        self.sum(family, labels)
    }

    /// The same of a gauge.
    pub fn gauge(&self, family: &str, labels: &[&str]) -> io::Result<f64> {
        self.sum(family, labels)
    }

    fn sum<T: FromStr + Sum>(&self, family: &str, labels: &[&str]) -> io::Result<T> {
        let text = self.admin("/metrics")?.body;
        let of_family = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let series = text.lines().filter(of_family).filter(|line| labels.iter().all(|label| line.contains(label)));
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<T>().ok()).sum())
    }

    /// Begins to watch its traffic.
    pub fn tap(&self) -> anyhow::Result<Tap> {
        Tap::start(&self.pod)
    }

    /// Serial of the certificate in force.
    pub fn serial(&self) -> anyhow::Result<String> {
        let page: serde_json::Value = serde_json::from_str(&self.admin("/config")?.body)?;
        let serial = page.pointer("/certificate/serial").and_then(serde_json::Value::as_str);
        serial.map(str::to_owned).context("/config shows no serial")
    }

    /// Subjects of the roots that its proxy trusts.
    pub fn roots(&self) -> anyhow::Result<Vec<String>> {
        let page: serde_json::Value = serde_json::from_str(&self.admin("/config")?.body)?;
        let roots = page.pointer("/trustBundle/rootList").and_then(serde_json::Value::as_array);
        let roots = roots.context("/config shows no roots")?;
        Ok(roots.iter().filter_map(|root| root["subject"].as_str().map(str::to_owned)).collect())
    }

    /// When the proxy's process was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Process id of the proxy.
    pub fn pid(&self) -> u32 {
        self.proxy.id()
    }

    /// Has the proxy drain, as the preStop hook of its container does.
    pub fn drain(&self) -> anyhow::Result<()> {
        let mut drain = self.pod.start(Command::new(&self.program).arg("drain"))?;
        anyhow::ensure!(drain.wait()?.success(), "mesh-proxy drain:\n{}", drain.output());
        Ok(())
    }

    /// Sends the proxy a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> io::Result<()> {
        self.proxy.signal(signal)
    }

    /// Starts a proxy that has ended once more, as the kubelet does, and waits until it is ready.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.proxy.wait()?;
        self.proxy = self.pod.start(&mut self.command).context("start the proxy again")?;
        self.until_ready()
    }

    /// Starts another program in the pod's network.
    pub fn exec(&self, command: &mut Command) -> io::Result<Process> {
        self.pod.start(command)
    }

    /// Waits until the proxy has ended.
    pub fn ended(&mut self) -> io::Result<std::process::ExitStatus> {
        self.proxy.wait()
    }

    /// What the proxy has printed.
    pub fn log(&self) -> String {
        self.proxy.output()
    }
}

/// `program`, allowed so many descriptors. Only a process can limit itself, so a shell does before it becomes the program.
pub(crate) fn command(program: &Path, descriptors: Option<u32>) -> Command {
    let Some(descriptors) = descriptors else { return Command::new(program) };
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!(r#"ulimit -n {descriptors} && exec "$0" "$@""#)).arg(program);
    shell
}

/// Plays the kubelet for one token; ends with this value.
#[derive(Debug)]
struct Refresher {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Refresher {
    fn start(control: &Control, account: &str, pod: &str, file: &Path) -> anyhow::Result<Self> {
        let mint = control.minting(account, pod)?;
        let file = file.to_owned();
        let write = move || -> anyhow::Result<()> {
            let draft = file.with_extension("draft");
            fs::write(&draft, mint()?)?;
            Ok(fs::rename(draft, &file)?)
        };
        write().context("write the pod's token")?;
        let (end, ended) = mpsc::channel();
        let thread = std::thread::Builder::new().name("token".into()).spawn(move || {
            while ended.recv_timeout(TOKEN_PERIOD) == Err(RecvTimeoutError::Timeout) {
                // The old one stays; what the proxy makes of it shows.
                let _ = write();
            }
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
