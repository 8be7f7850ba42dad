//! In a cluster the API server says who asks for a certificate, and keeps the root.

use http::StatusCode;
use mesh_controller::{CaArgs, CaStep};
use mesh_proto::{
    client::Certify,
    config::{Key, Update, Value},
    outcome::Outcome,
};
use rcgen::KeyPair;
use serde_json::json;

use super::server::{ApiServer, PODS};
use crate::support::{Mesh, csr, identity, pod};

const REVIEW: &str = "create /apis/authentication.k8s.io/v1/tokenreviews";
const ROOT: &str = "/api/v1/namespaces/mesh-system/secrets/mesh-ca";

async fn start(api: &ApiServer) -> Mesh {
    let mesh = Mesh::start_kube(|directory| api.kubeconfig(directory)).await;
    mesh.ready().await;
    mesh
}

fn request(token: &str) -> Certify {
    let identity = identity("shop", "web");
    Certify { token: token.into(), csr: csr(&KeyPair::generate().unwrap(), &[identity.as_str()]), identity }
}

#[tokio::test]
async fn a_token_that_the_api_vouches_for_gets_a_certificate_again_and_again() {
    let api = ApiServer::start().await;
    api.put(&pod("shop", "web-1", "web", "127.0.0.1", true));
    let mesh = start(&api).await;
    for reviews in 1..=3 {
        mesh.call_certify(request("kube:shop:web:web-1")).await.unwrap();
        assert_eq!(api.count(REVIEW), reviews, "no answer is used twice");
    }
    // The certificate opens the stream.
    mesh.proxy("shop", "web", "web-1", "127.0.0.1").await;
}

#[tokio::test]
async fn each_token_that_is_not_the_pods_own_is_refused_with_its_code() {
    let api = ApiServer::start().await;
    api.put(&pod("shop", "web-1", "web", "127.0.0.1", true));
    api.put(&pod("shop", "web-2", "other", "127.0.0.3", true));
    let user = |extra: serde_json::Value| json!({ "username": "system:serviceaccount:shop:web", "extra": extra });
    let bound = |uid: &str| {
        user(json!({
            "authentication.kubernetes.io/pod-name": ["web-1"], "authentication.kubernetes.io/pod-uid": [uid],
        }))
    };
    let audience = [mesh_proto::names::TOKEN_AUDIENCE];
    let review = |user, audiences: &[&str]| json!({ "authenticated": true, "user": user, "audiences": audiences });
    api.review("for the api server", review(bound("uid-web-1"), &["https://kubernetes.default.svc"]));
    api.review("of an api server without audiences", review(bound("uid-web-1"), &[]));
    api.review("of no pod", review(user(json!({})), &audience));
    api.review("of another pod of that name", review(bound("uid-before"), &audience));
    api.review("old", json!({ "error": "[invalid bearer token, service account token has expired]" }));
    let mesh = start(&api).await;
    for (token, outcome) in [
        ("", Outcome::TokenInvalid),
        ("nonsense", Outcome::TokenInvalid),
        ("for the api server", Outcome::TokenInvalid),
        ("of an api server without audiences", Outcome::TokenInvalid),
        ("of no pod", Outcome::TokenInvalid),
        ("old", Outcome::TokenExpired),
        ("of another pod of that name", Outcome::IdentityMismatch),
        ("kube:shop:other:web-2", Outcome::IdentityMismatch),
        ("kube:elsewhere:web:web-1", Outcome::IdentityMismatch),
        ("kube:shop:web:web-2", Outcome::IdentityMismatch),
    ] {
        let refused = mesh.call_certify(request(token)).await.unwrap_err();
        assert_eq!(refused.outcome, Some(outcome), "{token}: {refused}");
    }
    // A join token is no proof here.
    let join = mesh.join_token("shop", "web", "web-1");
    let refused = mesh.call_certify(request(&join)).await.unwrap_err();
    assert_eq!(refused.outcome, Some(Outcome::TokenInvalid));
}

