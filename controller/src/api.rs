//! Calls of the Kubernetes API: each with a deadline, its answer bounded, its failure a value.
//!
//! Used by [`crate::source::kube`] and, where there is a cluster, by [`crate::ca`]. Only [`objects`] knows kinds, as types.
//! Of kube's client this uses the configuration, the authentication and TLS. Reading is done here, because the client's
//! own reading logs an answer that it cannot parse (a Secret, too), has no limits, and says every failure a second time.

pub mod connect;
pub mod lines;
pub mod objects;

use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::client::{Body, Client};
use serde::{Deserialize, de::DeserializeOwned};

use self::lines::Lines;

/// Largest answer that is read: a page of pods is a few MiB.
const LARGEST_ANSWER: usize = 64 << 20;
/// Longest text of a failure that is kept.
const LONGEST_REASON: usize = 300;
/// Longest time to stay away that an API server may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(1);

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was answered, with an error.
    #[error("the API server answers {status}: {reason}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// In the server's words.
        reason: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It was not, or not to the end.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// Not in time.
    #[error("the API server has been silent for {0:?}")]
    Silent(Duration),
    /// The answer is none.
    #[error("the API server's answer makes no sense: {0}")]
    Nonsense(String),
}

impl Failure {
    /// The status, if it was answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The error object of the API.
#[derive(Debug, Deserialize)]
pub struct Status {
    /// As in HTTP.
    #[serde(default)]
    pub code: u16,
    /// For people.
    #[serde(default)]
    pub message: String,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::Refused { status: code, reason: one_line(&status.message), retry_after: None }
    }
}

/// The API of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Api(Client);

impl Api {
    /// Asks, and reads the whole answer, within `limit`.
    pub async fn call<T: DeserializeOwned>(&self, request: Request<Vec<u8>>, limit: Duration) -> Result<T, Failure> {
        let answer = async {
            let bytes = self.send(request).await?;
            let bytes = Limited::new(bytes.into_body(), LARGEST_ANSWER).collect().await;
            let bytes = bytes.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => Failure::Nonsense(format!("it is longer than {LARGEST_ANSWER} bytes")),
                None => Failure::Unreachable(chain(&*error)),
            })?;
            serde_json::from_slice(&bytes.to_bytes()).map_err(|error| Failure::Nonsense(one_line(&error.to_string())))
        };
        tokio::time::timeout(limit, answer).await.unwrap_or(Err(Failure::Silent(limit)))
    }

    /// Asks for an answer that comes line by line and may take for ever; it begins within `limit`.
    pub async fn stream(&self, request: Request<Vec<u8>>, limit: Duration) -> Result<Lines, Failure> {
        let answer = tokio::time::timeout(limit, self.send(request)).await;
        Ok(Lines::new(answer.unwrap_or(Err(Failure::Silent(limit)))?.into_body()))
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, Failure> {
        let answer = self.0.send(request.map(Body::from)).await;
        let answer = answer.map_err(|error| Failure::Unreachable(chain(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
        // An error whose text cannot be read is still that error.
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let reason = match serde_json::from_slice::<Status>(&body) {
            Ok(status) if !status.message.is_empty() => status.message,
            _ => String::from_utf8_lossy(&body).into_owned(),
        };
        Err(Failure::Refused { status, reason: one_line(&reason), retry_after })
    }
}

/// An error with all its causes: of a failed connection the last one is what helps.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        // Many errors repeat their cause.
        if !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    one_line(&texts.join(": "))
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(LONGEST_REASON).collect()
}
