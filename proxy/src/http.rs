//! HTTP on both sides of the proxy: serving clients, sending to upstreams, and what must be changed in between.
//!
//! Used by `outbound` and `inbound`, which decide where a request goes and whether it may.

pub(crate) mod body;
pub(crate) mod call;
pub(crate) mod client;
pub(crate) mod control_frames;
pub(crate) mod direct;
mod ending;
mod expect;
mod framing;
mod guard;
mod head;
pub(crate) mod headers;
pub(crate) mod repeat;
pub(crate) mod respond;
pub(crate) mod retry;
pub(crate) mod serve;
pub(crate) mod upgrade;

/// Most headers of one head, as with Envoy. It is hyper's own limit as well, up to which it reads heads without allocating.
pub(crate) const MAX_HEADERS: usize = 100;
/// Longest head, and the read buffer of an HTTP/1 connection with it.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// Concurrent HTTP/2 streams per connection, served and used.
pub(crate) const MAX_STREAMS: u32 = 200;
/// HTTP/2 flow control: one stream may have this many bytes on the way to us. Fixed, not adaptive: the sum over all streams
/// is what a slow receiver can make us hold. At 0.25 ms of round trip this carries a gigabyte a second.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
/// All streams of a connection together.
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How requests are framed. The application always sees the version that the client spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2.
    Http2,
}
