//! Finds the pods that should have a sidecar and have none: created before the label, or while no webhook answered.
//!
//! The webhook lets pods pass when it is away (`failurePolicy: Ignore`); this makes sure that they are not forgotten.
//! `app` runs [`Reconciler::run`] where there is an API server. Each such pod is counted, gets an Event with the code that
//! `meshctl list` shows, and is evicted where the injector was told to: within the disruption budget of its workload (the
//! API server's to keep), and one pod of a workload at a time. Several injectors may do the same at once: Events have the
//! pod's name, and a pod that is evicted twice is evicted once. Decides with [`decide`], as the webhook does.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{EvictParams, ListParams, PartialObjectMeta},
};
use mesh_proto::names;
use mesh_runtime::metrics::Metrics;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    decide::{self, NamespaceMeta, Verdict, decide},
    events::{Events, Recently, Told},
    pod::{self, Reference},
    problem::Problem,
    reason::RESTART_NEEDED,
};

/// How often it looks. The lists are of names, labels and annotations, from the API server's cache.
const PERIOD: Duration = Duration::from_secs(30);
/// Longest that one look may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// Most pods that one look reads whole; the rest have their turn when these are mended.
const MOST: usize = 200;
/// For so long no second pod of a workload is evicted: one that comes back without a sidecar must not go round for ever.
const EVICT_AFTER: Duration = Duration::from_mins(5);

/// What is counted.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    uninjected: Gauge,
    evicted: Counter,
}

/// Looks again and again.
pub struct Reconciler {
    client: Client,
    events: Events,
    counts: Counts,
    evicts: Option<Recently>,
}

/// A pod without the sidecar that it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slipped {
    namespace: String,
    pod: Reference,
    owner: Option<Reference>,
    /// `kind/name`, as `kubectl` takes it.
    workload: Option<String>,
}

impl Counts {
    /// Adds the families to those of the process.
    pub fn register(&self, metrics: &Metrics) {
        let help = "pods that should have a sidecar and had none at the last look";
        metrics.register("uninjected_pods", help, &[], self.uninjected.clone());
        metrics.register("uninjected_pod_evictions", "pods evicted to get a sidecar", &[], self.evicted.clone());
    }
}

impl Reconciler {
    /// Nothing is looked at yet. With `evict`, pods with an owner are evicted.
    pub fn new(client: Client, events: Events, counts: Counts, evict: bool) -> Self {
        Self { client, events, counts, evicts: evict.then(|| Recently::new(EVICT_AFTER)) }
    }

    /// Looks for ever. A problem is told once, and again when it changes.
    pub async fn run(mut self) {
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Problem::default();
        loop {
            tick.tick().await;
            let looked = tokio::time::timeout(DEADLINE, self.look()).await;
            let now = match looked {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string().chars().take(200).collect()),
                Err(_elapsed) => Some(format!("it took more than {DEADLINE:?}")),
            };
            if known.changes(now.as_deref())
                && let Some(text) = &now
            {
                tracing::warn!("failed to look for pods without a sidecar: {text}");
            }
        }
    }

    async fn look(&mut self) -> kube::Result<()> {
        let slipped = self.slipped().await?;
        self.counts.uninjected.set(i64::try_from(slipped.len()).unwrap_or(i64::MAX));
        for slipped in slipped {
            self.events.tell(told(&slipped));
            self.evict(&slipped).await;
        }
        Ok(())
    }

    async fn slipped(&self) -> kube::Result<Vec<Slipped>> {
        let mut slipped = Vec::new();
        for (namespace, name) in self.suspects().await? {
            // Gone since, either of them: then there is nothing to mend.
            let Some(pod) = Api::<Pod>::namespaced(self.client.clone(), &namespace).get_opt(&name).await? else {
                continue;
            };
            let Some(meta) = Api::<Namespace>::all(self.client.clone()).get_metadata_opt(&namespace).await? else {
                continue;
            };
            slipped.extend(judge(&pod, namespace, meta));
        }
        Ok(slipped)
    }

    /// Namespace and name of every pod that asks for a sidecar, or whose namespace does, and that says of none.
    async fn suspects(&self) -> kube::Result<BTreeSet<(String, String)>> {
        let asked = format!("{}={}", names::LABEL_INJECT, names::INJECT_ENABLED);
        let asking = ListParams::default().labels(&asked).match_any();
        let not_refusing = format!("{}!={}", names::LABEL_INJECT, names::INJECT_DISABLED);
        let of_namespace = ListParams::default().labels(&not_refusing).match_any();
        let mut suspects = BTreeSet::new();
        let mut add = |pods: Vec<PartialObjectMeta<Pod>>| {
            let lacking = pods.iter().filter(|pod| {
                pod.metadata.deletion_timestamp.is_none()
                    && !pod.annotations().contains_key(names::ANNOTATION_PROXY_VERSION)
            });
            let room = MOST.saturating_sub(suspects.len());
            suspects.extend(lacking.map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any())).take(room));
        };
        add(Api::<Pod>::all(self.client.clone()).list_metadata(&asking).await?.items);
        for namespace in Api::<Namespace>::all(self.client.clone()).list_metadata(&asking).await? {
            let pods = Api::<Pod>::namespaced(self.client.clone(), &namespace.name_any());
            add(pods.list_metadata(&of_namespace).await?.items);
        }
        Ok(suspects)
    }

    async fn evict(&mut self, slipped: &Slipped) {
        // Without an owner nobody would make it anew.
        let (Some(evicts), Some(owner)) = (&mut self.evicts, &slipped.owner) else { return };
        if !evicts.is_news(&owner.uid, RESTART_NEEDED, Instant::now()) {
            return;
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), &slipped.namespace);
        let (namespace, name) = (&slipped.namespace, &slipped.pod.name);
        match pods.evict(name, &EvictParams::default()).await {
            Ok(_) => {
                self.counts.evicted.inc();
                tracing::info!(namespace, name, "evicted a pod without a sidecar");
            }
            // 429: the disruption budget says not now.
            Err(error) => tracing::info!(namespace, name, %error, "a pod without a sidecar stays for now"),
        }
    }
}

/// Whether the webhook would have given this pod a sidecar.
fn judge(found: &Pod, namespace: String, meta: PartialObjectMeta<Namespace>) -> Option<Slipped> {
    let phase = found.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let value = serde_json::to_value(found).ok()?;
    let labels = meta.metadata.labels.unwrap_or_default();
    let meta = NamespaceMeta { labels, annotations: meta.metadata.annotations.unwrap_or_default() };
    let verdict = decide(&value, &decide::Namespace { name: namespace.clone(), meta }).verdict;
    matches!(verdict, Verdict::Inject(_)).then(|| Slipped {
        namespace,
        pod: Reference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: found.name_any(),
            uid: found.uid().unwrap_or_default(),
        },
        owner: pod::owner(&value),
        workload: pod::workload(&value),
    })
}

fn told(slipped: &Slipped) -> Told {
    let fix = match &slipped.workload {
        Some(workload) => format!("kubectl -n {} rollout restart {workload}", slipped.namespace),
        None => "delete it and create it again".to_owned(),
    };
    Told {
        namespace: slipped.namespace.clone(),
        regarding: slipped.pod.clone(),
        once: true,
        reason: RESTART_NEEDED,
        is_warning: true,
        note: format!("no sidecar: the pod is older than the label, or no webhook answered when it was created; {fix}"),
    }
}
