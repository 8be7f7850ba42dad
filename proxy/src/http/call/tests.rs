//! Calls over real channels: both ends, and each end with a peer that says its messages by hand.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use mesh_proto::{endpoint::Endpoint, identity::Identity};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use super::{
    incoming::Home,
    line::{Line, Message},
    message::{self, HEAD},
    *,
};
use crate::{
    http::{
        body::{RequestBody, ResponseBody},
        respond::Reset,
    },
    metrics::EdgeLabels,
    mux::{self, Carries, Channel, Mux},
    observers::Observers,
    pool::{Reach, Upstream},
    record::{Record, Side},
    stream::Io,
    worker::Worker,
};

const LIMIT: Duration = Duration::from_secs(10);

/// Opens channels to an upstream that hands them out.
struct Stage {
    worker: Rc<Worker>,
    upstream: Rc<Upstream>,
    mux: Mux,
    served: tokio::sync::Mutex<mpsc::UnboundedReceiver<Channel>>,
}

impl Stage {
    fn new() -> Self {
        let worker = Rc::new(Worker::of_tests(Observers::default()));
        let identity = Identity::new("cluster.local", "shop", "api").unwrap();
        let address = ([10, 0, 0, 8], 80).into();
        let endpoint = Endpoint { address, identity: Some(identity.clone()), pod: None };
        let upstream = Rc::new(Upstream::new(endpoint, Reach::Mesh(identity)));
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mux, run) = Mux::dialled(Io::Local(near).into());
        worker.tasks.spawn_local("opens", run);
        let (gives, served) = mpsc::unbounded_channel();
        worker.tasks.spawn_local("serves", async move {
            let give = |channel| drop(gives.send(channel));
            let _ = mux::serve(Io::Local(far).into(), std::future::pending(), give).await;
        });
        Self { worker, upstream, mux, served: served.into() }
    }

    /// One that was used before, or a new one.
    fn channel(&self) -> Channel {
        self.upstream.take_channel(Carries::Calls).or_else(|| self.mux.open(Carries::Calls)).unwrap()
    }

    async fn ask(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, Failure> {
        ask(&self.worker, &self.upstream, self.channel(), request).await
    }

    /// The other end of the newest channel.
    async fn other(&self) -> Channel {
        self.served.lock().await.recv().await.unwrap()
    }

    /// Serves the newest channel with `handle`.
    async fn serve<F>(&self, handle: impl Fn(Request<Incoming>) -> F + 'static)
    where
        F: Future<Output = Response<ResponseBody>> + 'static,
    {
        let channel = self.other().await;
        self.worker.tasks.spawn_local("calls", serve(channel, LIMIT, handle));
    }

    /// A body of which the test says the messages.
    async fn body(&self) -> (Channel, RequestBody) {
        let (says, reads) = (self.mux.open(Carries::Calls).unwrap(), self.other().await);
        let incoming = Incoming::new(Line::new(Rc::new(reads)), Home::Server(oneshot::channel().0));
        let side = Rc::new(Side::outbound(&self.worker, ([10, 0, 0, 9], 40_000).into(), self.upstream.address()));
        let edge = self.worker.shared.metrics.edge(EdgeLabels {
            direction: "outbound",
            dst_namespace: "shop".into(),
            dst_service: String::new(),
            dst_port: 80,
            dst_workload: String::new(),
            client_id: String::new(),
            tls: true,
        });
        let meter = Record::connection(&self.worker, &side, &edge).body_meter();
        (says, RequestBody::new(incoming, meter))
    }
}

fn on_stage<F: Future<Output = ()>>(test: impl FnOnce(Rc<Stage>) -> F) -> impl Future<Output = ()> {
    let local = LocalSet::new();
    async move { local.run_until(async { test(Rc::new(Stage::new())).await }).await }
}

fn post(body: RequestBody) -> Request<RequestBody> {
    Request::post("http://api.shop/a?b").header("te", "trailers").body(body).unwrap()
}

fn text(text: &'static str) -> RequestBody {
    RequestBody::of(Some(Bytes::from_static(text.as_bytes())), None)
}

/// What is said by hand.
async fn say(channel: &mut Channel, put: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    put(&mut out);
    channel.write_all(&out).await.unwrap();
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    message::put_data(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_head(out: &mut Vec<u8>) {
    message::put_response(out, &Response::new(())).unwrap();
}

async fn given_up(channel: &Channel) -> Option<u32> {
    poll_fn(|cx| channel.poll_given_up(cx)).await
}

async fn next(line: &mut Line) -> Message {
    poll_fn(|cx| line.poll_next(cx)).await.unwrap().unwrap()
}

fn code(error: &crate::http::body::BodyError) -> u32 {
    error.downcast_ref::<h2::Error>().unwrap().reason().unwrap().into()
}

#[tokio::test]
async fn one_channel_carries_one_call_after_the_other() {
    on_stage(async |stage| {
        let calls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&calls);
        let echo = move |request: Request<Incoming>| {
            counted.set(counted.get() + 1);
            async move {
                assert_eq!((request.uri().path(), request.version()), ("/a", http::Version::HTTP_2));
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Response::builder().status(StatusCode::CREATED).body(ResponseBody::text(body)).unwrap()
            }
        };
        for said in ["one", "", "three"] {
            let body = if said.is_empty() { RequestBody::empty() } else { text(said) };
            let (asked, ()) = tokio::join!(stage.ask(post(body)), async {
                if calls.get() == 0 {
                    stage.serve(echo.clone()).await;
                }
            });
            let answer = asked.unwrap();
            assert_eq!(answer.status(), StatusCode::CREATED);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), said);
        }
        assert_eq!(calls.get(), 3);
        assert!(stage.served.lock().await.try_recv().is_err(), "a second channel");
    })
    .await;
}

