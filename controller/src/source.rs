//! Where objects come from, as everything after it sees them: objects that appear, change and go.
//!
//! Sources send [`Event`]s into the one channel of the index. Nothing past this module may know which source it is.
//! It knows the shapes of Kubernetes objects and nothing of their meaning.

pub mod dir;
pub mod kube;
pub mod manifest;
pub mod stand_in;

use std::{fmt, sync::Arc};

use gateway_api::apis::standard::httproutes::HttpRoute;
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use mesh_proto::crd::AuthorizationPolicy;
use tokio::sync::mpsc;

/// A source that has been opened.
pub enum Opened {
    /// A directory.
    Dir(dir::Dir),
    /// A cluster.
    Kube(kube::Kube),
}

impl Opened {
    /// Sends what is there, then every change, until the receiver is gone.
    pub async fn run(self, events: mpsc::Sender<Event>) {
        match self {
            Self::Dir(dir) => dir.run(events).await,
            Self::Kube(kube) => kube.run(events).await,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The object is there, new or changed.
    Apply(Arc<Object>),
    /// It is gone.
    Delete(ObjectRef),
    /// Everything that was there at the start has been sent. Before this, absence means nothing.
    Synced,
}

/// Kinds that the controller reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Pod.
    Pod,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `gateway.networking.k8s.io/v1` HTTPRoute.
    HttpRoute,
    /// `meshctl.dev/v1alpha1` AuthorizationPolicy.
    AuthorizationPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Namespace, Self::Pod, Self::Service, Self::EndpointSlice, Self::HttpRoute, Self::AuthorizationPolicy];

    /// As in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::HttpRoute => "HTTPRoute",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
        }
    }
}

/// Name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a Namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_str();
        if self.namespace.is_empty() {
            write!(f, "{kind} {}", self.name)
        } else {
            write!(f, "{kind} {}/{}", self.namespace, self.name)
        }
    }
}

/// An object of a kind that the controller reads. It has a name, and a namespace where its kind has one.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A pod.
    Pod(Box<Pod>),
    /// A service.
    Service(Box<Service>),
    /// Some endpoints of a service.
    EndpointSlice(EndpointSlice),
    /// Routes.
    HttpRoute(HttpRoute),
    /// Who may connect.
    AuthorizationPolicy(AuthorizationPolicy),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
        }
    }

    /// Its name.
    pub fn object_ref(&self) -> ObjectRef {
        let metadata = match self {
            Self::Namespace(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::HttpRoute(object) => &object.metadata,
            Self::AuthorizationPolicy(object) => &object.metadata,
        };
        let kind = self.kind();
        let namespace = if kind == Kind::Namespace { "" } else { metadata.namespace.as_deref().unwrap_or("default") };
        ObjectRef { kind, namespace: namespace.into(), name: metadata.name.as_deref().unwrap_or_default().into() }
    }
}
