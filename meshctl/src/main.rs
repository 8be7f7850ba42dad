//! One file, several programs: the first argument may name a hidden role of the playground; anything else is the
//! command line of a person. Nothing here starts a thread: roles that join namespaces need the only one.

mod cluster;
mod playground;

fn main() {}
