//! Prometheus text as a proxy prints it, parsed into values. Lines that are none are passed over: a newer proxy may
//! print what this release does not know.

use std::collections::BTreeMap;

/// One reading of one series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }
}

type SeriesKey = (String, BTreeMap<String, String>);

/// All readings of one proxy at one time.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Samples(BTreeMap<SeriesKey, f64>);

impl Samples {
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(parse_line).map(|sample| ((sample.name, sample.labels), sample.value)).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Sample> {
        self.0.iter().map(|((name, labels), value)| Sample {
            name: name.clone(),
            labels: labels.clone(),
            value: *value,
        })
    }

    /// The value of the same series in this reading.
    pub(crate) fn value(&self, sample: &Sample) -> Option<f64> {
        self.0.get(&(sample.name.clone(), sample.labels.clone())).copied()
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Reads `name="value",…}`; returns what follows the brace.
fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = &after[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_with_their_labels() {
        let samples = Samples::parse(concat!(
            "# HELP a b\n# TYPE a counter\n",
            "a_total{x=\"1\",y=\"quote \\\" slash \\\\ line \\n end\"} 2.5 1700000000\n",
            "plain 3\n",
            "broken{x=\"1\n",
            "nonsense\n",
            "nan_value{} abc\n",
        ));
        let all: Vec<Sample> = samples.iter().collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].label("y"), Some("quote \" slash \\ line \n end"));
        assert_eq!((all[0].value, all[1].value), (2.5, 3.0));
    }

    proptest::proptest! {
        #[test]
        fn foreign_text_never_panics(text in ".*") {
            let _ = Samples::parse(&text);
        }
    }
}
