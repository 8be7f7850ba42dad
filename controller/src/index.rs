//! All facts about the cluster, and what a change of them touches.
//!
//! [`Facts`] is fed object by object (by the one task in [`crate::publish`]) and read by [`crate::compile`]. What it
//! holds depends only on the objects that are there, never on the order in which they came. It knows no source, no
//! channel and no proxy.

pub mod authorizations;
pub mod endpoint_slices;
pub mod namespaces;
pub mod pods;
pub mod ports;
mod related;
pub mod routes;
pub mod services;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::{
    authorizations::AuthorizationFacts,
    endpoint_slices::SliceFacts,
    namespaces::NamespaceFacts,
    pods::PodFacts,
    related::{ByLabel, Related},
    routes::RouteFacts,
    services::ServiceFacts,
};
use crate::source::{Kind, Object, ObjectRef};

/// Namespace and name of an object of a known kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Its namespace; empty for a Namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl Name {
    /// From its parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    fn of(metadata: &ObjectMeta) -> Self {
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        Self::new(namespace, metadata.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Something that compiled values depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
    /// Who has this address.
    Address(IpAddr),
    /// A Service: itself, its endpoints or its routes.
    Service(Name),
    /// A pod.
    Pod(Name),
    /// Defaults and policies of a namespace.
    Namespace(Arc<str>),
}

/// Facts of an object, and what of it is not in force as written.
struct Converted<T> {
    facts: T,
    problems: Vec<String>,
}

/// What applying an object led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What it touched.
    pub marks: BTreeSet<Mark>,
    /// What of the object is not in force as written.
    pub problems: Vec<String>,
}

/// All facts.
#[derive(Debug, Default)]
pub struct Facts {
    trust_domain: String,
    namespaces: BTreeMap<Name, NamespaceFacts>,
    pods: BTreeMap<Name, PodFacts>,
    services: BTreeMap<Name, ServiceFacts>,
    slices: BTreeMap<Name, SliceFacts>,
    routes: BTreeMap<Name, RouteFacts>,
    authorizations: BTreeMap<Name, AuthorizationFacts>,
    pods_by_ip: Related<IpAddr>,
    services_by_ip: Related<IpAddr>,
    slices_by_service: Related<Name>,
    /// Those that tell the zone of a node.
    slices_by_node: Related<Arc<str>>,
    pods_by_node: Related<Arc<str>>,
    routes_by_service: Related<Name>,
    by_label: ByLabel,
}

impl Facts {
    /// No facts yet, about workloads of `trust_domain`.
    pub fn new(trust_domain: &str) -> Self {
        Self { trust_domain: trust_domain.to_owned(), ..Self::default() }
    }

    /// Takes an object in, new or changed.
    pub fn apply(&mut self, object: &Object) -> Applied {
        let mut applied = Applied::default();
        let marks = &mut applied.marks;
        applied.problems = match object {
            Object::Namespace(object) => {
                let Converted { facts, problems } = namespaces::facts(object);
                let name = Name::new("", object.metadata.name.as_deref().unwrap_or_default());
                self.set_namespace(&name, Some(facts), marks);
                problems
            }
            Object::Pod(object) => {
                let Converted { facts, problems } = pods::facts(object, &self.trust_domain);
                self.set_pod(&facts.name.clone(), Some(facts), marks);
                problems
            }
            Object::Service(object) => {
                let Converted { facts, problems } = services::facts(object);
                self.set_service(&facts.name.clone(), Some(facts), marks);
                problems
            }
            Object::EndpointSlice(object) => {
                let Converted { facts, problems } = endpoint_slices::facts(object);
                self.set_slice(&facts.name.clone(), Some(facts), marks);
                problems
            }
            Object::HttpRoute(object) => {
                let Converted { facts, problems } = routes::facts(object);
                self.set_route(&facts.name.clone(), Some(facts), marks);
                problems
            }
            Object::AuthorizationPolicy(object) => {
                let Converted { facts, problems } = authorizations::facts(object);
                self.set_authorization(&facts.name.clone(), Some(facts), marks);
                problems
            }
        };
        applied
    }

    /// Forgets an object.
    pub fn delete(&mut self, object: &ObjectRef) -> BTreeSet<Mark> {
        let mut marks = BTreeSet::new();
        let name = Name { namespace: Arc::clone(&object.namespace), name: Arc::clone(&object.name) };
        match object.kind {
            Kind::Namespace => self.set_namespace(&name, None, &mut marks),
            Kind::Pod => self.set_pod(&name, None, &mut marks),
            Kind::Service => self.set_service(&name, None, &mut marks),
            Kind::EndpointSlice => self.set_slice(&name, None, &mut marks),
            Kind::HttpRoute => self.set_route(&name, None, &mut marks),
            Kind::AuthorizationPolicy => self.set_authorization(&name, None, &mut marks),
        }
        marks
    }

