//! Who is who: addresses of a tap as the pods, workloads and Services that they belong to. Pure.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use mesh_proto::{identity::Identity, tap::TapEvent};
use serde::Serialize;

use crate::{cluster::PodInfo, resource::Resource};

/// Pods by address: as they are, and as they were at the look before, for what ends a little later.
#[derive(Debug)]
pub(super) struct Names {
    now: HashMap<IpAddr, Named>,
    before: HashMap<IpAddr, Named>,
}

#[derive(Debug, Clone)]
struct Named {
    namespace: String,
    pod: String,
    workload: Option<String>,
}

/// One end of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct End {
    pub(super) address: SocketAddr,
    namespace: Option<String>,
    pod: Option<String>,
    workload: Option<String>,
    service: Option<String>,
    pub(super) identity: Option<String>,
}

impl Names {
    pub(super) fn new(pods: &[PodInfo]) -> Self {
        Self { now: by_address(pods), before: HashMap::new() }
    }

    /// Who is who from now on.
    pub(super) fn learn(&mut self, pods: &[PodInfo]) {
        self.before = std::mem::replace(&mut self.now, by_address(pods));
    }

    /// Who asked, and who was asked.
    pub(super) fn ends(&self, event: &TapEvent) -> (End, End) {
        let source = self.end(event.source, event.source_identity.as_ref());
        let mut destination = self.end(event.destination, event.destination_identity.as_ref());
        if let Some(service) = &event.service {
            destination.service = Some(service.name.to_string());
            destination.namespace.get_or_insert_with(|| service.namespace.to_string());
        }
        (source, destination)
    }

    fn end(&self, address: SocketAddr, identity: Option<&Identity>) -> End {
        let ip = address.ip().to_canonical();
        let pod = self.now.get(&ip).or_else(|| self.before.get(&ip));
        End {
            address,
            namespace: pod.map(|named| named.namespace.clone()),
            pod: pod.map(|named| named.pod.clone()),
            workload: pod.and_then(|named| named.workload.clone()),
            service: None,
            identity: identity.map(ToString::to_string),
        }
    }
}

fn by_address(pods: &[PodInfo]) -> HashMap<IpAddr, Named> {
    let named = |pod: &PodInfo| Named {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        workload: pod.workload.clone(),
    };
    pods.iter().flat_map(|pod| pod.ips.iter().map(move |ip| (*ip, named(pod)))).collect()
}

impl End {
    /// Whether it is what `--to` or `--from` name.
    pub(super) fn is(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Service(name) => self.service.as_ref() == Some(name),
            Resource::Namespace(name) => self.namespace.as_ref() == Some(name),
            other => match (&self.namespace, &self.pod) {
                (Some(namespace), Some(pod)) => other.names(namespace, pod, self.workload.as_deref()),
                _ => false,
            },
        }
    }

    /// Its namespace, and its workload or else `pod/NAME`; empty where it is no pod that we know.
    pub(super) fn workload(&self) -> (String, String) {
        let pod = || self.pod.as_ref().map(|pod| format!("pod/{pod}"));
        match (&self.namespace, self.workload.clone().or_else(pod)) {
            (Some(namespace), Some(workload)) => (namespace.clone(), workload),
            _ => (String::new(), String::new()),
        }
    }

    /// The workload, which fits a line and says enough; the pod where `wide`.
    pub(super) fn text(&self, wide: bool) -> String {
        let workload = self.workload.as_deref().and_then(|workload| workload.split_once('/')).map(|(_, name)| name);
        let name = if wide { None } else { workload }.or(self.pod.as_deref()).or(self.service.as_deref());
        match (&self.namespace, name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => self.address.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::line::tests::{event, pods},
        *,
    };
    use crate::commands::fixture;

    #[test]
    fn ends_are_found_by_what_users_name() {
        let (source, _) = Names::new(&pods()).ends(&event());
        for (resource, is) in [("deploy/load", true), ("pod/load-1", true), ("ns/shop", true), ("deploy/web", false)] {
            assert_eq!(source.is(&resource.parse().unwrap()), is, "{resource}");
        }
    }

    #[test]
    fn who_has_just_left_is_still_known_and_who_came_is_known_by_the_same_address() {
        let mut names = Names::new(&pods());
        names.learn(&[]);
        assert_eq!(names.ends(&event()).0.workload().1, "deployment/load");
        names.learn(&[fixture::pod("new-1", Some("new"), true, "10.244.0.5")]);
        assert_eq!(names.ends(&event()).0.workload().1, "deployment/new");
        names.learn(&[]);
        names.learn(&[]);
        assert_eq!(names.ends(&event()).0.workload().1, "");
    }
}
