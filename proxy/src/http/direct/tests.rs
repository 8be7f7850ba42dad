//! The direct way with a real application behind it, in one thread.

use std::{cell::Cell, net::SocketAddr, time::Duration};

use http::StatusCode;
use mesh_proto::outcome::Outcome;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

use super::*;
use crate::{
    error::ProxyError,
    http::ending::Ending,
    metrics::EdgeLabels,
    observers::Observers,
    stream::{Io, Prefixed},
};

/// Longest any of this takes; only what fails waits for it.
const SOON: Duration = Duration::from_mins(1);

/// Sends everything to one application.
pub(crate) struct ToApp {
    worker: Rc<Worker>,
    side: Rc<Side>,
    edge: Arc<Edge>,
    app: Rc<Upstream>,
    refusal: Cell<Option<Outcome>>,
    paths: Cell<usize>,
}

impl ToApp {
    fn new(address: SocketAddr, observers: Observers) -> Self {
        let worker = Rc::new(Worker::of_tests(observers));
        let side = Rc::new(Side::inbound(&worker, ([10, 0, 0, 8], 40_000).into(), address));
        let edge = worker.shared.metrics.edge(EdgeLabels {
            direction: "inbound",
            dst_namespace: "shop".into(),
            dst_service: String::new(),
            dst_port: address.port(),
            dst_workload: String::new(),
            client_id: String::new(),
            tls: false,
        });
        let app = worker.app(address);
        Self { worker, side, edge, app, refusal: Cell::default(), paths: Cell::default() }
    }
}

impl Desk for ToApp {
    type Plan = ();

    const STRIPS_CLAIMS: bool = true;

    fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    fn side(&self) -> &Rc<Side> {
        &self.side
    }

    fn plan(&self) {}

    fn edge<'a>(&'a self, (): &'a ()) -> &'a Arc<Edge> {
        &self.edge
    }

    fn first(
        &self,
        (): &mut (),
        request: &dyn Fn() -> Request<()>,
        _: &mut Record,
    ) -> Result<(Rc<Upstream>, Option<Stream>)> {
        if let Some(refusal) = self.refusal.get() {
            self.paths.set(self.paths.get() + request().uri().path().len());
            return Err(ProxyError::new(refusal, "a test"));
        }
        Ok((Rc::clone(&self.app), None))
    }

    fn second(
        &self,
        (): &mut (),
        first: retry::First,
        kind: retry::Request,
        _: &mut Record,
    ) -> Result<Option<Rc<Upstream>>> {
        Ok(retry::second(first, kind, false).map(|_| Rc::clone(&self.app)))
    }
}

/// A client that is connected to the direct way by a socket; `served` is what serves it.
async fn sockets() -> (TcpStream, Watched<Stream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    (client, Ending::default().of(Prefixed::from(Io::Tcp(server))))
}

