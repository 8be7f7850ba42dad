//! The application's probes: pointed at the sidecar, and back.
//!
//! Behind a redirect the kubelet's probe would reach the proxy, to which every port is open, as an unauthenticated client
//! for which policies would need holes. So the kubelet asks the sidecar's admin port, and the sidecar performs the
//! original (contracts §8). Left alone: exec probes, probes of another host, and probes of a port that cannot be told.
//! Pure; `sidecar` and `manifest` call it on the way in, `uninject` on the way out.

use mesh_proto::{
    names,
    probe::{self, GrpcProbe, HttpProbe, Probe, ProbeAction, ProbeKind, Scheme, TcpProbe},
};
use serde_json::{Map, Value, json};

use crate::pod;

/// Most bytes the list of originals may take; one environment string holds 128 KiB.
const MAX_LIST: usize = 64 * 1024;

/// One probe that the sidecar is to perform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The field of the container's probe that holds its handler.
    pub handler: &'static str,
    /// The probe; its `original` is JSON.
    pub probe: Probe,
}

/// Points every probe at the sidecar. Returns the originals, and sentences for the user.
pub fn point_at_sidecar(pod: &mut Value) -> (Vec<Probe>, Vec<String>) {
    let (found, warnings) = find(pod);
    for container in pod::probed_container_mut(pod) {
        for kind in ProbeKind::ALL {
            let Some(name) = pod::name(container).map(str::to_owned) else { continue };
            let Some(found) = found.iter().find(|f| f.probe.kind == kind && f.probe.container == name) else {
                continue;
            };
            if let Some(probe) = container.get_mut(kind.field()).and_then(Value::as_object_mut) {
                rename(probe, found.handler, "httpGet", replacement(&found.probe));
            }
        }
    }
    (found.into_iter().map(|found| found.probe).collect(), warnings)
}

/// Finds the probes that are to be pointed at the sidecar, and says which cannot be.
pub fn find(pod: &mut Value) -> (Vec<Found>, Vec<String>) {
    let mut found = Vec::new();
    let mut warnings = Vec::new();
    for container in pod::probed_container_mut(pod) {
        for kind in ProbeKind::ALL {
            match read(container, kind) {
                Ok(probe) => found.extend(probe),
                Err(problem) => {
                    let name: String = pod::name(container).unwrap_or("?").chars().take(63).collect();
                    warnings.push(format!("{} of container {name} is left alone: {problem}", kind.field()));
                }
            }
        }
    }
    let probes: Vec<Probe> = found.iter().map(|found| found.probe.clone()).collect();
    if probe::list(&probes).len() > MAX_LIST {
        found.clear();
        warnings.push(format!("all probes are left alone: together they take more than {} KiB", MAX_LIST / 1024));
    }
    (found, warnings)
}

/// What the kubelet is to do instead.
pub fn replacement(probe: &Probe) -> Value {
    json!({"path": probe.path(), "port": names::PORT_PROXY_ADMIN})
}

/// Puts the originals back.
pub fn restore(pod: &mut Value, probes: &[Probe]) -> Result<(), BadOriginal> {
    for container in pod::probed_container_mut(pod) {
        for kind in ProbeKind::ALL {
            let Some(name) = pod::name(container).map(str::to_owned) else { continue };
            let Some(original) = probes.iter().find(|probe| probe.kind == kind && probe.container == name) else {
                continue;
            };
            let Some(probe) = container.get_mut(kind.field()).and_then(Value::as_object_mut) else { continue };
            if probe.get("httpGet").is_some_and(|handler| is_ours(handler, original)) {
                let (field, value) = original_handler(original)?;
                rename(probe, "httpGet", &field, value);
            }
        }
    }
    Ok(())
}

