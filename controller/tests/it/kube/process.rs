//! The binary in front of a scripted API, as a pod runs it.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
};

use http::StatusCode;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use super::server::{ApiServer, PODS, POLICIES};
use crate::support::{DEADLINE, pod, service, until};

const SECRET: &str = "/api/v1/namespaces/mesh-system/secrets/mesh-ca";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/mesh-system/leases/mesh-controller";

/// A running controller. Dropped, it is killed.
struct Controller {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Controller {
    fn start(directory: &Path, api: &ApiServer) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-controller"));
        command.args(["run", "--source", "kube", "--kubeconfig"]).arg(api.kubeconfig(directory));
        command.arg("--state-dir").arg(directory.join("state"));
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-json"]);
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log }
    }

    /// The next line of the log that says this.
    async fn says(&mut self, text: &str) -> String {
        let found = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                if line.contains(text) {
                    return line;
                }
            }
            panic!("it ended without {text:?}");
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("nothing about {text:?}"))
    }

    /// Where its admin port is.
    async fn admin(&mut self) -> String {
        let line = self.says("admin serves").await;
        let start = line.find("127.0.0.1:").unwrap();
        line[start..].split('"').next().unwrap().to_owned()
    }

    async fn end(mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().unwrap().try_into().unwrap()), Signal::SIGTERM).unwrap();
        timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap()
    }
}

async fn get(addr: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Waits until a page of the admin port has it.
async fn shows(addr: &str, path: &str, wanted: &str) -> String {
    until(async || {
        let page = get(addr, path).await;
        if page.contains(wanted) { Ok(page) } else { Err(format!("{path} without {wanted}: {page}")) }
    })
    .await
}

#[tokio::test]
async fn it_reads_a_cluster_keeps_its_things_there_and_lets_go_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let api = ApiServer::start().await;
    api.put(&pod("shop", "web-1", "web", "10.1.0.1", true));
    api.put(&service("shop", "web", "10.9.0.1"));
    api.put(&pod("shop", "web-2", "web", "10.1.0.2", true).replace("containerPort: 8080", "containerPort: many"));
    let mut controller = Controller::start(directory.path(), &api);
    let admin = controller.admin().await;
    // What cannot be read is named with its reason in the log, and on the page that `meshctl check` reads.
    let line = controller.says("Pod shop/web-2 (as the API has it)").await;
    assert!(line.contains("invalid type: string") && line.contains("mutual TLS only"), "{line}");
    shows(&admin, "/ready", "HTTP/1.1 200").await;
    let page = get(&admin, "/objects").await;
    assert!(page.contains("Pod shop/web-2 (as the API has it)") && page.contains("\"Service\":1"), "{page}");
    shows(&admin, "/metrics", "mesh_controller_leader 1").await;
    assert!(api.stored(SECRET).is_some());
    assert!(controller.end().await.success());
    let lease = api.stored(LEASE).unwrap();
    assert!(lease["spec"]["holderIdentity"].is_null(), "the next one need not wait: {lease}");
}

#[tokio::test]
async fn while_the_api_is_away_it_says_so_and_what_to_do_and_then_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let api = ApiServer::start().await;
    api.put(&pod("shop", "web-1", "web", "10.1.0.1", true));
    api.stop();
    let mut controller = Controller::start(directory.path(), &api);
    let admin = controller.admin().await;
    let line = controller.says("the certificate authority waits for its Secret").await;
    // The kubelet finds it alive, and does not start it anew while there is nothing else to do than to wait.
    assert!(get(&admin, "/live").await.starts_with("HTTP/1.1 200"));
    assert!(get(&admin, "/ready").await.starts_with("HTTP/1.1 503"));
    for part in ["the API server cannot be reached", "Connection refused", "is it up, and at the address that the"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    api.resume().await;
    shows(&admin, "/ready", "HTTP/1.1 200").await;
    // Away again: what is known stays in force, and it is still ready.
    api.stop();
    let line = controller.says("object is not in force as written").await;
    assert!(line.contains("cannot be reached"), "{line}");
    assert!(get(&admin, "/ready").await.starts_with("HTTP/1.1 200"));
    shows(&admin, "/objects", "what is known stays in force").await;
    assert!(controller.end().await.success());
}

#[tokio::test]
async fn a_role_that_lacks_a_right_is_named_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let api = ApiServer::start().await;
    api.refuse(&format!("list {POLICIES}"), StatusCode::FORBIDDEN, "not for you");
    let mut controller = Controller::start(directory.path(), &api);
    let line = controller.says("list authorizationpolicies.meshctl.dev").await;
    assert!(line.contains("403 Forbidden: not for you; allow the controller's service account to get, list"), "{line}");
    api.asked(&format!("watch {PODS}"), 1).await;
    assert!(controller.end().await.success());
}
