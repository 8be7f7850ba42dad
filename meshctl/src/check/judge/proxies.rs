//! Each proxy by itself, and against what the controller sent it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use mesh_proto::{
    admin::{Certificate, Config},
    names,
};

use super::name;
use crate::{
    check::{Check, Finding, Outcome, observe::Observed},
    cluster::PodInfo,
    filter::show_span,
};

/// Share of a certificate's lifetime after which it should have been renewed: proxies do at 0.7 with a jitter of 0.05.
const RENEWED_BY: f64 = 0.8;

fn configs(observed: &Observed) -> impl Iterator<Item = (&PodInfo, &Config)> {
    observed.proxies.iter().filter_map(|(pod, config)| Some((pod, config.as_ref().ok()?)))
}

pub(super) fn answer(observed: &Observed) -> Vec<Finding> {
    let silent = observed.proxies.iter().filter_map(|(pod, config)| Some((pod, config.as_ref().err()?)));
    silent
        .map(|(pod, unseen)| {
            let fix = observed.logs(pod, names::CONTAINER_PROXY);
            Finding::new(format!("pod {}: {}", name(pod), unseen.reason)).fix(fix)
        })
        .collect()
}

pub(super) fn ready(observed: &Observed) -> Vec<Finding> {
    let waiting = configs(observed).filter(|(_, config)| !config.ready && !config.draining);
    waiting
        .map(|(pod, config)| {
            let text = format!("pod {} waits for {}", name(pod), config.waiting_for.join(", "));
            Finding::new(text).fix(observed.logs(pod, names::CONTAINER_PROXY))
        })
        .collect()
}

/// Begin and end of a certificate.
fn life(certificate: &Certificate) -> Option<(Timestamp, Timestamp)> {
    let time = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
    Some((time(&certificate.not_before)?, time(&certificate.not_after)?))
}

pub(super) fn certs_valid(observed: &Observed) -> Vec<Finding> {
    let bad = configs(observed).filter_map(|(pod, config)| {
        let what = match config.certificate.as_ref().map(life) {
            None => "has no certificate".to_owned(),
            Some(None) => "has a certificate without begin or end".to_owned(),
            Some(Some((_, end))) if end <= observed.now => format!("has a certificate that expired at {end}"),
            Some(Some((begin, _))) if begin > observed.now => {
                format!("has a certificate that is not valid before {begin}: compare the clocks")
            }
            Some(Some(_)) => return None,
        };
        Some(Finding::new(format!("pod {} {what}", name(pod))))
    });
    bad.collect()
}

pub(super) fn certs_renewing(observed: &Observed) -> Vec<Finding> {
    let late = configs(observed).filter_map(|(pod, config)| {
        let (begin, end) = life(config.certificate.as_ref()?)?;
        let left = end.duration_since(observed.now);
        let used = observed.now.duration_since(begin).as_secs_f64() / end.duration_since(begin).as_secs_f64();
        let late = left > SignedDuration::ZERO && used > RENEWED_BY;
        late.then(|| {
            Finding::new(format!(
                "pod {}: {} is left and it was not renewed",
                name(pod),
                show_span(left.unsigned_abs())
            ))
        })
    });
    late.collect()
}

/// Another release is a warning; one that is too far away is an error.
pub(super) fn versions(observed: &Observed) -> Outcome {
    let ours = env!("CARGO_PKG_VERSION");
    let mut others: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (pod, config) in configs(observed).filter(|(_, config)| config.version != ours) {
        others.entry(&config.version).or_default().push(name(pod));
    }
    let far = others.keys().any(|version| !is_near(version, ours));
    let findings = others
        .iter()
        .map(|(version, pods)| {
            let named = pods.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            let more = if pods.len() > 3 { format!(" and {} more", pods.len() - 3) } else { String::new() };
            Finding::new(format!("{version} (meshctl: {ours}): {named}{more}"))
        })
        .collect();
    if far { Outcome::error(Check::ProxyVersions, findings) } else { Outcome::warning(Check::ProxyVersions, findings) }
}

/// At most one minor release apart.
fn is_near(a: &str, b: &str) -> bool {
    let minor = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split(['.', '-', '+']).map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    match (minor(a), minor(b)) {
        (Some(a), Some(b)) => a.0 == b.0 && a.1.abs_diff(b.1) <= 1,
        _ => false,
    }
}

pub(super) fn connected(observed: &Observed) -> Vec<Finding> {
    let alone = configs(observed).filter(|(_, config)| !config.controller.connected && !config.draining);
    alone
        .map(|(pod, config)| {
            let age = show_span(std::time::Duration::from_secs(config.controller.age_seconds));
            Finding::new(format!("pod {} has had no stream to the controller for {age}", name(pod)))
        })
        .collect()
}

pub(super) fn current(observed: &Observed) -> Vec<Finding> {
    let Some(Ok(controller)) = &observed.controller else { return Vec::new() };
    let in_scope = |pod: &str| {
        let namespace = pod.split_once('/').map_or("", |(namespace, _)| namespace);
        observed.scope.as_deref().is_none_or(|scope| scope == namespace)
    };
    let mut findings = Vec::new();
    for stream in controller.proxies.iter().filter(|stream| !stream.draining && in_scope(&stream.pod)) {
        for (about, key) in stream.keys.iter().filter(|(_, key)| key.is_behind()) {
            let show = |version: Option<u64>| version.map_or("none".to_owned(), |version| version.to_string());
            let (sent, acked) = (show(key.sent), show(key.acked));
            let text = match &key.rejected {
                Some(rejected) if key.sent == Some(rejected.version) => {
                    format!("pod {} rejects {about} version {sent}, keeps {acked}: {}", stream.pod, rejected.reason)
                }
                _ => format!("pod {} was sent {about} version {sent} and runs {acked}", stream.pod),
            };
            findings.push(Finding::new(text));
        }
    }
    findings
}

pub(super) fn redirect(observed: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pod in &observed.pods {
        let info = PodInfo::from_object(pod);
        if !info.meshed || observed.scope.as_ref().is_some_and(|scope| *scope != info.namespace) {
            continue;
        }
        let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        if !inits.into_iter().any(|init| init.name == names::CONTAINER_REDIRECT) {
            let text = format!("pod {} has a sidecar and no {}", name(&info), names::CONTAINER_REDIRECT);
            findings.push(Finding::new(text).fix("Inject the pod again: meshctl uninject, then meshctl inject."));
            continue;
        }
        let statuses = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
        let failed = statuses.filter(|status| status.name == names::CONTAINER_REDIRECT).find_map(|status| {
            let state = status.state.as_ref();
            let code = state.and_then(|state| state.terminated.as_ref()).map(|ended| ended.exit_code);
            code.filter(|code| *code != 0)
        });
        if let Some(code) = failed {
            let fix = observed.logs(&info, names::CONTAINER_REDIRECT);
            let text = format!("pod {}: {} ended with {code}", name(&info), names::CONTAINER_REDIRECT);
            findings.push(Finding::new(text).fix(fix));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_release_is_near() {
        for (a, b, near) in [
            ("0.1.0", "0.1.7", true),
            ("0.2.0", "0.1.7", true),
            ("0.3.0", "0.1.0", false),
            ("1.0.0", "0.9.0", false),
            ("0.2.0-rc.1", "0.1.0", true),
            ("unknown", "0.1.0", false),
        ] {
            assert_eq!(is_near(a, b), near, "{a} {b}");
        }
    }
}
