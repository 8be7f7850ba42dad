//! The hook that has a container's end wait (`drain`), written into the text of the container and taken out of it.
//!
//! A part of `edit`, by whose rules what is inserted is told from what was there.

use serde_json::{Value, json};

use super::{Edit, Source};
use crate::{
    drain,
    manifest::{
        ManifestError, emit,
        tree::{Kind, Node},
    },
};

impl Source<'_> {
    /// The hook that has a container's end wait. One whose form leaves no place for it goes without.
    pub(super) fn insert_hook(&self, container: &Node, hook: &Value) -> Option<Edit> {
        if !drain::may_have(&container.value()) {
            return None;
        }
        let entry = json!({"preStop": hook});
        let mut lines = Vec::new();
        match (container.entry("lifecycle"), container.is_flow()) {
            (None, true) => {
                let flow = emit::flow(&json!({"lifecycle": entry}));
                self.insert_flow(container, &flow[1..flow.len() - 1], ['{', '}']).ok()
            }
            (None, false) => {
                let (name, _) = container.entry("name")?;
                emit::block(&json!({"lifecycle": entry}), self.first_column(container), &mut lines);
                Some(self.insert_lines(name, &lines))
            }
            // What was there and empty could not be told from what was absent.
            (Some(_), true) => None,
            (Some((key, lifecycle @ Node { kind: Kind::Map(entries, false), .. })), false) if !entries.is_empty() => {
                emit::block(&entry, self.first_column(lifecycle), &mut lines);
                Some(self.insert_lines(key, &lines))
            }
            (Some((_, lifecycle)), false) => {
                let flow = emit::flow(&entry);
                self.insert_flow(lifecycle, &flow[1..flow.len() - 1], ['{', '}']).ok()
            }
        }
    }

    /// Its inverse.
    pub(super) fn remove_hook(&self, container: &Node, edits: &mut Vec<Edit>) -> Result<(), ManifestError> {
        let Some((key, lifecycle)) = container.entry("lifecycle") else { return Ok(()) };
        let Kind::Map(hooks, flow) = &lifecycle.kind else { return Ok(()) };
        let is_ours = |(key, hook): &(Node, Node)| key.text() == Some("preStop") && drain::is_ours(&hook.value());
        match &container.kind {
            Kind::Map(fields, true) if !hooks.is_empty() && hooks.iter().all(is_ours) => {
                let ours = |key: &Node| key.text() == Some("lifecycle");
                let entries: Vec<_> = fields.iter().map(|(key, value)| (key.start, value.end, ours(key))).collect();
                self.remove(key, container, &entries, true, edits)
            }
            _ => {
                let entries: Vec<_> = hooks.iter().map(|hook| (hook.0.start, hook.1.end, is_ours(hook))).collect();
                self.remove(key, lifecycle, &entries, *flow, edits)
            }
        }
    }
}
