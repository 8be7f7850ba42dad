//! `meshctl explain`: every code, check, annotation and topic on one page of at most thirty lines, offline.
//!
//! Pages are made from the very enums that the mesh uses, so that none is missing and none is about something that does
//! not exist; only the topics are prose of their own. Pure: the command prints what [`find`] finds.

mod annotations;
mod checks;
mod outcomes;
mod reasons;
mod topics;

use serde::Serialize;

use crate::failure::did_you_mean;

/// What is known about one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    /// What it is asked by.
    pub(crate) name: String,
    /// What sort of name it is.
    pub(crate) about: About,
    /// One sentence.
    pub(crate) summary: String,
    /// Paragraphs; a paragraph that begins with two blanks is set as it is.
    pub(crate) details: Vec<String>,
    /// What to do.
    pub(crate) fix: Option<String>,
    /// Commands or YAML, set as they are.
    pub(crate) example: Option<String>,
}

/// Sorts of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum About {
    /// A page of prose.
    Topic,
    /// What the mesh answers itself: a `mesh-error` code.
    Outcome,
    /// Something that `meshctl check` looks at.
    Check,
    /// Why a pod has no sidecar.
    Reason,
    /// What a user may write on an object.
    Annotation,
    /// A status that the mesh answers with.
    Status,
}

impl About {
    /// As a heading in the list.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Topic => "topics",
            Self::Outcome => "outcomes of a request, connection or call (mesh-error)",
            Self::Check => "checks",
            Self::Reason => "reasons why a pod has no sidecar",
            Self::Annotation => "annotations and labels",
            Self::Status => "HTTP statuses that the mesh answers with",
        }
    }

    fn singular(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Outcome => "outcome of a request, connection or call",
            Self::Check => "check",
            Self::Reason => "reason why a pod has no sidecar",
            Self::Annotation => "annotation or label",
            Self::Status => "HTTP status",
        }
    }
}

/// Every page, by sort and in the order of the enum behind it.
pub(crate) fn all() -> Vec<Page> {
    let mut pages = topics::pages();
    pages.extend(outcomes::pages());
    pages.extend(checks::pages());
    pages.extend(reasons::pages());
    pages.extend(annotations::pages());
    pages.extend(outcomes::statuses());
    pages
}

/// The page of a name; annotations also without their group. None is an error that says what may have been meant.
pub(crate) fn find(name: &str) -> Result<Page, Option<String>> {
    let pages = all();
    let wanted = name.trim().to_ascii_lowercase();
    let is = |page: &&Page| page.name == wanted || page.name.split_once('/').is_some_and(|(_, short)| short == wanted);
    match pages.iter().find(is) {
        Some(page) => Ok(page.clone()),
        None => Err(did_you_mean(&wanted, pages.iter().map(|page| page.name.as_str())).map(str::to_owned)),
    }
}

impl Page {
    /// As text for people, no line longer than `width` where it can be broken.
    pub(crate) fn render(&self, width: usize) -> String {
        let mut out = format!("{}: {}\n\n", self.name, self.about.singular());
        out.push_str(&wrap(&self.summary, width, ""));
        for paragraph in &self.details {
            out.push('\n');
            if paragraph.starts_with("  ") {
                out.extend(paragraph.lines().map(|line| hang(line, width)));
            } else {
                out.push_str(&wrap(paragraph, width, ""));
            }
        }
        if let Some(fix) = &self.fix {
            out.push_str("\nfix:\n");
            out.push_str(&wrap(fix, width, "  "));
        }
        if let Some(example) = &self.example {
            out.push_str("\nexample:\n");
            for line in example.lines() {
                out.push_str(&format!("  {line}\n"));
            }
        }
        out
    }
}

/// A line of two columns, `  word    what it means`, whose second one stays where it is in the lines that it needs.
fn hang(line: &str, width: usize) -> String {
    let column = line.trim_start().find("  ").map_or(0, |at| line.len() - line.trim_start().len() + at);
    let column = column + line[column..].chars().take_while(|c| *c == ' ').count();
    if line.chars().count() <= width || column == 0 || column * 2 > width {
        return format!("{line}\n");
    }
    let (word, meaning) = line.split_at(column);
    let set = wrap(meaning, width, &" ".repeat(column));
    format!("{word}{}", set.trim_start())
}

/// Breaks a paragraph at blanks.
pub(crate) fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let length = indent.len() + line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && length > width {
            out.push_str(&format!("{indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&format!("{indent}{line}\n"));
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_page_fits_a_screen_and_says_what_to_do_or_why() {
        for page in all() {
            let text = page.render(80);
            assert!(text.lines().count() <= 30, "{} has {} lines", page.name, text.lines().count());
            assert!(page.summary.ends_with('.') || page.summary.ends_with(':'), "{}: {}", page.name, page.summary);
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
            let says_more = page.fix.is_some() || page.example.is_some() || !page.details.is_empty();
            assert!(says_more, "{} only has a summary", page.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let pages = all();
        let names: BTreeSet<_> = pages.iter().map(|page| &page.name).collect();
        assert_eq!(names.len(), pages.len());
    }

    #[test]
    fn pages_are_found_by_name_and_typos_by_what_was_meant() {
        assert_eq!(find("No-Endpoints").map(|page| page.name), Ok("no-endpoints".into()));
        assert_eq!(find("opaque-ports").map(|page| page.name), Ok("meshctl.dev/opaque-ports".into()));
        assert_eq!(find("503").map(|page| page.about), Ok(About::Status));
        assert_eq!(find("mltls").map(|page| page.name), Err(Some("mtls".into())));
        assert_eq!(find("qqqq").map(|page| page.name), Err(None));
    }

    #[test]
    fn paragraphs_break_at_blanks() {
        assert_eq!(wrap("one two three", 8, ""), "one two\nthree\n");
        assert_eq!(wrap("one two three", 9, "  "), "  one two\n  three\n");
        assert_eq!(wrap("unbreakable", 4, ""), "unbreakable\n");
    }
}
