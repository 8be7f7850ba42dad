//! `meshctl check`: is the mesh healthy, as far as it can be told from here?
//!
//! | step | module | |
//! |---|---|---|
//! | ask everybody | [`observe`] | the only I/O |
//! | decide | [`judge`], [`lint`] for files | pure: [`observe::Observed`] in, [`Outcome`]s out |
//! | before there is a mesh | [`pre`] | asks the API server or this machine, and decides |
//! | show | [`report`] | pure |
//!
//! A check has an id that never changes; everything that is said about it follows from [`Check::facts`], the page of
//! `meshctl explain` too.

pub(crate) mod judge;
pub(crate) mod lint;
pub(crate) mod observe;
pub(crate) mod pre;
pub(crate) mod report;

use serde::{Serialize, Serializer};

/// One thing that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    ClusterReachable,
    ControllerReady,
    ControllerAnswers,
    InjectorReady,
    WebhookCertValid,
    WebhookCertExpiring,
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

/// Everything that follows from a check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Stable id: JSON field, topic of `meshctl explain`.
    pub(crate) id: &'static str,
    /// Where it is shown.
    pub(crate) category: Category,
    /// What is true when it is ok; at most 50 characters.
    pub(crate) title: &'static str,
    /// What it means when it is not, as sentences.
    pub(crate) why: &'static str,
    /// What to do, where the finding does not know better.
    pub(crate) fix: &'static str,
}

