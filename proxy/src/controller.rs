//! Connections to the controller: TCP with the proxy's mark, TLS that ends at the controller's SPIFFE id, gRPC over it.
//!
//! [`crate::identity`] connects without a certificate to ask for one, [`crate::policy::client`] with it. One connection per
//! call of [`Controller::connect`]: who may reconnect, and when, is the caller's business. DNS only leads there; a name is
//! never proof of who answers.

use std::{io, sync::Arc};

use hyper_util::rt::TokioIo;
use mesh_proto::{
    identity::{Identity, IdentityError},
    names,
};
use mesh_runtime::tasks::Tasks;
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::Duration};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::{
    config::HostPort,
    dial,
    tls::{self, Credentials, NoCertificate, verify},
    trust::{NoRoots, Trust},
};

/// Longest all of name, TCP and TLS may take.
const CONNECT: Duration = Duration::from_secs(5);
/// HTTP/2 ping so often, and gone without an answer in so long: a vanished node is noticed within 13 s.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(3);
/// ALPN of gRPC.
const H2: &[u8] = b"h2";

/// How the controller is reached. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Controller {
    address: HostPort,
    identity: Identity,
    mark: Option<u32>,
    credentials: Credentials,
    trust: Trust,
    tasks: Tasks,
}

/// What to show to the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// No certificate: to ask for one.
    Nothing,
    /// Our own.
    Certificate,
}

/// Why there is no connection to the controller.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody could be trusted.
    #[error(transparent)]
    NoRoots(#[from] NoRoots),
    /// We have nothing to show.
    #[error(transparent)]
    NoCertificate(#[from] NoCertificate),
    /// Its name leads nowhere.
    #[error("find the controller {address}: {reason}")]
    Name {
        /// Which.
        address: HostPort,
        /// What the resolver said.
        reason: String,
    },
    /// No address answers.
    #[error("connect to the controller {address}: {source}")]
    Tcp {
        /// Which.
        address: HostPort,
        /// Of the last address.
        source: io::Error,
    },
    /// Who answers is not the controller, or does not take us.
    #[error("prove that {address} is the controller: {reason}")]
    Tls {
        /// Which.
        address: HostPort,
        /// What was wrong, of the certificate where that was it.
        reason: String,
    },
    /// gRPC did not begin.
    #[error("speak gRPC with the controller {address}: {reason}")]
    Grpc {
        /// Which.
        address: HostPort,
        /// What was wrong.
        reason: String,
    },
    /// It took too long.
    #[error("connect to the controller {0} within {CONNECT:?}")]
    Timeout(HostPort),
}

impl Controller {
    /// At `address`. Sockets carry `mark`; `tasks` own the connections.
    pub fn new(
        address: HostPort,
        mark: Option<u32>,
        credentials: Credentials,
        trust: Trust,
        tasks: Tasks,
    ) -> Result<Self, IdentityError> {
        let trust_domain = credentials.identity().trust_domain();
        let identity = Identity::new(trust_domain, names::SYSTEM_NAMESPACE, names::CONTROLLER_NAME)?;
        Ok(Self { address, identity, mark, credentials, trust, tasks })
    }

    /// Where it is.
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// Connects. The channel is this one connection: once it has ended, every call on it fails.
    pub async fn connect(&self, show: Show) -> Result<Channel, ConnectError> {
        let connect = self.connect_now(show);
        tokio::time::timeout(CONNECT, connect)
            .await
            .unwrap_or_else(|_| Err(ConnectError::Timeout(self.address.clone())))
    }

    async fn connect_now(&self, show: Show) -> Result<Channel, ConnectError> {
        let (roots, _) = self.trust.roots()?;
        let key = match show {
            Show::Nothing => None,
            Show::Certificate => Some(self.credentials.certified_key()?),
        };
        let servers = verify::Servers::only(roots, self.identity.clone());
        let mut config = tls::client_config(key, servers).map_err(|error| self.tls(error.to_string()))?;
        config.alpn_protocols = vec![H2.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let tls = connector.connect(self.credentials.server_name(), self.dial().await?).await.map_err(|error| {
            // The reason itself, where the certificate was it: rustls wraps it in words for machines.
            self.tls(verify::Rejected::find(&error).map_or_else(|| error.to_string(), ToString::to_string))
        })?;
        self.grpc(tls).await
    }

    async fn grpc(&self, tls: TlsStream<TcpStream>) -> Result<Channel, ConnectError> {
        let once = Mutex::new(Some(TokioIo::new(tls)));
        let connector = tower::service_fn(move |_| {
            let connection = once.lock().take();
            async move { connection.ok_or_else(|| io::Error::other("the connection to the controller has ended")) }
        });
        Endpoint::from_static("http://mesh-controller")
            .executor(self.tasks.executor("connection to the controller"))
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(|error| ConnectError::Grpc { address: self.address.clone(), reason: error.to_string() })
    }

    async fn dial(&self) -> Result<TcpStream, ConnectError> {
        let addresses = dial::resolve(&self.address)
            .await
            .map_err(|error| ConnectError::Name { address: self.address.clone(), reason: error.to_string() })?;
        dial::first(addresses, self.mark)
            .await
            .map_err(|source| ConnectError::Tcp { address: self.address.clone(), source })
    }

    fn tls(&self, reason: String) -> ConnectError {
        ConnectError::Tls { address: self.address.clone(), reason }
    }
}
