//! The manifest of the control plane: `deploy/` with values filled in. Pure and offline.
//!
//! `meshctl install` prints it; the playground applies the very same objects, so that the two cannot drift. Two renders
//! are byte-equal. Substitution is strict: a placeholder without a value, and a value nobody asks for, is an error.

#[cfg(test)]
mod chart;
pub(crate) mod gateway_api;
pub(crate) mod objects;
pub(crate) mod progress;
mod values;

pub(crate) use self::values::{Profile, Recorded, Values, ValuesError};

/// The templates, in the order in which they are applied.
const TEMPLATES: [Template; 7] = [
    Template {
        name: "deploy/crds/authorizationpolicies.yaml",
        text: include_str!("../../deploy/crds/authorizationpolicies.yaml"),
        when: When::Always,
    },
    Template {
        name: "deploy/gateway-api/httproutes.yaml",
        text: include_str!("../../deploy/gateway-api/httproutes.yaml"),
        when: When::True("gatewayApi.install"),
    },
    Template {
        name: "deploy/control-plane.yaml",
        text: include_str!("../../deploy/control-plane.yaml"),
        when: When::Always,
    },
    Template {
        name: "deploy/controller-budget.yaml",
        text: include_str!("../../deploy/controller-budget.yaml"),
        when: When::Several("controller.replicas"),
    },
    Template {
        name: "deploy/injector-budget.yaml",
        text: include_str!("../../deploy/injector-budget.yaml"),
        when: When::Several("injector.replicas"),
    },
    Template {
        name: "deploy/evict.yaml",
        text: include_str!("../../deploy/evict.yaml"),
        when: When::True("injector.evict"),
    },
    Template { name: "deploy/webhook.yaml", text: include_str!("../../deploy/webhook.yaml"), when: When::Always },
];
const DEFAULTS: &str = include_str!("../../deploy/values.yaml");
/// What stands for the release in templates: no value, since nobody sets it.
const RELEASE: &str = "version";

/// A file of `deploy/`.
struct Template {
    name: &'static str,
    text: &'static str,
    when: When,
}

/// When a template is part of the manifest.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    /// Where the value is `true`.
    True(&'static str),
    /// Where the number is more than one.
    Several(&'static str),
}

impl When {
    fn holds(self, values: &Values) -> bool {
        match self {
            Self::Always => true,
            Self::True(key) => values.get(key) == "true",
            Self::Several(key) => values.get(key).parse::<u8>().is_ok_and(|number| number > 1),
        }
    }
}

/// The whole manifest.
pub(crate) fn render(values: &Values) -> String {
    let mut manifest = String::new();
    for Template { name, text, when } in TEMPLATES {
        if !when.holds(values) {
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
            let value = if key == RELEASE { Some(env!("CARGO_PKG_VERSION")) } else { values.find(key) };
            text.push_str(before);
            text.push_str(value.unwrap_or_else(|| panic!("{name} is checked by a test: {key} has a value")));
            rest = after;
        }
        text.push_str(rest);
    }
    text
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
        for Template { text, when, .. } in TEMPLATES {
            if let When::True(key) | When::Several(key) = when {
                used.insert(key.to_owned());
            }
            for part in text.split("${").skip(1) {
                used.insert(part.split_once('}').unwrap().0.to_owned());
            }
        }
        let known: BTreeSet<_> = Values::defaults().into_keys().collect();
        assert!(used.remove(RELEASE), "the manifest says of which release it is");
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

    /// One of a single replica would keep nothing: it goes at once, with a budget or without.
    #[test]
    fn each_part_has_a_budget_once_it_has_several_replicas() {
        for (set, budgets) in [
            (&[][..], &[][..]),
            (&["controller.replicas=2"], &[names::CONTROLLER_NAME]),
            (&["injector.replicas=2"], &[names::INJECTOR_NAME]),
            (&["controller.replicas=3", "injector.replicas=3"], &[names::CONTROLLER_NAME, names::INJECTOR_NAME]),
        ] {
            let set: Vec<String> = set.iter().map(|pair| (*pair).to_owned()).collect();
            let objects = objects(&render(&Values::defaults().set_all(&set).unwrap()));
            let found: Vec<_> = objects.iter().filter(|object| object["kind"] == "PodDisruptionBudget").collect();
            let found: Vec<_> = found.iter().map(|budget| budget["metadata"]["name"].as_str().unwrap()).collect();
            assert_eq!(found, budgets, "{set:?}");
        }
    }

    #[test]
    fn the_manifest_records_the_values_it_was_made_with() {
        let given = ["logLevel=warn,mesh_controller=debug", "controller.image=registry/x:1", "injector.replicas=2"];
        let values = Values::defaults().set_all(&given.map(str::to_owned)).unwrap();
        let objects = objects(&render(&values));
        let record = objects.iter().find(|object| object["metadata"]["name"] == names::VALUES_NAME).unwrap();
        assert_eq!(record["metadata"]["labels"][names::LABEL_VERSION], env!("CARGO_PKG_VERSION"));
        let text = record["data"]["values.yaml"].as_str().unwrap();
        let read = Values::recorded(text, env!("CARGO_PKG_VERSION")).unwrap();
        assert_eq!((read.values, read.unknown), (values, Vec::new()));
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
