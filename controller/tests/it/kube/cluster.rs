//! What controllers keep in their cluster: the roots of trust for pods, written by the one that holds the Lease.

use http::StatusCode;
use mesh_controller::{CaArgs, CaStep};
use serde_json::{Value, json};

use super::server::ApiServer;
use crate::support::{Mesh, pod};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/mesh-system/leases/mesh-controller";
const FOUND: &str = "get /api/v1/configmaps";

fn bundle(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/mesh-trust-bundle")
}

fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

/// A cluster with a namespace of each kind: with a pod of the mesh, with the label, with neither.
async fn cluster() -> ApiServer {
    let api = ApiServer::start().await;
    api.put(&namespace("shop", ""));
    api.put(&pod("shop", "web-1", "web", "127.0.0.1", true));
    api.put(&namespace("soon", "meshctl.dev/inject: enabled"));
    api.put(&namespace("plain", ""));
    api
}

async fn start(api: &ApiServer) -> Mesh {
    let mesh = Mesh::start_kube(|directory| api.kubeconfig(directory)).await;
    mesh.ready().await;
    mesh
}

/// Waits for an object to be so.
async fn stored(api: &ApiServer, path: &str, wanted: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
    let object = || {
        let object = api.stored(path);
        if wanted(object.as_ref()) { Ok(object) } else { Err(object) }
    };
    api.until(path, object).await
}

fn pem(object: &Value) -> String {
    object["data"]["roots.pem"].as_str().unwrap().to_owned()
}

/// Waits for the roots in a namespace, with as many certificates.
async fn roots(api: &ApiServer, namespace: &str, certificates: usize) -> String {
    let has = |object: Option<&Value>| {
        object.is_some_and(|object| {
            object["data"]["roots.pem"].as_str().is_some_and(|pem| pem.matches("BEGIN").count() == certificates)
        })
    };
    pem(&stored(api, &bundle(namespace), has).await.unwrap())
}

fn holder(lease: &Value) -> &str {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default()
}

/// Waits until the Lease has a holder that is wanted.
async fn held(api: &ApiServer, wanted: impl Fn(&str) -> bool) -> String {
    let held = |lease: Option<&Value>| lease.is_some_and(|lease| !holder(lease).is_empty() && wanted(holder(lease)));
    holder(&stored(api, LEASE, held).await.unwrap()).to_owned()
}

fn leads(mesh: &Mesh) -> bool {
    mesh.metrics.encode().contains("mesh_controller_leader 1")
}

async fn until(what: &str, wanted: impl Fn() -> bool) {
    crate::support::until(async || wanted().then_some(()).ok_or_else(|| what.to_owned())).await;
}

#[tokio::test]
async fn the_roots_are_where_pods_of_the_mesh_can_mount_them() {
    let api = cluster().await;
    let mesh = start(&api).await;
    let written = roots(&api, "shop", 1).await;
    assert_eq!(written, std::fs::read_to_string(mesh.state.join("ca.crt")).unwrap());
    for namespace in ["soon", "mesh-system"] {
        assert_eq!(roots(&api, namespace, 1).await, written, "{namespace}");
    }
    let object = api.stored(&bundle("shop")).unwrap();
    assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/part-of"], "mesh");
    // A namespace that is labelled later, and one whose pod has brought its sidecar itself.
    api.put(&namespace("later", "meshctl.dev/inject: enabled"));
    roots(&api, "later", 1).await;
    api.put(&pod("brought", "web-2", "web", "127.0.0.3", true));
    roots(&api, "brought", 1).await;
    assert_eq!(api.stored(&bundle("plain")), None, "nobody needs it there");
    mesh.no_problem("mesh-trust-bundle").await;
}

#[tokio::test]
async fn what_becomes_of_them_is_made_good_and_a_rotation_reaches_them() {
    let api = cluster().await;
    let mesh = start(&api).await;
    let written = roots(&api, "shop", 1).await;
    roots(&api, "soon", 1).await;
    api.unstore(&bundle("soon"));
    assert_eq!(roots(&api, "soon", 1).await, written);
    let forged = "-----BEGIN CERTIFICATE-----\nof somebody else";
    let mut object = api.stored(&bundle("shop")).unwrap();
    object["data"]["roots.pem"] = forged.into();
    api.store(&bundle("shop"), object);
    stored(&api, &bundle("shop"), |object| object.is_some_and(|object| pem(object) == written)).await;
    let step = CaStep::AddRoot;
    let args = CaArgs { state_dir: mesh.state.clone(), trust_domain: "cluster.local".into(), step };
    mesh_controller::rotate(&args).unwrap();
    assert!(roots(&api, "shop", 2).await.starts_with(&written), "the old root first");
    roots(&api, "mesh-system", 2).await;
}

