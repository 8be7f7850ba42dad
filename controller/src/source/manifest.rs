//! Text of a manifest file -> objects and mistakes. Pure; called by [`super::dir`], and by [`super::kube`] for objects
//! that come one by one.
//!
//! Documents are independent: a mistake in one leaves the others alone. What a mistake means for what is in force is
//! decided in [`super::stand_in`]. It does not know what the objects mean.

mod place;
mod text;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use self::text::{Fault, documents, read, read_kind, read_leniently, value_kind};
use super::{
    Kind, Object, ObjectRef,
    stand_in::{StandIn, stand_in},
};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One or more documents.
    Yaml,
    /// One document.
    Json,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Manifest {
    /// Objects of kinds that are read, in order, with their lines.
    pub objects: Vec<(u64, Arc<Object>)>,
    /// What could not be read.
    pub mistakes: Vec<Mistake>,
}

/// A document, or an item of a list, that could not be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// Line in the file, from 1.
    pub line: u64,
    /// What is wrong, on one line.
    pub reason: String,
    /// The object it was meant to be, where that much can be told.
    pub object: Option<ObjectRef>,
    /// What is in force where there is no good version.
    pub stand_in: Option<Arc<Object>>,
    /// What it means in a sentence that there is no good version.
    pub means: Option<&'static str>,
}

impl Mistake {
    /// Of which it is not known what it hides.
    pub fn new(line: u64, reason: String) -> Self {
        Self { line, reason, object: None, stand_in: None, means: None }
    }

    /// That hides `object`, of which this could be read.
    fn hiding(line: u64, reason: String, object: ObjectRef, read: &Value) -> Self {
        let (stand_in, means) = match stand_in(&object, read) {
            Ok(Some(StandIn { object, means })) => (Some(Arc::new(object)), Some(means)),
            Ok(None) => (None, None),
            Err(means) => (None, Some(means)),
        };
        Self { line, reason, object: Some(object), stand_in, means }
    }

    /// Decides what is in force, where there is a `good` version from before or where there is none, and says so in
    /// the reason. Gives what must be put in force now, if anything.
    pub(super) fn make_do(&mut self, good: bool) -> Option<Arc<Object>> {
        let means = if good { "the version before stays in force" } else { self.means? };
        if self.means.is_some() {
            self.reason = format!("{}; {means}", self.reason);
        }
        self.stand_in.clone().filter(|_| !good)
    }
}

/// Reads one object of a kind that is known, as an API server sends it: both sources take and refuse the same.
pub(super) fn object(object_ref: &ObjectRef, value: &Value) -> Result<Object, Mistake> {
    let read = read_object(object_ref, |kind| value_kind(kind, value));
    read.map_err(|fault| Mistake::hiding(1, fault.reason, object_ref.clone(), value))
}

/// Most documents of a file, and items of a list.
const MOST_DOCUMENTS: usize = 10_000;

/// Reads a file. Kinds that are none of ours are passed over, and reported only if their group is ours.
pub fn parse(text: &str, format: Format) -> Manifest {
    let mut manifest = Manifest::default();
    match format {
        Format::Json => read_document(text, 1, format, &mut manifest),
        Format::Yaml => {
            let documents = documents(text);
            if documents.len() > MOST_DOCUMENTS {
                let reason = format!("{} documents are more than {MOST_DOCUMENTS}: split the file", documents.len());
                manifest.mistakes.push(Mistake::new(1, reason));
                return manifest;
            }
            for (line, document) in documents {
                read_document(document, line, format, &mut manifest);
            }
        }
    }
    manifest
}

/// Enough of an object to tell what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Value>,
}

/// What the header of a document says it is.
enum Class {
    Ours(Kind),
    List,
    Foreign,
}

fn read_document(text: &str, first_line: u64, format: Format, manifest: &mut Manifest) {
    let line = |fault: &Fault| first_line + fault.line - 1;
    let header = match read_leniently::<Option<Header>>(text, format) {
        Ok(None) => return,
        Ok(Some(header)) => header,
        Err(fault) => return manifest.mistakes.push(Mistake::new(line(&fault), fault.reason)),
    };
    match classify(&header) {
        Ok(Class::Foreign) => {}
        Ok(Class::List) => match read::<List>(text, format) {
            Ok(list) if list.items.len() > MOST_DOCUMENTS => {
                let reason = format!("{} items are more than {MOST_DOCUMENTS}: split the list", list.items.len());
                manifest.mistakes.push(Mistake::new(first_line, reason));
            }
            Ok(list) => {
                for (place, item) in list.items.into_iter().enumerate() {
                    read_item(item, place, first_line, manifest);
                }
            }
            Err(fault) => manifest.mistakes.push(Mistake::new(line(&fault), fault.reason)),
        },
        Ok(Class::Ours(kind)) => match name(kind, &header.metadata) {
            Ok(object_ref) => match read_object(&object_ref, |kind| read_kind(kind, text, format)) {
                Ok(object) => manifest.objects.push((first_line, Arc::new(object))),
                Err(fault) => {
                    let read = read_leniently(text, format).unwrap_or_default();
                    manifest.mistakes.push(Mistake::hiding(line(&fault), fault.reason, object_ref, &read));
                }
            },
            Err(reason) => manifest.mistakes.push(Mistake::new(first_line, reason)),
        },
        Err(reason) => manifest.mistakes.push(Mistake::new(first_line, reason)),
    }
}