/// The handler that a probe had: its field and value.
pub fn original_handler(probe: &Probe) -> Result<(String, Value), BadOriginal> {
    let bad = |reason: String| BadOriginal { container: probe.container.clone(), kind: probe.kind, reason };
    let parsed: Map<String, Value> = serde_saphyr::from_str(&probe.original)
        .map_err(|error| bad(error.to_string().lines().next().unwrap_or_default().to_owned()))?;
    let mut fields = parsed.into_iter();
    match (fields.next(), fields.next()) {
        (Some(handler), None) => Ok(handler),
        _ => Err(bad("the original is not one handler".into())),
    }
}

/// Whether a handler is what [`replacement`] made; the API server may have added defaults to it.
pub fn is_ours(handler: &Value, probe: &Probe) -> bool {
    handler.get("port").and_then(Value::as_u64) == Some(u64::from(names::PORT_PROXY_ADMIN))
        && handler.get("path").and_then(Value::as_str) == Some(probe.path().as_str())
}

/// The original of a probe cannot be put back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("restore the {kind} probe of container {container}: {reason}")]
pub struct BadOriginal {
    /// The container.
    pub container: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// What is wrong with the text.
    pub reason: String,
}

/// Replaces a field by another at the same place.
fn rename(object: &mut Map<String, Value>, from: &str, to: &str, value: Value) {
    *object = std::mem::take(object)
        .into_iter()
        .map(|(key, old)| if key == from { (to.to_owned(), value.clone()) } else { (key, old) })
        .collect();
}

fn read(container: &Value, kind: ProbeKind) -> Result<Option<Found>, &'static str> {
    let Some(probe) = container.get(kind.field()) else { return Ok(None) };
    let Some(name) = pod::name(container) else { return Ok(None) };
    let Some((handler, value)) =
        ["httpGet", "tcpSocket", "grpc"].into_iter().find_map(|field| Some((field, probe.get(field)?)))
    else {
        return Ok(None);
    };
    if value.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
        return Ok(None);
    }
    let port = value.get("port").ok_or("it has no port")?;
    let port = resolve(container, port).ok_or("its port is neither a number nor a port of the container")?;
    let action = match handler {
        "httpGet" => ProbeAction::Http(http(port, value)?),
        "tcpSocket" => ProbeAction::Tcp(TcpProbe { port }),
        _ => ProbeAction::Grpc(GrpcProbe {
            port,
            service: value.get("service").and_then(Value::as_str).unwrap_or_default().to_owned(),
        }),
    };
    let timeout = probe.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(1).max(1);
    let probe = Probe {
        container: name.to_owned(),
        kind,
        action,
        timeout_seconds: u32::try_from(timeout).unwrap_or(u32::MAX),
        original: json!({handler: value}).to_string(),
    };
    Ok(Some(Found { handler, probe }))
}

fn http(port: u16, value: &Value) -> Result<HttpProbe, &'static str> {
    let path = value.get("path").and_then(Value::as_str).unwrap_or("/");
    // The kubelet adds a missing slash too.
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let scheme = match value.get("scheme").and_then(Value::as_str) {
        None => Scheme::Http,
        Some(scheme) if scheme.eq_ignore_ascii_case("HTTP") => Scheme::Http,
        Some(scheme) if scheme.eq_ignore_ascii_case("HTTPS") => Scheme::Https,
        Some(_) => return Err("its scheme is neither HTTP nor HTTPS"),
    };
    let headers = value.get("httpHeaders").and_then(Value::as_array).into_iter().flatten();
    let text = |header: &Value, field| header.get(field).and_then(Value::as_str).map(str::to_owned);
    let headers = headers.filter_map(|header| Some((text(header, "name")?, text(header, "value").unwrap_or_default())));
    Ok(HttpProbe { port, path, scheme, headers: headers.collect() })
}

