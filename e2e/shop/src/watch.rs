//! Asks again and again over one kept-alive connection and says, with the time, when the answer is another one: how soon a
//! change is in force, seen by an application.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, Uri};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::get::Connection;

/// An answer that takes longer counts as none.
const DEADLINE: Duration = Duration::from_secs(5);

/// `shop watch`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// http://HOST[:PORT]/PATH
    pub url: Uri,
    /// Milliseconds between two requests
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub every: u16,
}

/// Runs until `stop`; prints [`changes`].
#[expect(clippy::print_stdout, reason = "the changes are this role's output")]
pub async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    changes(args, stop, |line| println!("{line}")).await;
    Ok(())
}

/// A line per change until `stop`: seconds since 1970 when the answer was there, a space, its status and body; or that there
/// was none, and why.
pub async fn changes(args: Args, stop: CancellationToken, mut say: impl FnMut(String)) {
    let mut ticks = interval(Duration::from_millis(args.every.into()));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut connection, mut last) = (None, String::new());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let answer = match tokio::time::timeout(DEADLINE, ask(&mut connection, &args.url)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => none(&mut connection, &format!("{error:#}")),
            Err(_) => none(&mut connection, &format!("nothing in {DEADLINE:?}")),
        };
        if answer != last {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            say(format!("{}.{:06} {answer}", now.as_secs(), now.subsec_micros()));
            last = answer;
        }
    }
}

fn none(connection: &mut Option<Connection>, reason: &str) -> String {
    *connection = None;
    format!("no answer: {}", reason.replace('\n', " "))
}

/// Status and body, on one line.
async fn ask(connection: &mut Option<Connection>, url: &Uri) -> anyhow::Result<String> {
    if !connection.as_ref().is_some_and(Connection::is_open) {
        *connection = Some(Connection::open(url).await?);
    }
    let Some(open) = connection else { anyhow::bail!("no connection") };
    let answer = open.ask(&Method::GET, url, HeaderMap::new()).await?;
    let body = String::from_utf8_lossy(answer.body()).trim_end().replace('\n', " ");
    Ok(format!("{} {body}", answer.status().as_u16()))
}
