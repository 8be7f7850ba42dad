//! Whether a proxy that says hello is let in: its version, and the pod that it says it is. Pure; called by [`super`].

use std::net::SocketAddr;

use mesh_proto::{
    config::{Hello, PROTOCOL_VERSION},
    identity::Identity,
    outcome::Outcome,
    server::Refusal,
};
use mesh_runtime::build_info;

use crate::publish::KnownPod;

/// Whether both sides understand each other: one step of the protocol, one minor release, both ways.
pub(super) fn check_version(hello: &Hello) -> Result<(), Refusal> {
    let refuse = |detail: String| Err(Refusal::new(Outcome::VersionUnsupported, detail));
    if hello.protocol_version.abs_diff(PROTOCOL_VERSION) > 1 {
        return refuse(format!(
            "the proxy speaks protocol {}, the controller {PROTOCOL_VERSION}",
            hello.protocol_version
        ));
    }
    let minor = |version: &str| -> Option<(u64, u64)> {
        let mut parts = version.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match (minor(&hello.proxy_version), minor(build_info::VERSION)) {
        (Some(proxy), Some(own)) if proxy.0 == own.0 && proxy.1.abs_diff(own.1) <= 1 => Ok(()),
        _ => refuse(format!("the proxy is {:?}, the controller {}", hello.proxy_version, build_info::VERSION)),
    }
}

/// Whether the pod that says hello is the one that the index knows.
pub(super) fn fit(
    known: Option<&KnownPod>,
    hello: &Hello,
    address: SocketAddr,
    identity: &Identity,
) -> Result<(), Refusal> {
    let pod = format!("{}/{}", hello.pod_namespace, hello.pod_name);
    let unknown = |detail: String| Err(Refusal::new(Outcome::PodUnknown, detail));
    let Some(known) = known else { return unknown(format!("pod {pod} is not known")) };
    if known.uid != hello.pod_uid {
        return unknown(format!("pod {pod} has another uid than {:?}", hello.pod_uid));
    }
    if known.service_account != identity.service_account() {
        let detail = format!("pod {pod} runs as {}, not as {}", known.service_account, identity.service_account());
        return Err(Refusal::new(Outcome::IdentityMismatch, detail));
    }
    if !known.ips.contains(&address.ip().to_canonical()) {
        return unknown(format!("pod {pod} does not have the address {}", address.ip()));
    }
    Ok(())
}