#[tokio::test]
async fn both_bodies_flow_at_once_and_trailers_end_them() {
    on_stage(async |stage| {
        let (mut says, body) = stage.body().await;
        let (asked, mut other) = tokio::join!(stage.ask(post(body)), async {
            let mut other = stage.other().await;
            // An answer before anything of the request's body.
            say(&mut other, put_head).await;
            other
        });
        let mut answer = asked.unwrap().into_body();
        let mut head = [0; HEAD];
        other.read_exact(&mut head).await.unwrap();
        let (kind, len) = message::head(&head).unwrap();
        assert_eq!(kind, message::REQUEST);
        other.read_exact(&mut vec![0; len]).await.unwrap();
        for turn in ["a", "bc", "def"] {
            say(&mut says, |out| put_text(out, turn)).await;
            let mut came = vec![0; HEAD + turn.len()];
            other.read_exact(&mut came).await.unwrap();
            assert_eq!(&came[HEAD..], turn.as_bytes());
            say(&mut other, |out| put_text(out, turn)).await;
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), turn);
        }
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
        say(&mut says, |out| message::put_trailers(out, &trailers).unwrap()).await;
        let mut line = Line::new(Rc::new(other));
        assert!(matches!(next(&mut line).await, Message::Trailers(came) if came == trailers));
        let mut out = Vec::new();
        message::put_trailers(&mut out, &trailers).unwrap();
        poll_fn(|cx| line.channel().poll_put(cx, &out)).await.unwrap();
        assert_eq!(answer.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
        assert!(answer.frame().await.is_none() && answer.is_end_stream());
        // Said to their ends, both ways: it can carry the next call.
        assert!(stage.upstream.take_channel(Carries::Calls).is_some());
    })
    .await;
}

