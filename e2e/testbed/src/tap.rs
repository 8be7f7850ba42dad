//! What a proxy's tap shows, collected from now on.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use mesh_netlab::Pod;
use mesh_proto::{
    client::TapClient,
    names,
    tap::{TapEvent, TapFilter},
};
use mesh_runtime::tasks::Tasks;
use parking_lot::Mutex;
use tonic::transport::Endpoint;

use crate::wait::until;

/// A running tap; ends with this value.
#[derive(Debug)]
pub struct Tap {
    events: Arc<Mutex<Vec<TapEvent>>>,
    tasks: Tasks,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Of the proxy in `pod`; everything after this call is seen.
    pub(crate) fn start(pod: &Pod) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, names::PORT_PROXY_ADMIN));
        let stream = pod.run(|| TcpStream::connect(address))?.context("connect to the proxy's tap")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tasks, events) = (Tasks::new(), Arc::<Mutex<Vec<TapEvent>>>::default());
        let (begun, has_begun) = mpsc::channel();
        let (tasks_, events_) = (tasks.clone(), Arc::clone(&events));
        let thread = std::thread::Builder::new().name("tap".into()).spawn(move || {
            runtime.block_on(async {
                let failed = begun.clone();
                tokio::select! {
                    result = watch(stream, &events_, &tasks_, begun) => {
                        if let Err(error) = result {
                            // Nobody listens where the tap has begun already; what is missing then shows.
                            let _ = failed.send(Err(error));
                        }
                    }
                    () = tasks_.cancelled() => {}
                }
            });
        })?;
        let tap = Self { events, tasks, thread: Some(thread) };
        has_begun.recv().context("the tap ended")??;
        Ok(tap)
    }

    /// The first event that is wanted.
    pub fn find(&self, what: &str, mut wanted: impl FnMut(&TapEvent) -> bool) -> anyhow::Result<TapEvent> {
        until(what, || self.events.lock().iter().find(|event| wanted(event)).cloned())
            .with_context(|| format!("{:#?}", self.events.lock()))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.tasks.token().cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn watch(
    stream: TcpStream,
    events: &Mutex<Vec<TapEvent>>,
    tasks: &Tasks,
    begun: mpsc::Sender<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    stream.set_nonblocking(true)?;
    let mut once = Some(tokio::net::TcpStream::from_std(stream)?);
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| io::Error::other("the connection to the proxy has ended")) }
    });
    let endpoint = Endpoint::from_static("http://localhost").executor(tasks.executor("tap connection"));
    let channel = endpoint.connect_with_connector(connector).await?;
    let mut stream = TapClient::new(channel).watch(TapFilter::default()).await?;
    begun.send(Ok(()))?;
    while let Some(event) = stream.next().await? {
        events.lock().push(event);
    }
    Ok(())
}
