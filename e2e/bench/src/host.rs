//! How fast the host is: the same work in every run, so that what was measured on two hosts can be read side by side.
//!
//! User code as most of a proxy's is: branches, small pieces of memory taken and given back, copies, hashes; it fits into a core's
//! caches. No checksum, because some processors have instructions for those. Another serde_json or compiler is another computation.
//! Used by [`crate::traffic`]; it knows nothing of proxies.

use std::{hint::black_box, time::Duration};

use nix::time::ClockId;
use serde_json::Value;

/// How often the document is read: about 200 ms.
const TIMES: u32 = 5000;
/// Objects in it.
const OBJECTS: usize = 64;

/// What the computation takes, in time of a processor.
pub(crate) fn computation() -> anyhow::Result<Duration> {
    reading(&document(), TIMES)
}

fn reading(text: &str, times: u32) -> anyhow::Result<Duration> {
    let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
    let before = clock.now()?;
    for _ in 0..times {
        let read: Value = serde_json::from_str(black_box(text))?;
        let objects = black_box(&read).as_array().map(Vec::len);
        anyhow::ensure!(objects == Some(OBJECTS), "{objects:?} objects were read");
    }
    Ok((clock.now()? - before).into())
}

/// The same in every run.
fn document() -> String {
    let object = |number: usize| {
        format!(
            r#"{{"path":"/orders/{number}?with=items","status":{},"took":{number}.25,"ok":{},"via":["a-{number}","b\n"]}}"#,
            200 + number % 5,
            number.is_multiple_of(3)
        )
    };
    format!("[{}]", (0..OBJECTS).map(object).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_same_always_and_reading_it_takes_time() {
        let text = document();
        assert_eq!(text.len(), 5773, "another document: figures of earlier runs can no longer be compared");
        assert!(reading(&text, 1).expect("JSON of so many objects") > Duration::ZERO);
        reading("[]", 1).expect_err("another document");
    }
}
