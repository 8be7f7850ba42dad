//! The controller reads a scripted Kubernetes API.

mod certify;
mod cluster;
mod follow;
mod process;
mod server;
