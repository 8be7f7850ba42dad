//! Contracts between the processes of the mesh: messages, domain types, custom resources, names, and the pure
//! decisions that every process must make alike.
//!
//! Invariants: no sockets, no clock, no Kubernetes client. Generated types stay private; whoever holds a value of this
//! crate holds a validated one.
//!
//! | module | holds |
//! |---|---|
//! | [`names`] | every label, annotation, environment variable, header and port, once |
//! | [`identity`], [`workload`], [`endpoint`], [`trust`] | who, what, where, vouched by whom |
//! | [`inbound`] | policy of a pod, and the authorization decision |
//! | [`outbound`] | target of a destination, and the choice of a route |
//! | [`path`] | what a rule about paths is compared with |
//! | [`outcome`] | the one enum of everything that can go wrong |
//! | [`ports`], [`probe`] | what the injector writes into a sidecar's environment |
//! | [`config`], [`tap`] | the conversations, as values |
//! | [`admin`] | the JSON pages of a proxy's admin port |
//! | [`client`], [`server`] | the services as their callers and implementers see them |
#![cfg_attr(feature = "crd", doc = "| [`crd`] | our Kubernetes custom resources |")]

pub mod admin;
pub mod client;
pub mod config;
#[cfg(feature = "crd")]
pub mod crd;
pub mod endpoint;
pub mod identity;
pub mod inbound;
pub mod names;
pub mod outbound;
pub mod outcome;
pub mod path;
pub mod ports;
pub mod probe;
pub mod server;
pub mod tap;
pub mod trust;
mod wire;
pub mod workload;

#[doc(hidden)]
pub use wire::fuzzing;
