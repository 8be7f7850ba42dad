//! Which right a refusal of the API server is about, and how to ask for it. Pure; [`crate::failure`] and `check` show it.

use std::fmt;

/// What a user may not do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Right<'a> {
    verb: &'a str,
    resource: &'a str,
    group: &'a str,
    /// None: in the whole cluster.
    namespace: Option<&'a str>,
}

/// What to do about a refusal, by its reason.
pub(crate) fn fix(reason: &str) -> String {
    let Some(right) = Right::parse(reason) else {
        return if reason.contains("Unauthorized") {
            "the credentials of the kubeconfig are not accepted: log in again; kubectl auth whoami shows as whom"
                .to_owned()
        } else {
            "meshctl explain rights lists what each command needs".to_owned()
        };
    };
    // Whom a whole cluster is denied may still see a part of it.
    let part = if right.namespace.is_none() { "-n NAME asks for one namespace only; or " } else { "" };
    format!("{part}have it granted until `{right}` says yes; meshctl explain rights lists what each command needs")
}

impl<'a> Right<'a> {
    /// As Kubernetes' authorizers write it: `User "x" cannot VERB resource "R" in API group "G" in the namespace "N"`.
    fn parse(reason: &'a str) -> Option<Self> {
        let (_, rest) = reason.split_once(" cannot ")?;
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once('"')?;
        let quoted = |before: &str| rest.split_once(before)?.1.split('"').next();
        let group = quoted("in API group \"").unwrap_or_default();
        let is_word = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
        let right = Self { verb, resource, group, namespace: quoted("in the namespace \"") };
        (is_word(verb) && is_word(resource)).then_some(right)
    }
}

/// As the question whether one has it.
impl fmt::Display for Right<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, resource, group, namespace } = self;
        let (name, part) = resource.split_once('/').unwrap_or((resource, ""));
        write!(f, "kubectl auth can-i {verb} {name}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        if !part.is_empty() {
            write!(f, " --subresource={part}")?;
        }
        match namespace {
            Some(namespace) => write!(f, " -n {namespace}"),
            None => write!(f, " -A"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_question_that_must_be_answered_with_yes() {
        for (reason, question) in [
            (
                r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "shop""#,
                "kubectl auth can-i list pods -n shop",
            ),
            (
                r#"namespaces is forbidden: User "jane" cannot list resource "namespaces" in API group "" at the cluster scope"#,
                "kubectl auth can-i list namespaces -A",
            ),
            (
                r#"deployments.apps "web" is forbidden: User "j" cannot patch resource "deployments" in API group "apps" in the namespace "a": RBAC: x"#,
                "kubectl auth can-i patch deployments.apps -n a",
            ),
            (
                r#"User "j" cannot get resource "pods/portforward" in API group "" in the namespace "a""#,
                "kubectl auth can-i get pods --subresource=portforward -n a",
            ),
        ] {
            assert_eq!(Right::parse(reason).unwrap().to_string(), question);
            let fix = fix(reason);
            assert!(fix.contains(&format!("`{question}` says yes")), "{fix}");
            assert_eq!(fix.contains("-n NAME"), question.ends_with(" -A"), "{fix}");
        }
    }

    #[test]
    fn a_refusal_of_another_kind_is_not_read_as_one() {
        for (reason, fix_says) in [
            ("Unauthorized", "log in again"),
            ("exceeded quota: it cannot be", "meshctl explain rights"),
            ("a policy cannot allow resource \"x", "meshctl explain rights"),
            ("", "meshctl explain rights"),
        ] {
            assert!(fix(reason).contains(fix_says), "{reason}: {}", fix(reason));
        }
    }
}
