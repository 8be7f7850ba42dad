//! Why a pod gets no sidecar: stable codes, with what each means and what to do.
//!
//! `decide` gives a [`Reason`]. Its code is a metric label, an audit annotation and what `meshctl list` shows; the page
//! `docs/annotations.md` is written from [`Code`].

use std::fmt;

use mesh_proto::names;

use crate::settings::short;

/// Of a pod that has no sidecar and would get one if it were created now: it is older than the label or than the mesh, or no
/// webhook answered. Beside the codes, because nothing about the pod itself is the reason.
pub const RESTART_NEEDED: &str = "restart-needed";

/// Why a pod gets no sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Neither pod nor namespace opted in.
    NotLabelled,
    /// The pod opted out.
    DisabledByPod,
    /// The pod has our sidecar.
    AlreadyInjected,
    /// A namespace of the cluster or of the mesh itself.
    SystemNamespace,
    /// The pod uses the node's network.
    HostNetwork,
    /// The pod runs on Windows.
    Windows,
    /// Not the creation of a pod.
    NotAPod,
    /// A container of another mesh redirects the same traffic.
    OtherMesh,
    /// A container or volume has a name that the sidecar needs.
    NameTaken,
    /// A container runs as the proxy's user, whose traffic is exempt from the redirect.
    UsesProxyUid,
    /// A container declares one of the proxy's ports.
    UsesProxyPort,
    /// PodSecurity of the namespace does not admit `mesh-redirect`.
    PodSecurityForbidsRedirect,
}

/// A code, and what in the pod it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The code.
    pub code: Code,
    /// E.g. the container; empty where the code says all.
    about: String,
}

impl Code {
    /// All of them: first those that are as the user wants it, then those that are refusals.
    pub const ALL: [Self; 12] = [
        Self::NotLabelled,
        Self::DisabledByPod,
        Self::AlreadyInjected,
        Self::SystemNamespace,
        Self::HostNetwork,
        Self::Windows,
        Self::NotAPod,
        Self::OtherMesh,
        Self::NameTaken,
        Self::UsesProxyUid,
        Self::UsesProxyPort,
        Self::PodSecurityForbidsRedirect,
    ];

    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotLabelled => "not-labelled",
            Self::DisabledByPod => "disabled-by-pod",
            Self::AlreadyInjected => "already-injected",
            Self::SystemNamespace => "system-namespace",
            Self::HostNetwork => "host-network",
            Self::Windows => "windows",
            Self::NotAPod => "not-a-pod",
            Self::OtherMesh => "other-mesh",
            Self::NameTaken => "name-taken",
            Self::UsesProxyUid => "uses-proxy-uid",
            Self::UsesProxyPort => "uses-proxy-port",
            Self::PodSecurityForbidsRedirect => "pod-security-forbids-redirect",
        }
    }

    /// What it means.
    pub fn text(self) -> String {
        let label = names::LABEL_INJECT;
        match self {
            Self::NotLabelled => {
                format!("neither the pod nor its namespace has the label {label}: {}", names::INJECT_ENABLED)
            }
            Self::DisabledByPod => format!("the pod has the label {label}: {}", names::INJECT_DISABLED),
            Self::AlreadyInjected => "the pod has a sidecar already".into(),
            Self::SystemNamespace => "pods of this namespace run the cluster or the mesh itself".into(),
            Self::HostNetwork => {
                "the pod uses the node's network (hostNetwork: true), which cannot be redirected".into()
            }
            Self::Windows => "the pod runs on Windows".into(),
            Self::NotAPod => "not the creation of a pod".into(),
            Self::OtherMesh => "a container belongs to another mesh".into(),
            Self::NameTaken => "a container or volume of the pod has a name that the sidecar needs".into(),
            Self::UsesProxyUid => {
                format!("a container runs as user {}, whose traffic would bypass the mesh", names::PROXY_UID)
            }
            Self::UsesProxyPort => "a container uses a port that the sidecar needs".into(),
            Self::PodSecurityForbidsRedirect => format!(
                "the namespace's PodSecurity level does not admit {} (capability NET_ADMIN)",
                names::CONTAINER_REDIRECT
            ),
        }
    }

    /// What to do to get a sidecar; none where there is nothing to mend.
    pub fn fix(self) -> Option<String> {
        let ports = format!("{}, {} and {}", names::PORT_OUTBOUND, names::PORT_INBOUND, names::PORT_PROXY_ADMIN);
        match self {
            Self::NotLabelled => Some(format!("kubectl label namespace NAME {}=enabled", names::LABEL_INJECT)),
            Self::DisabledByPod => Some("take the label off the pod template".into()),
            Self::OtherMesh => Some("take that mesh off first: two cannot share a pod".into()),
            Self::NameTaken => Some("rename it".into()),
            Self::UsesProxyUid => Some("choose another runAsUser".into()),
            Self::UsesProxyPort => Some(format!("choose another port than {ports}")),
            Self::PodSecurityForbidsRedirect => {
                Some("the namespace needs the level privileged (pod-security.kubernetes.io/enforce)".into())
            }
            Self::HostNetwork => Some("give the pod its own network, where it does not need the node's".into()),
            Self::AlreadyInjected | Self::SystemNamespace | Self::Windows | Self::NotAPod => None,
        }
    }

    /// Whether a sidecar was asked for and would not work.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::OtherMesh
            | Self::NameTaken
            | Self::UsesProxyUid
            | Self::UsesProxyPort
            | Self::PodSecurityForbidsRedirect => true,
            Self::NotLabelled
            | Self::DisabledByPod
            | Self::AlreadyInjected
            | Self::SystemNamespace
            | Self::HostNetwork
            | Self::Windows
            | Self::NotAPod => false,
        }
    }

    /// Whether the user is told: who asked for a sidecar would be surprised not to get one.
    pub fn is_told(self) -> bool {
        self.is_refusal() || matches!(self, Self::HostNetwork | Self::Windows)
    }
}

impl From<Code> for Reason {
    fn from(code: Code) -> Self {
        Self { code, about: String::new() }
    }
}

impl Reason {
    /// A code about something in the pod, e.g. `container web`.
    pub fn about(code: Code, about: impl AsRef<str>) -> Self {
        Self { code, about: short(about.as_ref()) }
    }

    /// The code as it is written everywhere.
    pub fn code(&self) -> &'static str {
        self.code.as_str()
    }

    /// A sentence for the user, with the fix where there is one.
    pub fn text(&self) -> String {
        let about = if self.about.is_empty() { String::new() } else { format!(": {}", self.about) };
        let fix = self.code.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
        format!("{}{about}{fix}", self.code.text())
    }
}

impl fmt::Display for Reason {
    /// Text and code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_written_once_and_says_what_to_do_where_something_can_be_done() {
        let codes: BTreeSet<_> = Code::ALL.map(Code::as_str).into();
        assert_eq!(codes.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.fix().is_some() || !code.is_refusal(), "{code:?}");
            let text = Reason::about(code, "container web").to_string();
            assert!(
                text.len() < 220 && text.ends_with(&format!("({})", code.as_str())),
                "one warning holds it: {text}"
            );
        }
    }
}
