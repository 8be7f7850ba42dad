//! How a proxy ends, and what its commands say.

use std::process::Command;

use mesh_proto::{
    admin::{DRAINED, LET_GO},
    config::{Holding, Key, ProxyMessage},
    names,
};
use mesh_runtime::shutdown::Signal;

use crate::support::{
    SOON,
    proxy::{inbound, start},
    until,
};

#[tokio::test]
async fn a_drain_is_told_to_the_controller_and_ends_when_nothing_is_left() {
    let (_authority, mut controller, proxy) = start().await;
    let mut session = controller.welcomed().await;
    session.taken(Key::Inbound, 1, inbound()).await;
    let connection = proxy.drain.guard();
    proxy.signals.send(Signal::Drain).unwrap();
    assert_eq!(session.said().await, ProxyMessage::DrainStarted { reads_holding: true });
    assert!(proxy.get("/live").await.starts_with("HTTP/1.1 200"), "it serves on");
    drop(connection);
    proxy.ended().await;
}

#[tokio::test]
async fn an_application_may_end_once_nobody_is_known_to_send_to_it_or_nobody_knows() {
    let (_authority, mut controller, proxy) = start().await;
    let mut session = controller.welcomed().await;
    proxy.drain.start();
    assert_eq!(session.said().await, ProxyMessage::DrainStarted { reads_holding: true });
    let one = Holding { offered: false, clients: 1 };
    let may_end = async |wait: u16| proxy.get(&format!("{DRAINED}?wait={wait}")).await.ends_with(LET_GO);
    let told = async |holding| {
        until(async || (proxy.drain.holding() == holding).then_some(()).ok_or_else(|| "not yet told".to_owned())).await;
    };
    session.holding(one).await;
    told(Some(one)).await;
    assert!(!may_end(2).await, "one is known");
    session.holding(Holding::NOBODY).await;
    told(Some(Holding::NOBODY)).await;
    assert!(may_end(60).await, "nobody is");
    session.holding(one).await;
    told(Some(one)).await;
    controller.stop().await;
    told(None).await;
    assert!(may_end(60).await, "the controller is away");
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_connections() {
    let (_authority, _controller, proxy) = start().await;
    let _connection = proxy.drain.guard();
    proxy.signals.send(Signal::Drain).unwrap();
    tokio::time::timeout(SOON, proxy.drain.started()).await.unwrap();
    proxy.signals.send(Signal::Abort).unwrap();
    proxy.ended().await;
}

#[tokio::test]
async fn the_drain_command_asks_the_running_proxy() {
    let (_authority, _controller, proxy) = start().await;
    let port = proxy.admin.port().to_string();
    let run = move || Command::new(env!("CARGO_BIN_EXE_mesh-proxy")).args(["drain", "--port", &port]).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(proxy.drain.is_draining());
}

#[test]
fn a_proxy_with_a_bad_environment_names_every_mistake_and_ends() {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
        .arg("run")
        .env_clear()
        .env(names::ENV_POD_IPS, "nowhere")
        .env(names::ENV_WORKERS, "many")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let missing = [names::ENV_POD_NAMESPACE, names::ENV_POD_NAME, names::ENV_CONTROLLER_ADDR, names::ENV_TRUST_BUNDLE];
    for variable in missing {
        assert!(text.contains(&format!("{variable}: is not set")), "{variable}: {text}");
    }
    for wrong in ["MESH_POD_IPS=\"nowhere\"", "MESH_WORKERS=\"many\""] {
        assert!(text.contains(wrong), "{wrong}: {text}");
    }
}
