//! The manifest of the control plane: `deploy/` with values filled in. Pure and offline.
//!
//! `meshctl install` prints it; the playground applies the very same objects, so that the two cannot drift. Two renders
//! are byte-equal. Substitution is strict: a placeholder without a value, and a value nobody asks for, is an error.

#[cfg(test)]
mod chart;
pub(crate) mod objects;
pub(crate) mod progress;

use std::collections::BTreeMap;

use clap::ValueEnum;
use mesh_proto::{identity::is_trust_domain, inbound::DefaultPolicy};

/// The templates, in the order in which they are applied.
const TEMPLATES: [Template; 4] = [
    Template {
        name: "deploy/crds/authorizationpolicies.yaml",
        text: include_str!("../../deploy/crds/authorizationpolicies.yaml"),
        only: None,
    },
    Template { name: "deploy/control-plane.yaml", text: include_str!("../../deploy/control-plane.yaml"), only: None },
    Template { name: "deploy/evict.yaml", text: include_str!("../../deploy/evict.yaml"), only: Some("injector.evict") },
    Template { name: "deploy/webhook.yaml", text: include_str!("../../deploy/webhook.yaml"), only: None },
];
const DEFAULTS: &str = include_str!("../../deploy/values.yaml");

/// A file of `deploy/`.
struct Template {
    name: &'static str,
    text: &'static str,
    /// The value that must be `true` for it to be part of the manifest.
    only: Option<&'static str>,
}

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
        let unread = |reason: String| ValuesError::NotRead(reason.lines().next().unwrap_or_default().to_owned());
        // A copy of the defaults is a file of values too.
        let text = text.replace("${version}", env!("CARGO_PKG_VERSION"));
        let tree: serde_json::Value = serde_saphyr::from_str(&text).map_err(|error| unread(error.to_string()))?;
        if !(tree.is_object() || tree.is_null()) {
            return Err(ValuesError::NotRead("it does not begin with a key".to_owned()));
        }
        let mut values = BTreeMap::new();
        flatten("", &tree, &mut values);
        values.iter().filter(|(key, _)| !key.is_empty()).try_fold(self, |all, (key, value)| all.set(key, value))
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
        for key in TEMPLATES.iter().filter_map(|template| template.only) {
            values.0.insert(key.to_owned(), "true".to_owned());
        }
        values
    }

    /// One value.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.get(key).map(String::as_str).unwrap_or_default()
    }

    /// With `KEY=VALUE` pairs as written on the command line.
    pub(crate) fn set_all<'a>(self, pairs: impl IntoIterator<Item = &'a String>) -> Result<Self, ValuesError> {
        pairs.into_iter().try_fold(self, |values, pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| ValuesError::NotAPair(pair.clone()))?;
            values.set(key, value)
        })
    }
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
        "injector.evict" => (matches!(value, "true" | "false"), "true or false"),
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

/// The whole manifest.
pub(crate) fn render(values: &Values) -> String {
    let mut manifest = String::new();
    for Template { name, text, only } in TEMPLATES {
        if only.is_some_and(|key| values.get(key) != "true") {
            continue;
        }
        manifest.push_str("---\n");
        manifest.push_str(&substitute(name, text, values));
    }
    manifest
}

fn substitute(name: &str, template: &str, values: &Values) -> String {
    let mut text = String::with_capacity(template.len());
    // The comments above the first object are about the template, not about what it became.
    let body = template.trim_start_matches('\n').split_inclusive('\n').skip_while(|line| line.starts_with('#'));
    for line in body {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("${") {
            let (key, after) = after.split_once('}').expect("templates are checked by a test: a placeholder ends");
            let value = values.0.get(key);
            text.push_str(before);
            text.push_str(value.unwrap_or_else(|| panic!("{name} is checked by a test: {key} has a value")));
            rest = after;
        }
        text.push_str(rest);
    }
    text
}

