//! Whether a request whose first attempt failed may be sent once more, and where to (RFC 9110 §9.2.2, RFC 9113 §8.7).
//!
//! Pure: what is known of the failure in, the verdict out. `client` says how an attempt ended, `outbound` and `inbound` ask
//! about the second one. A request that an application may have acted on is never repeated by us unless its method says that
//! twice is the same as once.

/// How the exchange ended that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer closed before a single byte of an answer.
    Closed,
    /// The peer's TLS refused our handshake, after we took it for done.
    HandshakeRefused,
    /// The peer said that it did not process the request: a refused stream, or one past the last stream of a GOAWAY.
    NotProcessed,
    /// Anything else: a part of an answer, an answer that is none, a TLS record that does not decrypt.
    Broken,
}

/// What is known of a request that failed after it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// The server may have acted on it.
    Never,
    /// A reused connection closed under it: only an idempotent request may be repeated.
    IfIdempotent,
    /// The server did not process it.
    Safe,
    /// The server did not process it and will not do so.
    Elsewhere,
}

/// The first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Nothing of the request was sent, so that its body is still there. `may_pass`: the same endpoint may do better at once.
    Unsent {
        /// See [`ProxyError::may_pass`](crate::error::ProxyError::may_pass).
        may_pass: bool,
    },
    /// Sent, as far as anybody knows, and not answered.
    Unanswered(Again),
    /// Answered by the peer's proxy, which says that its application has not seen the request.
    Unseen,
}

/// What a request allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// Nothing of it is gone once it was sent: it has no body, or one that was kept.
    pub(crate) repeatable: bool,
    /// Twice is the same as once.
    pub(crate) idempotent: bool,
}

/// Where a second attempt may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Second {
    /// To any endpoint.
    Anywhere,
    /// To any but the first.
    Elsewhere,
}

/// What an end means for a second attempt. `reused`: the connection had carried a request before, so that its peer may
/// have closed it before this one arrived.
pub(crate) fn after(end: End, reused: bool) -> Again {
    match (end, reused) {
        (End::NotProcessed, _) => Again::Safe,
        (End::HandshakeRefused, false) => Again::Elsewhere,
        (End::Closed, true) => Again::IfIdempotent,
        (End::Closed, false) | (End::HandshakeRefused, true) | (End::Broken, _) => Again::Never,
    }
}

/// Whether there may be a second attempt. `others`: there are endpoints besides the first.
pub(crate) fn second(first: First, request: Request, others: bool) -> Option<Second> {
    let Request { repeatable, idempotent } = request;
    match first {
        First::Unsent { .. } if others => Some(Second::Elsewhere),
        First::Unsent { may_pass } => may_pass.then_some(Second::Anywhere),
        First::Unanswered(Again::Safe) => repeatable.then_some(Second::Anywhere),
        First::Unanswered(Again::IfIdempotent) => (repeatable && idempotent).then_some(Second::Anywhere),
        First::Unanswered(Again::Elsewhere) | First::Unseen => (repeatable && others).then_some(Second::Elsewhere),
        First::Unanswered(Again::Never) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: Request = Request { repeatable: true, idempotent: false };
    const GET: Request = Request { repeatable: true, idempotent: true };
    const POST_GONE: Request = Request { repeatable: false, idempotent: false };
    const PUT_GONE: Request = Request { repeatable: false, idempotent: true };
    const EVERY: [Request; 4] = [POST, GET, POST_GONE, PUT_GONE];

    #[test]
    fn how_an_exchange_ended_says_whether_the_server_may_have_acted() {
        for (end, fresh, reused) in [
            (End::Closed, Again::Never, Again::IfIdempotent),
            (End::HandshakeRefused, Again::Elsewhere, Again::Never),
            (End::NotProcessed, Again::Safe, Again::Safe),
            (End::Broken, Again::Never, Again::Never),
        ] {
            assert_eq!((after(end, false), after(end, true)), (fresh, reused), "{end:?}");
        }
    }

    #[test]
    fn what_may_have_been_acted_on_is_sent_once() {
        for request in EVERY {
            for others in [false, true] {
                assert_eq!(second(First::Unanswered(Again::Never), request, others), None, "{request:?}");
            }
        }
    }

    #[test]
    fn a_second_attempt_by_first_attempt_and_request() {
        use Second::{Anywhere, Elsewhere};
        // With and without another endpoint, for: POST, GET, POST and PUT with a body that is gone.
        let unsent = First::Unsent { may_pass: false };
        let timed_out = First::Unsent { may_pass: true };
        for (first, others, expected) in [
            (unsent, true, [Some(Elsewhere); 4]),
            (unsent, false, [None; 4]),
            (timed_out, true, [Some(Elsewhere); 4]),
            (timed_out, false, [Some(Anywhere); 4]),
            (First::Unseen, true, [Some(Elsewhere), Some(Elsewhere), None, None]),
            (First::Unseen, false, [None; 4]),
            (First::Unanswered(Again::Safe), true, [Some(Anywhere), Some(Anywhere), None, None]),
            (First::Unanswered(Again::Safe), false, [Some(Anywhere), Some(Anywhere), None, None]),
            (First::Unanswered(Again::Elsewhere), true, [Some(Elsewhere), Some(Elsewhere), None, None]),
            (First::Unanswered(Again::Elsewhere), false, [None; 4]),
            (First::Unanswered(Again::IfIdempotent), true, [None, Some(Anywhere), None, None]),
            (First::Unanswered(Again::IfIdempotent), false, [None, Some(Anywhere), None, None]),
        ] {
            assert_eq!(EVERY.map(|request| second(first, request, others)), expected, "{first:?} others: {others}");
        }
    }
}
