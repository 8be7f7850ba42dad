//! Every protocol times everything that can happen in it, through two proxies with mutual TLS, over IPv4 and IPv6. Bodies are
//! compared by their hashes, messages byte for byte.
//!
//! | behaviour | HTTP/1 | HTTP/2, gRPC | TCP, TLS |
//! |---|---|---|---|
//! | bodies of some megabytes, by hash | `bodies` | `bodies`, `streams` | `bodies`, `tls` |
//! | framing, trailers, 1xx, upgrades, versions, names as written | `http1` | `http2` | - |
//! | a stream both ways, a slow reader, half-close | - | `http2`, `streams` | `tcp`, `tls` |
//! | GOAWAY, RST_STREAM and its code | - | `http2`, `streams` | - |
//! | who speaks first, and a client that pauses | `http1`, `tcp` | - | `first`, `tcp` |
//! | a second attempt | `retry`, `mesh/elsewhere.rs` | `http2` | `mesh/elsewhere.rs` |
//! | what must not get through | `it/malformed.rs`, `it/refusals.rs` | the same | `it/refusals.rs` |
//!
//! It is played twice, by `it/loopback.rs` (workers in this process, no redirect) and by `mesh/protocols.rs` (two real
//! `mesh-proxy run` behind the real redirect, told by the real controller).

pub(crate) mod bodies;
mod dialogue;
pub(crate) mod first;
mod h2app;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod retry;
pub(crate) mod stage;
pub(crate) mod streams;
pub(crate) mod tcp;
pub(crate) mod tls;

/// How the server's proxy counts what the client sends.
const FROM_CLIENT: &str = r#"client_id="spiffe://cluster.local/ns/shop/sa/client",tls="true""#;

/// Every behaviour, once. Both runners are made from this list, so that neither can leave one out.
macro_rules! behaviours {
    ($run:ident) => {
        $run! {
            bodies {
                bodies_of_http1_arrive_byte_for_byte_both_ways_whatever_their_framing
                bodies_of_http2_arrive_byte_for_byte_both_ways_with_their_trailers
                bytes_of_tcp_arrive_as_they_were_sent_both_ways
            }
            first {
                a_server_that_speaks_first_is_heard_within_100_ms
                a_client_that_hesitates_and_then_speaks_http_is_routed_per_request
            }
            http1 {
                every_message_of_http1_arrives_as_it_was_but_for_what_is_about_the_connection
            }
            http2 {
                a_stream_goes_both_ways_at_once_and_ends_in_trailers
                an_answer_of_trailers_alone_stays_one
                a_server_that_goes_away_ends_its_streams_first_and_new_ones_go_elsewhere
                a_request_that_the_server_refused_to_process_is_sent_once_more
                large_heads_pass_up_to_the_limit_and_beyond_it_get_a_code
            }
            retry {
                a_request_on_a_stale_connection_is_sent_once_more_where_twice_is_once
                a_connection_that_was_never_used_is_not_stale
                an_application_that_ends_its_connections_whenever_it_likes_costs_no_idempotent_request
            }
            streams {
                a_reader_that_does_not_read_stops_the_sender_and_loses_nothing
                a_stream_that_the_server_resets_is_reset_with_the_same_code
                a_stream_that_the_client_resets_is_reset_at_the_server
                streams_that_nobody_reads_to_their_end_take_no_room_from_the_next_ones
            }
            tcp {
                each_side_of_an_opaque_connection_ends_on_its_own
            }
            tls {
                tls_of_the_application_is_ended_by_the_application
            }
        }
    };
}
pub(crate) use behaviours;
