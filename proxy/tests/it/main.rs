//! The data path on loopback: real workers, real sockets, real certificates; what the redirect would do is said by
//! `OriginalDst::Fixed`, what the controller would say by `Policies::fixed`.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy cannot tell here")]

mod authority;
mod bytes;
mod detect;
mod drain;
mod http1;
mod http2;
mod live;
mod refusals;
mod support;
