//! What a controller keeps in the cluster that it reads: its authority in a Secret, a Lease that says which of several
//! writes the rest, and the roots of trust for pods to mount.
//!
//! Made and started by [`crate::app`] where the source is a cluster. It only puts the three together.

use std::{collections::BTreeSet, env, sync::Arc};

use mesh_proto::names;
use mesh_runtime::tasks::Tasks;
use tokio::sync::watch;

use crate::{
    api::Api,
    bundles::Bundles,
    ca::{
        secret::{Mirror, SecretError},
        store::Store,
    },
    lease::{Election, Leading},
    metrics::Metrics,
    problems::Problems,
    source::kube::Pace,
};

/// Opened, and not started.
pub struct Cluster {
    api: Api,
    pace: Pace,
    /// None where somebody else keeps the authority.
    mirror: Option<Mirror>,
    election: Election,
    leading: Leading,
}

impl Cluster {
    /// Makes or reads the Secret, unless somebody else keeps the authority: then there is no `own` one.
    pub async fn open(api: Api, pace: Pace, own: Option<(Store, &str)>) -> Result<Self, SecretError> {
        let mirror = match own {
            Some((store, trust_domain)) => Some(Mirror::open(api.clone(), store, trust_domain).await?),
            None => None,
        };
        // In a pod its name.
        let host = env::var("HOSTNAME").unwrap_or_else(|_| names::CONTROLLER_NAME.to_owned());
        let (election, leading) = Election::new(api.clone(), pace.lease, &host);
        Ok(Self { api, pace, mirror, election, leading })
    }

    /// Keeps everything until the tasks are cancelled: `roots` (PEM) in these namespaces.
    pub fn start(
        self,
        tasks: &Tasks,
        problems: &Problems,
        metrics: &Metrics,
        namespaces: watch::Receiver<BTreeSet<Arc<str>>>,
        roots: watch::Receiver<Arc<str>>,
    ) {
        let Self { api, pace, mirror, election, leading } = self;
        let problem = |owner: &'static str| {
            let problems = problems.clone();
            move |reason: Option<String>| problems.set(owner, reason.into_iter().collect())
        };
        if let Some(mirror) = mirror {
            let problem = problem("Secret of the certificate authority");
            tasks.spawn_until_cancelled("secret", mirror.follow(pace.mirror, problem));
        }
        let bundles = Bundles::new(api, leading.clone(), namespaces, pace.bundles);
        tasks.spawn_until_cancelled("trust bundles", bundles.keep(roots, problem("ConfigMaps mesh-trust-bundle")));
        let (problem, metrics) = (problem("Lease of the controllers"), metrics.clone());
        let told = move |reason: Option<String>| {
            metrics.leads(leading.now());
            problem(reason);
        };
        // Not dropped when it ends: it lets go of the Lease.
        tasks.spawn("lease", election.run(tasks.cancelled(), told));
    }
}
