//! Where in a YAML text a field is: its path -> its line. Pure; asked only once a document has turned out to be wrong.
//!
//! Documents are read as values, and values do not know their lines. A reader of YAML for each type that there is in a Pod would,
//! but those were a quarter of the program.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_path_to_error::{Path, Segment};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

/// The line of the field at a path, or of the nearest one around it that is there; 1 where the text cannot be read at all.
pub(super) fn line(text: &str, path: &Path) -> u64 {
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    let Ok(root) = serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, options) else { return 1 };
    let mut at = &root;
    for segment in path {
        let next = match (segment, &at.value) {
            (Segment::Map { key }, Tree::Map(fields)) => {
                fields.iter().rfind(|(name, _)| name == key).map(|(_, field)| field)
            }
            (Segment::Seq { index }, Tree::Seq(items)) => items.get(*index),
            _ => None,
        };
        let Some(next) = next else { break };
        at = next;
    }
    at.referenced.line().max(1)
}

/// A document as nothing but the places of its fields.
enum Tree {
    Map(Vec<(String, Spanned<Self>)>),
    Seq(Vec<Spanned<Self>>),
    Leaf,
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

struct Shape;

impl<'de> Visitor<'de> for Shape {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Tree::Map(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::Seq(items))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Tree::Leaf)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }
}
