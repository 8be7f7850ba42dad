//! What is known of each check, whatever is found: the heading, the meaning and the way out. Prose, and nothing else.

use super::{Category, Check};

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
            Self::ResourceVersions => facts(
                "resource-versions",
                C::Cluster,
                "resources are served in the version that is read",
                "The mesh reads each kind of object in one version. Objects of a kind that this API server does not serve in \
                 that version are not in force, whatever they say.",
                "kubectl get crd shows who made the resource definition: another release of the mesh or of the Gateway API.",
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
                "The API server refuses to ask a webhook whose certificate has expired or is for another name. The injector \
                 replaces its own long before; one that you put into the Secret mesh-injector-webhook-tls is yours to renew: \
                 delete the Secret, and the injector makes one.",
                "kubectl -n mesh-system logs deployment/mesh-injector",
            ),
            Self::WebhookCertExpiring => facts(
                "webhook-cert-expiring",
                C::ControlPlane,
                "the webhook's certificate is valid for 14 more days",
                "It is renewed long before that; something keeps it from being renewed.",
                "kubectl -n mesh-system logs deployment/mesh-injector",
            ),
            Self::WebhookTrusted => facts(
                "webhook-trusted",
                C::ControlPlane,
                "the API server trusts the webhook's certificate",
                "The API server asks a webhook only if its certificate is signed by the caBundle of the webhook \
                 configuration; it is the injector that writes it there, or whoever made the certificate.",
                "kubectl -n mesh-system rollout restart deployment/mesh-injector, and its log if that does not help.",
            ),
            Self::AdmissionWorks => facts(
                "admission-works",
                C::ControlPlane,
                "a pod that asks for a sidecar gets one",
                "A pod was submitted as a dry run, which creates nothing, and came back as it was: the API server does not \
                 reach the webhook, or is not told to ask it. New pods are not meshed, or not admitted.",
                "kubectl -n mesh-system logs deployment/mesh-injector; may the API server reach its port 9443?",
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
            Self::OneMesh => facts(
                "one-mesh",
                C::Workloads,
                "no other mesh asks for the same pods",
                "Two meshes that redirect the traffic of one pod get in each other's way. A pod that has another mesh's \
                 sidecar already is left to it (other-mesh).",
                "Keep one of the two labels of the namespace, and restart its workloads.",
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
}
