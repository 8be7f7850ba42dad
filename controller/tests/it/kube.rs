//! The controller reads a scripted Kubernetes API.

mod follow;
mod server;
