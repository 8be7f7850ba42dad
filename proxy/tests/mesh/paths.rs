//! Routes that decide by the path, to the real binaries: a path is compared in its one form and goes on as it was sent; one
//! that has more than one reading is refused there, and only there.

use mesh_testbed::{
    member::Pod,
    talk::{Answer, get},
    until,
};

use crate::{WEB, http, mesh, settings};

/// `/admin` goes to `b`, the rest to `a`.
const ROUTE: &str = r#"apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /%61dmin}}]
      backendRefs: [{name: web-b, port: 80}]
    - backendRefs: [{name: web-a, port: 80}]
"#;

pub(crate) fn a_route_decides_by_a_path_with_one_reading_and_refuses_others() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let servers = (mesh.member(&Pod::new("a", "web", 1))?, mesh.member(&Pod::new("b", "web", 2))?);
    let client = mesh.member(&Pod::new("client", "client", 3))?;
    let ask = |path: &str| client.run(|| get(http(WEB), path, &[]))?;
    let is_refused = |answer: &Answer| (answer.status, answer.header("mesh-error")) == (400, Some("path-ambiguous"));
    const ODD: [&str; 8] = [
        "//admin",
        "/x/../admin",
        "/x/%2e%2E/admin",
        "/x%2f..%2fadmin",
        "/x%5c..%5cadmin",
        "/.;x/admin",
        "/admin%00",
        "/adm%in",
    ];
    for path in ODD {
        assert_eq!(ask(path)?.status, 200, "{path}: nothing depends on it yet");
    }

    mesh.control.apply("route.yaml", ROUTE)?;
    until("the route is in force", || (ask("/admin").ok()?.body == "b" && ask("/").ok()?.body == "a").then_some(()))?;
    for (path, pod) in [
        ("/admin?x=/../y//z", "b"),
        ("/%61dmin/", "b"),
        ("/%61d%6Din/a%20b", "b"),
        ("/administrator", "a"),
        ("/ADMIN", "a"),
        ("/.well-known/admin", "a"),
    ] {
        for _ in 0..5 {
            assert_eq!(ask(path)?.body, pod, "{path}");
        }
    }
    let seen = |member: &mesh_testbed::Member| member.count("request_total", &[r#"direction="inbound""#]);
    let before = (seen(&servers.0)?, seen(&servers.1)?);
    for path in ODD {
        let answer = ask(path)?;
        assert!(is_refused(&answer), "{path}: {answer:?}");
    }
    assert_eq!((seen(&servers.0)?, seen(&servers.1)?), before, "a refused one went on");
    assert_eq!(client.count("mesh_error_total", &[r#"code="path-ambiguous""#])?, ODD.len() as u64);
    Ok(())
}