    /// How many objects of a kind are known.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Namespace => self.namespaces.len(),
            Kind::Pod => self.pods.len(),
            Kind::Service => self.services.len(),
            Kind::EndpointSlice => self.slices.len(),
            Kind::HttpRoute => self.routes.len(),
            Kind::AuthorizationPolicy => self.authorizations.len(),
        }
    }
}

/// Reading.
impl Facts {
    /// A namespace.
    pub fn namespace(&self, name: &str) -> Option<&NamespaceFacts> {
        self.namespaces.get(&Name::new("", name))
    }

    /// A pod.
    pub fn pod(&self, name: &Name) -> Option<&PodFacts> {
        self.pods.get(name)
    }

    /// A Service.
    pub fn service(&self, name: &Name) -> Option<&ServiceFacts> {
        self.services.get(name)
    }

    /// The pod that has an address. Of several (an address is reused before the old pod is gone), the newest.
    pub fn pod_at(&self, ip: IpAddr) -> Option<&PodFacts> {
        let pods = self.pods_by_ip.of(&ip).filter_map(|name| self.pods.get(name));
        pods.max_by_key(|pod| (pod.created, &pod.name))
    }

    /// The Service that has a cluster IP. The API server gives each to one only; by hand, the first by name has it.
    pub fn service_at(&self, ip: IpAddr) -> Option<&ServiceFacts> {
        self.services_by_ip.of(&ip).find_map(|name| self.services.get(name))
    }

    /// Pods of a namespace, by name.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &PodFacts> {
        within(&self.pods, namespace)
    }

    /// Pods that a Service picks, by name.
    pub fn picked_by<'a>(&'a self, service: &'a ServiceFacts) -> impl Iterator<Item = &'a PodFacts> {
        let selector = service.selector.iter();
        let names = selector.flat_map(|selector| self.by_label.pods(&service.name.namespace, selector));
        names.filter_map(|name| self.pods.get(name)).filter(|pod| service.selects(&pod.labels))
    }

    /// Services that pick a pod, by name.
    pub fn picking<'a>(&'a self, pod: &'a PodFacts) -> impl Iterator<Item = &'a ServiceFacts> {
        let names = self.by_label.services(&pod.name.namespace, &pod.labels).into_iter();
        names.filter_map(|name| self.services.get(name)).filter(|service| service.selects(&pod.labels))
    }

    /// Authorization policies of a namespace, by name.
    pub fn authorizations_in(&self, namespace: &str) -> impl Iterator<Item = &AuthorizationFacts> {
        within(&self.authorizations, namespace)
    }

    /// Slices of a Service, by name.
    pub fn slices_of(&self, service: &Name) -> impl Iterator<Item = &SliceFacts> {
        self.slices_by_service.of(service).filter_map(|name| self.slices.get(name))
    }

    /// The zone that a pod is in, as far as slices tell it of the pod's node.
    pub fn zone(&self, pod: &PodFacts) -> Option<&Arc<str>> {
        self.zone_of_node(pod.node.as_ref()?)
    }

    fn zone_of_node(&self, node: &Arc<str>) -> Option<&Arc<str>> {
        self.slices_by_node.of(node).find_map(|name| self.slices.get(name)?.zones.get(node))
    }

    /// Routes of a Service, by name.
    pub fn routes_of(&self, service: &Name) -> impl Iterator<Item = &RouteFacts> {
        self.routes_by_service.of(service).filter_map(|name| self.routes.get(name))
    }
}

/// Writing, kind by kind: an unchanged fact marks nothing.
impl Facts {
    fn set_namespace(&mut self, name: &Name, facts: Option<NamespaceFacts>, marks: &mut BTreeSet<Mark>) {
        if replace(&mut self.namespaces, name, facts).is_some() {
            marks.insert(Mark::Namespace(Arc::clone(&name.name)));
        }
    }

    fn set_pod(&mut self, name: &Name, facts: Option<PodFacts>, marks: &mut BTreeSet<Mark>) {
        let Some((before, after)) = replace(&mut self.pods, name, facts) else { return };
        let ips = |pod: Option<&PodFacts>| pod.map(|pod| pod.ips.clone()).unwrap_or_default();
        self.pods_by_ip.update(name, ips(before.as_ref()), ips(after));
        let node = |pod: Option<&PodFacts>| pod.and_then(|pod| pod.node.clone());
        self.pods_by_node.update(name, node(before.as_ref()), node(after));
        self.by_label.update_pod(name, before.as_ref().map(|pod| &pod.labels), after.map(|pod| &pod.labels));
        marks.insert(Mark::Pod(name.clone()));
        for pod in before.iter().chain(self.pods.get(name)) {
            marks.extend(pod.ips.iter().map(|ip| Mark::Address(*ip)));
            marks.extend(self.picking(pod).map(|service| Mark::Service(service.name.clone())));
        }
    }

