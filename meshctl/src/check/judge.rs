//! What was seen -> how each check came out. Pure.

mod control;
mod identity;
mod proxies;
mod workloads;

use super::{Category, Check, Finding, Outcome, observe::Observed};
use crate::cluster::PodInfo;

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
            Self::Whole => category != Category::Manifests,
            Self::Proxies => {
                matches!(category, Category::Cluster | Category::Identity | Category::DataPlane | Category::Workloads)
            }
        }
    }
}

/// Every check of the extent, in order.
pub(crate) fn judge(observed: &Observed, extent: Extent) -> Vec<Outcome> {
    let wanted = Check::ALL.into_iter().filter(|check| extent.has(check.facts().category));
    wanted.map(|check| one(check, observed)).collect()
}

/// What is left to say where the cluster does not answer.
pub(crate) fn unreachable(reason: &str, fix: Option<&str>) -> Vec<Outcome> {
    let finding = Finding { text: reason.to_owned(), fix: fix.map(str::to_owned) };
    vec![Outcome::error(Check::ClusterReachable, vec![finding])]
}

fn one(check: Check, observed: &Observed) -> Outcome {
    match check {
        Check::ControllerReady => Outcome::error(check, control::controller_ready(observed)),
        Check::ControllerAnswers => Outcome::error(check, control::controller_answers(observed)),
        Check::InjectorReady => Outcome::error(check, control::injector_ready(observed)),
        Check::WebhookCertValid => Outcome::error(check, control::webhook_cert_valid(observed)),
        Check::WebhookCertExpiring => Outcome::warning(check, control::webhook_cert_expiring(observed)),
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
        Check::PodsMeshed => Outcome::warning(check, workloads::meshed(observed)),
        Check::PodsReady => Outcome::warning(check, workloads::ready(observed)),
        Check::ObjectsInForce => Outcome::error(check, control::objects_in_force(observed)),
        // It has answered; the rest is of files, not of a mesh: `lint`.
        Check::ClusterReachable
        | Check::ManifestReadable
        | Check::ObjectsValid
        | Check::RouteBackendsExist
        | Check::PortsExist
        | Check::AnnotationsKnown
        | Check::PodsInjectable => Outcome::error(check, Vec::new()),
    }
}

/// `namespace/name`, as every finding names a pod.
fn name(pod: &PodInfo) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

#[cfg(test)]
mod tests;