/// One writes at a time; whoever ends hands over at once, and one that is killed when its time is over.
#[tokio::test]
async fn of_several_controllers_one_writes_and_another_takes_over() {
    let api = cluster().await;
    let first = start(&api).await;
    let one = held(&api, |_| true).await;
    let second = start(&api).await;
    until("the first leads", || leads(&first)).await;
    roots(&api, "shop", 1).await;
    let (looks, passes) = (api.count(&format!("get {LEASE}")), api.count(FOUND));
    api.asked(&format!("get {LEASE}"), looks + 10).await;
    assert!(leads(&first) && !leads(&second), "it stays so");
    assert_eq!(held(&api, |_| true).await, one);
    assert!(api.count(FOUND) > passes, "the one that leads looks after them");
    drop(first);
    // In order: the Lease is let go of, and not waited for.
    let other = held(&api, |holder| holder != one).await;
    until("the second leads", || leads(&second)).await;
    let lease = api.stored(LEASE).unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 1, "{lease}");
    api.unstore(&bundle("shop"));
    roots(&api, "shop", 1).await;
    // Killed: nobody lets go of it, and it lasts its time.
    let mut lease = api.stored(LEASE).unwrap();
    lease["spec"]["holderIdentity"] = "killed".into();
    api.store(LEASE, lease);
    until("the second leads no longer", || !leads(&second)).await;
    assert_ne!(held(&api, |holder| holder != "killed").await, "killed");
    until("the second leads again", || leads(&second)).await;
    assert_ne!(other, one);
}

#[tokio::test]
async fn one_that_loses_the_lease_writes_no_more() {
    let api = cluster().await;
    let mesh = start(&api).await;
    roots(&api, "shop", 1).await;
    until("it leads", || leads(&mesh)).await;
    let theirs = |holder: &str| {
        let mut lease = api.stored(LEASE).unwrap();
        lease["metadata"]["resourceVersion"] = format!("{holder}-1").into();
        lease["spec"] = json!({ "holderIdentity": holder, "leaseDurationSeconds": 60 });
        api.store(LEASE, lease);
    };
    theirs("other");
    until("it knows", || !leads(&mesh)).await;
    api.unstore(&bundle("shop"));
    api.put(&namespace("later", "meshctl.dev/inject: enabled"));
    let looks = api.count(&format!("get {LEASE}"));
    api.asked(&format!("get {LEASE}"), looks + 5).await;
    assert_eq!((api.stored(&bundle("shop")), api.stored(&bundle("later"))), (None, None));
    theirs("");
    for namespace in ["shop", "later"] {
        roots(&api, namespace, 1).await;
    }
}

/// Who cannot renew it stops before somebody else may take it; proxies notice nothing of all this.
#[tokio::test]
async fn one_that_cannot_renew_the_lease_says_so_and_stops_writing() {
    let api = cluster().await;
    let mesh = start(&api).await;
    until("it leads", || leads(&mesh)).await;
    api.refuse(&format!("replace {LEASE}"), StatusCode::FORBIDDEN, "not for you");
    mesh.problem("403 Forbidden: not for you; allow the controller's service account to create leases").await;
    until("it gives up", || !leads(&mesh)).await;
    mesh.certify("shop", "web", "web-1").await;
    api.allow(&format!("replace {LEASE}"));
    until("it leads again", || leads(&mesh)).await;
    mesh.no_problem("Lease").await;
}

#[tokio::test]
async fn a_namespace_that_refuses_them_keeps_nobody_else_from_them() {
    let api = cluster().await;
    api.refuse("create /api/v1/namespaces/shop/configmaps", StatusCode::FORBIDDEN, "quota");
    let mesh = start(&api).await;
    mesh.problem("write the one of the namespace shop: the API server answers 403 Forbidden: quota; allow").await;
    roots(&api, "soon", 1).await;
    roots(&api, "mesh-system", 1).await;
    api.allow("create /api/v1/namespaces/shop/configmaps");
    roots(&api, "shop", 1).await;
    mesh.no_problem("mesh-trust-bundle").await;
}