    fn set_service(&mut self, name: &Name, facts: Option<ServiceFacts>, marks: &mut BTreeSet<Mark>) {
        let Some((before, after)) = replace(&mut self.services, name, facts) else { return };
        let ips = |service: Option<&ServiceFacts>| service.map(|service| service.ips.clone()).unwrap_or_default();
        self.services_by_ip.update(name, ips(before.as_ref()), ips(after));
        let selector = |service: Option<&ServiceFacts>| service.and_then(|service| service.selector.clone());
        let (old, new) = (selector(before.as_ref()), selector(after));
        self.by_label.update_service(name, old.as_ref(), new.as_ref());
        marks.insert(Mark::Service(name.clone()));
        for service in before.iter().chain(self.services.get(name)) {
            marks.extend(service.ips.iter().map(|ip| Mark::Address(*ip)));
            // What their ports speak, and which policies protect them.
            marks.extend(self.picked_by(service).map(|pod| Mark::Pod(pod.name.clone())));
        }
    }

    fn set_slice(&mut self, name: &Name, facts: Option<SliceFacts>, marks: &mut BTreeSet<Mark>) {
        let nodes = |slice: Option<&SliceFacts>| -> BTreeSet<Arc<str>> {
            slice.into_iter().flat_map(|slice| slice.zones.keys().cloned()).collect()
        };
        let about = nodes(self.slices.get(name)).into_iter().chain(nodes(facts.as_ref()));
        let zone = |node: Arc<str>| (self.zone_of_node(&node).cloned(), node);
        let zones: BTreeSet<(Option<Arc<str>>, Arc<str>)> = about.map(zone).collect();
        let Some((before, after)) = replace(&mut self.slices, name, facts) else { return };
        self.slices_by_node.update(name, nodes(before.as_ref()), nodes(after));
        let service = |slice: Option<&SliceFacts>| slice.and_then(|slice| slice.service.clone());
        let (before, after) = (service(before.as_ref()), service(after));
        marks.extend(before.iter().chain(&after).map(|service| Mark::Service(service.clone())));
        self.slices_by_service.update(name, before, after);
        for (zone, node) in zones {
            if self.zone_of_node(&node) != zone.as_ref() {
                marks.extend(self.pods_by_node.of(&node).cloned().map(Mark::Pod));
            }
        }
    }

    fn set_route(&mut self, name: &Name, facts: Option<RouteFacts>, marks: &mut BTreeSet<Mark>) {
        let Some((before, after)) = replace(&mut self.routes, name, facts) else { return };
        let services = |route: Option<&RouteFacts>| -> BTreeSet<Name> {
            route.map(|route| route.parents.iter().map(|parent| parent.service.clone()).collect()).unwrap_or_default()
        };
        let (before, after) = (services(before.as_ref()), services(after));
        marks.extend(before.iter().chain(&after).map(|service| Mark::Service(service.clone())));
        self.routes_by_service.update(name, before, after);
    }

    fn set_authorization(&mut self, name: &Name, facts: Option<AuthorizationFacts>, marks: &mut BTreeSet<Mark>) {
        if replace(&mut self.authorizations, name, facts).is_some() {
            marks.insert(Mark::Namespace(Arc::clone(&name.namespace)));
        }
    }
}

/// Puts facts in place (none: removes them) and gives before and after, or nothing where they are the same.
fn replace<'a, T: PartialEq>(
    all: &'a mut BTreeMap<Name, T>,
    name: &Name,
    facts: Option<T>,
) -> Option<(Option<T>, Option<&'a T>)> {
    if all.get(name) == facts.as_ref() {
        return None;
    }
    let before = match facts {
        Some(facts) => all.insert(name.clone(), facts),
        None => all.remove(name),
    };
    Some((before, all.get(name)))
}

fn within<'a, T>(all: &'a BTreeMap<Name, T>, namespace: &str) -> impl Iterator<Item = &'a T> {
    let first = Name::new(namespace, "");
    let namespace = Arc::clone(&first.namespace);
    all.range(first..).take_while(move |(name, _)| name.namespace == namespace).map(|(_, facts)| facts)
}

/// Whether labels hold all that a selector asks for.
fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
