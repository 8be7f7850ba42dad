//! The controller reads a scripted Kubernetes API.

mod certify;
mod follow;
mod server;
