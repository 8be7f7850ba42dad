//! Who still sends to a pod that drains, as its proxy is told.

use mesh_proto::config::{ControllerMessage, Holding, Key, ProxyMessage, Update};

use crate::support::{Mesh, Proxy, pod, service};

const OFFERED: ControllerMessage = ControllerMessage::Holding(Holding { offered: true, clients: 0 });
const ONE: ControllerMessage = ControllerMessage::Holding(Holding { offered: false, clients: 1 });
const NOBODY: ControllerMessage = ControllerMessage::Holding(Holding::NOBODY);
const BEGUN: ProxyMessage = ProxyMessage::DrainStarted { reads_holding: true };

fn web() -> Key {
    Key::Outbound("10.9.0.1:80".parse().unwrap())
}

/// The pod `web-1`, and a client of its Service that has it in force.
async fn shop(service: &str) -> (Mesh, Proxy, Proxy) {
    let mesh = Mesh::start(&[
        ("load.yaml", &pod("shop", "load-1", "load", "127.0.0.2", true)),
        ("web.yaml", &pod("shop", "web-1", "web", "127.0.0.3", true)),
        ("service.yaml", service),
    ])
    .await;
    let mut client = mesh.proxy("shop", "load", "load-1", "127.0.0.2").await;
    let server = mesh.proxy("shop", "web", "web-1", "127.0.0.3").await;
    let update = client.subscribe(web()).await;
    acknowledge(&client, &update).await;
    (mesh, client, server)
}

async fn acknowledge(proxy: &Proxy, update: &Update) {
    proxy.send.send(ProxyMessage::Ack { key: update.key, version: update.version }).await.unwrap();
}

fn withdraw(mesh: &Mesh) {
    mesh.write("web.yaml", &pod("shop", "web-1", "web", "127.0.0.3", false));
}

#[tokio::test]
async fn a_pod_that_drains_is_held_until_every_client_has_acknowledged_that_it_is_no_endpoint() {
    let (mesh, mut client, mut server) = shop(&service("shop", "web", "10.9.0.1")).await;
    server.send.send(BEGUN).await.unwrap();
    assert_eq!(server.next().await, OFFERED);
    withdraw(&mesh);
    let update = client.update().await;
    assert_eq!(server.next().await, ONE, "it has been told, and has not answered");
    let (key, version) = (update.key, update.version);
    client.send.send(ProxyMessage::Reject { key, version, reason: "a test".into() }).await.unwrap();
    // It keeps what it had: only a later update that it takes helps.
    mesh.write("other.yaml", &pod("shop", "web-2", "web", "10.1.0.2", true));
    let update = client.update().await;
    acknowledge(&client, &update).await;
    assert_eq!(server.next().await, NOBODY);
}

#[tokio::test]
async fn a_client_that_is_gone_or_wants_the_service_no_more_does_not_hold_a_pod() {
    for gone in [true, false] {
        let (mesh, client, mut server) = shop(&service("shop", "web", "10.9.0.1")).await;
        withdraw(&mesh);
        server.send.send(BEGUN).await.unwrap();
        // The drain may be heard of before the change.
        let mut said = server.next().await;
        if said == OFFERED {
            said = server.next().await;
        }
        assert_eq!(said, ONE);
        if gone {
            drop(client);
            assert_eq!(server.next().await, NOBODY);
        } else {
            client.send.send(ProxyMessage::Unsubscribe(web())).await.unwrap();
            assert_eq!(server.next().await, NOBODY);
        }
    }
}

#[tokio::test]
async fn a_service_that_keeps_its_pods_to_their_end_holds_no_drain() {
    let service =
        service("shop", "web", "10.9.0.1").replace("  clusterIP:", "  publishNotReadyAddresses: true\n  clusterIP:");
    let (_mesh, _client, mut server) = shop(&service).await;
    server.send.send(BEGUN).await.unwrap();
    assert_eq!(server.next().await, NOBODY);
}

#[tokio::test]
async fn a_proxy_of_an_older_release_is_not_told() {
    let (mesh, mut client, mut server) = shop(&service("shop", "web", "10.9.0.1")).await;
    server.send.send(ProxyMessage::DrainStarted { reads_holding: false }).await.unwrap();
    withdraw(&mesh);
    let update = client.update().await;
    acknowledge(&client, &update).await;
    // Nothing but what it asks for.
    server.subscribe(web()).await;
}
