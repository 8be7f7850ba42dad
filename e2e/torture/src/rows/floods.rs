//! B2: floods of HTTP/2 frames.

use std::time::Duration;

use mesh_testbed::{
    floods::{End, Flood, attack, floods, request},
    frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, WINDOW_UPDATE, frame},
};

use crate::{
    invariants::{self, Spent},
    load::Place as _,
    oracle::backend::HTTP,
    outcome::Findings,
    party::Party,
    process,
    rig::{Plan, Rig, RigOf},
    row::Stage,
};

pub(crate) fn of_frames<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let length = stage.pick(Duration::from_secs(3), Duration::from_millis(1500));
    let all: Vec<Flood> = floods().into_iter().chain(more()).collect();
    let (mut open, mut endured) = (Vec::new(), 0);
    invariants::around(&rig, rig.server(), &Rig::victim(), findings, || {
        let mut spent = Spent::default();
        for flood in &all {
            let (end, cpu) = rig.outsider.enter(|| {
                let end = attack(rig.direct(HTTP), flood, length);
                (end, process::own_cpu())
            })?;
            let (end, bytes) = end?;
            spent = Spent { cpu: spent.cpu + cpu, bytes: spent.bytes + bytes };
            match end {
                End::Closed => {}
                _ if flood.closed => open.push(flood.name),
                End::Stopped | End::Endured => endured += 1,
            }
        }
        Ok(((), spent))
    })?;
    findings.none(format!("floods not ended of {} {open:?}", all.len()), open.len());
    findings.told("floods borne as requests", f64::from(endured));
    Ok(())
}

/// Beside those that a test sends at every change.
fn more() -> [Flood; 8] {
    const fn odd(round: u32) -> u32 {
        2 * round + 1
    }
    let none = Vec::new;
    let flood = |name, begin, again, closed| Flood { name, begin, again, reads: true, closed };
    [
        flood(
            "a window that overflows, stream by stream",
            none(),
            |n| {
                let end = frame(WINDOW_UPDATE, 0, odd(n), &[0x7f, 0xff, 0xff, 0xff]);
                [request(odd(n), END_HEADERS | END_STREAM), end].concat()
            },
            true,
        ),
        flood(
            "DATA after the end of a stream",
            none(),
            |n| [request(odd(n), END_HEADERS | END_STREAM), frame(DATA, 0, odd(n), b"x")].concat(),
            true,
        ),
        flood(
            "SETTINGS that change the table of headers",
            none(),
            |n| frame(SETTINGS, 0, 0, &[[0, 1], [0, 0], if n % 2 == 0 { [0, 0] } else { [16, 0] }].concat()),
            true,
        ),
        // One byte at a time is slow, and allowed: bounded by flow control.
        flood("DATA byte by byte", request(1, END_HEADERS), |_| frame(DATA, 0, 1, b"x"), false),
        flood("heads without a field", none(), |n| frame(HEADERS, END_HEADERS | END_STREAM, odd(n), &[]), true),
        flood(
            "a cookie of crumbs",
            none(),
            // `cookie: ` with an empty value, indexed once, then named again and again.
            |n| {
                let crumbs = [&b"\x82\x86\x84\x41\x03web\x60\x00"[..], &[0xbe; 8000]].concat();
                frame(HEADERS, END_HEADERS | END_STREAM, odd(n), &crumbs)
            },
            false,
        ),
        flood(
            "an entry of 4 KiB, named again and again",
            none(),
            |n| {
                let entry = [&b"\x82\x86\x84\x41\x03web\x40\x01x\x7f\x81\x1e"[..], &[b'b'; 4000]].concat();
                let first = frame(HEADERS, END_STREAM, odd(n), &entry);
                [first, frame(CONTINUATION, END_HEADERS, odd(n), &[0xbe; 10_000])].concat()
            },
            false,
        ),
        flood("streams that stay idle", none(), |n| request(odd(n), END_HEADERS), false),
    ]
}
