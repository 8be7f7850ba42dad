//! Every outcome, one by one: whatever answer the proxy makes itself carries its code, with the status that the code has, and
//! is counted by it. A new outcome does not compile here until it is said how it comes about, or that nobody is answered.

use std::time::Duration;

use mesh_proto::{
    inbound::{DefaultPolicy, InboundPolicy, PortPolicy},
    outbound::{OutboundPolicy, PathMatch, RequestMatch, Route, WeightedBackend},
    outcome::Outcome,
    workload::Protocol,
};
use mesh_proxy::{
    config::{DataConfig, Limits},
    policy::Policies,
    tls::Credentials,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    App, Authority, Pod, SERVICE, allow, client, closed_port, config, exchange, identity, meshed, plain, server,
    service, soon,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
const GRPC: &str = "POST /a.B/C HTTP/1.1\r\nhost: web\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A proxy that answers with one outcome.
struct Refusing {
    pod: Pod,
    direction: &'static str,
    request: String,
    /// The other proxy, the application, a connection that takes the room.
    _others: Box<dyn std::any::Any>,
}

impl Refusing {
    fn outbound(pod: Pod, others: impl std::any::Any) -> Self {
        Self { pod, direction: "outbound", request: GET.to_owned(), _others: Box::new(others) }
    }

    fn inbound(pod: Pod, others: impl std::any::Any) -> Self {
        Self { pod, direction: "inbound", request: GET.to_owned(), _others: Box::new(others) }
    }

    fn asked(self, request: impl Into<String>) -> Self {
        Self { request: request.into(), ..self }
    }
}

/// A client pod whose destination is this.
fn pod(destination: Option<OutboundPolicy>, change: impl FnOnce(&mut DataConfig)) -> Pod {
    let address = SERVICE.parse().unwrap();
    let mut config = config("client", "10.9.9.9", address);
    change(&mut config);
    let policies = Policies::fixed(None, destination.map(|policy| (address, policy)));
    Pod::start(config, policies, Authority::new().credentials(&identity("client")))
}

/// A Service with one route.
fn routed(route: Route) -> Option<OutboundPolicy> {
    let OutboundPolicy::Service(mut target) = service(Protocol::Http1, vec![]) else { return None };
    target.routes = vec![route];
    Some(OutboundPolicy::Service(target))
}

/// A route for another path than the requests'.
fn elsewhere() -> Route {
    let path = RequestMatch { path: Some(PathMatch::Exact("/elsewhere".into())), ..RequestMatch::default() };
    Route { name: "shop/web#0".into(), matches: vec![path], backends: vec![] }
}

/// An application that answers every connection's first bytes with these and ends.
async fn saying(words: &'static [u8]) -> App {
    App::new(move |mut socket| async move {
        let _ = socket.read(&mut [0; 4096]).await;
        let _ = socket.write_all(words).await;
    })
    .await
}

/// How an outcome comes about; none for one that is no answer to a request.
async fn refusing(outcome: Outcome) -> Option<Refusing> {
    let authority = Authority::new();
    let to = |endpoint| client(&authority, Protocol::Http1, vec![endpoint]);
    let nobody = || pod(Some(service(Protocol::Http1, vec![])), |_| {});
    Some(match outcome {
        Outcome::DiscoveryUnavailable => Refusing::outbound(pod(None, |_| {}), ()),
        Outcome::PolicyUnavailable => Refusing::inbound(server(&authority, closed_port().await, None), ()),
        Outcome::IdentityUnavailable => {
            let destination = SERVICE.parse().unwrap();
            let target = service(Protocol::Http1, vec![meshed(closed_port().await, "server")]);
            let config = config("client", "10.9.9.9", destination);
            let policies = Policies::fixed(None, [(destination, target)]);
            Refusing::outbound(Pod::start(config, policies, Credentials::new(identity("client"))), ())
        }
        Outcome::NoRoute => Refusing::outbound(pod(routed(elsewhere()), |_| {}), ()),
        Outcome::PathAmbiguous => {
            let request = "GET /a%2Fb HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
            Refusing::outbound(pod(routed(elsewhere()), |_| {}), ()).asked(request)
        }
        Outcome::NoBackend => {
            let backends = vec![WeightedBackend { backend: None, weight: 1 }];
            let route = Route { name: "shop/web#0".into(), matches: vec![], backends };
            Refusing::outbound(pod(routed(route), |_| {}), ())
        }
        Outcome::NoEndpoints => Refusing::outbound(nobody(), ()),
        Outcome::ConnectFailed => Refusing::outbound(to(plain(closed_port().await)), ()),
        Outcome::ConnectTimeout => {
            let full = crate::unreachable::Full::new().await;
            Refusing::outbound(to(plain(full.address)), full)
        }
        Outcome::TlsFailed => {
            let stranger = server(&Authority::new(), closed_port().await, Some(allow(Protocol::Http1)));
            Refusing::outbound(to(meshed(stranger.inbound, "server")), stranger)
        }
        Outcome::PeerNotMeshed => {
            let app = saying(b"HTTP/1.1 200 OK\r\n\r\n").await;
            Refusing::outbound(to(meshed(app.address, "server")), app)
        }
        Outcome::PeerIdentityMismatch => {
            let other = server(&authority, closed_port().await, Some(allow(Protocol::Http1)));
            Refusing::outbound(to(meshed(other.inbound, "somebody-else")), other)
        }
        Outcome::Denied => {
            let port = PortPolicy { default: DefaultPolicy::Deny, ..PortPolicy::default() };
            let policy = InboundPolicy { ports: [].into(), default: port };
            Refusing::inbound(server(&authority, closed_port().await, Some(policy)), ())
        }
        Outcome::AppRefused => {
            Refusing::inbound(server(&authority, closed_port().await, Some(allow(Protocol::Http1))), ())
        }
        Outcome::UpstreamReset => {
            let app = saying(b"").await;
            Refusing::inbound(server(&authority, app.address, Some(allow(Protocol::Http1))), app)
        }
        Outcome::UpstreamProtocolError => {
            let app = saying(b"SSH-2.0-x\r\n\r\n").await;
            Refusing::inbound(server(&authority, app.address, Some(allow(Protocol::Http1))), app)
        }
        Outcome::BadRequest => Refusing::outbound(nobody(), ()).asked("GET / HTTP/1.1\r\nhost : web\r\n\r\n"),
        Outcome::HeadTooLarge => Refusing::outbound(nobody(), ())
            .asked(format!("GET / HTTP/1.1\r\nhost: web\r\n{}\r\n", "x: 1\r\n".repeat(200))),
        Outcome::HeadTimeout => {
            let short = |config: &mut DataConfig| config.head_timeout = Duration::from_millis(100);
            let slow = pod(Some(service(Protocol::Http1, vec![])), short);
            Refusing::outbound(slow, ()).asked("GET / HTTP/1.1\r\nhost")
        }
        Outcome::Overloaded => {
            let one = |config: &mut DataConfig| config.limits = Limits { connections: 2, ..Limits::default() };
            let full = pod(Some(service(Protocol::Http1, vec![])), one);
            let holds_the_place = TcpStream::connect(full.outbound).await.unwrap();
            Refusing::outbound(full, holds_the_place)
        }
        // The connection ends before anybody can be answered (`refusals`, `detect`); and those of the controller.
        Outcome::ClientCertificateInvalid
        | Outcome::ProtocolRefused
        | Outcome::Loop
        | Outcome::TokenInvalid
        | Outcome::TokenExpired
        | Outcome::TokenUsed
        | Outcome::TokenUnchecked
        | Outcome::IdentityMismatch
        | Outcome::CertificateRequestInvalid
        | Outcome::ClientCertificateRequired
        | Outcome::PodUnknown
        | Outcome::VersionUnsupported => return None,
    })
}

#[tokio::test]
async fn every_answer_that_the_mesh_makes_itself_has_its_code_and_its_status_and_is_counted() {
    let mut answered = 0;
    for outcome in Outcome::ALL {
        let Some(refusing) = refusing(outcome).await else { continue };
        let facts = outcome.facts();
        let to = if refusing.direction == "outbound" { refusing.pod.outbound } else { refusing.pod.inbound };
        let answer = soon(exchange(to, &refusing.request)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", facts.http_status)), "{outcome}: {answer}");
        assert!(answer.contains(&format!("\r\nmesh-error: {}\r\n", facts.code)), "{outcome}: {answer}");
        assert!(answer.contains(facts.text), "{outcome}: {answer}");
        let counter = format!("mesh_error_total{{direction=\"{}\",code=\"{}\"}}", refusing.direction, facts.code);
        refusing.pod.counted(&format!("{counter} 1")).await;
        answered += 1;

        // What could be read as a request of gRPC is answered as gRPC has it.
        if refusing.request == GET {
            let answer = soon(exchange(to, GRPC)).await;
            let head = answer.to_ascii_lowercase();
            let status = format!("\r\ngrpc-status: {}\r\n", facts.grpc_status);
            assert!(head.starts_with("http/1.1 200 ") && head.contains(&status), "{outcome}: {answer}");
            assert!(head.contains(&format!("\r\nmesh-error: {}\r\n", facts.code)), "{outcome}: {answer}");
        }
    }
    assert_eq!(answered, 20);
}
