//! HTTPRoute -> facts. Called by [`super::Facts`]; pure.
//!
//! A rule is in force as a whole or answers `no-backend`: a condition or filter that this release does not know never
//! makes a rule match more or do less than was written.

use gateway_api::apis::standard::httproutes::{
    HttpRoute, HttpRouteParentRefs, HttpRouteRules, HttpRouteRulesBackendRefs, HttpRouteRulesMatches,
    HttpRouteRulesMatchesHeadersType, HttpRouteRulesMatchesMethod as WrittenMethod, HttpRouteRulesMatchesPathType,
};
use http::{HeaderName, HeaderValue, Method};
use mesh_proto::outbound::{HeaderMatch, PathMatch, RequestMatch};

use super::{Converted, Name, ports};

/// What matters of an HTTPRoute.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteFacts {
    /// Namespace and name.
    pub name: Name,
    /// The Services that it is about.
    pub parents: Vec<Parent>,
    /// Its rules, in order.
    pub rules: Vec<RuleFacts>,
    /// When it was made: the older of two routes with the same match wins. Seconds since 1970.
    pub created: i64,
}

/// A Service that a route is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Which.
    pub service: Name,
    /// Only this port of it.
    pub port: Option<u16>,
    /// Only the port of this name.
    pub section: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleFacts {
    /// The matches that can be told; never empty unless none of those written can be.
    pub matches: Vec<RequestMatch>,
    /// Where to; none for a rule that cannot be honoured.
    pub backends: Option<Vec<BackendFacts>>,
}

/// One backend of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendFacts {
    /// Service and port; none for what can never exist for this route.
    pub service: Option<(Name, u16)>,
    /// Share.
    pub weight: u32,
}

pub(super) fn facts(route: &HttpRoute) -> Converted<RouteFacts> {
    let mut problems = Vec::new();
    let name = Name::of(&route.metadata);
    let parents = route.spec.parent_refs.iter().flatten();
    let parents: Vec<Parent> = parents.filter_map(|written| parent(written, &name, &mut problems)).collect();
    // A route of gateways only is none of ours, whatever it says.
    let rules = route.spec.rules.iter().flatten().filter(|_| !parents.is_empty());
    let rules = match too_much(route) {
        Some(reason) if !parents.is_empty() => {
            problems.push(format!("{reason}; its Services answer no-backend"));
            Vec::new()
        }
        _ => rules.enumerate().map(|(place, written)| rule(written, place, &name, &mut problems)).collect(),
    };
    if !parents.is_empty() && route.spec.hostnames.as_ref().is_some_and(|names| !names.is_empty()) {
        problems.push("spec.hostnames: not compared for a Service parent".into());
    }
    let created = route.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    Converted { facts: RouteFacts { name, parents, rules, created }, problems }
}

/// What of a route is more than an API server would let in: all of it is in messages to proxies.
fn too_much(route: &HttpRoute) -> Option<String> {
    let rules = || route.spec.rules.iter().flatten();
    let counts = [
        ("parentRefs", route.spec.parent_refs.as_ref().map_or(0, Vec::len), 32),
        ("rules", rules().count(), 16),
        ("matches in all rules", rules().flat_map(|rule| &rule.matches).map(Vec::len).sum(), 128),
        ("backendRefs of a rule", rules().flat_map(|rule| &rule.backend_refs).map(Vec::len).max().unwrap_or(0), 16),
    ];
    let (what, count, most) = counts.into_iter().find(|(_, count, most)| count > most)?;
    Some(format!("{count} {what}, where the Gateway API allows {most}"))
}

fn parent(written: &HttpRouteParentRefs, route: &Name, problems: &mut Vec<String>) -> Option<Parent> {
    let group = written.group.as_deref().unwrap_or("gateway.networking.k8s.io");
    if !matches!((group, written.kind.as_deref()), ("" | "core", Some("Service"))) {
        return None;
    }
    let namespace = written.namespace.as_deref().unwrap_or(&route.namespace);
    if namespace != &*route.namespace {
        problems.push(format!(
            "parentRefs: Service {namespace}/{} is in another namespace than the route; such routes are not in force",
            written.name
        ));
        return None;
    }
    let port = match written.port {
        None => None,
        Some(port) => {
            let number = ports::number(port);
            if number.is_none() {
                problems.push(format!("parentRefs: {port} is not a port"));
            }
            Some(number?)
        }
    };
    Some(Parent { service: Name::new(namespace, &written.name), port, section: written.section_name.clone() })
}

