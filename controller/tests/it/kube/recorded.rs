//! What a real kube-apiserver 1.34 said once (`tests/recorded/cluster.json`, made by `record.py` beside it), said again:
//! lists, watches with bookmarks, an API server that starts anew and answers 410, 429 and 503, a kind it does not have.

use mesh_proto::config::Key;

use super::{
    follow::endpoints,
    server::{ApiServer, Exchange},
};
use crate::support::Mesh;

const RECORDING: &str = include_str!("../../recorded/cluster.json");
const WEB: &str = "10.96.0.80:80";

/// Of a pod, as the first list of pods has it.
fn uid(pod: &str) -> String {
    let exchanges: Vec<Exchange> = serde_json::from_str(RECORDING).unwrap();
    let list = exchanges.iter().find_map(Exchange::pods).unwrap();
    let found = list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == pod).unwrap();
    found["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_real_api_server_is_followed_through_changes_and_a_restart() {
    let api = ApiServer::start().await;
    // The token of the test's proxy names the pod by this.
    let recording = RECORDING.replace(&uid("load-1"), "uid-load-1");
    let exchanges: Vec<Exchange> = serde_json::from_str(&recording).unwrap();
    assert!(exchanges.iter().any(|exchange| exchange.says("\"code\":410")), "the recording has what this is about");
    assert!(exchanges.iter().any(|exchange| exchange.says("\"type\":\"DELETED\"")));
    assert!(exchanges.iter().any(|exchange| exchange.says("\"type\":\"BOOKMARK\"")));
    api.play(exchanges);

    let mesh = Mesh::start_kube(|directory| api.kubeconfig(directory)).await;
    mesh.ready().await;
    let mut proxy = mesh.proxy("shop", "load", "load-1", "127.0.0.2").await;
    assert_eq!(api.count("list /api/v1/pods"), 1);
    let mut seen = vec![endpoints(&proxy.subscribe(Key::Outbound(WEB.parse().unwrap())).await)];
    api.play_watches();
    while seen.last().unwrap() != &["10.244.0.12:8080"] {
        seen.push(endpoints(&proxy.update().await));
    }
    assert!(seen.iter().all(|endpoints| !endpoints.is_empty()), "nothing is withdrawn but by the API's word: {seen:?}");
    // The second list of pods, after 410, says nothing new.
    api.asked("list /api/v1/pods", 2).await;
    mesh.no_problem("Pod").await;
}
