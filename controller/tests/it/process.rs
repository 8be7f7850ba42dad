//! The binary as a person or a supervisor runs it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mesh-controller"))
}

fn run(directory: &Path, listen: &str) -> Command {
    run_with(directory, listen, "127.0.0.1:0")
}

fn run_with(directory: &Path, listen: &str, admin: &str) -> Command {
    let mut command = command();
    fs::create_dir_all(directory.join("manifests")).unwrap();
    command.arg("run").arg("--source").arg(format!("dir:{}", directory.join("manifests").display()));
    command.arg("--state-dir").arg(directory.join("state"));
    command.args(["--listen", listen, "--admin", admin, "--log-json"]);
    command
}

/// A started process that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already where the test ended it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(addr: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_serves_shows_itself_on_the_admin_port_and_ends_in_order() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("manifests")).unwrap();
    fs::write(directory.path().join("manifests/a.yaml"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")
        .unwrap();
    fs::write(directory.path().join("manifests/b.yaml"), "apiVersion: v1\nkind: Pod\n").unwrap();
    let mut child = Running(run(directory.path(), "127.0.0.1:0").stderr(Stdio::piped()).spawn().unwrap());
    let log = BufReader::new(child.0.stderr.take().unwrap());
    let mut admin = None;
    for line in log.lines() {
        let line = line.unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        if line.contains("admin serves") {
            let text = event.to_string();
            let start = text.find("127.0.0.1:").unwrap();
            admin = text[start..].split('"').next().map(str::to_owned);
        }
        // The last of the two before it is ready.
        if line.contains("metadata.name") {
            break;
        }
    }
    let admin = admin.expect("the log names the admin address");
    let soon = |path: &str, wanted: &str| {
        let mut pages = std::iter::repeat_with(|| get(&admin, path)).take(10_000);
        pages.find(|page| page.contains(wanted)).unwrap_or_else(|| panic!("{path} never has {wanted}"))
    };
    let objects = soon("/objects", "\"Namespace\":1");
    assert!(objects.contains("b.yaml:1: Pod without metadata.name"), "{objects}");
    assert!(get(&admin, "/proxies").ends_with("[]"));
    soon("/ready", "HTTP/1.1 200");
    soon("/metrics", "mesh_controller_objects{kind=\"Namespace\"} 1");
    kill(Pid::from_raw(child.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(child.0.wait().unwrap().success());
}

#[test]
fn a_start_that_fails_says_why_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let (port, listen) = (listen.port(), listen.to_string());
    let mut no_source = command();
    no_source.args(["run", "--source", "dir:/nonexistent", "--state-dir"]).arg(directory.path().join("state"));
    let no_admin = run_with(directory.path(), "127.0.0.1:0", &listen);
    for (mut command, expected) in [
        (
            run(directory.path(), &listen),
            format!(
                "error: cannot listen on {listen} for proxies: another program has this port; \
                 `ss -ltnp 'sport = :{port}'` shows which: end it, or take another port\n"
            ),
        ),
        (
            no_admin,
            format!(
                "error: cannot listen on {listen} for admin: another program has this port; \
                 `ss -ltnp 'sport = :{port}'` shows which: end it, or take another port\n"
            ),
        ),
        (no_source, "error: read the directory /nonexistent: No such file or directory (os error 2); --source dir:PATH names the manifests\n".to_owned()),
    ] {
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn an_issuer_that_has_expired_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let (key, mut params) = (rcgen::KeyPair::generate().unwrap(), rcgen::CertificateParams::default());
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let certificate = params.self_signed(&key).unwrap().pem();
    let ca = directory.path().join("ca");
    fs::create_dir(&ca).unwrap();
    for (name, text) in [("ca.crt", &certificate), ("tls.crt", &certificate), ("tls.key", &key.serialize_pem())] {
        fs::write(ca.join(name), text).unwrap();
    }
    let output = run(directory.path(), "127.0.0.1:0").arg("--ca").arg(&ca).output().unwrap();
    let expected = format!(
        "error: use the certificate authority in {}: tls.crt: it has expired; put a new issuer there (tls.crt, \
         tls.key)\n",
        ca.display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    assert_eq!(output.status.code(), Some(1));
}

/// A disk that takes nothing more, and a place that is none: one line each, and nothing is left behind.
#[test]
fn a_state_directory_that_cannot_be_written_says_what_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let start = |state: &Path, shell: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", shell, env!("CARGO_BIN_EXE_mesh-controller"), "run", "--listen", "127.0.0.1:0"]);
        command.arg("--source").arg(format!("dir:{}", directory.path().display())).arg("--state-dir").arg(state);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    for (text, place) in [
        // Files may have no byte: every write fails, as on a full disk.
        (start(&state, r#"trap '' XFSZ; ulimit -f 0; exec "$0" "$@""#), state.display().to_string()),
        (start(Path::new("/dev/null/state"), r#"exec "$0" "$@""#), "/dev/null/state".to_owned()),
    ] {
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("error: ") && text.contains(&place), "{text}");
        assert!(text.ends_with("; the state directory needs a writable disk with some space left\n"), "{text}");
    }
    assert_eq!(fs::read_dir(state).unwrap().count(), 0, "no draft is left");
}

#[test]
fn without_a_source_or_a_cluster_it_says_what_to_name() {
    let directory = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = command();
        command.arg("run").args(args).arg("--state-dir").arg(directory.path());
        command.env_remove("KUBERNETES_SERVICE_HOST").env_remove("KUBECONFIG").env("HOME", directory.path());
        command
    };
    let mut in_a_pod = run(&[]);
    in_a_pod.env("KUBERNETES_SERVICE_HOST", "10.0.0.1").env("KUBERNETES_SERVICE_PORT", "443");
    for (mut command, expected) in [
        (
            run(&[]),
            "error: no --source, and this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set); name a directory \
             of manifests with --source dir:PATH, or a cluster with --source kube --kubeconfig FILE\n",
        ),
        (
            run(&["--source", "kube"]),
            "error: find the Kubernetes API: this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set) and there \
             is no ~/.kube/config; name a kubeconfig with --kubeconfig FILE, or read manifests with --source dir:PATH\n",
        ),
        (
            run(&["--source", "kube", "--kubeconfig", "/nonexistent"]),
            "error: use the kubeconfig /nonexistent: failed to read kubeconfig from '\"/nonexistent\"': No such file or \
             directory (os error 2)\n",
        ),
        (in_a_pod, "error: use the service account of this pod: "),
    ] {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_token_can_be_minted_before_the_controller_has_ever_run() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command();
    command.args(["token", "mint", "--namespace", "shop", "--service-account", "web", "--pod", "web-1", "--uid", "u"]);
    let output = command.arg("--state-dir").arg(directory.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim().split('.').count(), 3);
}