fn rule(written: &HttpRouteRules, place: usize, route: &Name, problems: &mut Vec<String>) -> RuleFacts {
    let mut unknown = Vec::new();
    if written.filters.as_ref().is_some_and(|filters| !filters.is_empty()) {
        unknown.push("filters are not known to this release".to_owned());
    }
    if written.timeouts.is_some() {
        unknown.push("timeouts are not known to this release".to_owned());
    }
    let mut matches = Vec::new();
    for (number, written) in written.matches.iter().flatten().enumerate() {
        match request_match(written) {
            Ok(one) => matches.push(one),
            Err(reason) => unknown.push(format!("matches[{number}] is left out: {reason}")),
        }
    }
    if written.matches.as_ref().is_none_or(Vec::is_empty) {
        matches.push(RequestMatch::default());
    }
    let mut backends = Vec::new();
    for written in written.backend_refs.iter().flatten() {
        match backend(written, route) {
            Ok(backend) => backends.push(backend),
            Err(reason) => unknown.push(reason),
        }
    }
    if unknown.is_empty() {
        return RuleFacts { matches, backends: Some(backends) };
    }
    problems.push(format!("rules[{place}] answers no-backend: {}", unknown.join("; ")));
    RuleFacts { matches, backends: None }
}

fn request_match(written: &HttpRouteRulesMatches) -> Result<RequestMatch, String> {
    if written.query_params.as_ref().is_some_and(|params| !params.is_empty()) {
        return Err("queryParams are not known to this release".into());
    }
    let path = match &written.path {
        None => None,
        Some(path) => {
            let value = path.value.clone().unwrap_or_else(|| "/".into());
            let bad = |why| format!("path {value:?} {why}");
            match path.r#type {
                Some(HttpRouteRulesMatchesPathType::Exact) => Some(PathMatch::exact(&value).map_err(bad)?),
                Some(HttpRouteRulesMatchesPathType::RegularExpression) => {
                    return Err("regular expressions are not known to this release".into());
                }
                // Everything: no need to compare.
                Some(HttpRouteRulesMatchesPathType::PathPrefix) | None if value == "/" => None,
                Some(HttpRouteRulesMatchesPathType::PathPrefix) | None => Some(PathMatch::prefix(&value).map_err(bad)?),
            }
        }
    };
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for header in written.headers.iter().flatten() {
        if header.r#type == Some(HttpRouteRulesMatchesHeadersType::RegularExpression) {
            return Err("regular expressions are not known to this release".into());
        }
        let name: HeaderName = header.name.parse().map_err(|_| format!("{:?} is not a header name", header.name))?;
        let value = HeaderValue::from_str(&header.value).map_err(|_| format!("header {name}: not a header value"))?;
        // Of entries with the same name only the first counts (Gateway API).
        if !headers.iter().any(|known| known.name == name) {
            headers.push(HeaderMatch { name, value });
        }
    }
    Ok(RequestMatch { path, headers, method: written.method.as_ref().map(method) })
}

fn method(written: &WrittenMethod) -> Method {
    match written {
        WrittenMethod::Get => Method::GET,
        WrittenMethod::Head => Method::HEAD,
        WrittenMethod::Post => Method::POST,
        WrittenMethod::Put => Method::PUT,
        WrittenMethod::Delete => Method::DELETE,
        WrittenMethod::Connect => Method::CONNECT,
        WrittenMethod::Options => Method::OPTIONS,
        WrittenMethod::Trace => Method::TRACE,
        WrittenMethod::Patch => Method::PATCH,
    }
}

/// What cannot be honoured is an error; what can never exist is a backend that takes its share and fails.
fn backend(written: &HttpRouteRulesBackendRefs, route: &Name) -> Result<BackendFacts, String> {
    if written.filters.as_ref().is_some_and(|filters| !filters.is_empty()) {
        return Err("filters of backendRefs are not known to this release".into());
    }
    let weight = u32::try_from(written.weight.unwrap_or(1)).map_err(|_| "a weight is negative".to_owned())?;
    let is_service = matches!(written.group.as_deref(), None | Some("" | "core"))
        && matches!(written.kind.as_deref(), None | Some("Service"));
    // Another namespace needs a ReferenceGrant, which this release does not read: refused.
    let same_namespace = written.namespace.as_deref().is_none_or(|namespace| namespace == &*route.namespace);
    let port = written.port.and_then(ports::number).filter(|_| is_service && same_namespace);
    Ok(BackendFacts { service: port.map(|port| (Name::new(&route.namespace, &written.name), port)), weight })
}