/// What the client reads until this is its end.
async fn read_to(client: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let n = tokio::time::timeout(SOON, client.read_buf(&mut read)).await;
        assert!(n.unwrap().unwrap() > 0, "{:?} and then the end", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nhost: a\r\nx-id: 7\r\naccept: */*\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";

/// Answers every request of every connection with `OK`, with one read and one write each.
async fn answering(worker: Rc<Worker>, listener: TcpListener, accepted: Rc<Cell<usize>>) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        accepted.set(accepted.get() + 1);
        worker.tasks.spawn_local("application", async move {
            let mut read = [0; 1024];
            while socket.read(&mut read).await.is_ok_and(|n| n > 0) {
                socket.write_all(OK).await.unwrap();
            }
        });
    }
}

/// Runs `test` with the listener of an application, and a way there.
fn with_listener<F: Future<Output = ()>>(test: impl FnOnce(ToApp, TcpListener) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let desk = ToApp::new(listener.local_addr().unwrap(), Observers::default());
        test(desk, listener).await;
    });
}

/// Runs `test` with an application that answers, and the number of its connections.
fn with_application<F: Future<Output = ()>>(test: impl FnOnce(ToApp, Rc<Cell<usize>>) -> F) {
    with_listener(async |desk, listener| {
        let accepted = Rc::new(Cell::new(0));
        let worker = Rc::clone(&desk.worker);
        desk.worker.tasks.spawn_local("listener", answering(worker, listener, Rc::clone(&accepted)));
        test(desk, accepted).await;
    });
}

/// Serves `server` while its client does `asking`, to the end of both.
async fn served<T>(desk: &ToApp, server: &mut Watched<Stream>, asking: impl Future<Output = T>) -> (Next, T) {
    let drain = Drain::default();
    tokio::join!(serve(desk, server, &drain), asking)
}

#[test]
fn a_request_costs_three_allocations() {
    const REQUESTS: u64 = 100;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let listener = local.block_on(&runtime, TcpListener::bind("127.0.0.1:0")).unwrap();
    let desk = ToApp::new(listener.local_addr().unwrap(), Observers::default());
    local.spawn_local(answering(Rc::clone(&desk.worker), listener, Rc::default()));
    let (mut client, mut server) = local.block_on(&runtime, sockets());
    let drain = Drain::default();
    let mut ask = |requests: u64| {
        let mut answer = [0; 256];
        local.block_on(&runtime, async {
            let asking = async {
                for _ in 0..requests {
                    client.write_all(GET).await.unwrap();
                    let n = client.read(&mut answer).await.unwrap();
                    assert_eq!(&answer[..n], OK);
                }
            };
            tokio::select! {
                () = asking => {}
                _ = serve(&desk, &mut server, &drain) => panic!("it left the direct way"),
            }
        });
    };
    // The first ones open the connection and make what is kept.
    ask(3);
    let few = allocation_counter::measure(|| ask(1)).count_total;
    let many = allocation_counter::measure(|| ask(1 + REQUESTS)).count_total;
    // The head that is sent on, the answer's, and the exchange itself.
    assert_eq!(many - few, 3 * REQUESTS);
}

#[test]
fn requests_follow_one_another_on_one_connection_each_way_and_what_is_odd_is_left_to_hyper() {
    with_application(async |desk, accepted| {
        let (mut client, mut server) = sockets().await;
        let asking = async {
            for _ in 0..3 {
                client.write_all(GET).await.unwrap();
                read_to(&mut client, "ok").await;
            }
            // Two at once: the first with the second behind it is not the usual request.
            client.write_all(&[GET, GET].concat()).await.unwrap();
        };
        let (next, ()) = served(&desk, &mut server, asking).await;
        assert!(matches!(next, Next::Hyper));
        // Nothing of it is lost.
        let mut left = vec![0; 2 * GET.len()];
        tokio::io::AsyncReadExt::read_exact(&mut server, &mut left).await.unwrap();
        assert_eq!((left, accepted.get()), ([GET, GET].concat(), 1));
    });
}

#[test]
fn who_asks_again_before_the_answer_gets_both_answers() {
    with_listener(async |desk, listener| {
        let (mut client, mut server) = sockets().await;
        let asking = async {
            client.write_all(GET).await.unwrap();
            let (mut app, _) = listener.accept().await.unwrap();
            read_to(&mut app, "\r\n\r\n").await;
            // It comes while the first one is with the application.
            client.write_all(GET).await.unwrap();
            tokio::task::yield_now().await;
            app.write_all(OK).await.unwrap();
            read_to(&mut app, "\r\n\r\n").await;
            app.write_all(OK).await.unwrap();
            let both = String::from_utf8([OK, OK].concat()).unwrap();
            assert_eq!(read_to(&mut client, &both).await, both);
            drop(client);
        };
        let (next, ()) = served(&desk, &mut server, asking).await;
        assert!(matches!(next, Next::Over));
    });
}

#[test]
fn a_client_that_is_gone_is_not_waited_for_and_its_server_hears_of_it() {
    with_listener(async |desk, listener| {
        // With and without an answer that has begun.
        for begun in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal"] {
            let (mut client, mut server) = sockets().await;
            let asking = async {
                client.write_all(GET).await.unwrap();
                let (mut app, _) = listener.accept().await.unwrap();
                read_to(&mut app, "\r\n\r\n").await;
                app.write_all(begun.as_bytes()).await.unwrap();
                if !begun.is_empty() {
                    read_to(&mut client, "hal").await;
                }
                socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
                drop(client);
                let end = tokio::time::timeout(SOON, app.read(&mut [0])).await.unwrap();
                assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
            };
            let (next, ()) = served(&desk, &mut server, asking).await;
            assert!(matches!(next, Next::Over));
        }
    });
}

#[test]
fn a_client_that_has_only_ended_its_side_gets_its_answer() {
    with_application(async |desk, _| {
        let (mut client, mut server) = sockets().await;
        let asking = async {
            client.write_all(GET).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, OK);
        };
        let (next, ()) = served(&desk, &mut server, asking).await;
        assert!(matches!(next, Next::Over));
    });
}

#[test]
fn what_is_refused_is_answered_and_the_connection_goes_on() {
    with_application(async |desk, accepted| {
        let (mut client, mut server) = sockets().await;
        let asking = async {
            desk.refusal.set(Some(Outcome::NoRoute));
            client.write_all(GET).await.unwrap();
            let text = Outcome::NoRoute.facts().text;
            let answer = read_to(&mut client, text).await;
            let status = StatusCode::from_u16(Outcome::NoRoute.facts().http_status).unwrap();
            let begin = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap());
            let length = format!("content-length: {}\r\n", text.len());
            assert!(answer.starts_with(&begin) && answer.contains(&length), "{answer}");
            assert!(answer.contains("mesh-error: no-route\r\n"), "{answer}");
            // Of a HEAD the head alone.
            client.write_all(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            assert!(read_to(&mut client, "\r\n\r\n").await.contains(&length));
            desk.refusal.set(None);
            client.write_all(GET).await.unwrap();
            assert_eq!(read_to(&mut client, "ok").await.as_bytes(), OK);
            drop(client);
        };
        let (next, ()) = served(&desk, &mut server, asking).await;
        assert!(matches!(next, Next::Over));
        assert_eq!((desk.paths.get(), accepted.get()), ("/a".len() + "/".len(), 1));
    });
}

#[test]
fn a_kept_connection_that_its_server_has_closed_is_not_used() {
    with_listener(async |desk, listener| {
        let (mut client, mut server) = sockets().await;
        let asking = async {
            // A POST: it may not be sent twice.
            for request in 0..2 {
                client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").await.unwrap();
                let (mut app, _) = listener.accept().await.unwrap();
                read_to(&mut app, "\r\n\r\nx").await;
                app.write_all(OK).await.unwrap();
                assert_eq!(read_to(&mut client, "ok").await.as_bytes(), OK, "{request}");
                // Ended, or with what nobody asked for.
                if request == 0 {
                    app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await.unwrap();
                    desk.app.idle_is_readable().await;
                    let task = async move { drop(app.read(&mut [0]).await) };
                    desk.worker.tasks.spawn_local("application", task);
                }
            }
            drop(client);
        };
        let (next, ()) = served(&desk, &mut server, asking).await;
        assert!(matches!(next, Next::Over));
    });
}

#[test]
fn an_answer_whose_first_chunk_is_none_breaks_off_after_its_head() {
    with_listener(async |desk, listener| {
        let (mut client, mut server) = sockets().await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let asking = async {
            client.write_all(GET).await.unwrap();
            let (mut app, _) = listener.accept().await.unwrap();
            read_to(&mut app, "\r\n\r\n").await;
            app.write_all(format!("{head}oh\r\n").as_bytes()).await.unwrap();
            assert_eq!(read_to(&mut client, "\r\n\r\n").await, head);
            // The connection goes with what has served it.
            app
        };
        let (next, _app) = served(&desk, &mut server, asking).await;
        assert!(matches!(next, Next::Over));
        drop(server);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    });
}
