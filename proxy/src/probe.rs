//! The application's own health probes, performed on the pod's address when the kubelet asks for `/probe/…` (contracts §8).
//!
//! Called by [`crate::admin`]. A probe is exactly the original: a port that nothing listens on is a failure, which a probe
//! through a redirect could not see. The connection is the proxy's own, so no redirect and no policy is in its way.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use mesh_proto::probe::{GrpcProbe, HttpProbe, Probe, ProbeAction, Scheme};
use mesh_runtime::{tasks::Tasks, tls};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    time::Duration,
};
use tokio_rustls::TlsConnector;

/// Applications tell probes by this prefix, to answer them without authentication.
const USER_AGENT: &str = "kube-probe/mesh";
/// gRPC's answer to a health check is a few bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// Where probes go, and who owns their connections.
#[derive(Debug, Clone)]
pub struct Prober {
    /// The pod's own address.
    pub ip: IpAddr,
    /// Mark of every socket, where the user id does not exempt it from the redirect.
    pub mark: Option<u32>,
    /// Owner of connections.
    pub tasks: Tasks,
}

/// Why the application is not well.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    /// It does not listen, or did not answer in order.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long.
    #[error("get an answer within {0:?}")]
    Timeout(Duration),
    /// The probe itself cannot be sent.
    #[error("make the probe's request: {0}")]
    Request(#[from] http::Error),
    /// It broke off.
    #[error("get an answer: {0}")]
    Http(#[from] hyper::Error),
    /// It says that it is not well.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// It says so in gRPC.
    #[error("its gRPC health check answered {0}")]
    Grpc(String),
}

impl Prober {
    /// Performs a probe, within its own timeout.
    pub async fn perform(&self, probe: &Probe) -> Result<(), Unwell> {
        let limit = Duration::from_secs(probe.timeout_seconds.max(1).into());
        let perform = async {
            match &probe.action {
                ProbeAction::Http(http) => self.http(http).await,
                ProbeAction::Tcp(tcp) => self.dial(tcp.port).await.map(drop),
                ProbeAction::Grpc(grpc) => self.grpc(grpc).await,
            }
        };
        tokio::time::timeout(limit, perform).await.unwrap_or(Err(Unwell::Timeout(limit)))
    }

    async fn dial(&self, port: u16) -> Result<TcpStream, Unwell> {
        let address = SocketAddr::new(self.ip, port);
        let dial = async {
            let socket = if self.ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(mark) = self.mark {
                SockRef::from(&socket).set_mark(mark)?;
            }
            socket.connect(address).await
        };
        dial.await.map_err(|source| Unwell::Connect { address, source })
    }

    async fn http(&self, probe: &HttpProbe) -> Result<(), Unwell> {
        let request = http_request(probe, self.ip)?;
        let stream = self.dial(probe.port).await?;
        let status = match probe.scheme {
            Scheme::Http => self.get(stream, request).await?,
            Scheme::Https => {
                let address = SocketAddr::new(self.ip, probe.port);
                let connector = TlsConnector::from(unverified());
                let name = ServerName::IpAddress(self.ip.into());
                let tls = connector.connect(name, stream).await;
                self.get(tls.map_err(|source| Unwell::Connect { address, source })?, request).await?
            }
        };
        if (200..400).contains(&status.as_u16()) { Ok(()) } else { Err(Unwell::Status(status)) }
    }

    async fn get<S>(&self, stream: S, request: Request<Empty<Bytes>>) -> Result<StatusCode, Unwell>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let ask = sender.send_request(request);
        tokio::pin!(ask, connection);
        // The connection is driven here, so it ends with the answer's head; nobody needs the body.
        tokio::select! {
            answer = &mut ask => Ok(answer?.status()),
            ended = &mut connection => {
                ended?;
                Ok(ask.await?.status())
            }
        }
    }

    async fn grpc(&self, probe: &GrpcProbe) -> Result<(), Unwell> {
        let request = grpc_request(probe, self.ip)?;
        let stream = self.dial(probe.port).await?;
        let executor = self.tasks.executor("gRPC probe");
        let (mut sender, connection) = http2::handshake(executor, TokioIo::new(stream)).await?;
        let ask = async {
            let answer = sender.send_request(request).await?;
            grpc_answer(answer).await
        };
        tokio::select! {
            answer = ask => answer,
            ended = connection => {
                ended?;
                Err(Unwell::Grpc("nothing".into()))
            }
        }
    }
}

fn http_request(probe: &HttpProbe, ip: IpAddr) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::builder().method(Method::GET).uri(&probe.path).body(Empty::new())?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host(ip, probe.port)?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    // As the kubelet does: the probe's own headers replace ours, and several of one name all count.
    for (name, _) in &probe.headers {
        headers.remove(name.as_str());
    }
    for (name, value) in &probe.headers {
        headers.append(HeaderName::try_from(name.as_str())?, HeaderValue::try_from(value.as_str())?);
    }
    Ok(request)
}

fn host(ip: IpAddr, port: u16) -> Result<HeaderValue, http::Error> {
    Ok(HeaderValue::try_from(SocketAddr::new(ip, port).to_string())?)
}

/// `grpc.health.v1.Health/Check`, whose one message has one field: `service`, a string of tag 1.
fn grpc_request(probe: &GrpcProbe, ip: IpAddr) -> Result<Request<Full<Bytes>>, http::Error> {
    let service = probe.service.as_bytes();
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or_default());
        message.extend_from_slice(service);
    }
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    body.extend(message);
    let authority = SocketAddr::new(ip, probe.port);
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(body.into()))
}

async fn grpc_answer(answer: Response<Incoming>) -> Result<(), Unwell> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK {
        return Err(Unwell::Status(head.status));
    }
    let broken = |error: &dyn fmt::Display| Unwell::Grpc(format!("no answer: {error}"));
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| broken(&error))?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).or(head.headers.get("grpc-status"));
    let status = status.and_then(|status| status.to_str().ok()).unwrap_or("no status").to_owned();
    if status != "0" {
        return Err(Unwell::Grpc(format!("gRPC status {status}")));
    }
    // One message: its length, then tag 1 as a number, where 1 is SERVING.
    match body.to_bytes().get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        Some([0x08, 2, ..]) => Err(Unwell::Grpc("NOT_SERVING".into())),
        _ => Err(Unwell::Grpc("UNKNOWN".into())),
    }
}

/// TLS that believes anybody, as the kubelet's probes do.
fn unverified() -> Arc<ClientConfig> {
    let provider = tls::application_provider();
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("invariant: the provider has suites for every version");
    Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(schemes))).with_no_client_auth())
}

#[derive(Debug)]
struct Anybody(Vec<SignatureScheme>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_s_own_headers_replace_ours() {
        let probe = HttpProbe {
            port: 8080,
            path: "/healthz?full".into(),
            scheme: Scheme::Http,
            headers: vec![("host".into(), "shop".into()), ("X-A".into(), "1".into()), ("x-a".into(), "2".into())],
        };
        let request = http_request(&probe, "fd00::1".parse().unwrap()).unwrap();
        assert_eq!(request.uri(), "/healthz?full");
        assert_eq!(request.headers()[header::HOST], "shop");
        assert_eq!(request.headers().get_all("x-a").iter().count(), 2);
        let plain = HttpProbe { headers: vec![], ..probe };
        let request = http_request(&plain, "fd00::1".parse().unwrap()).unwrap();
        assert_eq!(request.headers()[header::HOST], "[fd00::1]:8080");
    }
}
