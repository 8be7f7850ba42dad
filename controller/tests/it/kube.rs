//! The controller reads a scripted Kubernetes API, and a recorded one.

mod certify;
mod cluster;
mod follow;
mod process;
mod recorded;
mod server;
