//! Tap requests and events, to and from the wire.

use super::{WireError, required};
use crate::tap::{Direction, TapEvent, TapExclusion, TapFilter, TapHeader, TapKind, TapRequestInfo};

/// Most exclusions, and most headers, of one request.
const MOST: usize = 32;

impl From<Direction> for super::Direction {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Inbound => Self::Inbound,
            Direction::Outbound => Self::Outbound,
        }
    }
}

impl TryFrom<super::Direction> for Direction {
    type Error = WireError;

    fn try_from(wire: super::Direction) -> Result<Self, WireError> {
        match wire {
            super::Direction::Unspecified => Err(WireError::Missing("direction")),
            super::Direction::Inbound => Ok(Self::Inbound),
            super::Direction::Outbound => Ok(Self::Outbound),
        }
    }
}

impl From<TapKind> for super::TapKind {
    fn from(kind: TapKind) -> Self {
        match kind {
            TapKind::Grpc => Self::Grpc,
            TapKind::Tcp => Self::Tcp,
        }
    }
}

fn kind(wire: super::TapKind) -> Option<TapKind> {
    match wire {
        super::TapKind::Unspecified => None,
        super::TapKind::Grpc => Some(TapKind::Grpc),
        super::TapKind::Tcp => Some(TapKind::Tcp),
    }
}

impl From<TapExclusion> for super::TapExclusion {
    fn from(exclusion: TapExclusion) -> Self {
        use super::tap_exclusion::What;
        let what = match exclusion {
            TapExclusion::Method(method) => What::Method(method),
            TapExclusion::PathPrefix(path) => What::PathPrefix(path),
            TapExclusion::Authority(authority) => What::Authority(authority),
            TapExclusion::Status(min, max) => What::Status(super::StatusRange { min: min.into(), max: max.into() }),
            TapExclusion::LatencyMin(least) => What::LatencyMinUs(least),
            TapExclusion::Kind(kind) => What::Kind(super::TapKind::from(kind).into()),
        };
        Self { what: Some(what) }
    }
}

impl TryFrom<super::TapExclusion> for TapExclusion {
    type Error = WireError;

    fn try_from(wire: super::TapExclusion) -> Result<Self, WireError> {
        use super::tap_exclusion::What;
        Ok(match required(wire.what, "except")? {
            What::Method(method) => Self::Method(method),
            What::PathPrefix(path) => Self::PathPrefix(path),
            What::Authority(authority) => Self::Authority(authority),
            What::Status(range) => Self::Status(status(range.min, "min")?, status(range.max, "max")?),
            What::LatencyMinUs(least) => Self::LatencyMin(least),
            What::Kind(wire) => {
                Self::Kind(super::TapKind::try_from(wire).ok().and_then(kind).ok_or(WireError::Missing("kind"))?)
            }
        })
    }
}

fn status(value: u32, field: &'static str) -> Result<u16, WireError> {
    u16::try_from(value).map_err(|_| WireError::invalid(field, format!("{value} is not an HTTP status")))
}

impl From<TapFilter> for super::TapRequest {
    fn from(filter: TapFilter) -> Self {
        let (status_min, status_max) = filter.status.unwrap_or_default();
        Self {
            direction: filter.direction.map(|direction| super::Direction::from(direction).into()),
            method: filter.method.unwrap_or_default(),
            path_prefix: filter.path_prefix.unwrap_or_default(),
            authority: filter.authority.unwrap_or_default(),
            status_min: status_min.into(),
            status_max: status_max.into(),
            latency_min_us: filter.latency_min_us,
            max_per_second: filter.max_per_second,
            kind: filter.kind.map_or(super::TapKind::Unspecified, Into::into).into(),
            except: filter.except.into_iter().map(Into::into).collect(),
            show_query: filter.show_query,
            show_headers: filter.show_headers,
        }
    }
}

impl TryFrom<super::TapRequest> for TapFilter {
    type Error = WireError;

