//! Where traffic to one original destination goes, and the choice of a route.
//!
//! Compiled by the controller, cached by the proxy. The evaluator is pure: the caller brings the request's head and,
//! for weights, a number. It knows no balancing (that is per proxy) and no sockets.

use std::{borrow::Cow, cell::OnceCell, sync::Arc};

use http::{HeaderName, HeaderValue, Method};

use crate::{
    endpoint::Endpoint,
    path::{self, Ambiguous},
    workload::{Protocol, ServicePort},
};

/// What is behind an original destination.
#[derive(Debug, Clone, PartialEq)]
pub enum OutboundPolicy {
    /// A Service's cluster IP and port.
    Service(ServiceTarget),
    /// One pod, dialled by its address: no routes of any Service apply.
    Pod(PodTarget),
    /// A positive answer: not part of the mesh.
    External,
}

/// One pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodTarget {
    /// The pod.
    pub endpoint: Endpoint,
    /// What its port was declared to speak.
    pub protocol: Protocol,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceTarget {
    /// Which.
    pub service: ServicePort,
    /// What it was declared to speak.
    pub protocol: Protocol,
    /// First match wins. Empty: everything goes to backend 0.
    pub routes: Vec<Route>,
    /// Backend 0 is the Service itself; the others are named by routes.
    pub backends: Vec<Backend>,
}

/// A set of endpoints to balance over.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// The Service port whose endpoints they are.
    pub service: ServicePort,
    /// Ready endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One rule of an HTTPRoute.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// `namespace/name#rule`.
    pub name: Arc<str>,
    /// Matches when any does; empty matches all.
    pub matches: Vec<RequestMatch>,
    /// Where to, by weight. Empty, or all of weight zero: every request fails (Gateway API: 500).
    pub backends: Vec<WeightedBackend>,
}

/// One `match` of a rule: all parts must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RequestMatch {
    /// None: any path.
    pub path: Option<PathMatch>,
    /// All must match.
    pub headers: Vec<HeaderMatch>,
    /// None: any method.
    pub method: Option<Method>,
}

/// How a path is compared: without the query, in the form that [`path::plain`] gives both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments: `/a` matches `/a` and `/a/b`, not `/ab` (Gateway API `PathPrefix`).
    Prefix(String),
}

/// A header that must be there with exactly this value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Name; compared without case.
    pub name: HeaderName,
    /// Value; compared byte for byte against every value of the name.
    pub value: HeaderValue,
}

/// Share of a route's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightedBackend {
    /// Index into [`ServiceTarget::backends`]; none: a backend that does not exist (its share of requests fails).
    pub backend: Option<usize>,
    /// Relative weight; zero gets nothing.
    pub weight: u32,
}

/// What a request goes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice<'a> {
    /// This backend, by this route (none: the Service has no routes).
    Backend {
        /// Index into [`ServiceTarget::backends`].
        backend: usize,
        /// The rule that matched.
        route: Option<&'a Route>,
    },
    /// The Service has routes and none matches.
    NoRoute,
    /// The matching rule leads to nothing that exists.
    NoBackend(&'a Route),
    /// It depends on the path, and that has more than one reading.
    PathAmbiguous(Ambiguous),
}

impl ServiceTarget {
    /// Chooses where a request goes. `random` is uniform over all of `u32`; it decides between weighted backends.
    pub fn choose<B>(&self, request: &http::Request<B>, random: u32) -> Choice<'_> {
        if self.routes.is_empty() {
            return Choice::Backend { backend: 0, route: None };
        }
        let path = RequestPath::of(request);
        for route in &self.routes {
            match route.matches(request, &path) {
                Ok(false) => {}
                Ok(true) => return self.choose_backend(route, random),
                // The routes behind it must not get what may be its own.
                Err(ambiguous) => return Choice::PathAmbiguous(ambiguous),
            }
        }
        Choice::NoRoute
    }

    fn choose_backend<'a>(&self, route: &'a Route, random: u32) -> Choice<'a> {
        match route.pick(random) {
            Some(backend) if backend < self.backends.len() => Choice::Backend { backend, route: Some(route) },
            _ => Choice::NoBackend(route),
        }
    }
}