/// A number, or the name of one of the container's ports.
fn resolve(container: &Value, port: &Value) -> Option<u16> {
    let number = match port {
        Value::String(name) => {
            let ports = container.get("ports").and_then(Value::as_array)?;
            let named = ports.iter().find(|port| pod::name(port) == Some(name.as_str()));
            named.and_then(|port| port.get("containerPort")?.as_u64()).or_else(|| name.parse().ok())?
        }
        number => number.as_u64()?,
    };
    u16::try_from(number).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod_with(probe: Value) -> Value {
        json!({"spec": {"containers": [{
            "name": "web", "ports": [{"name": "http", "containerPort": 8080}], "livenessProbe": probe,
        }]}})
    }

    #[test]
    fn each_kind_of_probe_is_pointed_at_the_sidecar_and_comes_back() {
        for (probe, action) in [
            (json!({"httpGet": {"port": 80}}), r#""http":{"port":80,"path":"/"}"#),
            (
                json!({"httpGet": {"port": "http", "path": "ok?a=1", "scheme": "HTTPS", "httpHeaders": [{"name": "Host", "value": "a"}]}, "periodSeconds": 3}),
                r#""http":{"port":8080,"path":"/ok?a=1","scheme":"https","headers":[["Host","a"]]}"#,
            ),
            (json!({"tcpSocket": {"port": "http"}, "timeoutSeconds": 7}), r#""tcp":{"port":8080}},"#),
            (json!({"grpc": {"port": 9000, "service": "a.B"}}), r#""grpc":{"port":9000,"service":"a.B"}"#),
            (json!({"grpc": {"port": 9000, "service": null}}), r#""grpc":{"port":9000}"#),
        ] {
            let before = pod_with(probe.clone());
            let mut pod = before.clone();
            let (probes, warnings) = point_at_sidecar(&mut pod);
            assert!(warnings.is_empty() && probes.len() == 1, "{probe}: {warnings:?}");
            assert!(probe::list(&probes).contains(action.trim_end_matches("},")), "{}", probe::list(&probes));
            let handler = pod.pointer("/spec/containers/0/livenessProbe/httpGet").cloned();
            assert_eq!(handler, Some(json!({"path": "/probe/web/liveness", "port": 4191})), "{probe}");
            restore(&mut pod, &probes).unwrap();
            assert_eq!(pod, before);
        }
    }

    #[test]
    fn what_the_sidecar_cannot_or_need_not_perform_is_left_alone() {
        for (probe, warned) in [
            (json!({"exec": {"command": ["true"]}}), false),
            (json!({"httpGet": {"port": 80, "host": "example.com"}}), false),
            (json!({"tcpSocket": {"port": "nope"}}), true),
            (json!({"tcpSocket": {"port": 70000}}), true),
            (json!({"httpGet": {"path": "/"}}), true),
            (json!({"httpGet": {"port": 80, "scheme": "FTP"}}), true),
            (json!(7), false),
        ] {
            let mut pod = pod_with(probe.clone());
            let (probes, warnings) = point_at_sidecar(&mut pod);
            assert!(probes.is_empty() && pod == pod_with(probe.clone()), "{probe}");
            assert_eq!(warnings.len(), usize::from(warned), "{probe}: {warnings:?}");
        }
    }

    #[test]
    fn init_containers_are_probed_only_when_they_keep_running() {
        let probe = json!({"tcpSocket": {"port": 1}});
        let mut pod = json!({"spec": {"initContainers": [
            {"name": "once", "startupProbe": probe},
            {"name": "beside", "restartPolicy": "Always", "startupProbe": probe},
        ]}});
        let (probes, _) = point_at_sidecar(&mut pod);
        assert_eq!(probes.iter().map(Probe::path).collect::<Vec<_>>(), ["/probe/beside/startup"]);
    }

    #[test]
    fn a_list_too_long_for_the_environment_leaves_all_probes_alone() {
        let before = pod_with(json!({"httpGet": {"port": 80, "path": format!("/{}", "a".repeat(MAX_LIST))}}));
        let mut pod = before.clone();
        let (probes, warnings) = point_at_sidecar(&mut pod);
        assert!(probes.is_empty() && pod == before && warnings.len() == 1);
    }
}
