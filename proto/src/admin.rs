//! What a proxy tells about itself in JSON on the loopback of its admin port (contracts §9): `/connections`,
//! `/endpoints`, `/config`.
//!
//! The proxy writes these pages and `meshctl` reads them, also those of an older or newer proxy: every page names its
//! version in `apiVersion`, fields are only ever added within one, and a reader ignores what it does not know. Times are
//! ages, so that no two clocks are compared. Nothing here is secret.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `apiVersion` of every page.
pub const API_VERSION: &str = "admin.meshctl.dev/v1";
/// Path of [`Connections`].
pub const CONNECTIONS: &str = "/connections";
/// Path of [`Endpoints`].
pub const ENDPOINTS: &str = "/endpoints";
/// Path of [`Config`].
pub const CONFIG: &str = "/config";
/// Path of what `preStop` hooks of applications ask, `?wait=SECONDS`: answered when a drain has begun and the clients have let
/// go, or then. Anyone may ask; it changes nothing.
pub const DRAINED: &str = "/drained";
/// The answer where that is why it comes.
pub const LET_GO: &str = "clients have let go\n";
/// Most items of one page; what is past that is counted in its `leftOut`.
pub const MAX_ITEMS: usize = 1_000;

/// Open connections of clients: those to the pod (inbound) and those of its application (outbound).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `Connections`.
    pub kind: String,
    /// Oldest first.
    pub items: Vec<Connection>,
    /// Open connections beyond [`MAX_ITEMS`].
    #[serde(default)]
    pub left_out: usize,
    /// Those that ended last, latest first; none of an older proxy.
    #[serde(default)]
    pub closed: Vec<Closed>,
    /// Connections that ended earlier and are no longer kept.
    #[serde(default)]
    pub forgotten: u64,
}

/// A connection that has ended, and whose doing that was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Closed {
    /// As it was at its end; `age_seconds` is how long it lasted.
    #[serde(flatten)]
    pub connection: Connection,
    /// Who ended it: `app` (the pod's own application), `peer-proxy`, `peer-app` (the application at the other end, by its
    /// own hand or passed on by its proxy), or `us` (this proxy).
    pub by: String,
    /// How. Of others: `end` (it said that it was done), `reset`, `cut` (TLS that broke off without its end), `timeout` (it
    /// was no longer there), `broken`. Of this proxy: a code of `docs/errors.md`, or `done` (HTTP was over), `drain`,
    /// `drain-over`, `no-ping`.
    pub reason: String,
    /// Seconds since then.
    pub closed_seconds: f64,
}

/// One open connection of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// `inbound` or `outbound`, seen from the pod.
    pub direction: String,
    /// Who opened it.
    pub source: SocketAddr,
    /// Where the client believes it goes: its original destination.
    pub destination: SocketAddr,
    /// The other side by name, as far as it is known: inbound the client's identity, outbound `namespace/service:port`
    /// or `namespace/pod`.
    #[serde(default)]
    pub peer: Option<String>,
    /// What it was found to speak: `detecting` until that is known, then `http/1`, `http/2` or `tcp`.
    pub protocol: String,
    /// Mutual TLS between two proxies: inbound on this very connection; outbound towards the endpoint last used.
    pub tls: bool,
    /// Endpoint last used, outbound.
    #[serde(default)]
    pub endpoint: Option<SocketAddr>,
    /// Bytes from the client so far: bodies of finished and running requests; everything where it is `tcp`.
    pub bytes_in: u64,
    /// Bytes to the client so far, counted alike.
    pub bytes_out: u64,
    /// Seconds since it was accepted.
    pub age_seconds: f64,
    /// Requests begun.
    pub requests: u64,
    /// Requests that have not ended yet.
    pub in_flight: u64,
}

/// Where the destinations that the application dialled lead, and how the balancer sees each endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `Endpoints`.
    pub kind: String,
    /// By destination.
    pub items: Vec<Target>,
    /// Destinations that were asked about and not answered yet.
    #[serde(default)]
    pub waiting: Vec<SocketAddr>,
    /// Targets beyond [`MAX_ITEMS`].
    #[serde(default)]
    pub left_out: usize,
}

/// One destination that the application dialled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// What the application dialled.
    pub destination: SocketAddr,
    /// `service`, `pod` or `external` (outside the mesh: passed through).
    pub kind: String,
    /// What it is, where it has a name: `namespace/service:port` or `namespace/pod`.
    #[serde(default)]
    pub name: Option<String>,
    /// What it was declared to speak; `detect` where nothing was declared.
    pub protocol: String,
    /// Version of the policy in force.
    pub version: u64,
    /// Seconds since that version came.
    pub age_seconds: f64,
    /// First the Service itself, then what its routes name.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// Names of its routes, in the order in which they are tried.
    #[serde(default)]
    pub routes: Vec<String>,
}

