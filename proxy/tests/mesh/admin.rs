//! The real proxy's admin port: who may see what (contracts §9).

use std::net::{Ipv4Addr, SocketAddr};

use mesh_proto::{admin, names};
use mesh_testbed::{member::Pod, talk::get};

use crate::{mesh, settings};

pub(crate) fn what_is_for_the_pod_itself_is_shown_on_loopback_only() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let web = mesh.member(&Pod::new("a", "web", 1))?;
    let outside = mesh.outsider("outside", 9)?;
    let changes = [(names::HEADER_ADMIN, names::ADMIN_MEANT)];
    for ip in web.addresses().iter() {
        let network = SocketAddr::new(ip, names::PORT_PROXY_ADMIN);
        for path in ["/live", "/ready", "/metrics"] {
            assert_eq!(outside.run(|| get(network, path, &[]))??.status, 200, "{path} at {network}");
        }
        for path in [admin::CONFIG, admin::ENDPOINTS, admin::CONNECTIONS, "/log-level", "/drain"] {
            // From the network, and from the pod itself by its own address.
            for answer in [outside.run(|| get(network, path, &changes))??, web.run(|| get(network, path, &changes))??] {
                assert!(matches!(answer.status, 403 | 405), "{path} at {network}: {answer:?}");
                assert!(!answer.body.contains("spiffe://"), "{path} at {network}: {answer:?}");
            }
        }
    }
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, names::PORT_PROXY_ADMIN));
    for path in [admin::CONFIG, admin::ENDPOINTS, admin::CONNECTIONS, "/log-level"] {
        assert_eq!(web.run(|| get(loopback, path, &[]))??.status, 200, "{path}");
    }
    assert!(web.is_ready(), "nothing began to drain");
    Ok(())
}