#[tokio::test]
async fn whoever_gives_a_call_up_says_why() {
    on_stage(async |stage| {
        // The client, of whose body nothing is left: CANCEL.
        let (asked, other) = tokio::join!(stage.ask(post(text("x"))), async {
            let mut other = stage.other().await;
            say(&mut other, put_head).await;
            other
        });
        drop(asked.unwrap());
        assert_eq!(given_up(&other).await, Some(8));
        // The client before there is an answer, while its body is sent: with the code that its body breaks with.
        let (says, body) = stage.body().await;
        let mut asking = Box::pin(stage.ask(post(body)));
        let other = tokio::select! {
            other = stage.other() => other,
            _ = &mut asking => panic!("nobody has answered"),
        };
        says.give_up(11);
        assert_eq!(given_up(&other).await, Some(11));
        drop(asking);
        // The server, before and after the head.
        let (asked, ()) = tokio::join!(stage.ask(post(text("x"))), async { stage.other().await.give_up(7) });
        assert!(matches!(asked, Err(Failure::Reset(7))), "{:?}", asked.err());
        let (asked, other) = tokio::join!(stage.ask(post(text("x"))), async {
            let mut other = stage.other().await;
            say(&mut other, put_head).await;
            say(&mut other, |out| put_text(out, "some")).await;
            other
        });
        let mut answer = asked.unwrap().into_body();
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "some");
        other.give_up(2);
        assert_eq!(code(&answer.frame().await.unwrap().unwrap_err()), 2);
        assert!(answer.frame().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn what_a_handler_says_with_a_code_is_said_to_the_client() {
    on_stage(async |stage| {
        let refuse = |_: Request<Incoming>| async {
            let mut response = Response::new(ResponseBody::empty());
            response.extensions_mut().insert(Reset(h2::Reason::ENHANCE_YOUR_CALM));
            response
        };
        let (asked, ()) = tokio::join!(stage.ask(post(text("x"))), stage.serve(refuse));
        assert!(matches!(asked, Err(Failure::Reset(11))), "{:?}", asked.err());
    })
    .await;
}

#[tokio::test]
async fn a_handler_whose_client_has_left_is_dropped() {
    on_stage(async |stage| {
        let (dropped, is_dropped) = oneshot::channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let both = Cell::new(Some((dropped, begun)));
        let wait = move |request: Request<Incoming>| {
            let (dropped, begun) = both.take().unwrap();
            async move {
                begun.send(()).unwrap();
                let _held = (request, dropped);
                std::future::pending().await
            }
        };
        let mut asking = Box::pin(stage.ask(post(text("x"))));
        tokio::select! {
            _ = &mut asking => panic!("nobody has answered"),
            () = async { stage.serve(wait).await; has_begun.await.unwrap() } => {}
        }
        drop(asking);
        assert!(is_dropped.await.is_err());
    })
    .await;
}

#[tokio::test]
async fn an_answer_before_the_end_of_its_request_is_whole_and_its_channel_carries_no_other() {
    on_stage(async |stage| {
        let (mut says, body) = stage.body().await;
        say(&mut says, |out| put_text(out, "some")).await;
        let early = |_: Request<Incoming>| async { Response::new(ResponseBody::text("early")) };
        let (asked, ()) = tokio::join!(stage.ask(post(body)), stage.serve(early));
        assert_eq!(asked.unwrap().into_body().collect().await.unwrap().to_bytes(), "early");
        assert!(stage.upstream.take_channel(Carries::Calls).is_none());
    })
    .await;
}

#[tokio::test]
async fn what_is_no_answer_is_a_failure() {
    on_stage(async |stage| {
        for (what, bad) in [
            ("no message", &b"\x09\0\0\0"[..]),
            ("data before a head", b"\x03\0\0\x01x"),
            ("a second request", b"\x01\0\0\0"),
            ("a head that is too long", b"\x02\xff\xff\xff"),
            ("a status that is none", b"\x02\0\0\x02\0\x07"),
        ] {
            let (asked, _other) = tokio::join!(stage.ask(post(text("x"))), async {
                let mut other = stage.other().await;
                say(&mut other, |out| out.extend_from_slice(bad)).await;
                other
            });
            assert!(matches!(asked, Err(Failure::Bad(_))), "{what}: {:?}", asked.err());
        }
        let (asked, _other) = tokio::join!(stage.ask(post(text("x"))), async {
            let mut other = stage.other().await;
            say(&mut other, put_head).await;
            say(&mut other, put_head).await;
            other
        });
        assert!(asked.unwrap().into_body().frame().await.unwrap().is_err());
        let (asked, _other) = tokio::join!(stage.ask(post(text("x"))), async {
            let other = stage.other().await;
            other.say_end();
            other
        });
        assert!(matches!(asked, Err(Failure::Closed(_))), "{:?}", asked.err());
    })
    .await;
}

#[tokio::test]
async fn what_is_no_request_ends_its_channel() {
    on_stage(async |stage| {
        for bad in [&b"\x05\0\0\0"[..], b"GET / HTTP/1.1\r\n", b"\x01\0\0\x01\0"] {
            let mut channel = stage.channel();
            say(&mut channel, |out| out.extend_from_slice(bad)).await;
            stage.serve(|_| async { panic!("a request") }).await;
            assert!(matches!(channel.read(&mut [0]).await, Ok(0) | Err(_)));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_has_its_time_and_one_that_has_not_has_all_the_time() {
    on_stage(async |stage| {
        let mut channel = stage.channel();
        stage.serve(|_| async { panic!("a request") }).await;
        let begun = tokio::time::Instant::now();
        assert!(tokio::time::timeout(100 * LIMIT, channel.read(&mut [0])).await.is_err());
        say(&mut channel, |out| out.extend_from_slice(b"\x01\0")).await;
        assert!(matches!(channel.read(&mut [0]).await, Ok(0) | Err(_)));
        assert_eq!(begun.elapsed(), 101 * LIMIT);
    })
    .await;
}

#[tokio::test]
async fn a_call_that_comes_after_an_early_answer_is_served() {
    on_stage(async |stage| {
        let mut channel = stage.channel();
        stage.serve(|_| async { Response::new(ResponseBody::text("early")) }).await;
        let put_request = |out: &mut Vec<u8>| message::put_request(out, &post(RequestBody::empty())).unwrap();
        say(&mut channel, put_request).await;
        say(&mut channel, |out| put_text(out, "some")).await;
        let mut line = Line::new(Rc::new(channel));
        for _ in 0..2 {
            assert!(matches!(next(&mut line).await, Message::Response(_)));
            assert!(matches!(next(&mut line).await, Message::Data(text) if text == "early"));
            assert!(matches!(next(&mut line).await, Message::End));
            // The rest of the first, and all of the next.
            let mut out = Vec::new();
            put_text(&mut out, "more");
            message::put_end(&mut out);
            put_request(&mut out);
            poll_fn(|cx| line.channel().poll_put(cx, &out)).await.unwrap();
        }
    })
    .await;
}
