//! What of a kind the index has been told, and what an object from the API means beside that. Pure.
//!
//! Kept per object are its name, uid and version and nothing else: enough to pass over what has not changed and to find
//! out, at the end of a list, what is gone.

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;

use super::request;
use crate::source::{Kind, Object, ObjectRef, manifest};

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Known {
    kind: Kind,
    objects: HashMap<ObjectRef, Seen>,
    /// Counts lists.
    list: u64,
    /// Whether the list has an object of which it cannot be told which one it is.
    nameless: bool,
}

#[derive(Debug)]
struct Seen {
    uid: String,
    version: String,
    list: u64,
    /// Whether a version of it could be read.
    good: bool,
}

/// What an object means beside what is known.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    /// Nothing new.
    Unchanged,
    /// It is new or different.
    Changed(Arc<Object>),
    /// It cannot be read. What it was before stays in force, unless that was another object of the same name.
    Unreadable {
        /// Which.
        object: ObjectRef,
        /// Why, on one line, and what is in force.
        reason: String,
        /// What is to be put in force now.
        instead: Instead,
    },
    /// It has no name.
    Nameless,
}

/// What is to be put in force in place of an object that cannot be read.
#[derive(Debug, PartialEq)]
pub(super) enum Instead {
    /// It stays as it was.
    Before,
    /// This stands in.
    StandIn(Arc<Object>),
    /// Nothing: what was there under that name was another object.
    Nothing,
}

impl Known {
    /// Nothing of `kind` yet.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, objects: HashMap::new(), list: 0, nameless: false }
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// A list begins. One that does not come to its end has no consequence.
    pub(super) fn begin_list(&mut self) {
        self.list += 1;
        self.nameless = false;
    }

    /// The list is complete: forgets what was not in it, and says what that is.
    pub(super) fn end_list(&mut self) -> Vec<ObjectRef> {
        if self.nameless {
            return Vec::new();
        }
        let list = self.list;
        let gone = self.objects.extract_if(|_, seen| seen.list != list);
        gone.map(|(object, _)| object).collect()
    }

    /// Takes note of an object.
    pub(super) fn receive(&mut self, mut value: Value) -> Received {
        let Some(object_ref) = self.object_ref(&value) else {
            self.nameless = true;
            return Received::Nameless;
        };
        let uid = value.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let version = request::version(&value).unwrap_or_default().to_owned();
        let mut seen = Seen { uid, version, list: self.list, good: false };
        if let Some(before) = self.objects.get_mut(&object_ref).filter(|before| before.uid == seen.uid) {
            if before.version == seen.version && !seen.version.is_empty() {
                before.list = self.list;
                return Received::Unchanged;
            }
            seen.good = before.good;
        }
        strip(&mut value);
        let received = match manifest::object(&object_ref, &value) {
            Ok(object) => {
                seen.good = true;
                Received::Changed(Arc::new(object))
            }
            Err(mut mistake) => {
                let instead = match mistake.make_do(seen.good) {
                    Some(stand_in) => Instead::StandIn(stand_in),
                    None if seen.good => Instead::Before,
                    None => Instead::Nothing,
                };
                Received::Unreadable { object: object_ref.clone(), reason: mistake.reason, instead }
            }
        };
        self.objects.insert(object_ref, seen);
        received
    }

    /// Forgets an object that is gone, and says which one that is.
    pub(super) fn forget(&mut self, value: &Value) -> Option<ObjectRef> {
        let object_ref = self.object_ref(value)?;
        self.objects.remove(&object_ref);
        Some(object_ref)
    }

    fn object_ref(&self, value: &Value) -> Option<ObjectRef> {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
        let namespace = if self.kind == Kind::Namespace { "" } else { text("/metadata/namespace")? };
        Some(ObjectRef { kind: self.kind, namespace: namespace.into(), name: text("/metadata/name")?.into() })
    }
}

