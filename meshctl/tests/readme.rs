//! The commands of the README and of the tutorial, run as written, with the binary under test where they expect the
//! release. `.ci/run readme` runs them with the release itself.

use std::path::Path;

use mesh_e2e::reader::Reader;

#[test]
fn the_readmes_commands_run_as_written() {
    let reader = Reader::with_binary(Path::new(env!("CARGO_BIN_EXE_meshctl"))).unwrap();
    assert!(reader.readme().unwrap() > 10);
}

#[test]
fn the_tutorials_commands_run_as_written() {
    let reader = Reader::with_binary(Path::new(env!("CARGO_BIN_EXE_meshctl"))).unwrap();
    assert!(reader.tutorial().unwrap() > 10);
}
