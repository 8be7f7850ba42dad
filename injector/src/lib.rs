//! The mutating admission webhook: puts the sidecar into pods of the mesh (contracts §8).
//!
//! A pure middle (`decide` → `inject` → `patch`, on JSON values, so that fields of a newer Kubernetes pass through untouched) behind
//! a thin HTTPS server. `meshctl inject` and `uninject` call the same middle.
//!
//! | module | holds |
//! |---|---|
//! | [`decide`] | whether a pod gets a sidecar, and if not why  |
//! | [`reason`] | the codes, what each means and what to do |
//! | [`settings`] | annotations, validated by name and value |
//! | [`sidecar`] | what is added to a pod |
//! | [`probes`] | the application's probes, pointed at the sidecar, and back |
//! | [`drain`] | the application's end, held until clients have let go, and back |
//! | [`uninject`] | takes all of it away again |
//! | [`patch`] | two values to a JSON patch |
//! | [`review`] | AdmissionReview in and out |
//! | [`manifest`] | the same for YAML text, comments kept |
//! | [`pod`] | reading a pod as a JSON value |
//! | [`events`] | what was decided, told to the pod's owner |
//! | [`reconcile`] | finds pods that got no sidecar and should have one |
//! | [`server`], [`bodies`] | the HTTPS webhook and its limits |
//! | [`certificate`], [`namespaces`] | what it reads besides |
//! | [`secret`] | in a cluster, the certificate: made, renewed, told to the API server |
//! | [`config`], [`app`] | command line; wiring |

pub mod app;
pub mod bodies;
pub mod certificate;
pub mod config;
pub mod decide;
pub mod drain;
pub mod events;
pub mod manifest;
pub mod namespaces;
pub mod patch;
pub mod pod;
pub mod probes;
mod problem;
pub mod reason;
pub mod reconcile;
pub mod review;
pub mod secret;
pub mod server;
pub mod settings;
pub mod sidecar;
pub mod uninject;