impl Route {
    /// Whether any of its matches holds.
    fn matches<B>(&self, request: &http::Request<B>, path: &RequestPath<'_>) -> Result<bool, Ambiguous> {
        for one in &self.matches {
            if one.matches(request, path)? {
                return Ok(true);
            }
        }
        Ok(self.matches.is_empty())
    }

    fn pick(&self, random: u32) -> Option<usize> {
        let total: u64 = self.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        // Scales instead of taking a remainder, so that every weight gets its exact share.
        let mut point = (u64::from(random) * total) >> 32;
        for backend in &self.backends {
            if point < u64::from(backend.weight) {
                return backend.backend;
            }
            point -= u64::from(backend.weight);
        }
        None
    }
}

impl RequestMatch {
    /// The path last: only where everything else holds does it matter whether it can be told.
    fn matches<B>(&self, request: &http::Request<B>, path: &RequestPath<'_>) -> Result<bool, Ambiguous> {
        let others = self.method.as_ref().is_none_or(|method| method == request.method())
            && self
                .headers
                .iter()
                .all(|header| request.headers().get_all(&header.name).iter().any(|value| value == header.value));
        match &self.path {
            Some(wanted) if others => Ok(wanted.matches(path.plain()?)),
            _ => Ok(others),
        }
    }
}

/// The path of a request, brought into its one form when somebody asks.
struct RequestPath<'a> {
    sent: &'a str,
    plain: OnceCell<Result<Cow<'a, str>, Ambiguous>>,
}

impl<'a> RequestPath<'a> {
    fn of<B>(request: &'a http::Request<B>) -> Self {
        Self { sent: request.uri().path(), plain: OnceCell::new() }
    }

    fn plain(&self) -> Result<&str, Ambiguous> {
        match self.plain.get_or_init(|| path::plain(self.sent)) {
            Ok(path) => Ok(path),
            Err(ambiguous) => Err(*ambiguous),
        }
    }
}

impl PathMatch {
    /// The whole path, as people write it.
    pub fn exact(path: &str) -> Result<Self, Ambiguous> {
        Ok(Self::Exact(path::plain(path)?.into_owned()))
    }

    /// Whole segments, as people write them.
    pub fn prefix(path: &str) -> Result<Self, Ambiguous> {
        Ok(Self::Prefix(path::plain(path)?.into_owned()))
    }

