//! What a real API server said, said again in the order in which it was asked.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use super::{
    Shared,
    answers::{Body, full},
};

/// A question and its answer.
#[derive(Clone, serde::Deserialize)]
pub(crate) struct Exchange {
    path: String,
    status: u16,
    lines: Vec<String>,
}

impl Exchange {
    /// A list of pods.
    pub(crate) fn pods(&self) -> Option<Value> {
        let is_list = self.path.starts_with("/api/v1/pods?") && !self.path.contains("watch=true");
        is_list.then(|| serde_json::from_str(&self.lines.concat()).unwrap())
    }

    pub(crate) fn says(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}

/// Answers by `verb path`, in order; the last stays.
#[derive(Default)]
pub(super) struct Recording {
    answers: HashMap<String, VecDeque<Exchange>>,
    /// Whether watches say what they have.
    released: bool,
}

impl Recording {
    pub(super) fn new(exchanges: Vec<Exchange>) -> Self {
        let mut answers: HashMap<String, VecDeque<Exchange>> = HashMap::new();
        for exchange in exchanges {
            let (path, query) = exchange.path.split_once('?').unwrap_or((&exchange.path, ""));
            let verb = if query.contains("watch=true") { "watch" } else { "list" };
            answers.entry(format!("{verb} {path}")).or_default().push_back(exchange);
        }
        Self { answers, released: false }
    }

    pub(super) fn release(&mut self) {
        self.released = true;
    }
}

/// The recorded answer, if there is one.
pub(super) fn played(shared: &Arc<Shared>, question: &str) -> Option<Response<Body>> {
    let (exchange, is_last) = {
        let mut state = shared.state.lock();
        let queue = state.recording.answers.get_mut(question)?;
        let is_last = queue.len() == 1;
        (if is_last { queue[0].clone() } else { queue.pop_front()? }, is_last)
    };
    let text: String = exchange.lines.iter().map(|line| format!("{line}\n")).collect();
    let status = StatusCode::from_u16(exchange.status).unwrap();
    if question.starts_with("list ") || status != StatusCode::OK {
        return Some(full(status, text));
    }
    let changes = shared.changed.subscribe();
    let shared = Arc::clone(shared);
    let lines = futures_util::stream::unfold(Some(text), move |text| {
        let (shared, mut changes) = (Arc::clone(&shared), changes.clone());
        async move {
            let Some(text) = text else {
                if is_last {
                    // It was open when the recording ended.
                    std::future::pending::<()>().await;
                }
                return None;
            };
            while !shared.state.lock().recording.released {
                changes.changed().await.ok()?;
            }
            Some((Ok::<_, io::Error>(Frame::data(Bytes::from(text))), None))
        }
    });
    Some(Response::new(StreamBody::new(lines).boxed_unsync()))
}
