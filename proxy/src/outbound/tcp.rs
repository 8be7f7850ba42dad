//! Opaque connections of the pod: a balanced endpoint, and bytes both ways.

use std::rc::Rc;

use bytes::BytesMut;
use mesh_proto::outcome::Outcome;
use tokio::net::TcpStream;

use super::{
    Connection,
    target::{Compiled, Member},
};
use crate::{
    connect,
    connections::Cause,
    copy,
    error::{ProxyError, Result},
    metrics::EdgeLabels,
    pool,
    record::{Record, Side},
    stream::{Io, Stream},
    tls::Alpn,
    worker::Worker,
};

/// Endpoints tried for one connection. Each may take the connect timeout; a client waits a few seconds at most.
const ATTEMPTS: usize = 3;

/// Carries the connection. `banner` was read from `early` and belongs to the client.
pub(super) async fn serve(
    connection: &Connection,
    compiled: &Compiled,
    client: Stream,
    banner: BytesMut,
    early: Option<(Rc<Member>, Stream)>,
) {
    let worker = &connection.worker;
    let mut record = Record::connection(worker, &connection.side, &compiled.edge);
    let opened = match early {
        Some(early) => Ok(early),
        None => open(worker, compiled, Alpn::Tcp).await,
    };
    match opened {
        Ok((member, server)) => {
            record.goes_to(member.edge(worker), &member.upstream, None);
            let _pending = member.upstream.load.pending_guard();
            carry(worker, client, server.unread(banner.freeze()), record, std::future::pending()).await;
        }
        Err(error) => {
            record.failed(&error);
            client.abort();
        }
    }
}

/// Opens the way to an endpoint of the Service before the client has spoken.
pub(super) async fn open_early(worker: &Rc<Worker>, compiled: &Compiled) -> Result<(Rc<Member>, Stream)> {
    open(worker, compiled, Alpn::Detect).await
}

/// Opens a link to one endpoint; to another where that is safe. No byte of the client has been sent yet.
async fn open(worker: &Rc<Worker>, compiled: &Compiled, alpn: Alpn) -> Result<(Rc<Member>, Stream)> {
    let balancer = compiled.unrouted()?;
    let mut failed: Option<(Rc<Member>, ProxyError)> = None;
    for attempt in 0..ATTEMPTS {
        // The only endpoint gets a second chance where that may help.
        if attempt >= balancer.len() && !failed.as_ref().is_some_and(|(_, error)| attempt == 1 && error.may_pass()) {
            break;
        }
        let Some(member) = balancer.pick(failed.as_ref().map(|(member, _)| member)) else {
            break;
        };
        match pool::open(worker, &member.upstream, alpn).await {
            Ok(stream) => return Ok((member, stream)),
            Err(error) if error.retry_safe() => failed = Some((member, error)),
            Err(error) => return Err(error),
        }
    }
    Err(failed
        .map_or_else(|| ProxyError::new(Outcome::NoEndpoints, "the backend has no ready endpoint"), |(_, error)| error))
}

/// To where it was going, as without us: nothing is known about the destination.
pub(super) async fn pass_through(worker: &Rc<Worker>, socket: TcpStream, side: Side) {
    let labels = EdgeLabels {
        direction: side.direction.as_str(),
        dst_namespace: String::new(),
        dst_service: String::new(),
        dst_port: side.destination.port(),
        dst_workload: String::new(),
        client_id: String::new(),
        tls: false,
    };
    let edge = worker.shared.metrics.edge(labels);
    let destination = side.destination;
    let mut record = Record::connection(worker, &Rc::new(side), &edge);
    record.opened();
    let client: Stream = Io::Tcp(socket).into();
    match connect::dial_for(worker.config(), destination, connect::PATIENT).await {
        Ok(server) => {
            carry(worker, client, Io::Tcp(server).into(), record, std::future::pending()).await;
        }
        Err(error) => {
            record.failed(&error);
            client.abort();
        }
    }
}

/// Copies until both sides have ended. A side that breaks breaks the other.
pub(crate) async fn carry(
    worker: &Worker,
    mut client: Stream,
    mut server: Stream,
    mut record: Record,
    refused: impl Future<Output = ProxyError>,
) {
    let result = tokio::select! {
        result = copy::bidirectional(&mut client, &mut server, &record) => result,
        error = refused => {
            record.failed(&error);
            client.abort();
            return server.abort();
        }
        () = worker.shared.drain.aborted() => {
            record.cut_off();
            client.abort();
            server.abort();
            return;
        }
    };
    record.ends(Cause::of_copy(&result));
    let Err(error) = result else { return };
    match &error {
        copy::CopyError::Client(error) => {
            if let Some(refused) = error.get_ref().and_then(|inner| inner.downcast_ref::<ProxyError>()) {
                record.failed(refused);
                client.abort();
                return server.abort();
            }
            tracing::debug!(%error, "a client broke its connection");
            record.cut_off();
        }
        copy::CopyError::Server(error) => {
            record.failed(&ProxyError::new(Outcome::UpstreamReset, error.to_string()));
        }
    }
    client.abort();
    server.abort();
}