fn flatten(path: &str, tree: &serde_json::Value, values: &mut BTreeMap<String, String>) {
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
    use std::collections::BTreeSet;

    use mesh_proto::names;
    use serde_json::Value;

    use super::*;

    fn objects(manifest: &str) -> Vec<Value> {
        serde_saphyr::from_multiple(manifest).unwrap()
    }

    #[test]
    fn two_renders_are_byte_equal() {
        assert_eq!(render(&Values::defaults()), render(&Values::defaults()));
    }

    #[test]
    fn every_value_is_used_and_every_placeholder_has_one() {
        let mut used = BTreeSet::new();
        for Template { text, only, .. } in TEMPLATES {
            used.extend(only.map(str::to_owned));
            for part in text.split("${").skip(1) {
                used.insert(part.split_once('}').unwrap().0.to_owned());
            }
        }
        let known: BTreeSet<_> = Values::defaults().0.into_keys().collect();
        assert_eq!(used, known);
    }

    #[test]
    fn the_manifest_holds_no_secret_no_custom_resource_and_no_ca_bundle() {
        let manifest = render(&Values::defaults());
        let objects = objects(&manifest);
        assert!(objects.len() >= 15, "{}", objects.len());
        for object in &objects {
            let kind = object["kind"].as_str().unwrap();
            assert!(object["apiVersion"].is_string() && object["metadata"]["name"].is_string(), "{object}");
            assert_ne!(kind, "Secret");
            assert!(!object["apiVersion"].as_str().unwrap().starts_with("meshctl.dev/"), "{kind}");
        }
        assert!(!manifest.contains("caBundle"));
        assert!(!manifest.contains("${"));
    }

    #[test]
    fn control_plane_pods_are_restricted() {
        for deployment in objects(&render(&Values::defaults())).iter().filter(|object| object["kind"] == "Deployment") {
            let spec = &deployment["spec"]["template"]["spec"];
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for container in spec["containers"].as_array().unwrap() {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false);
                assert_eq!(security["readOnlyRootFilesystem"], true);
                assert_eq!(security["capabilities"]["drop"][0], "ALL");
                assert!(container["resources"]["limits"]["memory"].is_string());
            }
        }
    }

    #[test]
    fn whoever_asks_the_api_server_has_a_token_for_it() {
        let objects = objects(&render(&Values::defaults()));
        let subjects = |object: &Value| object["subjects"].as_array().cloned().unwrap_or_default();
        let entitled: BTreeSet<_> =
            objects.iter().flat_map(subjects).map(|subject| subject["name"].as_str().unwrap().to_owned()).collect();
        let deployments = objects.iter().filter(|object| object["kind"] == "Deployment");
        let specs = deployments.map(|deployment| &deployment["spec"]["template"]["spec"]);
        let with_token: BTreeSet<_> = specs
            .filter(|spec| spec["automountServiceAccountToken"] == true)
            .map(|spec| spec["serviceAccountName"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(with_token, entitled, "rights and the token to use them go together");
    }

    /// Counted, so that growth is a decision: widen a role only together with this number (reliability §4).
    #[test]
    fn roles_stay_as_narrow_as_they_are() {
        let mut rules = 0;
        for role in objects(&render(&Values::defaults())).iter().filter(|object| object["kind"] == "ClusterRole") {
            for rule in role["rules"].as_array().unwrap() {
                rules += 1;
                let text = rule.to_string();
                for forbidden in ["\"*\"", "secrets", "escalate", "bind", "impersonate", "nodes", "delete"] {
                    assert!(!text.contains(forbidden), "{text} has {forbidden}");
                }
                let may_name = [names::TRUST_BUNDLE_NAME, names::INJECTOR_NAME];
                let named = may_name.iter().any(|name| rule["resourceNames"] == serde_json::json!([name]));
                let changes = text.contains("update") || text.contains("patch");
                assert!(named || !changes, "{text} changes what it does not name");
            }
        }
        assert_eq!(rules, 10);
    }

    #[test]
    fn only_the_controller_writes_the_roots_of_trust_and_no_other_config_map() {
        let objects = objects(&render(&Values::defaults()));
        let policy = objects.iter().find(|object| object["kind"] == "ValidatingAdmissionPolicy").unwrap();
        let validation = &policy["spec"]["validations"][0];
        let controller = format!("system:serviceaccount:{}:{}", names::SYSTEM_NAMESPACE, names::CONTROLLER_NAME);
        let expected = format!(
            "(object.metadata.name == '{}') == (request.userInfo.username == '{controller}')",
            names::TRUST_BUNDLE_NAME
        );
        assert_eq!(validation["expression"], expected);
        let binding = objects.iter().find(|object| object["kind"] == "ValidatingAdmissionPolicyBinding").unwrap();
        assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    }

    #[test]
    fn the_two_webhook_entries_are_disjoint() {
        let objects = objects(&render(&Values::defaults()));
        let webhook = objects.iter().find(|object| object["kind"] == "MutatingWebhookConfiguration").unwrap();
        let entry = |index: usize, selector: &str| {
            webhook["webhooks"][index][selector]["matchExpressions"][0]["operator"].as_str().unwrap().to_owned()
        };
        assert_eq!((entry(0, "namespaceSelector"), entry(0, "objectSelector")), ("In".into(), "NotIn".into()));
        assert_eq!((entry(1, "namespaceSelector"), entry(1, "objectSelector")), ("NotIn".into(), "In".into()));
        for entry in webhook["webhooks"].as_array().unwrap() {
            assert_eq!(entry["sideEffects"], "NoneOnDryRun");
            assert_eq!(entry["timeoutSeconds"], 5);
            assert_eq!(entry["rules"][0]["operations"][0], "CREATE");
        }
    }

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
        let numeric = objects(&render(&set("controller.image=123").unwrap()));
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
    fn three_of_each_and_nobody_starts_without_the_mesh_where_that_is_wanted() {
        let objects = objects(&render(&Values::defaults().highly_available().profile(Profile::Deny)));
        let of = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
        for deployment in of("Deployment") {
            assert_eq!(deployment["spec"]["replicas"], 3);
            let apart = &deployment["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
            assert!(apart["preferredDuringSchedulingIgnoredDuringExecution"][0]["weight"].is_number(), "{deployment}");
        }
        let budgets = of("PodDisruptionBudget");
        assert_eq!(budgets.len(), 2);
        assert!(budgets.iter().all(|budget| budget["spec"]["maxUnavailable"] == 1));
        let webhook = of("MutatingWebhookConfiguration");
        assert!(webhook[0]["webhooks"].as_array().unwrap().iter().all(|entry| entry["failurePolicy"] == "Fail"));
        assert!(render(&Values::defaults().profile(Profile::Deny)).contains("--default-policy=deny"));
    }

    #[test]
    fn the_right_to_evict_is_there_only_where_it_is_used() {
        let role = |values: &Values| {
            let objects = objects(&render(values));
            objects
                .into_iter()
                .find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "mesh-injector-evict")
        };
        assert_eq!(role(&Values::defaults()), None);
        assert!(render(&Values::defaults()).contains("--evict=false"));
        let evicting = Values::defaults().set("injector.evict", "true").unwrap();
        assert_eq!(evicting, Values::of_every_part());
        assert!(render(&evicting).contains("--evict=true"));
        let rules = role(&evicting).unwrap()["rules"].clone();
        assert_eq!(
            rules,
            serde_json::json!([{"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]}])
        );
        assert!(Values::defaults().set("injector.evict", "yes").is_err());
    }

    #[test]
    fn the_resource_definition_is_what_the_code_says() {
        use kube::CustomResourceExt as _;
        let code = serde_json::to_value(mesh_proto::crd::AuthorizationPolicy::crd()).unwrap();
        let file: Value = serde_saphyr::from_str(TEMPLATES[0].text).unwrap();
        assert_eq!(file, code, "run `just gen`");
    }
}