    /// Whether `path` (no query, in its one form) matches.
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> http::Request<()> {
        let mut builder = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn a_path_prefix_matches_whole_segments() {
        for (prefix, path, expected) in [
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/", "/a", true),
            ("/a/", "/a/b", true),
            ("/", "/anything", true),
            ("/", "/", true),
            ("/a/b", "/a", false),
        ] {
            assert_eq!(PathMatch::Prefix(prefix.into()).matches(path), expected, "{prefix} {path}");
        }
        assert!(PathMatch::Exact("/a".into()).matches("/a"));
        assert!(!PathMatch::Exact("/a".into()).matches("/a/"));
    }

    #[test]
    fn all_parts_of_a_match_must_hold() {
        let one = RequestMatch {
            path: Some(PathMatch::Prefix("/cart".into())),
            headers: vec![HeaderMatch {
                name: HeaderName::from_static("x-version"),
                value: HeaderValue::from_static("v2"),
            }],
            method: Some(Method::POST),
        };
        for (method, path, headers, expected) in [
            ("POST", "/cart?x=1", &[("X-Version", "v1"), ("x-version", "v2")][..], Ok(true)),
            ("POST", "/c%61rt/1", &[("x-version", "v2")], Ok(true)),
            ("GET", "/cart", &[("x-version", "v2")], Ok(false)),
            ("POST", "/car", &[("x-version", "v2")], Ok(false)),
            ("POST", "/cart", &[("x-version", "V2")], Ok(false)),
            ("POST", "/cart", &[], Ok(false)),
            ("POST", "//cart", &[("x-version", "v2")], Err(Ambiguous::EmptySegment)),
            ("POST", "//cart", &[], Ok(false)),
        ] {
            let request = request(method, path, headers);
            assert_eq!(one.matches(&request, &RequestPath::of(&request)), expected, "{method} {path} {headers:?}");
        }
    }

    fn service(routes: Vec<Route>, backends: usize) -> ServiceTarget {
        let port = ServicePort { namespace: "shop".into(), name: "web".into(), port: 80 };
        ServiceTarget {
            service: port.clone(),
            protocol: Protocol::Http1,
            routes,
            backends: (0..backends).map(|_| Backend { service: port.clone(), endpoints: vec![] }).collect(),
        }
    }

    fn route(name: &str, matches: Vec<RequestMatch>, backends: &[(Option<usize>, u32)]) -> Route {
        let backends = backends.iter().map(|&(backend, weight)| WeightedBackend { backend, weight }).collect();
        Route { name: name.into(), matches, backends }
    }

    #[test]
    fn the_first_matching_route_wins() {
        let cart = RequestMatch { path: Some(PathMatch::Prefix("/cart".into())), ..RequestMatch::default() };
        let target = service(vec![route("a", vec![cart], &[(Some(1), 1)]), route("b", vec![], &[(Some(2), 1)])], 3);
        let chosen = |path: &str| match target.choose(&request("GET", path, &[]), 0) {
            Choice::Backend { backend, route } => (backend, route.map(|route| route.name.to_string())),
            other => panic!("{other:?}"),
        };
        assert_eq!(chosen("/cart/1"), (1, Some("a".into())));
        assert_eq!(chosen("/else"), (2, Some("b".into())));
    }

    #[test]
    fn a_path_with_more_than_one_reading_is_refused_where_a_route_would_decide_by_it() {
        let admin = RequestMatch { path: Some(PathMatch::prefix("/%61dmin").unwrap()), ..RequestMatch::default() };
        let beta = RequestMatch {
            headers: vec![HeaderMatch {
                name: HeaderName::from_static("x-beta"),
                value: HeaderValue::from_static("1"),
            }],
            ..RequestMatch::default()
        };
        let by_path = service(
            vec![
                route("beta", vec![beta], &[(Some(2), 1)]),
                route("admin", vec![admin], &[(Some(1), 1)]),
                route("rest", vec![], &[(Some(0), 1)]),
            ],
            3,
        );
        let by_nothing = service(vec![route("all", vec![], &[(Some(0), 1)])], 1);
        for (path, backend) in [
            ("/admin/x", Some(1)),
            ("/%61dm%69n", Some(1)),
            ("/administrator", Some(0)),
            ("/x", Some(0)),
            ("/x/../admin", None),
            ("/x/%2e%2E/admin", None),
            ("//admin", None),
            ("/x%2f..%2fadmin", None),
            ("/.;/admin", None),
        ] {
            let chosen = |target: &ServiceTarget, headers| match target.choose(&request("GET", path, headers), 0) {
                Choice::Backend { backend, .. } => Some(backend),
                Choice::PathAmbiguous(_) => None,
                other => panic!("{path}: {other:?}"),
            };
            assert_eq!(chosen(&by_path, &[]), backend, "{path}");
            assert_eq!(chosen(&by_path, &[("x-beta", "1")]), Some(2), "{path}: decided before");
            assert_eq!(chosen(&by_nothing, &[]), Some(0), "{path}: nothing depends on it");
        }
    }

    #[test]
    fn routes_that_lead_nowhere_are_told_apart() {
        let get = request("GET", "/", &[]);
        assert!(matches!(service(vec![], 1).choose(&get, 0), Choice::Backend { backend: 0, route: None }));
        let post = RequestMatch { method: Some(Method::POST), ..RequestMatch::default() };
        assert_eq!(service(vec![route("a", vec![post], &[(Some(0), 1)])], 1).choose(&get, 0), Choice::NoRoute);
        for backends in [&[][..], &[(Some(0), 0)], &[(None, 1)], &[(Some(9), 1)]] {
            let target = service(vec![route("a", vec![], backends)], 1);
            assert!(matches!(target.choose(&get, 0), Choice::NoBackend(_)), "{backends:?}");
        }
    }

    #[test]
    fn weights_share_exactly() {
        let target = service(vec![route("a", vec![], &[(Some(0), 80), (Some(1), 20), (Some(2), 0)])], 3);
        let get = request("GET", "/", &[]);
        let mut counts = [0; 3];
        for step in 0..1000_u32 {
            let random = step * (u32::MAX / 1000);
            match target.choose(&get, random) {
                Choice::Backend { backend, .. } => counts[backend] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!((799..=801).contains(&counts[0]) && (199..=201).contains(&counts[1]) && counts[2] == 0, "{counts:?}");
        assert!(matches!(target.choose(&get, u32::MAX), Choice::Backend { backend: 1, .. }));
    }
}
