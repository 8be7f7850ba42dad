//! An answer that comes line by line, as a watch does. Made by [`super::Api::stream`].

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use kube::client::Body;

use super::{Failure, chain};

/// Longest line: the API server stores objects of up to 3 MiB.
const LONGEST_LINE: usize = 16 << 20;

/// The lines of an answer.
pub struct Lines {
    body: Body,
    splitter: Splitter,
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, splitter: Splitter::default() }
    }

    /// The next line that is not empty; none at the end of the answer. What stands behind the last newline was cut off
    /// and is none. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(line) = self.splitter.next() {
                return Ok(Some(line));
            }
            if self.splitter.buffer.len() > LONGEST_LINE {
                return Err(Failure::Nonsense(format!("a line is longer than {LONGEST_LINE} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.splitter.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Failure::Unreachable(chain(&error))),
                None => return Ok(None),
            }
        }
    }
}

/// Bytes in, lines out.
#[derive(Debug, Default)]
struct Splitter {
    buffer: BytesMut,
    /// Bytes at the start of the buffer that hold no newline.
    searched: usize,
}

impl Splitter {
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(found) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + found).freeze();
            self.buffer.advance(1);
            self.searched = 0;
            if !line.is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for part in parts {
            splitter.buffer.extend_from_slice(part);
            lines.extend(std::iter::from_fn(|| splitter.next()).map(|line| line.to_vec()));
        }
        lines
    }

    #[test]
    fn lines_end_with_a_newline_and_what_was_cut_off_is_none() {
        assert_eq!(lines(&[b"a\nb", b"c\n\n", b"\nd"]), [b"a".to_vec(), b"bc".to_vec()]);
        assert!(lines(&[b"", b"no end"]).is_empty());
    }

    proptest! {
        #[test]
        fn where_the_parts_of_an_answer_are_cut_does_not_matter(text in "[ab\n]{0,60}", cuts in proptest::collection::vec(0_usize..60, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(lines(&parts), lines(&[text.as_bytes()]));
        }
    }
}