impl Check {
    /// Every check, in the order in which it is shown.
    pub(crate) const ALL: [Self; 32] = [
        Self::ClusterReachable,
        Self::ControllerReady,
        Self::ControllerAnswers,
        Self::InjectorReady,
        Self::WebhookCertValid,
        Self::WebhookCertExpiring,
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

    /// What is known about it.
    #[expect(clippy::too_many_lines, reason = "one entry per check")]
    pub(crate) fn facts(self) -> Facts {
        use Category as C;
        let facts = |id, category, title, why, fix| Facts { id, category, title, why, fix };
        match self {
            Self::ClusterReachable => facts(
                "cluster-reachable",
                C::Cluster,
                "the cluster answers",
                "Nothing else can be told while it does not.",
                "Compare the kubeconfig and its context; without a cluster: meshctl playground, then --playground.",
            ),
            Self::ControllerReady => facts(
                "controller-ready",
                C::ControlPlane,
                "the controller is ready",
                "Running proxies keep what they know and their certificates for a day, but nothing new is learned and new \
                 pods get no certificate.",
                "kubectl -n mesh-system describe pod; kubectl -n mesh-system logs deployment/mesh-controller",
            ),
            Self::ControllerAnswers => facts(
                "controller-answers",
                C::ControlPlane,
                "the controller tells what it knows",
                "Its admin port did not answer, so that nobody can say which objects are in force and what each proxy runs.",
                "kubectl -n mesh-system logs deployment/mesh-controller",
            ),
            Self::InjectorReady => facts(
                "injector-ready",
                C::ControlPlane,
                "the injector is ready",
                "Pods that are created meanwhile get no sidecar, or are not admitted, as failurePolicy of the webhook says.",
                "kubectl -n mesh-system describe pod; kubectl -n mesh-system logs deployment/mesh-injector",
            ),
            Self::WebhookCertValid => facts(
                "webhook-cert-valid",
                C::ControlPlane,
                "the webhook's certificate is valid",
                "The API server refuses to ask a webhook whose certificate has expired or is for another name.",
                "kubectl -n mesh-system rollout restart deployment/mesh-injector",
            ),
            Self::WebhookCertExpiring => facts(
                "webhook-cert-expiring",
                C::ControlPlane,
                "the webhook's certificate is valid for 14 more days",
                "It is renewed long before that; something keeps it from being renewed.",
                "kubectl -n mesh-system logs deployment/mesh-injector",
            ),
            Self::TrustAnchorsValid => facts(
                "trust-anchors-valid",
                C::Identity,
                "trust anchors are valid now",
                "A certificate below a root that is not valid is refused by every peer: no meshed connection works.",
                "mesh-controller ca add-root, wait until every proxy trusts it, then ca switch-issuer (docs/certificates.md).",
            ),
            Self::TrustAnchorsExpiring => facts(
                "trust-anchors-expiring",
                C::Identity,
                "trust anchors are valid for 60 more days",
                "A new root must be known everywhere before the old one ends.",
                "mesh-controller ca add-root, wait until every proxy trusts it, then ca switch-issuer (docs/certificates.md).",
            ),
            Self::TrustAnchorsAgree => facts(
                "trust-anchors-agree",
                C::Identity,
                "all proxies trust the same roots",
                "Two pods that trust different roots may refuse each other with tls-failed.",
                "A proxy takes new roots within seconds of its stream: see proxies-connected; else restart the pods that are named.",
            ),
            Self::IssuerValid => facts(
                "issuer-valid",
                C::Identity,
                "the issuer of certificates is valid",
                "Nothing can be certified: certificates of running proxies last for a day at most, new pods get none.",
                "Give the controller an issuer that is valid; its /objects and its log say what it waits for (docs/certificates.md).",
            ),
            Self::IssuerExpiring => facts(
                "issuer-expiring",
                C::Identity,
                "the issuer is valid for 7 more days",
                "The controller renews an issuer of its own long before; one that was given is renewed by whoever gave it.",
                "Put root.pem back for a moment, or renew the issuer where it comes from (docs/certificates.md).",
            ),
            Self::ProxiesAnswer => facts(
                "proxies-answer",
                C::DataPlane,
                "all proxies answer",
                "A proxy that does not answer on its loopback does not run, or is starved.",
                "kubectl -n NAMESPACE logs POD -c mesh-proxy",
            ),
            Self::ProxiesReady => facts(
                "proxies-ready",
                C::DataPlane,
                "all proxies are ready",
                "A proxy is ready when it holds its certificate and the policy of its pod; before that it lets nobody in.",
                "kubectl -n NAMESPACE logs POD -c mesh-proxy: it says what it waits for.",
            ),
            Self::ProxyCertsValid => facts(
                "proxy-certs-valid",
                C::DataPlane,
                "all proxies have a valid certificate",
                "Without one a proxy can neither reach meshed pods nor be reached by them.",
                "The log of the proxy names why the controller does not certify it.",
            ),
            Self::ProxyCertsRenewing => facts(
                "proxy-certs-renewing",
                C::DataPlane,
                "certificates are renewed in time",
                "Proxies renew after 70 % of the lifetime; past 80 % something keeps them from it, and the rest is all the \
                 time there is.",
                "The log of the proxy names why the controller does not certify it.",
            ),
            Self::ProxyVersions => facts(
                "proxy-versions",
                C::DataPlane,
                "proxies and meshctl are of one release",
                "One minor release of difference is tested both ways; beyond that the controller refuses the proxy.",
                "Restart the workloads that are named, so that they get the current proxy.",
            ),
            Self::ProxiesConnected => facts(
                "proxies-connected",
                C::DataPlane,
                "all proxies hear from the controller",
                "They serve on what they know; changes of endpoints, routes and policies do not reach them.",
                "Check the controller, and that NetworkPolicies let the pod reach its port 8443.",
            ),
            Self::ProxiesCurrent => facts(
                "proxies-current",
                C::DataPlane,
                "all proxies run the newest configuration",
                "A proxy that rejects a configuration keeps the last good one.",
                "Correct the object that the reason names; a proxy older than the object needs a restart.",
            ),
            Self::RedirectPresent => facts(
                "redirect-present",
                C::DataPlane,
                "the traffic of meshed pods is redirected",
                "Without the redirect the proxy runs beside the application and sees none of its traffic: no mutual TLS, \
                 no policy.",
                "Restart the pod; kubectl -n NAMESPACE logs POD -c mesh-redirect says what went wrong.",
            ),
            Self::PodsMeshed => facts(
                "pods-meshed",
                C::Workloads,
                "pods that should be meshed are",
                "A pod without a sidecar is a stranger to the mesh: its traffic is plain, and policies by identity refuse it.",
                "meshctl list shows each with its reason; meshctl explain REASON what to do.",
            ),
            Self::PodsReady => facts(
                "pods-ready",
                C::Workloads,
                "probes of meshed pods pass",
                "Nobody is sent to a pod that is not ready.",
                "kubectl -n NAMESPACE describe pod POD",
            ),
            Self::ObjectsInForce => facts(
                "objects-in-force",
                C::Configuration,
                "all objects are in force as written",
                "What the controller cannot read is not in force; of a document that was good before, the last good state is.",
                "Correct what is named; meshctl check -f FILE says the same before you apply it.",
            ),
            Self::ManifestReadable => facts(
                "manifest-readable",
                C::Manifests,
                "manifests can be read",
                "The controller would keep what the document said before, or nothing of it would be in force.",
                "Correct the document; kubectl apply --dry-run=server says what the API server thinks of it.",
            ),
            Self::ObjectsValid => facts(
                "objects-valid",
                C::Manifests,
                "policies, routes and Services mean something",
                "The controller reads the object and cannot put all of it in force; what that leads to is in the text.",
                "Correct the field that is named.",
            ),
            Self::RouteBackendsExist => facts(
                "route-backends-exist",
                C::Manifests,
                "parents and backends of routes exist",
                "Requests that a rule sends to a Service that does not exist are answered 500 no-backend.",
                "Name a Service of these files; if it is elsewhere, check the files together.",
            ),
            Self::PortsExist => facts(
                "ports-exist",
                C::Manifests,
                "ports that are named exist",
                "A route to a port that the Service lacks leads nowhere; a policy of a port that no pod has protects nothing.",
                "Name a port of the Service for routes, a container's port for policies.",
            ),
            Self::AnnotationsKnown => facts(
                "annotations-known",
                C::Manifests,
                "annotations are known and have good values",
                "What is not understood counts as not written.",
                "meshctl explain annotations lists them; meshctl explain NAME shows the values.",
            ),
            Self::PodsInjectable => facts(
                "pods-injectable",
                C::Manifests,
                "pods can be meshed",
                "The webhook would admit the pod without a sidecar and say so.",
                "meshctl explain REASON says what to change.",
            ),
            Self::PlaygroundRuns => facts(
                "playground-runs",
                C::Prerequisites,
                "this machine can run a playground",
                "The playground lives in namespaces of the kernel that an ordinary user makes, and in a directory of that user.",
                "The finding names what is refused and how to allow it; a cluster needs none of it.",
            ),
            Self::KubernetesVersion => facts(
                "kubernetes-version",
                C::Prerequisites,
                "Kubernetes is 1.29 or newer",
                "The sidecar is an init container that keeps running, which older releases do not have.",
                "Upgrade the cluster.",
            ),
            Self::InstallAllowed => facts(
                "install-allowed",
                C::Prerequisites,
                "you may create what the mesh is made of",
                "kubectl apply would stop at the first object that you may not create, and leave those before it.",
                "Have an administrator of the cluster apply it: meshctl install | kubectl apply -f -",
            ),
            Self::InstallAccepted => facts(
                "install-accepted",
                C::Prerequisites,
                "the API server accepts the manifest",
                "The API server was given each object as a dry run, and refuses it: its own words, or those of an admission \
                 policy of this cluster.",
                "Change what the finding names, or the policy that refuses it; meshctl install --set changes values.",
            ),
        }
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

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What is wrong with what, on one line.
    pub(crate) text: String,
    /// What to do about this one; else what [`Facts::fix`] says.
    pub(crate) fix: Option<String>,
}

impl Finding {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), fix: None }
    }

    #[must_use]
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Ok,
    /// This user may not look, so that nothing can be said.
    NotAllowed,
    Warning,
    Error,
}

/// One check with what it found; nothing is found where it is ok.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) check: Check,
    pub(crate) verdict: Verdict,
    pub(crate) findings: Vec<Finding>,
}

impl Outcome {
    /// Ok without findings, an error with them.
    pub(crate) fn error(check: Check, findings: Vec<Finding>) -> Self {
        Self::new(check, Verdict::Error, findings)
    }

    /// Ok without findings, a warning with them.
    pub(crate) fn warning(check: Check, findings: Vec<Finding>) -> Self {
        Self::new(check, Verdict::Warning, findings)
    }

    /// Ok without findings; with them nothing is known for want of rights.
    pub(crate) fn not_allowed(check: Check, findings: Vec<Finding>) -> Self {
        let fix = "An administrator can grant it: meshctl explain rights. With less: -n NAME and --proxy.";
        let with_fix = |found: Finding| if found.fix.is_some() { found } else { found.fix(fix) };
        Self::new(check, Verdict::NotAllowed, findings.into_iter().map(with_fix).collect())
    }

    fn new(check: Check, bad: Verdict, findings: Vec<Finding>) -> Self {
        let verdict = if findings.is_empty() { Verdict::Ok } else { bad };
        Self { check, verdict, findings }
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
