//! Settings that take several values or several variables.

use std::net::IpAddr;

use mesh_proto::{identity::Identity, names};

use super::{
    Reader, Strings,
    values::{collector, host_port, within},
};
use crate::config::{HostPort, Traces, TrustSources};

/// Share of traces that are sampled where a collector is given and no share.
const DEFAULT_SAMPLE: f64 = 0.1;
/// Most addresses a pod has (Kubernetes: one of each family).
const MAX_POD_IPS: usize = 16;

impl<S: Strings> Reader<'_, S> {
    pub(super) fn pod_ips(&mut self) -> Vec<IpAddr> {
        const FIX: &str = "set it to the pod's status.podIPs, e.g. 10.1.2.3,fd00::3";
        let text = self.required(names::ENV_POD_IPS, FIX);
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let addresses: Result<Vec<IpAddr>, _> = entries
            .take(MAX_POD_IPS)
            .map(|entry| entry.parse().map_err(|_| format!("{entry:?} is no address")))
            .collect();
        let addresses = addresses.and_then(|addresses| {
            let none = addresses.is_empty() && !text.is_empty();
            if none { Err("has no address".to_owned()) } else { Ok(addresses) }
        });
        addresses.unwrap_or_else(|reason| {
            self.wrong(names::ENV_POD_IPS, Some(&text), reason, FIX);
            Vec::new()
        })
    }

    /// Kubernetes gives a pod that names no service account `default`.
    pub(super) fn identity(&mut self, namespace: &str) -> Option<Identity> {
        const FIX: &str = "use the names of the pod's own namespace and service account";
        let domain = self.look_up(names::ENV_TRUST_DOMAIN, FIX).unwrap_or_else(|| names::DEFAULT_TRUST_DOMAIN.into());
        let account = self.look_up(names::ENV_SERVICE_ACCOUNT, FIX).unwrap_or_else(|| "default".into());
        // A namespace that is not set is reported already; each of the others is looked at by itself.
        let of = |domain: &str, namespace: &str, account: &str| Identity::new(domain, namespace, account);
        if let Err(error) = of(&domain, "default", "default") {
            self.wrong(names::ENV_TRUST_DOMAIN, Some(&domain), error.to_string(), "use the mesh's trust domain");
        }
        if let Err(error) = of(names::DEFAULT_TRUST_DOMAIN, "default", &account) {
            self.wrong(names::ENV_SERVICE_ACCOUNT, Some(&account), error.to_string(), FIX);
        }
        if !namespace.is_empty()
            && let Err(error) = of(names::DEFAULT_TRUST_DOMAIN, namespace, "default")
        {
            self.wrong(names::ENV_POD_NAMESPACE, Some(namespace), error.to_string(), FIX);
        }
        of(&domain, namespace, &account).ok()
    }

    pub(super) fn controller(&mut self) -> Option<HostPort> {
        const FIX: &str = "write host:port, e.g. mesh-controller.mesh-system.svc:8443";
        let text = self.required(names::ENV_CONTROLLER_ADDR, FIX);
        if text.is_empty() {
            return None;
        }
        host_port(&text).map_err(|reason| self.wrong(names::ENV_CONTROLLER_ADDR, Some(&text), reason, FIX)).ok()
    }

    pub(super) fn traces(&mut self) -> Option<Traces> {
        const FIX: &str =
            "write http://host:port of a collector that takes OTLP over gRPC, e.g. http://otel.observability:4317";
        let endpoint = self.optional(names::ENV_TRACE_ENDPOINT, collector, FIX);
        let sample = self.optional(names::ENV_TRACE_SAMPLE, |text| within(text, 0.0, 1.0), "write a share, e.g. 0.1");
        Some(Traces { endpoint: endpoint?, sample: sample.unwrap_or(DEFAULT_SAMPLE) })
    }

    /// Which file or text is usable is found out when it is read ([`crate::trust`]); here only that there is any.
    pub(super) fn trust(&mut self) -> TrustSources {
        const FIX: &str = "inject the pod again, or give a file in MESH_TRUST_BUNDLE_FILE";
        let state_dir = self.look_up(names::ENV_STATE_DIR, "write the path of a memory-backed directory");
        let file = self.look_up(names::ENV_TRUST_BUNDLE_FILE, FIX);
        let pem = self.look_up(names::ENV_TRUST_BUNDLE, FIX);
        if file.is_none() && pem.is_none() && state_dir.is_none() {
            self.wrong(names::ENV_TRUST_BUNDLE, None, "is not set, and no other source of roots of trust is", FIX);
        }
        TrustSources { state_dir: state_dir.map(Into::into), file: file.map(Into::into), pem }
    }
}
