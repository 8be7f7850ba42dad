//! The difference of two JSON values as a JSON patch (RFC 6902).
//!
//! Called by `review`. Knows nothing of pods but that Kubernetes' lists hold objects told apart by `name`: there a new first
//! element is one `add`, where a comparison by position (as `json_patch::diff` makes it) would replace all that follow.

use json_patch::{
    AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation,
    jsonptr::{Pointer, PointerBuf},
};
use serde_json::Value;

/// The operations that turn `before` into `after`.
pub fn diff(before: &Value, after: &Value) -> Patch {
    let mut operations = Vec::new();
    compare(before, after, &mut PointerBuf::new(), &mut operations);
    Patch(operations)
}

fn compare(before: &Value, after: &Value, path: &mut PointerBuf, out: &mut Vec<PatchOperation>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => {
            for key in before.keys().filter(|key| !after.contains_key(*key)) {
                out.push(remove(path, key));
            }
            for (key, after) in after {
                match before.get(key) {
                    Some(before) => within(path, key, |path| compare(before, after, path, out)),
                    None => out.push(add(path, key, after)),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if keeps_order(before, after) => {
            named_lists(before, after, path, out);
        }
        _ => out.push(PatchOperation::Replace(ReplaceOperation { path: path.clone(), value: after.clone() })),
    }
}

/// Removes from the end, so that no index shifts; then walks along `after`.
fn named_lists(before: &[Value], after: &[Value], path: &mut PointerBuf, out: &mut Vec<PatchOperation>) {
    let mut left: Vec<&Value> = Vec::new();
    for (index, element) in before.iter().enumerate().rev() {
        if after.iter().any(|other| name(other) == name(element)) {
            left.insert(0, element);
        } else {
            out.push(remove(path, &index.to_string()));
        }
    }
    let mut left = left.into_iter().peekable();
    for (index, element) in after.iter().enumerate() {
        let index = index.to_string();
        match left.next_if(|other| name(other) == name(element)) {
            Some(other) => within(path, &index, |path| compare(other, element, path, out)),
            None => out.push(add(path, &index, element)),
        }
    }
}

/// Whether both lists have distinct names throughout, and those in both are in the same order.
fn keeps_order(before: &[Value], after: &[Value]) -> bool {
    let distinct = |list: &[Value]| {
        let mut names: Vec<_> = list.iter().map(name).collect();
        names.sort_unstable();
        names.first() != Some(&None) && names.windows(2).all(|pair| pair[0] != pair[1])
    };
    let common = |list: &[Value], other: &[Value]| -> Vec<String> {
        let names = list.iter().filter_map(name).map(str::to_owned);
        names.filter(|wanted| other.iter().filter_map(name).any(|name| name == wanted)).collect()
    };
    distinct(before) && distinct(after) && common(before, after) == common(after, before)
}

fn name(element: &Value) -> Option<&str> {
    element.get("name").and_then(Value::as_str)
}

fn add(path: &Pointer, token: &str, value: &Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: path.with_trailing_token(token), value: value.clone() })
}

fn remove(path: &Pointer, token: &str) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path: path.with_trailing_token(token) })
}

fn within(path: &mut PointerBuf, token: &str, act: impl FnOnce(&mut PointerBuf)) {
    path.push_back(token);
    act(path);
    path.pop_back();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_patch_turns_before_into_after_with_as_few_operations_as_there_are_changes() {
        let n = |name: &str| json!({"name": name, "x": 1});
        for (before, after, operations) in [
            (json!({}), json!({}), 0),
            (json!({"a": 1}), json!({"b": 2}), 2),
            (json!({"a/b~c": 1}), json!({"a/b~c": 2}), 1),
            (json!([n("a"), n("b")]), json!([n("p"), n("r"), n("a"), n("b")]), 2),
            (json!([n("p"), n("a"), n("r"), n("b")]), json!([n("a"), n("b")]), 2),
            (json!([n("a"), n("b")]), json!([n("p"), {"name": "a", "x": 2}, n("b"), n("z")]), 3),
            (json!([n("a"), n("b")]), json!([n("b"), n("a")]), 1),
            (json!([n("a"), n("a")]), json!([n("a")]), 1),
            (json!([1, 2]), json!([0, 1, 2]), 1),
            (json!({"a": [n("x")]}), json!({"a": null}), 1),
        ] {
            let patch = diff(&before, &after);
            assert_eq!(patch.0.len(), operations, "{before} -> {after}: {patch}");
            let mut patched = before.clone();
            json_patch::patch(&mut patched, &patch).expect("applies");
            assert_eq!(patched, after);
        }
    }
}
