//! What `tap` shows and what it leaves out: what proxies can decide goes to them, names are decided here. Pure.

use std::str::FromStr;

use mesh_proto::tap::{TapExclusion, TapFilter, TapKind};

use crate::{
    cli,
    failure::{Exit, Failure, did_you_mean},
    filter::{LatencyFloor, StatusRange},
    resource::Resource,
};

/// Most `--not`, and most `--show-header`, that a proxy takes.
const MOST: usize = 32;
/// What `--not` may be about.
const KEYS: [&str; 9] = ["to", "from", "method", "path", "authority", "status", "latency", "grpc", "tcp"];

/// One `--not`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Except {
    /// What a proxy knows by itself.
    Seen(TapExclusion),
    /// Traffic to it.
    To(Resource),
    /// Traffic from it.
    From(Resource),
}

impl FromStr for Except {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let seen = |exclusion| Ok(Self::Seen(exclusion));
        match (key, value) {
            ("grpc", "") => seen(TapExclusion::Kind(TapKind::Grpc)),
            ("tcp", "") => seen(TapExclusion::Kind(TapKind::Tcp)),
            (key, "") if KEYS.contains(&key) => Err(format!("--not {key} needs a value, e.g. {key}=…")),
            ("grpc" | "tcp", _) => Err(format!("--not {key} takes no value")),
            ("to", value) => value.parse().map(Self::To),
            ("from", value) => value.parse().map(Self::From),
            ("method", value) => seen(TapExclusion::Method(value.to_uppercase())),
            ("path", value) => seen(TapExclusion::PathPrefix(value.to_owned())),
            ("authority", value) => seen(TapExclusion::Authority(value.to_owned())),
            ("status", value) => {
                value.parse().and_then(|StatusRange(least, most)| seen(TapExclusion::Status(least, most)))
            }
            ("latency", value) => value.parse().and_then(|floor| seen(TapExclusion::LatencyMin(micros(floor)))),
            _ => Err(match did_you_mean(key, KEYS) {
                Some(meant) => format!("nothing is called {key:?}, did you mean {meant}?"),
                None => format!("nothing is called {key:?}; there is {}", KEYS.join(", ")),
            }),
        }
    }
}

/// The name of a header as proxies compare it.
pub(crate) fn header(text: &str) -> Result<String, String> {
    http::HeaderName::from_bytes(text.as_bytes())
        .map(|name| name.as_str().to_owned())
        .map_err(|_| format!("{text:?} is not the name of a header such as x-request-id"))
}

/// What the proxies themselves can decide.
pub(super) fn of_proxies(args: &cli::Tap) -> Result<TapFilter, Failure> {
    if args.except.len() > MOST || args.show_header.len() > MOST {
        let text = format!("more than {MOST} times --not or --show-header");
        return Err(Failure::new(Exit::Usage, text).fix("-o ndjson and jq filter as finely as you like"));
    }
    let seen = |except: &Except| match except {
        Except::Seen(exclusion) => Some(exclusion.clone()),
        Except::To(_) | Except::From(_) => None,
    };
    let kind = match (args.grpc, args.tcp) {
        (true, _) => Some(TapKind::Grpc),
        (_, true) => Some(TapKind::Tcp),
        _ => None,
    };
    Ok(TapFilter {
        direction: None,
        method: args.method.as_ref().map(|method| method.to_uppercase()),
        path_prefix: args.path.clone(),
        authority: args.authority.clone(),
        status: args.status.map(|range| (range.0, range.1)),
        latency_min_us: args.latency.map_or(0, micros),
        max_per_second: args.max_rps,
        kind,
        except: args.except.iter().filter_map(seen).collect(),
        show_query: args.show_query,
        show_headers: args.show_header.clone(),
    })
}

/// Whether a Service is named: then the client's side tells, for the server's does not know which was dialled.
pub(super) fn names_a_service(args: &cli::Tap) -> bool {
    let is_service = |resource: &Resource| matches!(resource, Resource::Service(_));
    args.to.as_ref().is_some_and(is_service)
        || args.except.iter().any(|except| matches!(except, Except::To(resource) if is_service(resource)))
}

fn micros(floor: LatencyFloor) -> u64 {
    u64::try_from(floor.0.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_written_as_what_is_wanted() {
        for (text, expected) in [
            ("grpc", Except::Seen(TapExclusion::Kind(TapKind::Grpc))),
            ("tcp", Except::Seen(TapExclusion::Kind(TapKind::Tcp))),
            ("method=get", Except::Seen(TapExclusion::Method("GET".into()))),
            ("path=/health=1", Except::Seen(TapExclusion::PathPrefix("/health=1".into()))),
            ("status=2xx", Except::Seen(TapExclusion::Status(200, 299))),
            ("latency=>20ms", Except::Seen(TapExclusion::LatencyMin(20_000))),
            ("to=svc/web", Except::To(Resource::Service("web".into()))),
            ("from=deploy/load", Except::From(Resource::Workload("deployment/load".into()))),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for (text, part) in [
            ("", "there is to, from"),
            ("statsu=5xx", "did you mean status?"),
            ("status", "status=…"),
            ("status=9xx", "500-504"),
            ("to=gizmo/web", "deploy/web"),
            ("grpc=yes", "takes no value"),
        ] {
            let error = text.parse::<Except>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn headers_are_compared_in_lower_case() {
        assert_eq!(header("X-Request-ID"), Ok("x-request-id".into()));
        assert!(header("a b").is_err() && header("").is_err());
    }
}
