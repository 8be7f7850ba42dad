//! Reads the bodies of requests: each bounded in size and time, all together bounded in bytes.
//!
//! Called by `server` before anything else is taken for a request. A body pays for its bytes as they arrive, so a sender
//! that is slow or sends nothing holds nothing that another needs; where the budget is spent, a body is refused at once
//! instead of waiting for others that wait for it. Does not know what is in a body.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest body; the API server's own limit for an object. More is answered with 413.
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// How long a body may take: the webhook's `timeoutSeconds`, after which nobody waits for the answer.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of bodies held at once, over all connections: six of the largest, a thousand usual ones.
pub const MAX_HELD: usize = 6 * MAX_BODY;

/// The budget that all bodies share; clones share it.
#[derive(Debug, Clone)]
pub struct Bodies {
    budget: Arc<Semaphore>,
}

/// A body, and its part of the budget.
#[derive(Debug)]
pub struct Held {
    bytes: Vec<u8>,
    paid: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BadBody {
    /// It is too long.
    #[error("the body is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// It did not come in time.
    #[error("the body took more than {BODY_TIMEOUT:?}")]
    TooSlow,
    /// The bodies of others fill the budget.
    #[error("other bodies take all of {MAX_HELD} bytes at the moment: try again")]
    Busy,
    /// The connection broke, or its framing.
    #[error("read the body: {0}")]
    Broken(#[source] axum::Error),
}

impl BadBody {
    /// The status that says so.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl Default for Bodies {
    fn default() -> Self {
        Self { budget: Arc::new(Semaphore::new(MAX_HELD)) }
    }
}

impl Bodies {
    /// Reads a body to its end.
    pub async fn read(&self, body: Body) -> Result<Held, BadBody> {
        tokio::time::timeout(BODY_TIMEOUT, self.collect(body)).await.unwrap_or(Err(BadBody::TooSlow))
    }

    async fn collect(&self, mut body: Body) -> Result<Held, BadBody> {
        let mut held = Held { bytes: Vec::new(), paid: None };
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(BadBody::Broken)?.into_data() else { continue };
            if data.len() > MAX_BODY - held.bytes.len() {
                return Err(BadBody::TooLarge);
            }
            self.pay(&mut held, &data)?;
        }
        Ok(held)
    }

    fn pay(&self, held: &mut Held, data: &Bytes) -> Result<(), BadBody> {
        let bytes = u32::try_from(data.len()).map_err(|_| BadBody::TooLarge)?;
        let permit = Arc::clone(&self.budget).try_acquire_many_owned(bytes).map_err(|_| BadBody::Busy)?;
        match &mut held.paid {
            Some(paid) => paid.merge(permit),
            none => *none = Some(permit),
        }
        held.bytes.extend_from_slice(data);
        Ok(())
    }
}

impl Held {
    /// What was sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_share_a_budget_and_give_it_back() {
        let bodies = Bodies::default();
        let full = || bodies.read(Body::from(vec![b' '; MAX_BODY]));
        let mut held = Vec::new();
        for _ in 0..MAX_HELD / MAX_BODY {
            held.push(full().await.unwrap());
        }
        let error = bodies.read(Body::from("x")).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(bodies.read(Body::empty()).await.is_ok());
        held.pop();
        assert_eq!(full().await.unwrap().bytes().len(), MAX_BODY);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_and_costs_nothing_afterwards() {
        let bodies = Bodies::default();
        for _ in 0..20 {
            let error = bodies.read(Body::from(vec![b' '; MAX_BODY + 1])).await.unwrap_err();
            assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
        assert_eq!(bodies.budget.available_permits(), MAX_HELD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up_in_time() {
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>());
        let bodies = Bodies::default();
        assert!(matches!(bodies.read(never).await, Err(BadBody::TooSlow)));
    }
}
