//! Pages of the reasons why a pod has no sidecar, in the injector's own words.

use mesh_injector::reason::Code;
use mesh_proto::names;

use super::{About, Page};
use crate::reason::RESTART;

pub(super) fn pages() -> Vec<Page> {
    let mut pages: Vec<Page> = Code::ALL.into_iter().map(page).collect();
    pages.push(Page {
        name: RESTART.to_owned(),
        about: About::Reason,
        summary: "The pod would get a sidecar if it were created now.".to_owned(),
        details: vec![
            "Sidecars are added when a pod is created. This one is older than the label that asks for one, or than the \
             mesh itself."
                .to_owned(),
        ],
        fix: Some("Restart its workload.".to_owned()),
        example: Some("kubectl -n NAMESPACE rollout restart deployment/NAME\nmeshctl list -n NAMESPACE".to_owned()),
    });
    pages
}

fn page(code: Code) -> Page {
    let label = names::LABEL_INJECT;
    let (details, fix, example) = match code {
        Code::NotLabelled => (
            "Nobody asked for a sidecar: that is the default, and such pods are outside the mesh. Policies see them as \
             clients without an identity.",
            "To mesh it, label the namespace (new pods get a sidecar) and restart the workload.",
            format!(
                "kubectl label namespace shop {label}={}\nkubectl -n shop rollout restart deployment",
                names::INJECT_ENABLED
            ),
        ),
        Code::DisabledByPod => (
            "The label of a pod wins over that of its namespace.",
            "To mesh it, remove the label from the pod template.",
            format!("metadata:\n  labels:\n    {label}: {}", names::INJECT_DISABLED),
        ),
        Code::AlreadyInjected => (
            "Injection does nothing where it has been done: by hand with `meshctl inject`, or by an earlier webhook call.",
            "Nothing needs to be done; `meshctl uninject` takes it out of a manifest.",
            "meshctl uninject web.yaml".to_owned(),
        ),
        Code::HostNetwork => (
            "A redirect in its network would take the traffic of the whole node.",
            "Give the pod its own network, or leave it outside the mesh and let policies admit its address.",
            "spec:\n  hostNetwork: false".to_owned(),
        ),
        Code::Windows => (
            "The sidecar and its redirect are made for Linux.",
            "Leave it outside the mesh; others reach it in plain as before.",
            format!("metadata:\n  labels:\n    {label}: {}", names::INJECT_DISABLED),
        ),
        Code::SystemNamespace => (
            "A sidecar there would wait for what it must help to start: kube-system, kube-public, kube-node-lease and \
             the mesh's own namespace.",
            "Nothing needs to be done; run workloads in a namespace of their own.",
            "kubectl create namespace shop".to_owned(),
        ),
        Code::NotAPod => (
            "The webhook was asked about something else. It admits that as it is.",
            "Apply the webhook configuration of this release again.",
            "meshctl install | kubectl apply -f -".to_owned(),
        ),
        Code::UsesProxyUid => (
            "Traffic of the proxy's user is exempt from the redirect; a container of that user would be past every policy.",
            "Choose another runAsUser for the container.",
            "securityContext:\n  runAsUser: 1000".to_owned(),
        ),
        Code::UsesProxyPort => (
            "Two programs of a pod cannot listen on one port.",
            "Choose another port for the container.",
            format!(
                "ports:\n- containerPort: 8080   # not {}, {}, {}",
                names::PORT_OUTBOUND,
                names::PORT_INBOUND,
                names::PORT_PROXY_ADMIN
            ),
        ),
        Code::NameTaken => (
            "Containers and volumes of a pod have names of their own.",
            "Rename the container or volume of the pod.",
            format!(
                "reserved: {}, {}, {}, {}",
                names::CONTAINER_PROXY,
                names::CONTAINER_REDIRECT,
                names::VOLUME_TOKEN,
                names::VOLUME_STATE
            ),
        ),
        Code::OtherMesh => (
            "Two sidecars would each take the other's traffic. Go from mesh to mesh by namespace.",
            "Take the other mesh's sidecar out, then restart the workload.",
            "kubectl label namespace shop istio-injection-\nkubectl -n shop rollout restart deployment".to_owned(),
        ),
        Code::PodSecurityForbidsRedirect => (
            "mesh-redirect needs NET_ADMIN for a moment, in the pod's own network only. The levels baseline and \
             restricted do not admit that, so that the pod would not start at all.",
            "Let the namespace admit it, or leave it outside the mesh.",
            "kubectl label namespace shop --overwrite pod-security.kubernetes.io/enforce=privileged".to_owned(),
        ),
    };
    Page {
        name: code.as_str().to_owned(),
        about: About::Reason,
        summary: sentence(&code.text()),
        details: vec![details.to_owned()],
        fix: Some(fix.to_owned()),
        example: Some(example),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}
