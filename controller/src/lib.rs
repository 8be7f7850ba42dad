//! The controller: discovery, policy and identity for every proxy.
//!
//! | module | does |
//! |---|---|
//! | [`source`] | objects as they come and go: of a cluster, or a directory of manifests |
//! | [`api`] | calls of the Kubernetes API |
//! | [`index`] | objects -> facts, and what a change touches |
//! | [`compile`] | facts -> what proxies are told (pure) |
//! | [`publish`] | the one task that owns the facts; a `watch` per thing that somebody wants to know |
//! | [`grpc`] | the configuration stream and `Certify`, thin |
//! | [`ca`] | roots, the issuer, certificates, join tokens |
//! | [`cluster`], [`lease`], [`bundles`] | what it keeps in a cluster: the authority's Secret, the election, the roots for pods |
//! | [`tls`] | the port: TLS 1.3, client certificates, limits |
//! | [`app`], [`config`] | wiring and command line; `mesh-controller` and `meshctl` call [`run`] |
//! | [`metrics`], [`problems`] | what it shows of itself |

pub mod api;
pub mod app;
pub mod bundles;
pub mod ca;
pub mod cluster;
mod commands;
pub mod compile;
pub mod config;
pub mod grpc;
pub mod index;
pub mod lease;
pub mod metrics;
pub mod problems;
pub mod publish;
pub mod source;
pub mod tls;

pub use app::{Bound, Controller, run};
pub use commands::{mint, rotate};
pub use config::{Args, CaArgs, CaStep, Config, MintArgs, Source};
