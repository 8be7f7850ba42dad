//! What fills the placeholders of the manifest: the defaults of `deploy/values.yaml`, and what users say instead. Pure; called
//! by the commands that render the manifest. What the values mean there is not known here, only what they may be.

use std::collections::BTreeMap;

use clap::ValueEnum;
use mesh_proto::{identity::is_trust_domain, inbound::DefaultPolicy};

use super::{DEFAULTS, TEMPLATES, When};

/// What fills the placeholders, by path (`injector.failurePolicy`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Values(BTreeMap<String, String>);

/// Who may connect where nothing else is said, by a name that says why one would want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Everybody, meshed or not: nothing breaks on the day of the installation
    Permissive,
    /// Only meshed pods, whoever they are
    Authenticated,
    /// Nobody whom no AuthorizationPolicy lets in
    Deny,
}

/// What an installation says of the values that it was made with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// For this release.
    pub(crate) values: Values,
    /// Keys that this release has no value for.
    pub(crate) unknown: Vec<String>,
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValuesError {
    /// `--set` without an equals sign.
    #[error("--set {0:?} is not KEY=VALUE")]
    NotAPair(String),
    /// A file of values is none.
    #[error("not a file of values: {0}")]
    NotRead(String),
    /// No template knows the key.
    #[error("there is no value {key:?}{}", .near.as_ref().map(|near| format!("; did you mean {near:?}?")).unwrap_or_default())]
    Unknown {
        /// What was given.
        key: String,
        /// The key that is nearest to it.
        near: Option<String>,
    },
    /// Not a value of the key's kind.
    #[error("value of {key}: {value:?} is not {expected}")]
    Invalid {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
}

impl Values {
    /// The values of `deploy/values.yaml` for this release.
    pub(crate) fn defaults() -> Self {
        let text = DEFAULTS.replace("${version}", env!("CARGO_PKG_VERSION"));
        let tree: serde_json::Value = serde_saphyr::from_str(&text).expect("deploy/values.yaml is checked by a test");
        let mut values = BTreeMap::new();
        flatten("", &tree, &mut values);
        Self(values)
    }

    /// What can be set.
    pub(crate) fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).filter(|key| *key != "version").collect()
    }

    /// With one value changed.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Result<Self, ValuesError> {
        let Some(slot) = self.0.get_mut(key) else {
            return Err(ValuesError::Unknown { key: key.to_owned(), near: nearest(key, self.0.keys()) });
        };
        expected(key, value).map_err(|expected| ValuesError::Invalid {
            key: key.to_owned(),
            value: value.to_owned(),
            expected,
        })?;
        value.clone_into(slot);
        Ok(self)
    }

    /// With all that is in a file like `deploy/values.yaml`; what it does not name stays.
    pub(crate) fn file(self, text: &str) -> Result<Self, ValuesError> {
        // A copy of the defaults is a file of values too.
        let values = leaves(&text.replace("${version}", env!("CARGO_PKG_VERSION")))?;
        values.iter().try_fold(self, |all, (key, value)| all.set(key, value))
    }

    /// The values that an installation of `release` was made with, as the manifest records them. An image with the tag of that
    /// release becomes the one of this release; what has another tag was chosen by somebody, and stays.
    pub(crate) fn recorded(text: &str, release: &str) -> Result<Recorded, ValuesError> {
        let mut recorded = Recorded { values: Self::defaults(), unknown: Vec::new() };
        for (key, value) in leaves(text)? {
            let image = value.strip_suffix(release).filter(|name| is_image(&key) && name.ends_with(':'));
            let value = image.map_or_else(|| value.clone(), |name| format!("{name}{}", env!("CARGO_PKG_VERSION")));
            if recorded.values.find(&key).is_some() {
                recorded.values = recorded.values.set(&key, &value)?;
            } else {
                recorded.unknown.push(key);
            }
        }
        Ok(recorded)
    }

    /// Images that are not those of this release, by key.
    pub(crate) fn other_images(&self) -> impl Iterator<Item = (&str, &str)> {
        let images = self.0.iter().filter(|(key, _)| is_image(key));
        let other = images.filter(|(_, image)| !image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))));
        other.map(|(key, image)| (key.as_str(), image.as_str()))
    }

    /// For clusters whose pods must not start without the mesh, whatever node is lost. Pods that are asked to keep apart and
    /// budgets for their disruption are always there.
    #[must_use]
    pub(crate) fn highly_available(mut self) -> Self {
        for (key, value) in
            [("controller.replicas", "3"), ("injector.replicas", "3"), ("injector.failurePolicy", "Fail")]
        {
            self.0.insert(key.to_owned(), value.to_owned());
        }
        self
    }

    /// With the policy of a profile.
    #[must_use]
    pub(crate) fn profile(mut self, profile: Profile) -> Self {
        let policy = match profile {
            Profile::Permissive => DefaultPolicy::Allow,
            Profile::Authenticated => DefaultPolicy::Authenticated,
            Profile::Deny => DefaultPolicy::Deny,
        };
        self.0.insert("defaultPolicy".to_owned(), policy.as_str().to_owned());
        self
    }

    /// With every part that there may be: what an uninstallation looks for.
    pub(crate) fn of_every_part() -> Self {
        let mut values = Self::defaults();
        for template in &TEMPLATES {
            let (key, value) = match template.when {
                When::Always => continue,
                When::True(key) => (key, "true"),
                When::Several(key) => (key, "2"),
            };
            values.0.insert(key.to_owned(), value.to_owned());
        }
        values
    }

    /// One value.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.find(key).unwrap_or_default()
    }

    /// One value, if there is one of that name.
    pub(super) fn find(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The names of all of them.
    #[cfg(test)]
    pub(super) fn into_keys(self) -> impl Iterator<Item = String> {
        self.0.into_keys()
    }

    /// With `KEY=VALUE` pairs as written on the command line.
    pub(crate) fn set_all<'a>(self, pairs: impl IntoIterator<Item = &'a String>) -> Result<Self, ValuesError> {
        pairs.into_iter().try_fold(self, |values, pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| ValuesError::NotAPair(pair.clone()))?;
            values.set(key, value)
        })
    }
}