#[tokio::test]
async fn while_nobody_can_be_asked_nobody_gets_a_certificate() {
    let api = ApiServer::start().await;
    api.put(&pod("shop", "web-1", "web", "127.0.0.1", true));
    let mesh = start(&api).await;
    let unchecked = async |why: &str| {
        let refused = mesh.call_certify(request("kube:shop:web:web-1")).await.unwrap_err();
        assert_eq!(refused.outcome, Some(Outcome::TokenUnchecked), "{why}: {refused}");
        assert!(refused.outcome.unwrap().facts().retry_safe);
        assert!(refused.to_string().contains(why), "{refused}");
    };
    api.refuse(REVIEW, StatusCode::FORBIDDEN, "not for you");
    unchecked("403 Forbidden: not for you").await;
    api.refuse(REVIEW, StatusCode::CREATED, "<html>");
    unchecked("makes no sense").await;
    api.refuse(REVIEW, StatusCode::CREATED, r#"{"spec":{}}"#);
    unchecked("no status").await;
    api.stop();
    unchecked("cannot be reached").await;
    api.resume().await;
    api.allow(REVIEW);
    mesh.call_certify(request("kube:shop:web:web-1")).await.unwrap();
}

#[tokio::test]
async fn controllers_that_start_at_once_have_one_root_and_so_have_those_after_them() {
    let api = ApiServer::start().await;
    let (one, other) = tokio::join!(start(&api), start(&api));
    assert_eq!(one.roots(), other.roots());
    assert_eq!(start(&api).await.roots(), one.roots());
    let secret = api.stored(ROOT).unwrap();
    assert_eq!(secret["type"], "kubernetes.io/tls");
    assert_eq!(secret["metadata"]["labels"]["app.kubernetes.io/part-of"], "mesh");
    let kept: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
    assert_eq!(kept, ["ca.crt", "root.pem", "tls.crt", "tls.key"]);
}

#[tokio::test]
async fn one_that_creates_the_root_second_takes_what_the_first_made() {
    let api = ApiServer::start().await;
    let first = start(&api).await;
    // It was not there a moment ago.
    api.fail(&format!("get {ROOT}"), &[StatusCode::NOT_FOUND]);
    assert_eq!(start(&api).await.roots(), first.roots());
}

#[tokio::test]
async fn an_api_that_is_not_up_yet_is_waited_for() {
    let api = ApiServer::start().await;
    api.put(&pod("shop", "web-1", "web", "127.0.0.1", true));
    api.fail(&format!("get {ROOT}"), &[StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR]);
    api.fail("create /api/v1/namespaces/mesh-system/secrets", &[StatusCode::SERVICE_UNAVAILABLE]);
    let mesh = start(&api).await;
    mesh.certify("shop", "web", "web-1").await;
    assert!(api.count(&format!("list {PODS}")) > 0);
}

#[tokio::test]
async fn a_root_that_is_none_stops_the_start_and_is_not_overwritten() {
    for (data, expected) in [
        (json!({ "ca.crt": "bm9uZQ==" }), "read the Secret mesh-system/mesh-ca: it has no tls.crt; delete it to start"),
        (
            json!({ "ca.crt": "bm9uZQ==", "tls.crt": "bm9uZQ==", "tls.key": "bm9uZQ==" }),
            "use the certificate authority in ",
        ),
    ] {
        let api = ApiServer::start().await;
        api.store(ROOT, json!({ "metadata": { "name": "mesh-ca", "namespace": "mesh-system" }, "data": data }));
        let error = Mesh::fail_to_start_kube(|directory| api.kubeconfig(directory)).await;
        assert!(error.contains(expected), "{error}");
        assert_eq!(api.stored(ROOT).unwrap()["data"], data);
    }
}

/// A step of a rotation is taken in one pod; the Secret brings it to the others, also while the API stumbles.
#[tokio::test]
async fn what_happens_to_the_authority_of_one_controller_happens_to_all() {
    let api = ApiServer::start().await;
    api.put(&pod("shop", "web-1", "web", "127.0.0.1", true));
    let (one, other) = (start(&api).await, start(&api).await);
    let mut proxy = other.proxy("shop", "web", "web-1", "127.0.0.1").await;
    let roots = |update: Update| match update.value {
        Value::TrustBundle(bundle) => bundle.roots,
        value => panic!("{value:?}"),
    };
    assert_eq!(roots(proxy.subscribe(Key::TrustBundle).await), one.roots());
    let step = |step| {
        let args = CaArgs { state_dir: one.state.clone(), trust_domain: "cluster.local".into(), step };
        mesh_controller::rotate(&args).unwrap();
    };
    api.fail(&format!("replace {ROOT}"), &[StatusCode::CONFLICT, StatusCode::INTERNAL_SERVER_ERROR]);
    step(CaStep::AddRoot);
    let both = roots(proxy.update().await);
    assert_eq!((both.len(), &both[0]), (2, &one.roots()[0]));
    step(CaStep::SwitchIssuer);
    step(CaStep::DropRoots);
    assert_eq!(roots(proxy.update().await), both[1..]);
    let kept = api.stored(ROOT).unwrap();
    assert!(kept["data"]["next-root.pem"].is_null(), "{kept}");
    other.no_problem("Secret of the certificate authority").await;
}
