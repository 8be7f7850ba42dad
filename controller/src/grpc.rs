//! The services of the controller's port, thin: check, look up, stream. What is published is [`crate::publish`]'s.

pub mod config;
mod held;
pub mod identity;
pub mod proxies;
pub mod trusted;
