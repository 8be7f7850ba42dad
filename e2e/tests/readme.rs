//! The README and the tutorial, run as written on this machine, the release build included; the word `tutorial` asks for
//! that one alone.
//!
//! Run by `.ci/run readme` and not by `cargo test`, since the first command builds a release: `meshctl/tests/readme.rs`
//! is the same with the binary under test.

#![expect(clippy::print_stdout, reason = "it tells what it did")]

use mesh_e2e::reader::Reader;

fn main() -> anyhow::Result<()> {
    let reader = Reader::in_the_project()?;
    let mut passed = 0;
    if !std::env::args().any(|word| word == "tutorial") {
        passed += reader.readme()?;
    }
    passed += reader.tutorial()?;
    println!("{passed} passed, 0 failed");
    Ok(())
}
