//! Buys things, steadily: a fixed rate over one kept-alive connection, no retries, a line every ten seconds.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::get::{Connection, is_success};

/// How often it says how it goes.
const REPORT: Duration = Duration::from_secs(10);
/// So many failures are told one by one.
const TOLD: u64 = 20;
/// An answer that takes longer counts as none.
const DEADLINE: Duration = Duration::from_secs(5);

/// `shop load`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where the shop is
    #[arg(long, default_value = "http://web/")]
    pub url: Uri,
    /// Requests a second, 1 to 1000
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rate: u16,
    /// End after so many requests
    #[arg(long)]
    pub count: Option<u64>,
}

/// What became of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Answered, and not with a 5xx.
    pub succeeded: u64,
    /// Answered with a 5xx.
    pub failed: u64,
    /// Not answered.
    pub unanswered: u64,
}

/// What a customer does: mostly looks, sometimes buys.
pub fn request(number: u64) -> (Method, String) {
    match number % 5 {
        0 => (Method::GET, "/".to_owned()),
        1 | 3 => (Method::GET, format!("/items/{}", number % 40)),
        _ => (Method::POST, format!("/checkout?item={}", number % 30)),
    }
}

/// Runs until `stop` or `count`.
pub async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    tally(args, stop).await.map(drop)
}

/// [`run`], and what became of it.
#[expect(clippy::print_stdout, reason = "the report is this role's output")]
pub async fn tally(args: Args, stop: CancellationToken) -> anyhow::Result<Tally> {
    let base = args.url.to_string();
    let base = base.trim_end_matches('/');
    let mut ticks = interval(Duration::from_secs(1) / u32::from(args.rate));
    // A slow answer makes fewer requests, never a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    let mut tally = Tally::default();
    let mut reported = Instant::now();
    for number in 0..args.count.unwrap_or(u64::MAX) {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        let (method, path) = request(number);
        let url = format!("{base}{path}").parse()?;
        let answer = tokio::time::timeout(DEADLINE, ask(&mut connection, &method, &url)).await;
        let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {DEADLINE:?}")));
        let problem = match answer {
            Ok(answer) if is_success(answer.status()) => {
                tally.succeeded += 1;
                None
            }
            Ok(answer) => {
                tally.failed += 1;
                // The mesh names what failed where it was itself.
                Some(format!("{}, mesh-error {:?}", answer.status(), answer.headers().get("mesh-error")))
            }
            Err(error) => {
                tally.unanswered += 1;
                connection = None;
                Some(format!("{error:#}"))
            }
        };
        if let Some(problem) = problem.filter(|_| tally.failed + tally.unanswered <= TOLD) {
            println!("request {number}, {method} {path}: {problem}");
        }
        if reported.elapsed() >= REPORT {
            println!("{} succeeded, {} failed, {} unanswered", tally.succeeded, tally.failed, tally.unanswered);
            reported = Instant::now();
        }
    }
    Ok(tally)
}

async fn ask(connection: &mut Option<Connection>, method: &Method, url: &Uri) -> anyhow::Result<Response<Bytes>> {
    if !connection.as_ref().is_some_and(Connection::is_open) {
        *connection = Some(Connection::open(url).await?);
    }
    let Some(open) = connection else { anyhow::bail!("no connection") };
    open.ask(method, url, HeaderMap::new()).await
}
