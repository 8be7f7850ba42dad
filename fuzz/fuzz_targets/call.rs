//! Messages of calls between two proxies: the same however their bytes were split, heads the same when they are written again, and
//! no more held than a head may have. The first byte is the size of the pieces, the second how often the rest is said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_proxy::calls;

fuzz_target!(|data: &[u8]| {
    let [size, times, bytes @ ..] = data else { return };
    // Beyond what one read brings.
    let bytes = bytes.repeat(1 + usize::from(*times & 7));
    let whole = calls::read(bytes.chunks(8 * 1024));
    let size = usize::from(*size).max(1 + bytes.len() / 256);
    assert_eq!(calls::read(bytes.chunks(size)), whole, "in pieces of {size}");
});
