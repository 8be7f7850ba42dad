//! JSON values as YAML text: block style for lines of their own, flow style within a line.
//!
//! Only for what the injector itself adds; what a person wrote is never printed again.

use serde_json::Value;

/// The items of a list as block lines, each starting with a dash at this column.
pub(super) fn items(values: &[Value], column: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for value in values {
        let first = lines.len();
        block(value, column + 2, &mut lines);
        lines[first].replace_range(column..=column, "-");
    }
    lines
}

/// The entries of a map as block lines at this column.
pub(super) fn block(value: &Value, column: usize, lines: &mut Vec<String>) {
    let indent = " ".repeat(column);
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                let key = scalar(key);
                match value {
                    Value::Object(map) if !map.is_empty() => {
                        lines.push(format!("{indent}{key}:"));
                        block(value, column + 2, lines);
                    }
                    Value::Array(list) if !list.is_empty() && list.iter().any(|item| !item.is_string()) => {
                        lines.push(format!("{indent}{key}:"));
                        lines.extend(items(list, column));
                    }
                    Value::String(text) if text.contains('\n') => {
                        // Keeps exactly the final newlines that there are.
                        let chomp = if text.ends_with('\n') { "+" } else { "-" };
                        lines.push(format!("{indent}{key}: |{chomp}"));
                        lines.extend(text.lines().map(|line| format!("{indent}  {line}")));
                    }
                    value => lines.push(format!("{indent}{key}: {}", flow(value))),
                }
            }
        }
        value => lines.push(format!("{indent}{}", flow(value))),
    }
}

/// A value within a line.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{}: {}", scalar(key), flow(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A string, quoted unless it is a plain word that cannot be anything else.
fn scalar(text: &str) -> String {
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let special = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if word && !special.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else if text.chars().any(char::is_control) {
        Value::String(text.to_owned()).to_string()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_printed_reads_back_as_the_same_value() {
        let value = json!({
            "a": "x", "b": "true", "c": "1", "d": "", "e": "it's: #", "f": "l1\nl2\n", "g": "l1\nl2", "h": [], "i": {},
            "j": ["a", "no"], "k": [{"name": "n", "v": {"w": [1, true, null]}}, {"name": "m"}], "l/m.n": "$(X)", "o": "\t",
        });
        let mut lines = Vec::new();
        block(&value, 0, &mut lines);
        let text = lines.join("\n") + "\n";
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
        assert_eq!(serde_saphyr::from_str::<Value>(&flow(&value)).unwrap(), value, "{}", flow(&value));
    }
}
