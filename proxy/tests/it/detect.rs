//! Ports that declare nothing.
