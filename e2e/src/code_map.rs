//! The code map of docs/architecture.md: one line per module, which is the first sentence of the module's own `//!`.
//!
//! So the map cannot say something else than the code. Written and compared by the test `architecture`.

use std::fmt::Write as _;

use crate::sources::{CRATES, Source, of_crate};

/// The map as Markdown, a table per crate.
pub fn render() -> String {
    let mut map = String::new();
    for name in CRATES {
        let _ = write!(map, "\n### {name}\n\n| module | what it does |\n|---|---|\n");
        for Source { path, text } in of_crate(name) {
            let _ = writeln!(map, "| `{}` | {} |", path.display(), first_sentence(&text));
        }
    }
    map
}

/// The first sentence of the header, without links and final stop.
fn first_sentence(text: &str) -> String {
    let header = text.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph: Vec<&str> =
        header.map(str::trim).take_while(|line| !line.is_empty() && !line.starts_with("```")).collect();
    let paragraph = paragraph.join(" ");
    let sentence = paragraph.split_once(". ").map_or(paragraph.as_str(), |(sentence, _)| sentence);
    sentence.trim_end_matches(['.', ':']).replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_is_taken_whole_and_plain() {
        let cases = [
            ("//! One. Two.\n", "One"),
            ("//! Reads [`Thing`] and\n//! writes it.\n//!\n//! More.\nuse x;\n", "Reads `Thing` and writes it"),
            ("//! A way:\n//! ```text\n//! a -> b\n//! ```\n", "A way"),
            ("use x;\n", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(first_sentence(text), expected, "{text:?}");
        }
    }
}
