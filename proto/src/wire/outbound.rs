//! Outbound policies, to and from the wire.

use super::{WireError, outbound_policy, path_match, port, required};
use crate::{
    endpoint::Endpoint,
    outbound::{
        Backend, HeaderMatch, OutboundPolicy, PathMatch, PodTarget, RequestMatch, Route, ServiceTarget, WeightedBackend,
    },
    workload::{PodRef, ServicePort},
};

impl From<OutboundPolicy> for super::OutboundPolicy {
    fn from(policy: OutboundPolicy) -> Self {
        use outbound_policy::Target;
        let target = match policy {
            OutboundPolicy::Service(target) => Target::Service(super::ServiceTarget {
                service: Some(target.service.into()),
                protocol: super::Protocol::from(target.protocol).into(),
                routes: target.routes.into_iter().map(Into::into).collect(),
                backends: target.backends.into_iter().map(Into::into).collect(),
            }),
            OutboundPolicy::Pod(target) => Target::Pod(super::PodTarget {
                endpoint: Some(target.endpoint.into()),
                protocol: super::Protocol::from(target.protocol).into(),
            }),
            OutboundPolicy::External => Target::External(super::Empty {}),
        };
        Self { target: Some(target) }
    }
}

impl TryFrom<super::OutboundPolicy> for OutboundPolicy {
    type Error = WireError;

    fn try_from(wire: super::OutboundPolicy) -> Result<Self, WireError> {
        use outbound_policy::Target;
        Ok(match required(wire.target, "outbound.target")? {
            Target::Service(target) => Self::Service(target.try_into()?),
            Target::Pod(target) => Self::Pod(PodTarget {
                protocol: target.protocol().try_into()?,
                endpoint: required(target.endpoint, "pod.endpoint")?.try_into()?,
            }),
            Target::External(super::Empty {}) => Self::External,
        })
    }
}

impl TryFrom<super::ServiceTarget> for ServiceTarget {
    type Error = WireError;

    fn try_from(wire: super::ServiceTarget) -> Result<Self, WireError> {
        let protocol = wire.protocol().try_into()?;
        let backends: Vec<Backend> = wire.backends.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        if backends.is_empty() {
            return Err(WireError::Missing("service.backends"));
        }
        Ok(Self {
            service: required(wire.service, "service.service")?.try_into()?,
            protocol,
            routes: wire.routes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            backends,
        })
    }
}

impl From<ServicePort> for super::ServicePort {
    fn from(service: ServicePort) -> Self {
        Self { namespace: service.namespace.to_string(), name: service.name.to_string(), port: service.port.into() }
    }
}

impl TryFrom<super::ServicePort> for ServicePort {
    type Error = WireError;

    fn try_from(wire: super::ServicePort) -> Result<Self, WireError> {
        Ok(Self { namespace: wire.namespace.into(), name: wire.name.into(), port: port(wire.port, "service.port")? })
    }
}

impl From<Backend> for super::Backend {
    fn from(backend: Backend) -> Self {
        Self {
            service: Some(backend.service.into()),
            endpoints: backend.endpoints.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<super::Backend> for Backend {
    type Error = WireError;

    fn try_from(wire: super::Backend) -> Result<Self, WireError> {
        Ok(Self {
            service: required(wire.service, "backend.service")?.try_into()?,
            endpoints: wire.endpoints.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<Endpoint> for super::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            address: Some(endpoint.address.into()),
            identity: endpoint.identity.map(|identity| identity.to_string()).unwrap_or_default(),
            pod: endpoint.pod.map(Into::into),
        }
    }
}

impl TryFrom<super::Endpoint> for Endpoint {
    type Error = WireError;

    fn try_from(wire: super::Endpoint) -> Result<Self, WireError> {
        let identity = if wire.identity.is_empty() {
            None
        } else {
            Some(wire.identity.parse().map_err(|error| WireError::invalid("endpoint.identity", error))?)
        };
        Ok(Self {
            address: required(wire.address, "endpoint.address")?.try_into()?,
            identity,
            pod: wire.pod.map(Into::into),
        })
    }
}

impl From<PodRef> for super::PodRef {
    fn from(pod: PodRef) -> Self {
        Self {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            workload: pod.workload.map(|workload| workload.to_string()).unwrap_or_default(),
        }
    }
}

impl From<super::PodRef> for PodRef {
    fn from(wire: super::PodRef) -> Self {
        let workload = Some(wire.workload).filter(|workload| !workload.is_empty()).map(Into::into);
        Self { namespace: wire.namespace.into(), name: wire.name.into(), workload }
    }
}

/// Marks a weighted backend that does not exist; an index cannot be that large.
const NO_BACKEND: u32 = u32::MAX;

impl From<Route> for super::Route {
    fn from(route: Route) -> Self {
        let weighted = |backend: WeightedBackend| super::WeightedBackend {
            backend: backend.backend.and_then(|index| u32::try_from(index).ok()).unwrap_or(NO_BACKEND),
            weight: backend.weight,
        };
        Self {
            name: route.name.to_string(),
            matches: route.matches.into_iter().map(Into::into).collect(),
            backends: route.backends.into_iter().map(weighted).collect(),
        }
    }
}

impl TryFrom<super::Route> for Route {
    type Error = WireError;

    fn try_from(wire: super::Route) -> Result<Self, WireError> {
        let weighted = |backend: super::WeightedBackend| WeightedBackend {
            backend: Some(backend.backend).filter(|index| *index != NO_BACKEND).map(|index| index as usize),
            weight: backend.weight,
        };
        Ok(Self {
            name: wire.name.into(),
            matches: wire.matches.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            backends: wire.backends.into_iter().map(weighted).collect(),
        })
    }
}

impl From<RequestMatch> for super::RequestMatch {
    fn from(one: RequestMatch) -> Self {
        let path = one.path.map(|path| {
            let path = match path {
                PathMatch::Exact(path) => path_match::Match::Exact(path),
                PathMatch::Prefix(path) => path_match::Match::Prefix(path),
            };
            super::PathMatch { r#match: Some(path) }
        });
        let headers = one.headers.iter().map(|header| super::HeaderMatch {
            name: header.name.to_string(),
            exact: String::from_utf8_lossy(header.value.as_bytes()).into_owned(),
        });
        Self {
            path,
            headers: headers.collect(),
            method: one.method.map(|method| method.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<super::RequestMatch> for RequestMatch {
    type Error = WireError;

    fn try_from(wire: super::RequestMatch) -> Result<Self, WireError> {
        let path = match wire.path {
            None => None,
            Some(path) => Some(match required(path.r#match, "match.path")? {
                path_match::Match::Exact(path) => PathMatch::Exact(path),
                path_match::Match::Prefix(path) => PathMatch::Prefix(path),
            }),
        };
        let header = |header: super::HeaderMatch| {
            Ok(HeaderMatch {
                name: header.name.parse().map_err(|error| WireError::invalid("match.headers.name", error))?,
                value: header.exact.parse().map_err(|error| WireError::invalid("match.headers.exact", error))?,
            })
        };
        let method = match wire.method.as_str() {
            "" => None,
            method => Some(method.parse().map_err(|error| WireError::invalid("match.method", error))?),
        };
        Ok(Self { path, headers: wire.headers.into_iter().map(header).collect::<Result<_, _>>()?, method })
    }
}
