//! The control plane, and what it says of the objects.

use jiff::SignedDuration;
use mesh_proto::names;

use super::name;
use crate::{
    check::{
        Check, Finding, Outcome,
        observe::{Admission, Observed, verify},
    },
    filter::show_span,
};

/// The webhook's certificate must last so much longer.
const WEBHOOK_LEAST: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Most findings of one check; the rest is counted.
const MOST: usize = 50;

pub(super) fn controller_ready(observed: &Observed) -> Vec<Finding> {
    part_ready(observed, names::CONTROLLER_NAME)
}

pub(super) fn injector_ready(observed: &Observed) -> Vec<Finding> {
    part_ready(observed, names::INJECTOR_NAME)
}

fn part_ready(observed: &Observed, part: &str) -> Vec<Finding> {
    let namespace = &observed.mesh_namespace;
    let pods = observed.parts(part);
    if pods.is_empty() {
        let absent = Finding::new(format!("there is no {part} in namespace {namespace}"));
        return vec![absent.fix("meshctl install | kubectl apply -f -")];
    }
    // One that works is enough: the others are a matter of its Deployment.
    if pods.iter().any(|pod| pod.ready) {
        return Vec::new();
    }
    pods.iter().map(|pod| Finding::new(format!("pod {} is not ready", name(pod)))).collect()
}

pub(super) fn controller_answers(observed: &Observed) -> Vec<Finding> {
    match &observed.controller {
        Some(Err(unseen)) => vec![Finding::new(&unseen.reason)],
        // Its absence is told already.
        Some(Ok(_)) | None => Vec::new(),
    }
}

pub(super) fn webhook_cert_valid(observed: &Observed) -> Vec<Finding> {
    let certificate = match &observed.webhook {
        None => return Vec::new(),
        Some(Err(unseen)) => return vec![Finding::new(format!("the webhook cannot be asked: {}", unseen.reason))],
        Some(Ok(certificate)) => certificate,
    };
    let mut findings = Vec::new();
    if observed.now < certificate.not_before {
        findings.push(Finding::new(format!("it is not valid before {}", certificate.not_before)));
    }
    if observed.now >= certificate.not_after {
        findings.push(Finding::new(format!("it expired at {}", certificate.not_after)));
    }
    let service = service(observed);
    if !certificate.names.contains(&service) {
        let names = certificate.names.join(", ");
        findings.push(Finding::new(format!("the API server asks for {service}; the certificate is for {names}")));
    }
    findings
}

pub(super) fn webhook_cert_expiring(observed: &Observed) -> Vec<Finding> {
    let Some(Ok(certificate)) = &observed.webhook else { return Vec::new() };
    let left = certificate.not_after.duration_since(observed.now);
    if left <= SignedDuration::ZERO || left >= WEBHOOK_LEAST {
        return Vec::new();
    }
    vec![Finding::new(format!("it expires in {}, at {}", show_span(left.unsigned_abs()), certificate.not_after))]
}

pub(super) fn webhook_trusted(observed: &Observed) -> Vec<Finding> {
    // That there is no injector at all is told already.
    if observed.parts(names::INJECTOR_NAME).is_empty() {
        return Vec::new();
    }
    let entries = match &observed.registered {
        None => return Vec::new(),
        Some(Err(unseen)) => {
            let text = format!("the API server has no webhook configuration to go by: {}", unseen.reason);
            return vec![Finding::new(text).fix("meshctl install | kubectl apply -f -")];
        }
        Some(Ok(registered)) => &registered.0,
    };
    let chain = observed.webhook.as_ref().and_then(|webhook| webhook.as_ref().ok()).map(|it| &it.chain);
    let finding = |(entry, bundle): &(String, Option<Vec<u8>>)| match bundle {
        None => Some(Finding::new(format!("{entry} has no caBundle: the injector has not written it"))),
        Some(bundle) => {
            // What is not presented was told already.
            let reason = verify(chain?, bundle, &service(observed), observed.now).err()?;
            Some(Finding::new(format!("caBundle of {entry}: {reason}")))
        }
    };
    entries.iter().filter_map(finding).collect()
}

pub(super) fn admission_works(observed: &Observed) -> Outcome {
    let outcome = |findings| Outcome::error(Check::AdmissionWorks, findings);
    match &observed.admission {
        None | Some(Ok(Admission::Meshed)) => outcome(Vec::new()),
        Some(Ok(Admission::NotTried(reason))) => {
            outcome(Vec::new()).note(Some(format!("it could not be tried: {reason}")))
        }
        Some(Ok(Admission::Plain(namespace))) => {
            outcome(vec![Finding::new(format!("a pod of namespace {namespace} was admitted as it was written"))])
        }
        Some(Err(unseen)) => outcome(vec![Finding::new(&unseen.reason)]),
    }
}

/// The name by which the API server asks for the webhook.
fn service(observed: &Observed) -> String {
    format!("{}.{}.svc", names::INJECTOR_NAME, observed.mesh_namespace)
}

pub(super) fn objects_in_force(observed: &Observed) -> Vec<Finding> {
    let Some(Ok(controller)) = &observed.controller else { return Vec::new() };
    let all = &controller.objects.problems;
    let text = |owner: &str, reason: &str| {
        // What a source says begins with its own name; what the index says does not.
        if reason.starts_with(owner) { reason.to_owned() } else { format!("{owner}: {reason}") }
    };
    let mut findings: Vec<Finding> = all
        .iter()
        .flat_map(|(owner, reasons)| reasons.iter().map(move |reason| Finding::new(text(owner, reason))))
        .collect();
    if findings.len() > MOST {
        let more = findings.len() - MOST;
        findings.truncate(MOST);
        findings.push(Finding::new(format!("and {more} more")));
    }
    findings
}
