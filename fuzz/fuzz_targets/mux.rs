//! Frames of a peer on a connection that requests share, with what users of channels do meanwhile: what is held stays bounded, and
//! when the connection is over nothing is left. The first byte chooses the end; then come steps: a byte that says what is done, one
//! that says to which channel or how much, and, where the peer speaks, that many bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_proxy::mux::{Does, Trial};

fuzz_target!(|data: &[u8]| {
    let [role, steps @ ..] = data else { return };
    let mut steps = steps;
    let mut end = Trial::new(role & 1 == 1);
    let mut heard = 0;
    while let [what, which, rest @ ..] = steps {
        steps = rest;
        let n = usize::from(*which);
        // Large ones, too: a window is 16 KiB.
        let len = 1 << (what >> 4);
        match what & 0xf {
            0 => end.act(n, Does::Open),
            1 => end.act(n, Does::Read(len)),
            2 => end.act(n, Does::Write(len)),
            3 => end.act(n, Does::End),
            4 => end.act(n, Does::GiveUp),
            5 => end.act(n, Does::Refuse),
            6 => end.act(n, Does::Keep),
            7 => end.act(n, Does::Leave),
            8 => drop(end.written()),
            _ => {
                let (said, rest) = steps.split_at(n.min(steps.len()));
                steps = rest;
                heard = heard.max(said.len());
                if !end.hear(said) {
                    break;
                }
            }
        }
        assert!(end.is_bounded(heard), "more is held than may be");
    }
    assert!(end.ends(), "something is left");
});
