//! Requests of HTTP/1 through the real inbound path, to an application that panics at what it should not see. The first byte
//! says after how much there is a break.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_fuzz::inbound::say;

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else { return };
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    let answer = say(&[first, second]);
    // A client of HTTP/2 may come here, too: it is answered by SETTINGS.
    let is_http = answer.is_empty() || answer.starts_with(b"HTTP/1.") || bytes.starts_with(b"PRI");
    assert!(is_http, "{:?} was answered with {:?}", String::from_utf8_lossy(bytes), String::from_utf8_lossy(&answer));
});
