//! Listens for the admin server, in clear text. The loop and its limits are [`crate::serve`]'s.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use axum::Router;

use crate::serve::{self, Limits};

/// Most connections at once; more are closed as they come.
pub const MAX_CONNECTIONS: usize = 1024;

/// An admin server that has its port and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens; with the real port when 0 was asked for.
    pub addr: SocketAddr,
    server: serve::Bound,
    limits: Limits,
}

impl Bound {
    /// Takes the port.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let server = serve::Bound::bind(addr, "admin").await?;
        let limits = Limits { name: "admin connection", connections: MAX_CONNECTIONS, streams: 128 };
        Ok(Self { addr: server.addr, server, limits })
    }

    /// Another cap than [`MAX_CONNECTIONS`].
    #[must_use]
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.limits.connections = max_connections;
        self
    }

    /// Serves until `shutdown` resolves, then lets requests under way finish for at most 5 seconds.
    pub async fn run(self, router: Router, shutdown: impl Future<Output = ()>) {
        self.server.run(self.limits, None, router, shutdown).await;
    }
}
