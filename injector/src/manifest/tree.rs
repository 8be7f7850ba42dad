//! YAML text as a tree of nodes that know where in the text they are.
//!
//! `manifest` finds pod templates in it, `edit` cuts and inserts at its spans. Values are read as far as a pod needs them.

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};
use serde_json::{Map, Number, Value};

use super::ManifestError;

/// Deepest nesting that is read; Kubernetes objects stay under 30.
const MAX_DEPTH: usize = 100;

/// One node of the text.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// First byte of the content. Not of use for a block collection.
    pub(super) start: usize,
    /// Byte after the content, comments and trailing space not counted. For a scalar left empty that of its key's colon.
    pub(super) end: usize,
    /// Line of the start, from 1.
    pub(super) line: usize,
    /// Whether it carries an anchor, or is an alias.
    pub(super) anchored: bool,
    /// What it is.
    pub(super) kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// A scalar; whether it is plain (not quoted).
    Scalar(String, bool),
    /// A mapping; whether it is in flow style (braces).
    Map(Vec<(Node, Node)>, bool),
    /// A sequence; whether it is in flow style (brackets).
    Seq(Vec<Node>, bool),
}

impl Node {
    /// The entry of a mapping with this key.
    pub(super) fn entry(&self, key: &str) -> Option<(&Self, &Self)> {
        let Kind::Map(entries, _) = &self.kind else { return None };
        let found = entries.iter().find(|(k, _)| matches!(&k.kind, Kind::Scalar(text, _) if text == key));
        found.map(|(key, value)| (key, value))
    }

    /// The value of a mapping's entry.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The items of a sequence; none of anything else.
    pub(super) fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::Seq(items, _) => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// Whether it is a scalar that was left out (`key:`).
    pub(super) fn is_left_out(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(text, true) if text.is_empty())
    }

    /// Whether it is a collection in flow style.
    pub(super) fn is_flow(&self) -> bool {
        matches!(self.kind, Kind::Map(_, true) | Kind::Seq(_, true))
    }

    /// The first node in it (or itself) with an anchor or alias.
    pub(super) fn anchor(&self) -> Option<&Self> {
        if self.anchored {
            return Some(self);
        }
        match &self.kind {
            Kind::Scalar(..) => None,
            Kind::Map(entries, _) => entries.iter().find_map(|(key, value)| key.anchor().or_else(|| value.anchor())),
            Kind::Seq(items, _) => items.iter().find_map(Self::anchor),
        }
    }

    /// The value, by the rules of YAML's core schema.
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(text, true) => plain(text),
            Kind::Scalar(text, false) => Value::String(text.clone()),
            Kind::Seq(items, _) => Value::Array(items.iter().map(Self::value).collect()),
            Kind::Map(entries, _) => {
                let entries = entries.iter().filter_map(|(key, value)| Some((key.text()?.to_owned(), value.value())));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => {
            let number = text.parse::<i64>().ok().map(Number::from);
            let looks = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
            let float = || text.parse::<f64>().ok().filter(|_| looks).and_then(Number::from_f64);
            number.or_else(float).map_or_else(|| Value::String(text.to_owned()), Value::Number)
        }
    }
}

/// A collection that is being read.
struct Open {
    node: Node,
    /// Key of a mapping that waits for its value.
    key: Option<Node>,
}

/// Reads every document of a text.
pub(super) fn documents(file: &str, text: &str) -> Result<Vec<Node>, ManifestError> {
    let bad = |line: usize, problem: &str, fix: &'static str| ManifestError {
        file: file.to_owned(),
        line,
        problem: problem.to_owned(),
        fix,
    };
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut documents = Vec::new();
    while let Some(event) = parser.next_event() {
        let (event, span) = event
            .map_err(|error| bad(error.marker().line(), error.info(), "mend the YAML; a template is rendered first"))?;
        let node = |kind, anchored| Node {
            start: offset(span, true),
            end: offset(span, false),
            line: span.start.line(),
            anchored,
            kind,
        };
        let done = match event {
            Event::Scalar(value, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                // A scalar that was left out comes as `~` of no length.
                let left_out = plain && offset(span, true) == offset(span, false);
                let value = if left_out { String::new() } else { value.into_owned() };
                let mut scalar = node(Kind::Scalar(value, plain), anchor != 0);
                scalar.end = scalar.start.max(trimmed(text, scalar.end));
                scalar
            }
            Event::Alias(_) => node(Kind::Scalar(String::new(), false), true),
            Event::SequenceStart(style, anchor, _) => {
                open.push(Open { node: node(Kind::Seq(Vec::new(), is_flow(style)), anchor != 0), key: None });
                continue;
            }
            Event::MappingStart(style, anchor, _) => {
                open.push(Open { node: node(Kind::Map(Vec::new(), is_flow(style)), anchor != 0), key: None });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { mut node, .. }) = open.pop() else { continue };
                node.end = if node.is_flow() { offset(span, false) } else { last_end(&node) };
                node
            }
            _ => continue,
        };
        if open.len() > MAX_DEPTH {
            return Err(bad(done.line, "nested too deeply", "this is no Kubernetes manifest"));
        }
        match open.last_mut() {
            None => documents.push(done),
            Some(parent) => parent.take(text, done),
        }
    }
    Ok(documents)
}

impl Open {
    fn take(&mut self, text: &str, mut done: Node) {
        match &mut self.node.kind {
            Kind::Seq(items, _) => items.push(done),
            Kind::Map(entries, _) => match self.key.take() {
                None => self.key = Some(done),
                Some(key) => {
                    if done.is_left_out() {
                        let colon = text[key.end..].find(':').map_or(key.end, |at| key.end + at + 1);
                        (done.start, done.end, done.line) = (colon, colon, key.line);
                    }
                    entries.push((key, done));
                }
            },
            Kind::Scalar(..) => {}
        }
    }
}

fn is_flow(style: StructureStyle) -> bool {
    style == StructureStyle::Flow
}

fn last_end(node: &Node) -> usize {
    match &node.kind {
        Kind::Map(entries, _) => entries.last().map_or(node.start, |(_, value)| value.end),
        Kind::Seq(items, _) => items.last().map_or(node.start, |item| item.end),
        Kind::Scalar(..) => node.end,
    }
}

/// The end without the white space before it: a block scalar ends only where the next thing begins.
fn trimmed(text: &str, end: usize) -> usize {
    text[..end].trim_end().len()
}

fn offset(span: Span, start: bool) -> usize {
    let marker = if start { span.start } else { span.end };
    marker.byte_offset().unwrap_or_default()
}
