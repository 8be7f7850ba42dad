//! Queries to the playground's name server, as datagrams: every answer is one, to the query that was asked, and fits.
#![no_main]
#![allow(dead_code, reason = "the half of the module that serves sockets")]

use std::sync::{Arc, OnceLock};

use hickory_proto::op::{Message, MessageType};
use k8s_openapi::api::core::v1::{Pod, Service};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

// `meshctl` is a program without a library, and its name server needs nothing else of it.
#[path = "../../meshctl/src/playground/dns.rs"]
mod dns;
#[path = "../../meshctl/src/playground/select.rs"]
mod select;

fn resolve() -> &'static dns::server::Resolve {
    static RESOLVE: OnceLock<dns::server::Resolve> = OnceLock::new();
    RESOLVE.get_or_init(|| {
        let service = |name: &str, spec| json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
        let services = json!([
            service("web", json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "ports": ports})),
            service("db", json!({"clusterIP": "None", "selector": {"app": "db"}, "ports": ports})),
            service("away", json!({"type": "ExternalName", "externalName": "example.org"})),
        ]);
        let services: Vec<Service> = serde_json::from_value(services).expect("services");
        let pods = (0..90).map(|n| {
            let hostname = format!("db-{n}");
            json!({"metadata": {"name": hostname, "namespace": "shop", "labels": {"app": "db"}},
                "spec": {"containers": [], "hostname": hostname, "subdomain": "db"}})
        });
        let pods: Vec<Pod> = pods.map(|pod| serde_json::from_value(pod).expect("a pod")).collect();
        Arc::new(move |query: &Message| {
            let facts: Vec<dns::PodFact<'_>> =
                pods.iter().zip(1..).map(|(pod, last)| (pod, [10, 0, 0, last].into(), last % 2 == 0)).collect();
            dns::answer(query, &services, &facts)
        })
    })
}

fuzz_target!(|data: &[u8]| {
    let Some(bytes) = dns::server::answer_datagram(data, resolve()) else { return };
    let answer = Message::from_vec(&bytes).expect("an answer can be read");
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(bytes[..2], data[..2], "the id of the query");
    let limit = Message::from_vec(data).map_or(512, |query| usize::from(query.max_payload()));
    assert!(bytes.len() <= limit, "{} bytes, where {limit} fit", bytes.len());
});
