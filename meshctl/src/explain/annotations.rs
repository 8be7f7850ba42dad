//! Pages of the annotations and labels that a user may write.

use mesh_proto::{inbound::DefaultPolicy, names};

use super::{About, Page};

pub(super) fn pages() -> Vec<Page> {
    let mut pages: Vec<Page> = names::USER_ANNOTATIONS.iter().copied().map(page).collect();
    pages.push(Page {
        name: names::LABEL_INJECT.to_owned(),
        about: About::Annotation,
        summary: "A label: whether pods get a sidecar.".to_owned(),
        details: vec![format!(
            "On a namespace, {} adds a sidecar to every pod that is created there from now on. On a pod, {} or {} wins \
             over the namespace. Whether a pod is meshed is read from its spec, never from this label.",
            names::INJECT_ENABLED,
            names::INJECT_ENABLED,
            names::INJECT_DISABLED
        )],
        fix: None,
        example: Some(format!("kubectl label namespace shop {}={}", names::LABEL_INJECT, names::INJECT_ENABLED)),
    });
    pages
}

fn page(name: &'static str) -> Page {
    let policies: Vec<&str> = DefaultPolicy::ALL.iter().map(|policy| policy.as_str()).collect();
    let (summary, details, value) = match name {
        names::ANNOTATION_SKIP_INBOUND_PORTS => (
            "Inbound ports that the sidecar does not take over.",
            "Traffic to them reaches the application as before: no mutual TLS, no policy, no metrics.".to_owned(),
            "9100,3000-3010",
        ),
        names::ANNOTATION_SKIP_OUTBOUND_PORTS => (
            "Outbound ports that the sidecar does not take over.",
            "Connections to them leave the pod as before: no mutual TLS, no routes, no balancing.".to_owned(),
            "5432",
        ),
        names::ANNOTATION_SKIP_SUBNETS => (
            "Destinations (networks or addresses) that the sidecar does not take over.",
            "Connections to them leave the pod as before.".to_owned(),
            "169.254.169.254,10.0.0.0/8",
        ),
        names::ANNOTATION_OPAQUE_PORTS => (
            "Ports that carry bytes: mutual TLS and balancing by connection, without a look at the protocol.",
            format!("Needed where detection could be wrong. Already so: {:?}.", names::DEFAULT_OPAQUE_PORTS),
            "4444",
        ),
        names::ANNOTATION_DEFAULT_POLICY => (
            "Who may connect where no AuthorizationPolicy selects the port.",
            format!("One of {}. The pod wins over its namespace, the namespace over the mesh.", policies.join(", ")),
            "authenticated",
        ),
        names::ANNOTATION_UNRESOLVED => (
            "What becomes of a destination never resolved while the controller is away.",
            "refuse (default): an error with the code discovery-unavailable. pass-through: past the mesh, in plain."
                .to_owned(),
            "pass-through",
        ),
        names::ANNOTATION_LOG_LEVEL => (
            "What the proxy logs.",
            "A level (error, warn, info, debug, trace) or a filter by module.".to_owned(),
            "warn,mesh_proxy=debug",
        ),
        _ => (
            "A setting of the sidecar; it is checked when the pod is created.",
            "A wrong value is a warning of `kubectl apply` and of `meshctl inject`, and counts as not written."
                .to_owned(),
            "VALUE",
        ),
    };
    Page {
        name: name.to_owned(),
        about: About::Annotation,
        summary: summary.to_owned(),
        details: vec![details, "On a namespace or a pod template; the pod wins.".to_owned()],
        fix: None,
        example: Some(format!("metadata:\n  annotations:\n    {name}: \"{value}\"")),
    }
}
