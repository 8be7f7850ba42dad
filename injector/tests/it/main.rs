//! The injector from the outside: the corpus of pods as values, the webhook over real TLS.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod corpus;
mod server;
