//! Fields of a policy as they are written: what is there says something.
//!
//! `from:` with nothing below it is what is left when its last entry is commented out or a template yields none. Read
//! as "absent" it would mean every client, so null and empty lists are refused here, in YAML and JSON alike, with the
//! field's name and the way out. Called by serde for [`super`]; it does not know what the fields mean.

use std::{collections::BTreeMap, fmt::Display};

use serde::{Deserialize, Deserializer, de::Error};

use super::{PodSelector, PolicySource, TargetRef};

pub(super) fn target_refs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TargetRef>, D::Error> {
    list(deserializer, "targetRefs", "name what the policy protects, or leave the field out for the whole namespace")
}

pub(super) fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u16>, D::Error> {
    let ports: Vec<u16> = list(deserializer, "ports", "name the ports, or leave the field out for all of them")?;
    if ports.contains(&0) {
        return Err(D::Error::custom("`ports`: 0 is not a port"));
    }
    Ok(ports)
}

pub(super) fn from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PolicySource>, D::Error> {
    let fix = "name clients below it, or leave the field out for everyone";
    let from: Vec<PolicySource> = list(deserializer, "from", fix)?;
    match from.iter().position(|source| *source == PolicySource::default()) {
        Some(place) => Err(empty("from", format_args!("[{place}] names no client"), fix)),
        None => Ok(from),
    }
}

pub(super) fn service_accounts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, "serviceAccounts", "name accounts, or leave the field out")
}

pub(super) fn namespaces<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, "namespaces", "name namespaces, or leave the field out")
}

pub(super) fn identities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, "identities", "name identities, or leave the field out")
}

pub(super) fn selector<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PodSelector>, D::Error> {
    let fix = "write matchLabels below it, or leave the field out for the whole namespace";
    let selector = Option::<PodSelector>::deserialize(deserializer)?;
    selector.map(Some).ok_or_else(|| empty("selector", " has no value", fix))
}

pub(super) fn match_labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let fix = "write labels below it, or leave the field out for every pod";
    let labels = Option::<BTreeMap<String, Option<String>>>::deserialize(deserializer)?;
    let labels = labels.ok_or_else(|| empty("matchLabels", " has no value", fix))?;
    let with_value = |(name, value): (String, Option<String>)| match value {
        Some(value) => Ok((name, value)),
        None => Err(D::Error::custom(format_args!("`matchLabels`: the label {name:?} has no value; write one"))),
    };
    labels.into_iter().map(with_value).collect()
}

/// A list with something in it.
fn list<'de, D, T>(deserializer: D, field: &str, fix: &str) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let written = Option::<Vec<Option<T>>>::deserialize(deserializer)?;
    let written = written.ok_or_else(|| empty(field, " has no value", fix))?;
    if written.is_empty() {
        return Err(empty(field, " is an empty list", fix));
    }
    let entry = |(place, entry): (usize, Option<T>)| {
        entry.ok_or_else(|| empty(field, format_args!("[{place}] has no value"), fix))
    };
    written.into_iter().enumerate().map(entry).collect()
}

fn empty<E: Error>(field: &str, what: impl Display, fix: &str) -> E {
    E::custom(format_args!("`{field}`{what}: {fix}"))
}
