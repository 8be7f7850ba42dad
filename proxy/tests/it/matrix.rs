//! Every protocol times everything that can happen in it, through two real proxies with mutual TLS, over IPv4 and IPv6.
//!
//! | behaviour | HTTP/1 | HTTP/2, gRPC | TCP, TLS |
//! |---|---|---|---|
//! | bodies of some megabytes, by hash | `http1` | `http2` | `bytes` |
//! | framing, trailers, 1xx, upgrades, versions, names as written | `matrix::http1` | `matrix::http2` | - |
//! | a stream both ways, a slow reader, half-close | - | `matrix::http2` | `bytes`, `matrix::tcp`, `matrix::tls` |
//! | GOAWAY, RST_STREAM and its code | - | `matrix::http2` | - |
//! | what must not get through | `malformed`, `refusals` | `matrix::http2`, `refusals` | `refusals` |
//! | a second attempt | `retry` | `matrix::http2` | `bytes` |
//! | behind the real redirect | `netns_data` | `netns_data` | `netns_data` |

mod dialogue;
mod http1;
mod http2;
mod tcp;
mod tls;
