//! What a connection speaks, from its first bytes: the same however they were split, and never another answer later.
//! The first byte chooses the splits and the kind of port, the last one how much is added, so that a small input can go beyond what
//! detection looks at.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_proxy::detect::{Detector, MAX_BYTES};

fuzz_target!(|data: &[u8]| {
    let [choice, bytes @ .., added] = data else { return };
    let bytes = &[bytes, &vec![b'a'; usize::from(*added) * 256]].concat();
    let bytes = &bytes[..bytes.len().min(MAX_BYTES + 4096)];
    let fresh = || if choice & 1 == 1 { Detector::only_tls() } else { Detector::new() };
    let whole = fresh().look(bytes);
    // Every step looks at all there is so far.
    let step = usize::from(choice >> 1).max(1 + bytes.len() / 256);
    let mut detector = fresh();
    let mut read = 0;
    let mut answer = None;
    while answer.is_none() && read < bytes.len() {
        read = (read + step).min(bytes.len());
        answer = detector.look(&bytes[..read]);
    }
    if answer.is_some() {
        assert_eq!(answer, whole, "in steps of {step}: known after {read} of {} bytes", bytes.len());
    } else {
        assert!(whole.is_none() || bytes.is_empty(), "{whole:?} at once, nothing in steps of {step}");
    }
});
