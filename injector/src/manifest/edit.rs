//! Edits of the text at the places of one pod template: insertions, and their exact inverse.
//!
//! Nothing marks what was inserted; it is known by its names. Where the original left a choice of form, the form inserted
//! tells which it was: a list or map that was absent is inserted as a block, one that was there and empty (`[]`) keeps its
//! brackets, and one that was left out (`volumes:`) gets brackets with a space inside.

mod hook;

use std::ops::Range;

use mesh_proto::{names, probe::Probe};
use serde_json::{Value, json};

use super::{
    ManifestError, emit,
    tree::{Kind, Node},
};
use crate::{
    decide, drain,
    probes::{self, Found},
    settings::Settings,
    sidecar::{self, Mesh, Parts},
    uninject,
};

/// The way out where a text cannot be edited.
pub(super) const REWRITE: &str =
    "rewrite it in block style without anchors (yq -P 'explode(.)' does both), or label it and let the cluster inject";

/// A replacement of some bytes of the text.
pub(super) struct Edit {
    range: Range<usize>,
    text: String,
}

/// A text with its name and line ends.
pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    newline: &'static str,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, newline: if text.contains("\r\n") { "\r\n" } else { "\n" } }
    }

    /// The text with its edits; those at one place stay in order.
    pub(super) fn apply(&self, mut edits: Vec<Edit>) -> String {
        edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
        let mut out = String::with_capacity(self.text.len() + edits.iter().map(|edit| edit.text.len()).sum::<usize>());
        let mut at = 0;
        for Edit { range, text } in edits {
            // Edits never overlap; were they to, the check that follows every injection would tell.
            let start = range.start.max(at);
            out.push_str(&self.text[at..start]);
            out.push_str(&text);
            at = range.end.max(start);
        }
        out.push_str(&self.text[at..]);
        out
    }

    /// Adds the sidecar to a template. Returns sentences for the user.
    pub(super) fn inject(
        &self,
        template: &Node,
        mesh: &Mesh,
        settings: &Settings,
        edits: &mut Vec<Edit>,
    ) -> Result<Vec<String>, ManifestError> {
        let (spec_key, spec) = self.spec(template)?;
        let (found, warnings) = probes::find(&mut template.value());
        let mut originals = Vec::new();
        for Found { handler, mut probe } in found {
            let Some((key, value, flow)) = handler_of(spec, &probe, handler) else { continue };
            let range = if flow { key.start..value.end } else { key.start..self.with_comment(value.end) };
            probe.original = self.dedented(range.clone())?;
            let new = if flow {
                format!("httpGet: {}", emit::flow(&probes::replacement(&probe)))
            } else {
                let mut lines = Vec::new();
                emit::block(&json!({"httpGet": probes::replacement(&probe)}), self.column(key.start), &mut lines);
                lines.join(self.newline).trim_start().to_owned()
            };
            edits.push(Edit { range, text: new });
            originals.push(probe);
        }
        if let Some(hook) = drain::hook(settings) {
            let containers = spec.get("containers").map_or(&[][..], Node::items);
            edits.extend(containers.iter().filter_map(|container| self.insert_hook(container, &hook)));
        }
        let Parts { init_containers, volumes, annotation: (name, version) } =
            sidecar::parts(mesh, settings, &originals);
        edits.push(self.insert_items(spec_key, spec, "initContainers", &init_containers)?);
        edits.push(self.insert_items(spec_key, spec, "volumes", &volumes)?);
        // The annotation is informative: metadata in flow style goes without.
        if let Some((key, metadata)) =
            template.entry("metadata").filter(|(_, node)| matches!(node.kind, Kind::Map(_, false)))
        {
            edits.push(self.insert_annotation(key, metadata, name, &version)?);
        }
        Ok(warnings)
    }

    /// Takes the sidecar away from a template. Says whether there was one.
    pub(super) fn uninject(&self, template: &Node, edits: &mut Vec<Edit>) -> Result<bool, ManifestError> {
        let pod = template.value();
        if !decide::is_injected(&pod) {
            return Ok(false);
        }
        let (_, spec) = self.spec(template)?;
        let damaged = "take the sidecar away by hand, from a copy without it";
        let bad = |error: &dyn std::fmt::Display| self.error(template.start, &error.to_string(), damaged);
        for probe in uninject::originals(&pod).map_err(|error| bad(&error))? {
            let Some((key, value, flow)) = handler_of(spec, &probe, "httpGet") else { continue };
            if probes::is_ours(&value.value(), &probe) {
                let text = self.original(&probe, key, flow).map_err(|error| bad(&error))?;
                edits.push(Edit { range: key.start..value.end, text });
            }
        }
        for container in spec.get("containers").map_or(&[][..], Node::items) {
            self.remove_hook(container, edits)?;
        }
        for (key, ours) in [("initContainers", uninject::CONTAINERS), ("volumes", uninject::VOLUMES)] {
            if let Some((key, list)) = spec.entry(key) {
                let is_ours =
                    |item: &Node| item.get("name").and_then(Node::text).is_some_and(|name| ours.contains(&name));
                let Kind::Seq(items, flow) = &list.kind else { continue };
                let entries: Vec<_> = items.iter().map(|item| (item.start, item.end, is_ours(item))).collect();
                self.remove(key, list, &entries, *flow, edits)?;
            }
        }
        if let Some((key, map)) = template.get("metadata").and_then(|metadata| metadata.entry("annotations"))
            && let Kind::Map(entries, flow) = &map.kind
        {
            let is_ours = |key: &Node| key.text() == Some(names::ANNOTATION_PROXY_VERSION);
            let entries: Vec<_> = entries.iter().map(|(key, value)| (key.start, value.end, is_ours(key))).collect();
            self.remove(key, map, &entries, *flow, edits)?;
        }
        Ok(true)
    }

    /// The template's spec, if the template can be edited.
    fn spec<'n>(&self, template: &'n Node) -> Result<(&'n Node, &'n Node), ManifestError> {
        if let Some(node) = template.anchor() {
            return Err(self.error(node.start, "the pod template has an anchor or alias", REWRITE));
        }
        match template.entry("spec") {
            Some((key, spec)) if matches!(spec.kind, Kind::Map(_, false)) && !template.is_flow() => Ok((key, spec)),
            _ => Err(self.error(template.start, "the pod template is in flow style (braces)", REWRITE)),
        }
    }

    fn insert_items(&self, parent: &Node, map: &Node, key: &str, values: &[Value]) -> Result<Edit, ManifestError> {
        let flow = || values.iter().map(emit::flow).collect::<Vec<_>>().join(", ");
        match map.entry(key) {
            None => {
                let column = self.first_column(map);
                let mut lines = vec![format!("{}{key}:", " ".repeat(column))];
                lines.extend(emit::items(values, column));
                Ok(self.insert_lines(parent, &lines))
            }
            Some((key, Node { kind: Kind::Seq(items, false), .. })) => {
                let dash = items.first().and_then(|item| self.dash(item));
                let dash =
                    dash.ok_or_else(|| self.error(key.start, "the list has an item of unusual form", REWRITE))?;
                Ok(self.insert_lines(key, &emit::items(values, self.column(dash))))
            }
            Some((_, list)) => self.insert_flow(list, &flow(), ['[', ']']),
        }
    }

    fn insert_annotation(&self, parent: &Node, map: &Node, name: &str, value: &str) -> Result<Edit, ManifestError> {
        let entry = json!({name: value});
        let mut lines = Vec::new();
        match map.entry("annotations") {
            None => emit::block(&json!({"annotations": entry}), self.first_column(map), &mut lines),
            Some((key, annotations @ Node { kind: Kind::Map(entries, false), .. })) if !entries.is_empty() => {
                emit::block(&entry, self.first_column(annotations), &mut lines);
                return Ok(self.insert_lines(key, &lines));
            }
            Some((_, annotations)) => {
                let flow = emit::flow(&entry);
                return self.insert_flow(annotations, &flow[1..flow.len() - 1], ['{', '}']);
            }
        }
        Ok(self.insert_lines(parent, &lines))
    }

    /// Whole lines after the line of a key.
    fn insert_lines(&self, key: &Node, lines: &[String]) -> Edit {
        let at = self.line_end(key.start);
        let text = lines.iter().flat_map(|line| [line.as_str(), self.newline]).collect();
        Edit { range: at..at, text }
    }

    /// Into brackets that are there, or with brackets where a value was left out.
    fn insert_flow(&self, node: &Node, inner: &str, [open, close]: [char; 2]) -> Result<Edit, ManifestError> {
        let (at, text) = match &node.kind {
            _ if node.is_left_out() => (node.start, format!(" {open} {inner} {close}")),
            Kind::Seq(items, true) if items.is_empty() => (node.start + 1, inner.to_owned()),
            Kind::Map(items, true) if items.is_empty() => (node.start + 1, inner.to_owned()),
            Kind::Seq(_, true) | Kind::Map(_, true) => (node.start + 1, format!("{inner},")),
            _ => {
                return Err(self.error(
                    node.start,
                    "a list or map was expected here",
                    "write [] or {}, or leave it out",
                ));
            }
        };
        Ok(Edit { range: at..at, text })
    }

    /// Removes what is ours among the entries (start, end, ours) of a list or map.
    fn remove(
        &self,
        key: &Node,
        node: &Node,
        entries: &[(usize, usize, bool)],
        flow: bool,
        edits: &mut Vec<Edit>,
    ) -> Result<(), ManifestError> {
        let mut cut = |range: Range<usize>| edits.push(Edit { range, text: String::new() });
        let ours = entries.iter().filter(|(.., ours)| *ours).count();
        let (Some(first), Some(last)) = (entries.first(), ours.checked_sub(1).map(|last| entries[last])) else {
            return Ok(());
        };
        let all = ours == entries.len();
        if flow {
            if entries[..ours].iter().any(|(.., ours)| !ours) {
                return Err(self.error(node.start, "the sidecar is in the middle of a list in flow style", REWRITE));
            }
            let was_left_out =
                all && self.text[node.start + 1..].starts_with(' ') && self.text[..node.end - 1].ends_with(' ');
            if was_left_out {
                // With the space after the colon.
                cut(node.start - 1..node.end);
            } else if all {
                cut(first.0..last.1);
            } else {
                let comma = self.text[last.1..].find(',').map_or(last.1, |at| last.1 + at + 1);
                cut(first.0..comma);
            }
        } else if all {
            cut(self.line_start(key.start)..self.line_end(last.1));
        } else {
            for (start, end, _) in entries.iter().filter(|(.., ours)| *ours) {
                cut(self.line_start(*start)..self.line_end(*end));
            }
        }
        Ok(())
    }

    /// The original of a probe, as it goes to the place of this key.
    fn original(&self, probe: &Probe, key: &Node, flow: bool) -> Result<String, probes::BadOriginal> {
        let column = self.column(key.start);
        if !probe.original.starts_with('{') {
            // Text of a person, as `dedented` left it.
            let indent = " ".repeat(column);
            let mut lines = probe.original.split('\n');
            let mut text = lines.next().unwrap_or_default().to_owned();
            for line in lines {
                text.push('\n');
                if !line.trim_end_matches('\r').is_empty() {
                    text.push_str(&indent);
                }
                text.push_str(line);
            }
            return Ok(text);
        }
        let (field, value) = probes::original_handler(probe)?;
        if flow {
            return Ok(format!("{field}: {}", emit::flow(&value)));
        }
        let mut lines = Vec::new();
        emit::block(&json!({field: value}), column, &mut lines);
        Ok(lines.join(self.newline).trim_start().to_owned())
    }

    /// A piece of text that begins in the middle of a line, with the indentation of its first line taken off the others.
    fn dedented(&self, range: Range<usize>) -> Result<String, ManifestError> {
        let indent = " ".repeat(self.column(range.start));
        let mut lines = self.text[range.clone()].split('\n');
        let mut text = lines.next().unwrap_or_default().to_owned();
        for line in lines {
            let empty = line.trim_end_matches('\r').is_empty();
            let rest = if empty { Some(line) } else { line.strip_prefix(&indent) };
            let rest = rest.ok_or_else(|| self.error(range.start, "a probe is indented in an unusual way", REWRITE))?;
            text.push('\n');
            text.push_str(rest);
        }
        Ok(text)
    }

    /// The end of the line's content, if only a comment follows.
    fn with_comment(&self, end: usize) -> usize {
        let rest = self.text[end..].split(['\r', '\n']).next().unwrap_or_default();
        let comment = rest.trim_start();
        if comment.is_empty() || comment.starts_with('#') { end + rest.len() } else { end }
    }

    /// Where the dash of a list item is: on the item's own line, with only spaces before it.
    fn dash(&self, item: &Node) -> Option<usize> {
        let start = self.line_start(item.start);
        let before = &self.text[start..item.start];
        let dash = before.find('-')?;
        let fine = before[..dash].bytes().all(|b| b == b' ') && before[dash + 1..].bytes().all(|b| b == b' ');
        fine.then_some(start + dash)
    }

    fn first_column(&self, map: &Node) -> usize {
        match &map.kind {
            Kind::Map(entries, _) => entries.first().map_or(0, |(key, _)| self.column(key.start)),
            _ => 0,
        }
    }

    fn column(&self, at: usize) -> usize {
        at - self.line_start(at)
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// After the line's newline.
    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline + 1)
    }

    pub(super) fn error(&self, at: usize, problem: &str, fix: &'static str) -> ManifestError {
        let line = self.text[..at].matches('\n').count() + 1;
        ManifestError { file: self.file.to_owned(), line, problem: problem.to_owned(), fix }
    }
}

/// Key and value of a probe's handler, and whether they are in flow style.
fn handler_of<'n>(spec: &'n Node, probe: &Probe, handler: &str) -> Option<(&'n Node, &'n Node, bool)> {
    let containers = ["initContainers", "containers"].into_iter().filter_map(|field| spec.get(field));
    let is_it = |node: &&Node| node.get("name").and_then(Node::text) == Some(probe.container.as_str());
    let container = containers.flat_map(Node::items).find(is_it)?;
    let found = container.get(probe.kind.field())?;
    let (key, value) = found.entry(handler)?;
    Some((key, value, found.is_flow()))
}
