//! The matrix on loopback: each behaviour a test, each port with two workers of its own.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    rc::Rc,
};

use mesh_proto::workload::Protocol;
use tokio::net::TcpListener;

use crate::{
    matrix::stage::{Between, Side, Stage, Way},
    support::{Pair, SERVICE, pair},
};

struct Loopback;

impl Stage for Loopback {
    fn families(&self) -> Vec<IpAddr> {
        crate::support::families()
    }

    fn open(&self, protocol: Protocol, ip: IpAddr) -> (TcpListener, Way) {
        let listener = std::net::TcpListener::bind((ip, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let pair = pair(listener.local_addr().unwrap(), protocol);
        (TcpListener::from_std(listener).unwrap(), Way::new(SERVICE.parse().unwrap(), Rc::new(pair)))
    }
}

impl Between for Pair {
    fn connect(&self, _destination: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(self.client.outbound)
    }

    fn metrics(&self, side: Side) -> String {
        match side {
            Side::Client => self.client.metrics(),
            Side::Server => self.server.metrics(),
        }
    }
}

macro_rules! on_loopback {
    ($($module:ident { $($behaviour:ident)* })*) => {
        $(mod $module {
            $(#[tokio::test]
            async fn $behaviour() {
                crate::matrix::$module::$behaviour(&super::Loopback).await;
            })*
        })*
    };
}

crate::matrix::behaviours!(on_loopback);
