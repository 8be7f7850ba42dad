//! The messages between our processes: what is understood is written and read back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mesh_proto::fuzzing::read_messages(data));
