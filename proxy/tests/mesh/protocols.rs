//! The matrix between two real pods: every behaviour of `matrix` through two `mesh-proxy run` behind the real redirect, told by
//! the real controller. Each port of the Service is used once, so that no behaviour finds connections of another.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    ops::Range,
    rc::Rc,
};

use mesh_netlab::Addresses;
use mesh_proto::workload::Protocol;
use mesh_testbed::{Member, Mesh, manifests, member::Pod};
use tokio::net::TcpListener;

use crate::{
    matrix::stage::{Between, Side, Stage, Way},
    settings,
};

/// The Service before the application's pod.
const SERVICE: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 96, 0, 9), v6: Some(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 9)) };

/// What ports are declared as, and by which word of `appProtocol`.
const DECLARED: [(Protocol, Option<&str>); 6] = [
    (Protocol::Http1, Some("http")),
    (Protocol::Http2, Some("kubernetes.io/h2c")),
    (Protocol::Grpc, Some("grpc")),
    (Protocol::Opaque, Some("tcp")),
    (Protocol::Tls, Some("tls")),
    (Protocol::Detect, None),
];
/// First port of the first of them.
const FIRST_PORT: u16 = 10_000;
/// So many ports are declared alike.
const ALIKE: u16 = 100;

/// A client's pod and an application's pod.
struct Redirected {
    pods: Rc<Pods>,
    /// Ports that nobody has used yet.
    free: RefCell<BTreeMap<Protocol, Range<u16>>>,
    _mesh: Mesh,
}

struct Pods {
    client: Member,
    server: Member,
}

impl Redirected {
    fn start() -> anyhow::Result<Self> {
        let mesh = Mesh::start(settings())?;
        let mut free = BTreeMap::new();
        for (first, (protocol, _)) in (FIRST_PORT..).step_by(ALIKE.into()).zip(DECLARED) {
            free.insert(protocol, first..first + ALIKE);
        }
        let words = DECLARED.iter().flat_map(|(protocol, word)| free[protocol].clone().map(move |port| (port, *word)));
        let service = manifests::service_of_ports("web", ("app", "web"), SERVICE, words);
        mesh.control.apply("service-web.yaml", &service)?;
        let server = mesh.member(&Pod::new("a", "web", 1))?;
        let client = mesh.member(&Pod::new("client", "client", 2))?;
        Ok(Self { pods: Rc::new(Pods { client, server }), free: RefCell::new(free), _mesh: mesh })
    }
}

impl Drop for Redirected {
    /// What the proxies have to say about a test that fails.
    #[expect(clippy::print_stderr, reason = "a test that fails is to say why")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, member) in [("client", &self.pods.client), ("server", &self.pods.server)] {
                let metrics = member.admin("/metrics").map(|page| page.body).unwrap_or_default();
                let errors: Vec<_> = metrics.lines().filter(|line| line.starts_with("mesh_error_total{")).collect();
                eprintln!("{name}'s proxy counts {errors:#?} and says\n{}", member.log());
            }
        }
    }
}

impl Stage for Redirected {
    fn families(&self) -> Vec<IpAddr> {
        self.pods.server.addresses().iter().collect()
    }

    fn open(&self, protocol: Protocol, ip: IpAddr) -> (TcpListener, Way) {
        let port = self.free.borrow_mut().get_mut(&protocol).and_then(Iterator::next).expect("a free port");
        let listener = self.pods.server.run(|| std::net::TcpListener::bind((ip, port))).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let service = SERVICE.iter().find(|service| service.is_ipv4() == ip.is_ipv4()).unwrap();
        let way = Way::new(SocketAddr::new(service, port), Rc::<Pods>::clone(&self.pods));
        (TcpListener::from_std(listener).unwrap(), way)
    }
}

impl Between for Pods {
    fn connect(&self, destination: SocketAddr) -> io::Result<TcpStream> {
        self.client.run(|| TcpStream::connect(destination))?
    }

    fn metrics(&self, side: Side) -> String {
        let member = match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        };
        member.admin("/metrics").unwrap().body
    }
}

macro_rules! behind_the_redirect {
    ($($module:ident { $($behaviour:ident)* })*) => {
        $(pub(crate) fn $module() -> anyhow::Result<()> {
            let stage = Redirected::start()?;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                $(crate::matrix::$module::$behaviour(&stage).await;)*
            });
            Ok(())
        })*
        /// Name and test of every part of the matrix.
        pub(crate) const ALL: &[(&str, crate::Test)] = &[
            $((concat!("the_matrix_through_two_real_proxies_behind_the_redirect::", stringify!($module)), $module)),*
        ];
    };
}

crate::matrix::behaviours!(behind_the_redirect);
