//! Contracts between the processes of the mesh.
pub mod names;
