//! Everything that must not go through.