    fn try_from(wire: super::TapRequest) -> Result<Self, WireError> {
        for (field, count) in [("except", wire.except.len()), ("show_headers", wire.show_headers.len())] {
            if count > MOST {
                return Err(WireError::invalid(field, format!("{count} are more than {MOST}")));
            }
        }
        let direction = wire.direction.is_some().then(|| wire.direction().try_into()).transpose()?;
        let range = (status(wire.status_min, "status_min")?, status(wire.status_max, "status_max")?);
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Self {
            kind: kind(wire.kind()),
            except: wire.except.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            show_query: wire.show_query,
            show_headers: wire.show_headers,
            direction,
            method: given(wire.method),
            path_prefix: given(wire.path_prefix),
            authority: given(wire.authority),
            status: Some(range).filter(|range| *range != (0, 0)),
            latency_min_us: wire.latency_min_us,
            max_per_second: wire.max_per_second,
        })
    }
}

impl From<TapHeader> for super::TapHeader {
    fn from(TapHeader { name, value }: TapHeader) -> Self {
        Self { name, value }
    }
}

impl From<super::TapHeader> for TapHeader {
    fn from(super::TapHeader { name, value }: super::TapHeader) -> Self {
        Self { name, value }
    }
}

impl From<TapEvent> for super::TapEvent {
    fn from(event: TapEvent) -> Self {
        let identity = |identity: Option<crate::identity::Identity>| {
            identity.map(|identity| identity.to_string()).unwrap_or_default()
        };
        Self {
            direction: super::Direction::from(event.direction).into(),
            started_us: event.started_us,
            latency_us: event.latency_us,
            answered_us: event.answered_us,
            source: Some(event.source.into()),
            destination: Some(event.destination.into()),
            source_identity: identity(event.source_identity),
            destination_identity: identity(event.destination_identity),
            destination_pod: event.destination_pod.map(Into::into),
            service: event.service.map(Into::into),
            tls: event.tls,
            outcome: event.outcome,
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
            request: event.request.map(|request| super::RequestInfo {
                method: request.method,
                path: request.path,
                authority: request.authority,
                status: request.status.unwrap_or_default().into(),
                grpc_status: request.grpc_status,
                http2: request.http2,
                grpc: request.grpc,
                query: request.query,
                request_headers: request.request_headers.into_iter().map(Into::into).collect(),
                response_headers: request.response_headers.into_iter().map(Into::into).collect(),
            }),
            dropped: event.dropped,
            route: event.route,
        }
    }
}

impl TryFrom<super::TapEvent> for TapEvent {
    type Error = WireError;

    fn try_from(wire: super::TapEvent) -> Result<Self, WireError> {
        let identity = |text: &str, field: &'static str| {
            if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|e| WireError::invalid(field, e)) }
        };
        let request = |request: super::RequestInfo| {
            Ok(TapRequestInfo {
                status: match request.status {
                    0 => None,
                    status => Some(u16::try_from(status).map_err(|error| WireError::invalid("status", error))?),
                },
                method: request.method,
                path: request.path,
                authority: request.authority,
                grpc_status: request.grpc_status,
                http2: request.http2,
                grpc: request.grpc,
                query: request.query,
                request_headers: request.request_headers.into_iter().map(Into::into).collect(),
                response_headers: request.response_headers.into_iter().map(Into::into).collect(),
            })
        };
        Ok(Self {
            direction: wire.direction().try_into()?,
            started_us: wire.started_us,
            latency_us: wire.latency_us,
            answered_us: wire.answered_us,
            source_identity: identity(&wire.source_identity, "source_identity")?,
            destination_identity: identity(&wire.destination_identity, "destination_identity")?,
            source: required(wire.source, "source")?.try_into()?,
            destination: required(wire.destination, "destination")?.try_into()?,
            destination_pod: wire.destination_pod.map(Into::into),
            service: wire.service.map(TryInto::try_into).transpose()?,
            tls: wire.tls,
            outcome: wire.outcome,
            bytes_in: wire.bytes_in,
            bytes_out: wire.bytes_out,
            request: wire.request.map(request).transpose()?,
            dropped: wire.dropped,
            route: wire.route,
        })
    }
}
