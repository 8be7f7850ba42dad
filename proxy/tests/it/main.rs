//! Layer 2: a real proxy on loopback, in process: real workers, real sockets, real certificates. What the redirect would do
//! is said by `OriginalDst::Fixed`; what the controller would say by `Policies::fixed` where only the data path is asked, by
//! a scripted controller where it is the control side.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy cannot tell here")]

mod authority;
mod bytes;
mod channels;
mod closed;
mod control;
mod destinations;
mod detect;
mod drain;
mod hostile;
mod http1;
mod http2;
mod inspect;
mod live;
mod loopback;
mod malformed;
mod many;
#[path = "../matrix/all.rs"]
mod matrix;
mod outcomes;
mod peers;
mod probes;
mod refusals;
mod retry;
mod support;
mod traces;
mod unreachable;
