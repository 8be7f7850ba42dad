//! The injector from the outside: the corpus of pods as values and as text, the webhook over real TLS.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod corpus;
mod manifest;
mod server;
