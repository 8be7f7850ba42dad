//! The whole controller in process: manifests in, messages out over real TLS and gRPC.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail as it does")]

mod certify;
mod dir;
mod drains;
mod figures;
mod hostile;
mod kube;
mod process;
mod rotation;
mod stream;
mod support;
