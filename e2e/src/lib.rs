//! mesh-e2e