/// Whether the value of `key` is the name of an image.
fn is_image(key: &str) -> bool {
    key.rsplit_once('.').is_some_and(|(_, last)| last == "image")
}

/// What a value of `key` must be, where it is not.
fn expected(key: &str, value: &str) -> Result<(), &'static str> {
    let (valid, expected) = match key {
        "trustDomain" => (is_trust_domain(value), "a trust domain: a-z, 0-9, '.', '-' and '_'"),
        "defaultPolicy" => {
            (value.parse::<DefaultPolicy>().is_ok(), "allow, authenticated, same-namespace, deny or audit")
        }
        "controller.source" => {
            let path = value.strip_prefix("dir:/").unwrap_or_default();
            (value == "kube" || is_word(path, "/._-"), "kube or dir:/PATH")
        }
        "injector.failurePolicy" => (matches!(value, "Ignore" | "Fail"), "Ignore or Fail"),
        "injector.evict" | "gatewayApi.install" => (matches!(value, "true" | "false"), "true or false"),
        "controller.replicas" | "injector.replicas" => {
            (value.parse::<u8>().is_ok_and(|replicas| replicas > 0), "a number from 1 to 255")
        }
        "logLevel" => (is_word(value, ",=:_"), "a log filter such as info or warn,mesh_controller=debug"),
        _ => (is_word(value, "./:@_-") && !value.ends_with(':'), "the name of an image"),
    };
    if valid { Ok(()) } else { Err(expected) }
}

/// Letters and digits, and these marks: nothing that could end a scalar or change its meaning.
fn is_word(text: &str, marks: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
}

/// The leaves of a file of values, by path.
fn leaves(text: &str) -> Result<BTreeMap<String, String>, ValuesError> {
    let unread = |reason: String| ValuesError::NotRead(reason.lines().next().unwrap_or_default().to_owned());
    let tree: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| unread(error.to_string()))?;
    if !(tree.is_object() || tree.is_null()) {
        return Err(ValuesError::NotRead("it does not begin with a key".to_owned()));
    }
    let mut values = BTreeMap::new();
    flatten("", &tree, &mut values);
    values.retain(|key, _| !key.is_empty());
    Ok(values)
}

