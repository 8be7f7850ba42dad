//! Support for tests across processes.

pub mod code_map;
pub mod reader;
pub mod readme;
pub mod sources;