fn read_item(item: Value, place: usize, line: u64, manifest: &mut Manifest) {
    let place = |reason: &str| format!("items[{place}]: {reason}");
    let header = match Header::deserialize(&item) {
        Ok(header) => header,
        Err(error) => return manifest.mistakes.push(Mistake::new(line, place(&error.to_string()))),
    };
    match classify(&header) {
        Ok(Class::Foreign) => {}
        Ok(Class::List) => manifest.mistakes.push(Mistake::new(line, place("a list within a list is not read"))),
        Ok(Class::Ours(kind)) => match name(kind, &header.metadata) {
            Ok(object_ref) => match read_object(&object_ref, |kind| value_kind(kind, &item)) {
                Ok(object) => manifest.objects.push((line, Arc::new(object))),
                Err(fault) => {
                    manifest.mistakes.push(Mistake::hiding(line, place(&fault.reason), object_ref, &item));
                }
            },
            Err(reason) => manifest.mistakes.push(Mistake::new(line, place(&reason))),
        },
        Err(reason) => manifest.mistakes.push(Mistake::new(line, place(&reason))),
    }
}

/// Group, version and kind of what is read.
const READ: [(&str, &str, Kind); 6] = [
    ("", "v1", Kind::Namespace),
    ("", "v1", Kind::Pod),
    ("", "v1", Kind::Service),
    ("discovery.k8s.io", "v1", Kind::EndpointSlice),
    ("gateway.networking.k8s.io", "v1", Kind::HttpRoute),
    (mesh_proto::names::GROUP, "v1alpha1", Kind::AuthorizationPolicy),
];

fn classify(header: &Header) -> Result<Class, String> {
    let (api_version, kind) = (header.api_version.as_str(), header.kind.as_str());
    if kind.is_empty() || api_version.is_empty() {
        return Err("no apiVersion or no kind: not a Kubernetes object".into());
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if kind == "List" || READ.iter().any(|row| row.0 == group && kind.strip_suffix("List") == Some(row.2.as_str())) {
        return Ok(Class::List);
    }
    match READ.iter().find(|row| row.0 == group && row.2.as_str() == kind) {
        Some(row) if row.1 == version => Ok(Class::Ours(row.2)),
        Some(row) => Err(format!("{kind} is read in version {}, not {version:?}", row.1)),
        None if group == mesh_proto::names::GROUP => Err(format!("{kind} is not a kind of {group}/{version}")),
        None => Ok(Class::Foreign),
    }
}

fn name(kind: Kind, metadata: &Metadata) -> Result<ObjectRef, String> {
    let name = metadata.name.as_deref().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| format!("{} without metadata.name", kind.as_str()))?;
    let namespace = if kind == Kind::Namespace { "" } else { metadata.namespace.as_deref().unwrap_or("default") };
    for (field, text) in [("name", name), ("namespace", namespace)] {
        // A Namespace is in none.
        let none = text.is_empty() && field == "namespace" && kind == Kind::Namespace;
        if !none && !is_name(text) {
            let text: String = text.chars().take(64).collect();
            return Err(format!("metadata.{field}: {text:?} is not a name: at most 253 of a-z, 0-9, '-' and '.'"));
        }
    }
    Ok(ObjectRef { kind, namespace: namespace.into(), name: name.into() })
}

/// Whether an API server would take it for a name.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    !text.is_empty() && text.len() <= 253 && text.bytes().all(plain)
}

/// Reads an object and gives it the namespace that a client would: `default` where none is written.
fn read_object(object_ref: &ObjectRef, read: impl FnOnce(Kind) -> Result<Object, Fault>) -> Result<Object, Fault> {
    let mut object = read(object_ref.kind)?;
    let namespace = match &mut object {
        Object::Namespace(_) => return Ok(object),
        Object::Pod(object) => &mut object.metadata.namespace,
        Object::Service(object) => &mut object.metadata.namespace,
        Object::EndpointSlice(object) => &mut object.metadata.namespace,
        Object::HttpRoute(object) => &mut object.metadata.namespace,
        Object::AuthorizationPolicy(object) => &mut object.metadata.namespace,
    };
    *namespace = Some(object_ref.namespace.to_string());
    Ok(object)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Depth, aliases and sizes that would take a naive reader's stack or memory.
    #[test]
    fn hostile_documents_are_mistakes() {
        let head = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\nspec: ";
        let bomb: String = (1..30).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}]\n", n - 1)).collect();
        for text in [
            "[".repeat(100_000),
            "{a: ".repeat(100_000),
            format!("{head}{}", "[".repeat(100_000)),
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: a}}\na0: &a0 [x]\n{bomb}"),
        ] {
            let manifest = parse(&text, Format::Yaml);
            assert_eq!((manifest.objects.len(), manifest.mistakes.len()), (0, 1), "{text:.60}");
        }
        let json = parse(&"[".repeat(100_000), Format::Json);
        assert_eq!((json.objects.len(), json.mistakes.len()), (0, 1));
    }

    proptest! {
        #[test]
        fn foreign_text_never_panics(text in ".{0,400}", kind in "[A-Za-z]{0,12}") {
            parse(&text, Format::Yaml);
            parse(&text, Format::Json);
            parse(&format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {text}"), Format::Yaml);
        }
    }
}
