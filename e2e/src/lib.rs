//! Support for tests across processes.

pub mod code_map;
pub mod readme;
pub mod sources;
