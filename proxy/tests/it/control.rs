//! The control side of a whole proxy against a scripted controller.

mod admin;
mod end;
mod identity;
mod stream;

use mesh_proxy::tls::{Alpn, Credentials};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Tls<T> = (tokio_rustls::client::TlsStream<T>, tokio_rustls::server::TlsStream<T>);

async fn connect(client: &Credentials, server: &Credentials) -> Tls<tokio::io::DuplexStream> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let connector = TlsConnector::from(client.client(Alpn::Tcp).unwrap());
    let acceptor = TlsAcceptor::from(server.server().unwrap());
    tokio::try_join!(connector.connect(client.server_name(), near), acceptor.accept(far)).unwrap()
}
