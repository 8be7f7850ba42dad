//! What users pipe through `meshctl inject` and `uninject`: what goes in comes out again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_injector::{
    manifest::{inject, uninject},
    sidecar::Mesh,
};

fuzz_target!(|text: &str| {
    let without = uninject("fuzz.yaml", text);
    let Ok(edited) = inject("fuzz.yaml", text, &Mesh::default()) else { return };
    let back = uninject("fuzz.yaml", &edited.text).expect("what inject writes can be read");
    assert_eq!(back.text, without.expect("what inject reads, uninject reads").text);
});
