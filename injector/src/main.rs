//! mesh-injector
fn main() {}
