//! Support for tests across processes.

pub mod readme;
