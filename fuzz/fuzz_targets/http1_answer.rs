//! What a server answers to a harmless request, by the direct way and by hyper's, each through a real worker: the client must hear
//! the same, and the next client its own answer. The first byte says how (see `Case`), the second after how much there is a break.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_fuzz::both::{Case, answers, expanded};

fuzz_target!(|data: &[u8]| {
    let [how, cut, bytes @ ..] = data else { return };
    let bytes = expanded(bytes);
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    answers(&Case {
        is_head: how & 1 != 0,
        server_closes: how & 2 != 0,
        client_closes: how & 4 != 0,
        is_grpc: how & 8 != 0,
        is_counted: how & 16 != 0,
        pieces: [first, second],
    });
});
