//! Which checks there are: their order, their ids and their headings. Called by everything of `check`, and by `explain`;
//! how one comes out is not known here.

mod facts;

use serde::{Serialize, Serializer};

/// One thing that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    ClusterReachable,
    ResourceVersions,
    ControllerReady,
    ControllerAnswers,
    InjectorReady,
    WebhookCertValid,
    WebhookCertExpiring,
    WebhookTrusted,
    AdmissionWorks,
    TrustAnchorsValid,
    TrustAnchorsExpiring,
    TrustAnchorsAgree,
    IssuerValid,
    IssuerExpiring,
    ProxiesAnswer,
    ProxiesReady,
    ProxyCertsValid,
    ProxyCertsRenewing,
    ProxyVersions,
    ProxiesConnected,
    ProxiesCurrent,
    RedirectPresent,
    PodsMeshed,
    OneMesh,
    PodsReady,
    ObjectsInForce,
    ManifestReadable,
    ObjectsValid,
    RouteBackendsExist,
    PortsExist,
    AnnotationsKnown,
    PodsInjectable,
    PlaygroundRuns,
    KubernetesVersion,
    InstallAllowed,
    InstallAccepted,
}

/// What belongs together on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Category {
    Cluster,
    ControlPlane,
    Identity,
    DataPlane,
    Workloads,
    Configuration,
    Manifests,
    Prerequisites,
}

impl Category {
    /// Its heading.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::ControlPlane => "control plane",
            Self::Identity => "identity",
            Self::DataPlane => "data plane",
            Self::Workloads => "workloads",
            Self::Configuration => "configuration",
            Self::Manifests => "manifests",
            Self::Prerequisites => "prerequisites",
        }
    }
}
impl Check {
    /// Every check, in the order in which it is shown.
    pub(crate) const ALL: [Self; 36] = [
        Self::ClusterReachable,
        Self::ResourceVersions,
        Self::ControllerReady,
        Self::ControllerAnswers,
        Self::InjectorReady,
        Self::WebhookCertValid,
        Self::WebhookCertExpiring,
        Self::WebhookTrusted,
        Self::AdmissionWorks,
        Self::TrustAnchorsValid,
        Self::TrustAnchorsExpiring,
        Self::TrustAnchorsAgree,
        Self::IssuerValid,
        Self::IssuerExpiring,
        Self::ProxiesAnswer,
        Self::ProxiesReady,
        Self::ProxyCertsValid,
        Self::ProxyCertsRenewing,
        Self::ProxyVersions,
        Self::ProxiesConnected,
        Self::ProxiesCurrent,
        Self::RedirectPresent,
        Self::PodsMeshed,
        Self::OneMesh,
        Self::PodsReady,
        Self::ObjectsInForce,
        Self::ManifestReadable,
        Self::ObjectsValid,
        Self::RouteBackendsExist,
        Self::PortsExist,
        Self::AnnotationsKnown,
        Self::PodsInjectable,
        Self::PlaygroundRuns,
        Self::KubernetesVersion,
        Self::InstallAllowed,
        Self::InstallAccepted,
    ];

    /// Its id.
    pub(crate) fn id(self) -> &'static str {
        self.facts().id
    }
    /// The check of an id.
    #[cfg(test)]
    pub(crate) fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.id() == id)
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_is_listed_once_and_fits_the_screen() {
        let ids: BTreeSet<_> = Check::ALL.iter().map(|check| check.id()).collect();
        assert_eq!(ids.len(), Check::ALL.len());
        for (place, check) in Check::ALL.into_iter().enumerate() {
            let facts = check.facts();
            assert_eq!(check as usize, place, "{}", facts.id);
            assert_eq!(Check::from_id(facts.id), Some(check));
            assert!(facts.title.chars().count() <= 51, "{}", facts.title);
            assert!(facts.why.ends_with('.'), "{}", facts.id);
        }
        assert!(Check::ALL.is_sorted_by_key(|check| check.facts().category as usize), "a category is shown once");
    }
}
