//! What was seen -> how each check came out. Pure.

mod control;
mod identity;
mod proxies;
pub(crate) mod served;
mod workloads;

use mesh_proto::names;

use super::{
    Category, Check, Finding, Outcome,
    observe::{Observed, Unseen},
};
use crate::{cluster::PodInfo, failure::Failure};

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything.
    Whole,
    /// Proxies, their identities and their workloads: `--proxy`.
    Proxies,
}

impl Extent {
    fn has(self, category: Category) -> bool {
        match self {
            Self::Whole => !matches!(category, Category::Manifests | Category::Prerequisites),
            Self::Proxies => {
                matches!(category, Category::Cluster | Category::Identity | Category::DataPlane | Category::Workloads)
            }
        }
    }
}

/// Every check of the extent, in order. Of what this user may not look at, that is said: it is neither good nor bad.
pub(crate) fn judge(observed: &Observed, extent: Extent) -> Vec<Outcome> {
    let wanted = Check::ALL.into_iter().filter(|check| extent.has(check.facts().category));
    // What proxies do does not hang on what can be written.
    let wanted = wanted.filter(|check| extent == Extent::Whole || *check != Check::ResourceVersions);
    let judged = wanted.filter_map(|check| match not_allowed(check, observed) {
        // Whoever asks of proxies has not asked for the control plane.
        Some(_) if extent == Extent::Proxies && !matches!(check, Check::ProxiesAnswer | Check::PodsMeshed) => None,
        Some(findings) => Some(Outcome::not_allowed(check, findings)),
        None => Some(one(check, observed)),
    });
    judged.collect()
}

/// What is left to say where the cluster does not answer.
pub(crate) fn unreachable(failure: &Failure) -> Vec<Outcome> {
    let finding = Finding { text: failure.message.clone(), fix: failure.fix.clone() };
    let outcome = if failure.forbidden { Outcome::not_allowed } else { Outcome::error };
    vec![outcome(Check::ClusterReachable, vec![finding])]
}

/// Why nothing can be said of a check, where that is for want of rights.
fn not_allowed(check: Check, observed: &Observed) -> Option<Vec<Finding>> {
    let one = |reason: &String| vec![Finding::new(reason)];
    let of = |unseen: &Unseen| unseen.not_allowed.then(|| one(&unseen.reason));
    match check {
        Check::ControllerReady | Check::InjectorReady => observed.hidden.as_ref().map(one),
        Check::ControllerAnswers
        | Check::IssuerValid
        | Check::IssuerExpiring
        | Check::ProxiesCurrent
        | Check::ObjectsInForce => match &observed.controller {
            Some(Err(unseen)) => of(unseen),
            Some(Ok(_)) => None,
            None => observed.hidden.as_ref().map(one),
        },
        Check::WebhookCertValid | Check::WebhookCertExpiring => match &observed.webhook {
            Some(Err(unseen)) => of(unseen),
            Some(Ok(_)) => None,
            None => observed.hidden.as_ref().map(one),
        },
        Check::ResourceVersions => match &observed.served {
            Some(Err(unseen)) => of(unseen),
            Some(Ok(_)) | None => None,
        },
        Check::WebhookTrusted => match &observed.registered {
            Some(Err(unseen)) => of(unseen),
            Some(Ok(_)) | None => None,
        },
        Check::ProxiesAnswer => {
            let unseen: Vec<_> =
                observed.proxies.iter().filter_map(|(pod, it)| Some((pod, it.as_ref().err()?))).collect();
            let all = !unseen.is_empty() && unseen.iter().all(|(_, unseen)| unseen.not_allowed);
            let finding =
                |(pod, unseen): &(&PodInfo, &Unseen)| Finding::new(format!("pod {}: {}", name(pod), unseen.reason));
            all.then(|| unseen.iter().map(finding).collect())
        }
        Check::PodsMeshed => observed.namespaces_hidden.as_ref().and_then(of),
        _ => None,
    }
}

fn one(check: Check, observed: &Observed) -> Outcome {
    match check {
        Check::ResourceVersions => {
            let installed = !observed.parts(names::CONTROLLER_NAME).is_empty();
            Outcome::error(check, served::found(observed.served.as_ref(), installed))
        }
        Check::ControllerReady => Outcome::error(check, control::controller_ready(observed)),
        Check::ControllerAnswers => Outcome::error(check, control::controller_answers(observed)),
        Check::InjectorReady => Outcome::error(check, control::injector_ready(observed)),
        Check::WebhookCertValid => Outcome::error(check, control::webhook_cert_valid(observed)),
        Check::WebhookCertExpiring => Outcome::warning(check, control::webhook_cert_expiring(observed)),
        Check::WebhookTrusted => Outcome::error(check, control::webhook_trusted(observed)),
        Check::AdmissionWorks => control::admission_works(observed),
        Check::TrustAnchorsValid => Outcome::error(check, identity::anchors_valid(observed)),
        Check::TrustAnchorsExpiring => Outcome::warning(check, identity::anchors_expiring(observed)),
        Check::TrustAnchorsAgree => Outcome::warning(check, identity::anchors_agree(observed)),
        Check::IssuerValid => Outcome::error(check, identity::issuer_valid(observed)),
        Check::IssuerExpiring => Outcome::warning(check, identity::issuer_expiring(observed)),
        Check::ProxiesAnswer => Outcome::error(check, proxies::answer(observed)),
        Check::ProxiesReady => Outcome::error(check, proxies::ready(observed)),
        Check::ProxyCertsValid => Outcome::error(check, proxies::certs_valid(observed)),
        Check::ProxyCertsRenewing => Outcome::warning(check, proxies::certs_renewing(observed)),
        Check::ProxyVersions => proxies::versions(observed),
        Check::ProxiesConnected => Outcome::error(check, proxies::connected(observed)),
        Check::ProxiesCurrent => Outcome::error(check, proxies::current(observed)),
        Check::RedirectPresent => Outcome::error(check, proxies::redirect(observed)),
        // What is not known is no warning.
        Check::PodsMeshed if observed.namespaces_hidden.is_some() => Outcome::error(check, workloads::meshed(observed)),
        Check::PodsMeshed => Outcome::warning(check, workloads::meshed(observed)),
        Check::OneMesh => Outcome::warning(check, workloads::one_mesh(observed)),
        Check::PodsReady => Outcome::warning(check, workloads::ready(observed)),
        Check::ObjectsInForce => Outcome::error(check, control::objects_in_force(observed)),
        // It has answered; the rest is of files and of what comes before a mesh: `lint`, `pre`.
        Check::ClusterReachable
        | Check::ManifestReadable
        | Check::ObjectsValid
        | Check::RouteBackendsExist
        | Check::PortsExist
        | Check::AnnotationsKnown
        | Check::PodsInjectable
        | Check::PlaygroundRuns
        | Check::KubernetesVersion
        | Check::InstallAllowed
        | Check::InstallAccepted => Outcome::error(check, Vec::new()),
    }
}

/// `namespace/name`, as every finding names a pod.
fn name(pod: &PodInfo) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

#[cfg(test)]
mod tests;
