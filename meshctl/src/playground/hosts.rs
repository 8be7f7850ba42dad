//! Names in pods: the playground has no DNS server, each pod gets a hosts file with all Services. Pure.

use std::{fmt::Write as _, net::Ipv4Addr};

use k8s_openapi::api::core::v1::Service;

/// The hosts file of a pod in `namespace`: Services of its own namespace also by their bare name, as a resolver's
/// search list would find them.
pub(crate) fn file(services: &[Service], namespace: &str, pod: &str, address: Ipv4Addr) -> String {
    let mut text = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n{address} {pod}\n");
    for service in services {
        let Some(name) = service.metadata.name.as_deref() else { continue };
        let home = service.metadata.namespace.as_deref().unwrap_or("default");
        let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).filter(|ip| *ip != "None");
        let Some(ip) = ip else { continue };
        let bare = if home == namespace { format!("{name} ") } else { String::new() };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{ip} {bare}{name}.{home} {name}.{home}.svc {name}.{home}.svc.cluster.local");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_have_all_their_names_and_bare_ones_at_home_only() {
        let service = |name: &str, namespace: &str, ip: &str| -> Service {
            serde_json::from_value(
                json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip}}),
            )
            .unwrap()
        };
        let services = [
            service("web", "shop", "10.96.0.10"),
            service("api", "mesh-system", "10.96.0.11"),
            service("headless", "shop", "None"),
        ];
        assert_eq!(
            file(&services, "shop", "web-1", Ipv4Addr::new(10, 244, 0, 2)),
            "127.0.0.1 localhost\n::1 localhost ip6-localhost\n10.244.0.2 web-1\n\
             10.96.0.10 web web.shop web.shop.svc web.shop.svc.cluster.local\n\
             10.96.0.11 api.mesh-system api.mesh-system.svc api.mesh-system.svc.cluster.local\n"
        );
    }
}
