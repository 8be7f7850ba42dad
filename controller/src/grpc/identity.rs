//! `Certify`: a token and nothing else (contracts §5).

use std::sync::Arc;

use mesh_proto::{
    client::{Certified, Certify},
    outcome::Outcome,
    server::{IdentityService, Refusal},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    ca::{
        Authority,
        limit::Limit,
        token::{Pod, Proof},
    },
    index::Name,
    metrics::Metrics,
    publish::Publisher,
};

/// The service.
pub struct Identities {
    authority: Arc<Authority>,
    publisher: Publisher,
    metrics: Metrics,
    limit: Mutex<Limit>,
}

impl Identities {
    /// Signs with `authority` for pods that `publisher` knows.
    pub fn new(authority: Arc<Authority>, publisher: Publisher, metrics: Metrics) -> Self {
        let limit = Mutex::new(Limit::new(authority.leaf_lifetime()));
        Self { authority, publisher, metrics, limit }
    }

    async fn answer(&self, certify: &Certify) -> Result<Certified, Refusal> {
        let proof = self.authority.prove(certify).await?;
        self.check_pod(&proof).await?;
        let taken = self.limit.lock().take(&proof.pod.uid, Instant::now());
        taken.map_err(|wait| {
            let Pod { namespace, name, .. } = &proof.pod;
            let detail = format!("pod {namespace}/{name} asks for too many certificates; the next in {wait:?}");
            Refusal::new(Outcome::Overloaded, detail)
        })?;
        self.authority.sign(certify)
    }

    /// The pod of a token must be who the token says, where the index knows the pod already. One that it does not know
    /// yet is checked when it says hello.
    async fn check_pod(&self, proof: &Proof) -> Result<(), Refusal> {
        let name = Name::new(&proof.pod.namespace, &proof.pod.name);
        let pod = self.publisher.pod(name.clone()).await;
        let pod = pod.map_err(|error| Refusal::new(Outcome::Overloaded, error.to_string()))?;
        let Some(pod) = pod.borrow().clone() else { return Ok(()) };
        if pod.uid != proof.pod.uid || pod.service_account != proof.identity.service_account() {
            let detail = format!("pod {name} has another uid or service account than the token");
            return Err(Refusal::new(Outcome::IdentityMismatch, detail));
        }
        Ok(())
    }
}

impl IdentityService for Identities {
    async fn certify(&self, certify: Certify) -> Result<Certified, Refusal> {
        let answer = self.answer(&certify).await;
        match &answer {
            Ok(_) => {
                self.metrics.issued();
                tracing::info!(identity = %certify.identity, "certificate issued");
            }
            Err(refusal) => {
                self.metrics.refused("certify", refusal.outcome);
                tracing::warn!(identity = %certify.identity, %refusal, "certificate refused");
            }
        }
        answer
    }
}