/// A set of endpoints that is balanced over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// `namespace/service:port`; none where a pod was dialled by its address.
    #[serde(default)]
    pub service: Option<String>,
    /// All that are ready.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint, and what this proxy knows of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Where.
    pub address: SocketAddr,
    /// Its namespace, if it is a pod.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Its pod.
    #[serde(default)]
    pub pod: Option<String>,
    /// `kind/name` of what owns the pod.
    #[serde(default)]
    pub workload: Option<String>,
    /// SPIFFE id that it must prove; none: it is not meshed, and dialled in plain.
    #[serde(default)]
    pub identity: Option<String>,
    /// Balancer state, all workers together; none while this proxy has not used the endpoint.
    #[serde(default)]
    pub load: Option<Load>,
}

/// How the balancer sees an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Peak EWMA of the latency until the answer's head, milliseconds; of several workers the highest.
    pub latency_ms: f64,
    /// Requests and connections under way.
    pub in_flight: u64,
    /// Pooled connections: idle HTTP/1 and all HTTP/2.
    pub connections: u64,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `Config`.
    pub kind: String,
    /// Version of the proxy.
    pub version: String,
    /// Commit it was built from.
    pub commit: String,
    /// `namespace/name` of the pod.
    pub pod: String,
    /// Its SPIFFE id.
    pub identity: String,
    /// Log filter in force.
    pub log: String,
    /// Whether it is ready.
    pub ready: bool,
    /// What it waits for until it is.
    #[serde(default)]
    pub waiting_for: Vec<String>,
    /// Whether a drain has begun.
    pub draining: bool,
    /// Who still sends to the pod while it drains; none: the controller has not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding: Option<Holding>,
    /// Seconds since the proxy started.
    pub age_seconds: f64,
    /// Every setting with its value and where the value comes from.
    pub settings: Vec<Setting>,
    /// The stream to the controller.
    pub controller: Controller,
    /// The policy of the pod itself; none until it came (nobody is let in before).
    #[serde(default)]
    pub inbound: Option<Inbound>,
    /// Destinations known; `/endpoints` has them in full.
    pub targets: usize,
    /// The certificate in force; none before the first.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// Roots of trust in force.
    #[serde(default)]
    pub trust_bundle: Option<TrustBundle>,
}

/// Who still sends to a pod that drains ([`crate::config::Holding`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Whether a Service still leads to it.
    pub offered: bool,
    /// Once none does: proxies that have not acknowledged it.
    pub clients: u32,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// The environment variable that sets it.
    pub name: String,
    /// In force, as it would be written.
    pub value: String,
    /// `environment` or `default`.
    pub source: String,
}

/// The stream to the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// Whether it is up.
    pub connected: bool,
    /// How old what is known may be, seconds: 0 while the stream is up.
    pub age_seconds: u64,
}

/// The policy of the pod itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inbound {
    /// Version in force.
    pub version: u64,
    /// Seconds since it came.
    pub age_seconds: f64,
    /// Ports with a setting of their own.
    pub ports: Vec<Port>,
    /// Every other port.
    pub default: Port,
}

/// The policy of one port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Which; none for every other port.
    #[serde(default)]
    pub port: Option<u16>,
    /// What it was declared to speak.
    pub protocol: String,
    /// Default policy, as in the annotation.
    pub default_policy: String,
    /// `allow namespace/name` or `deny namespace/name`, in the order of names.
    #[serde(default)]
    pub rules: Vec<String>,
}

/// The certificate in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Serial number, hex.
    pub serial: String,
    /// Name of its issuer.
    pub issuer: String,
    /// RFC 3339.
    pub not_before: Option<String>,
    /// RFC 3339.
    pub not_after: Option<String>,
}

/// Roots of trust in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustBundle {
    /// Trust domain.
    pub trust_domain: String,
    /// Which of the sources of contracts §6.
    pub source: String,
    /// How many.
    pub roots: usize,
    /// Each of them.
    #[serde(default)]
    pub root_list: Vec<Root>,
}

/// One root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Its name.
    pub subject: String,
    /// RFC 3339.
    pub not_after: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_knows_what_an_older_proxy_leaves_out_and_ignores_what_a_newer_one_adds() {
        let text = r#"{"apiVersion":"admin.meshctl.dev/v1","kind":"Connections","new":1,"items":[{
            "direction":"inbound","source":"10.0.0.1:5","destination":"[fd00::1]:80","protocol":"tcp","tls":true,
            "bytesIn":1,"bytesOut":2,"ageSeconds":0.5,"requests":0,"inFlight":0,"new":{}}]}"#;
        let page: Connections = serde_json::from_str(text).unwrap();
        assert_eq!((page.items[0].bytes_out, page.items[0].peer.as_ref(), page.left_out), (2, None, 0));
        let again: Connections = serde_json::from_str(&serde_json::to_string(&page).unwrap()).unwrap();
        assert_eq!(again, page);
    }
}