/// Adds the leaves of a tree, by path.
pub(super) fn flatten(path: &str, tree: &serde_json::Value, values: &mut BTreeMap<String, String>) {
    match tree {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, values);
            }
        }
        serde_json::Value::String(text) => drop(values.insert(path.to_owned(), text.clone())),
        other => drop(values.insert(path.to_owned(), other.to_string())),
    }
}

fn nearest<'a>(key: &str, keys: impl Iterator<Item = &'a String>) -> Option<String> {
    let close = |candidate: &&String| strsim::jaro_winkler(key, candidate) > 0.8;
    keys.filter(close).max_by(|a, b| strsim::jaro_winkler(key, a).total_cmp(&strsim::jaro_winkler(key, b))).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{super::render, *};

    #[test]
    fn values_are_set_by_path_and_typos_are_named() {
        let set = |pair: &str| Values::defaults().set_all([&pair.to_owned()]);
        assert!(render(&set("trustDomain=example.org").unwrap()).contains("--trust-domain=example.org"));
        assert_eq!(set("trustDomain"), Err(ValuesError::NotAPair("trustDomain".into())));
        let error = set("trustdomain=x").unwrap_err().to_string();
        assert!(error.contains("did you mean \"trustDomain\""), "{error}");
        for (key, value) in [
            ("logLevel", ""),
            ("logLevel", "a b"),
            ("logLevel", "x\ny: 1"),
            ("logLevel", "\""),
            ("controller.image", "foo:"),
            ("controller.image", "=@x"),
            ("controller.replicas", "abc"),
            ("controller.replicas", "0"),
            ("controller.source", "nonsense"),
            ("controller.source", "dir:"),
            ("injector.failurePolicy", "Maybe"),
            ("defaultPolicy", "bogus"),
            ("trustDomain", "Example.org"),
        ] {
            let error = set(&format!("{key}={value}")).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("is not"), "{error}");
        }
        let numeric = serde_saphyr::from_multiple::<Value>(&render(&set("controller.image=123").unwrap())).unwrap();
        let deployment = numeric.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "123", "a name stays text");
    }

    #[test]
    fn a_file_is_laid_over_the_defaults_and_names_what_it_does_not_know() {
        let file = |text: &str| Values::defaults().file(text);
        let values = file("controller:\n  replicas: 2\nproxy: {image: 'registry/x:1'}\n").unwrap();
        assert_eq!((values.get("controller.replicas"), values.get("proxy.image")), ("2", "registry/x:1"));
        assert_eq!(values.get("injector.replicas"), "1");
        assert_eq!(file("").unwrap(), Values::defaults());
        assert_eq!(file(DEFAULTS).map(|values| values.get("logLevel").to_owned()), Ok("info".to_owned()));
        for (text, says) in [
            ("controller: {replica: 2}", "did you mean \"controller.replicas\""),
            ("controller: {replicas: many}", "is not a number"),
            ("- a", "not a file of values"),
            ("a: [", "not a file of values"),
        ] {
            let error = file(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn what_was_installed_becomes_what_this_release_installs() {
        let text = "logLevel: \"warn\"\ntrustDomain: \"1.10\"\ncontroller: {image: \"registry:5000/c:0.0.9\", replicas: 3}\n\
                    injector: {image: \"injector:patched\", old: x}\nproxy: {image: \"mesh-proxy:0.0.9\"}\n";
        let Recorded { values, unknown } = Values::recorded(text, "0.0.9").unwrap();
        let release = env!("CARGO_PKG_VERSION");
        for (key, value) in [
            ("logLevel", "warn"),
            ("trustDomain", "1.10"),
            ("controller.image", &format!("registry:5000/c:{release}")),
            ("controller.replicas", "3"),
            ("injector.image", "injector:patched"),
            ("proxy.image", &format!("mesh-proxy:{release}")),
            ("defaultPolicy", "allow"),
        ] {
            assert_eq!(values.get(key), value, "{key}");
        }
        assert_eq!(unknown, ["injector.old"]);
        assert_eq!(values.other_images().collect::<Vec<_>>(), [("injector.image", "injector:patched")]);
        assert!(Values::recorded("logLevel: \"a b\"\n", release).unwrap_err().to_string().contains("logLevel"));
    }
}
