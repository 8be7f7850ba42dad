//! Requests of HTTP/1 by the direct way and by hyper's, each through a real worker: the application must see the same, and the
//! client hear the same. The first byte says after how much there is a break.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_fuzz::both::{expanded, requests};

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else { return };
    let bytes = expanded(bytes);
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    // HTTP/2 has one way only, and an application that says nothing to it.
    if !first.is_empty() && !bytes.starts_with(b"PRI") {
        requests(&[first, second]);
    }
});
