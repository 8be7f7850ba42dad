//! Frames of HTTP/2, after a client's preface, through the real inbound path. The first byte says after how much there is a
//! break.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_fuzz::inbound::say;

/// And empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else { return };
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    let answer = say(&[PREFACE, first, second]);
    // SETTINGS come first, whatever comes then.
    assert!(answer.is_empty() || answer.get(3) == Some(&4), "{answer:?}");
});