/// Removes what nobody reads and what is often most of an object.
fn strip(value: &mut Value) {
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, version: &str) -> Value {
        json!({ "metadata": { "namespace": "shop", "name": name, "uid": uid, "resourceVersion": version } })
    }

    fn broken(name: &str, uid: &str, version: &str) -> Value {
        let mut pod = pod(name, uid, version);
        pod["spec"] = json!({ "containers": "none" });
        pod
    }

    fn names(gone: Vec<ObjectRef>) -> Vec<String> {
        let mut names: Vec<String> = gone.into_iter().map(|object| object.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_object_is_read_when_its_version_or_uid_is_another() {
        let mut known = Known::new(Kind::Pod);
        for (object, changed) in [
            (pod("a", "u1", "1"), true),
            (pod("a", "u1", "1"), false),
            (pod("a", "u1", "2"), true),
            (pod("a", "u2", "2"), true),
            (pod("b", "u3", "2"), true),
        ] {
            assert_eq!(matches!(known.receive(object.clone()), Received::Changed(_)), changed, "{object}");
        }
    }

    #[test]
    fn only_the_end_of_a_list_withdraws() {
        let mut known = Known::new(Kind::Pod);
        known.begin_list();
        known.receive(pod("a", "u1", "1"));
        known.receive(pod("b", "u2", "1"));
        assert!(known.end_list().is_empty());
        known.begin_list();
        known.receive(pod("b", "u2", "1"));
        // Broken off, begun anew.
        known.begin_list();
        known.receive(pod("c", "u3", "2"));
        known.receive(pod("a", "u1", "1"));
        assert_eq!(names(known.end_list()), ["Pod shop/b"]);
        known.begin_list();
        assert_eq!(names(known.end_list()), ["Pod shop/a", "Pod shop/c"]);
        assert!(known.is_empty());
    }

    #[test]
    fn a_list_with_an_object_that_cannot_be_told_withdraws_nothing() {
        let mut known = Known::new(Kind::Pod);
        known.receive(pod("a", "u1", "1"));
        known.begin_list();
        assert_eq!(known.receive(json!({ "metadata": { "name": "a" } })), Received::Nameless);
        assert!(known.end_list().is_empty());
        known.begin_list();
        assert_eq!(names(known.end_list()), ["Pod shop/a"]);
    }

    #[test]
    fn an_object_that_cannot_be_read_hides_only_itself() {
        let mut known = Known::new(Kind::Pod);
        known.receive(pod("a", "u1", "1"));
        let Received::Unreadable { object, reason, instead } = known.receive(broken("a", "u1", "2")) else {
            panic!("read")
        };
        assert_eq!((object.to_string().as_str(), instead), ("Pod shop/a", Instead::Before));
        assert!(reason.contains("sequence") && reason.ends_with("stays in force"), "{reason}");
        // Another pod of that name: nothing is known of it but that it must not be taken for one outside the mesh.
        let Received::Unreadable { instead: Instead::StandIn(stand_in), .. } = known.receive(broken("a", "u2", "3"))
        else {
            panic!("read")
        };
        assert_eq!(stand_in.object_ref(), object);
        assert_eq!(known.receive(broken("a", "u2", "3")), Received::Unchanged);
        assert!(matches!(known.receive(pod("a", "u2", "4")), Received::Changed(_)));
    }

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let mut object = pod("a", "u1", "1");
        object["metadata"]["managedFields"] = json!([{ "manager": "kubectl" }]);
        object["metadata"]["annotations"] =
            json!({ "kubectl.kubernetes.io/last-applied-configuration": "{}", "meshctl.dev/opaque-ports": "1" });
        let Received::Changed(read) = Known::new(Kind::Pod).receive(object) else { panic!("not read") };
        let Object::Pod(pod) = &*read else { panic!("not a pod") };
        assert_eq!(pod.metadata.managed_fields, None);
        assert_eq!(pod.metadata.annotations.as_ref().unwrap().len(), 1);
    }
}
