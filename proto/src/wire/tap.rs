//! Tap requests and events, to and from the wire.

use super::{WireError, required};
use crate::tap::{Direction, TapEvent, TapFilter, TapRequestInfo};

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
        }
    }
}

impl TryFrom<super::TapRequest> for TapFilter {
    type Error = WireError;

    fn try_from(wire: super::TapRequest) -> Result<Self, WireError> {
        let status = |value: u32, field: &'static str| {
            u16::try_from(value).map_err(|_| WireError::invalid(field, format!("{value} is not an HTTP status")))
        };
        let direction = wire.direction.is_some().then(|| wire.direction().try_into()).transpose()?;
        let range = (status(wire.status_min, "status_min")?, status(wire.status_max, "status_max")?);
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Self {
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

impl From<TapEvent> for super::TapEvent {
    fn from(event: TapEvent) -> Self {
        let identity = |identity: Option<crate::identity::Identity>| {
            identity.map(|identity| identity.to_string()).unwrap_or_default()
        };
        Self {
            direction: super::Direction::from(event.direction).into(),
            started_us: event.started_us,
            latency_us: event.latency_us,
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
            })
        };
        Ok(Self {
            direction: wire.direction().try_into()?,
            started_us: wire.started_us,
            latency_us: wire.latency_us,
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
