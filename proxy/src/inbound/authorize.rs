//! Whether the client of one connection may: the policy's verdict, asked again only when the policy has changed.

use std::{cell::RefCell, sync::Arc};

use mesh_proto::{
    identity::Identity,
    inbound::{InboundPolicy, Verdict},
    outcome::Outcome,
};

use crate::{
    error::{ProxyError, Result},
    worker::Worker,
};

/// The verdict on one client and port, remembered with the policy it rests on.
pub(super) struct Authorization {
    port: u16,
    client: Option<Identity>,
    last: RefCell<Option<(Arc<InboundPolicy>, Result<()>)>>,
}

impl Authorization {
    /// Of `client` (none: not proved) on `port`.
    pub(super) fn new(port: u16, client: Option<Identity>) -> Self {
        Self { port, client, last: RefCell::new(None) }
    }

    /// The verdict of the policy in force now. Without a policy: refused.
    pub(super) fn check(&self, worker: &Worker) -> Result<()> {
        let Some(policy) = worker.inbound_policy() else {
            return Err(ProxyError::new(Outcome::PolicyUnavailable, "no inbound policy received yet"));
        };
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((known, verdict)) if Arc::ptr_eq(known, &policy) => verdict.clone(),
            _ => {
                let verdict = self.ask(worker, &policy);
                *last = Some((policy, verdict.clone()));
                verdict
            }
        }
    }

    fn ask(&self, worker: &Worker, policy: &InboundPolicy) -> Result<()> {
        let verdict = policy.port(self.port).authorize(worker.shared.credentials.identity(), self.client.as_ref());
        match verdict {
            Verdict::Allow(_) => Ok(()),
            Verdict::Audit => {
                worker.shared.metrics.audited();
                Ok(())
            }
            Verdict::Deny(basis) => Err(ProxyError::new(Outcome::Denied, format!("port {}: {basis}", self.port))),
        }
    }
}
