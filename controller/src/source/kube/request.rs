//! What is asked of the API for a kind, and how its answers read. Pure.

use std::time::Duration;

use gateway_api::apis::standard::httproutes::HttpRoute;
use http::Request;
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Resource as _,
    api::{ListParams, WatchParams},
};
use mesh_proto::crd::AuthorizationPolicy;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::{Failure, Status},
    source::Kind,
};

/// Objects per page: some MiB of pods.
const PAGE: u32 = 250;

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    metadata: ListMetadata,
    /// The objects. An API server writes an empty list as null.
    #[serde(default)]
    pub(super) items: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

impl Page {
    /// The version of the whole list, to watch from.
    pub(super) fn version(&self) -> Option<&str> {
        Some(self.metadata.resource_version.as_str()).filter(|version| !version.is_empty())
    }

    /// What to ask for the next page with; none on the last.
    pub(super) fn next(&self) -> Option<&str> {
        Some(self.metadata.next.as_str()).filter(|next| !next.is_empty())
    }
}

/// What a line of a watch says.
#[derive(Debug)]
pub(super) enum Change {
    /// An object is new or different.
    Applied(Value),
    /// It is gone.
    Deleted(Value),
    /// Nothing happened up to this version.
    Bookmark(String),
    /// The watch cannot go on.
    Failed(Failure),
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    what: String,
    object: Value,
}

impl Change {
    /// Reads a line.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let Line { what, object } = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        match what.as_str() {
            "ADDED" | "MODIFIED" => Ok(Self::Applied(object)),
            "DELETED" => Ok(Self::Deleted(object)),
            "BOOKMARK" => match version(&object) {
                Some(version) => Ok(Self::Bookmark(version.to_owned())),
                None => Err("a bookmark without a version".into()),
            },
            "ERROR" => {
                let status: Status = serde_json::from_value(object).map_err(|error| error.to_string())?;
                Ok(Self::Failed(status.into()))
            }
            what => Err(format!("{what:.40?} is not an event of a watch")),
        }
    }
}

/// The version of an object.
pub(super) fn version(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion")?.as_str().filter(|version| !version.is_empty())
}

/// Asks for a page of all objects of a kind. Without a version: the newest, never what one of several API servers
/// happens to have cached, which would bring back what is long gone.
pub(super) fn page(kind: Kind, next: Option<&str>) -> Result<Request<Vec<u8>>, Failure> {
    let params = ListParams { limit: Some(PAGE), continue_token: next.map(str::to_owned), ..ListParams::default() };
    kube::core::Request::new(path(kind)).list(&params).map_err(|error| Failure::Nonsense(error.to_string()))
}

/// Asks for what changes after `version`, for `time`.
pub(super) fn watch(kind: Kind, version: &str, time: Duration) -> Result<Request<Vec<u8>>, Failure> {
    let seconds = u32::try_from(time.as_secs().max(1)).unwrap_or(u32::MAX);
    let params = WatchParams { timeout: Some(seconds), bookmarks: true, ..WatchParams::default() };
    kube::core::Request::new(path(kind)).watch(&params, version).map_err(|error| Failure::Nonsense(error.to_string()))
}

/// What a role must name to allow reading a kind.
pub(super) fn resource(kind: Kind) -> String {
    let path = path(kind);
    let mut parts = path.rsplit('/');
    let (plural, _version, group) = (parts.next().unwrap_or_default(), parts.next(), parts.next().unwrap_or_default());
    if group == "api" { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// Whether every cluster has the kind. Others come with a resource definition, which may be installed later.
pub(super) fn is_built_in(kind: Kind) -> bool {
    match kind {
        Kind::Namespace | Kind::Pod | Kind::Service | Kind::EndpointSlice => true,
        Kind::HttpRoute | Kind::AuthorizationPolicy => false,
    }
}

fn path(kind: Kind) -> String {
    match kind {
        Kind::Namespace => Namespace::url_path(&(), None),
        Kind::Pod => Pod::url_path(&(), None),
        Kind::Service => Service::url_path(&(), None),
        Kind::EndpointSlice => EndpointSlice::url_path(&(), None),
        Kind::HttpRoute => HttpRoute::url_path(&(), None),
        Kind::AuthorizationPolicy => AuthorizationPolicy::url_path(&(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_asked_for_where_the_api_has_it() {
        for (kind, expected, role) in [
            (Kind::Namespace, "/api/v1/namespaces", "namespaces"),
            (Kind::Pod, "/api/v1/pods", "pods"),
            (Kind::Service, "/api/v1/services", "services"),
            (Kind::EndpointSlice, "/apis/discovery.k8s.io/v1/endpointslices", "endpointslices.discovery.k8s.io"),
            (Kind::HttpRoute, "/apis/gateway.networking.k8s.io/v1/httproutes", "httproutes.gateway.networking.k8s.io"),
            (
                Kind::AuthorizationPolicy,
                "/apis/meshctl.dev/v1alpha1/authorizationpolicies",
                "authorizationpolicies.meshctl.dev",
            ),
        ] {
            assert_eq!((path(kind).as_str(), resource(kind).as_str()), (expected, role));
            let asked = page(kind, Some("next")).unwrap().uri().to_string();
            assert_eq!(asked, format!("{expected}?&limit=250&continue=next"));
            let asked = watch(kind, "7", Duration::from_mins(1)).unwrap().uri().to_string();
            let expected =
                format!("{expected}?&watch=true&timeoutSeconds=60&allowWatchBookmarks=true&resourceVersion=7");
            assert_eq!(asked, expected);
        }
    }

    #[test]
    fn each_line_of_a_watch_is_understood_or_refused() {
        let parse = |line: &str| Change::parse(line.as_bytes());
        let object = r#"{"metadata":{"name":"a","resourceVersion":"7"}}"#;
        assert!(matches!(parse(&format!(r#"{{"type":"ADDED","object":{object}}}"#)), Ok(Change::Applied(_))));
        assert!(matches!(parse(&format!(r#"{{"type":"DELETED","object":{object}}}"#)), Ok(Change::Deleted(_))));
        let Ok(Change::Bookmark(version)) = parse(&format!(r#"{{"type":"BOOKMARK","object":{object}}}"#)) else {
            panic!("a bookmark")
        };
        assert_eq!(version, "7");
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old resource version"}}"#;
        let Ok(Change::Failed(failure)) = parse(gone) else { panic!("a failure") };
        assert_eq!(failure.status(), Some(http::StatusCode::GONE));
        for line in ["", "{", "404 page not found", r#"{"type":"BOOKMARK","object":{}}"#, r#"{"type":"X","object":{}}"#]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
