//! Who gets a certificate, and what it says.

use std::time::Duration;

use bytes::Bytes;
use mesh_controller::ca::{
    issuer,
    store::Store,
    token::{Minter, Pod},
};
use mesh_proto::{client::Certify, identity::Identity, outcome::Outcome};
use rcgen::{CertificateParams, IsCa, KeyPair, SanType};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::{Mesh, csr, identity, pod, pod_claim};

fn request(token: String, identity: &Identity) -> Certify {
    Certify { token, identity: identity.clone(), csr: csr(&KeyPair::generate().unwrap(), &[identity.as_str()]) }
}

#[tokio::test]
async fn a_token_gets_a_certificate_for_exactly_its_identity() {
    let mesh = Mesh::start(&[("pods.yaml", &pod("shop", "web-1", "web", "127.0.0.1", true))]).await;
    let client = mesh.certify("shop", "web", "web-1").await;
    assert_eq!(issuer::identity_of(&client.chain[0]), Ok(identity("shop", "web")));
    let (_, leaf) = X509Certificate::from_der(&client.chain[0]).unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);
    assert!(!leaf.is_ca());
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical && names.value.general_names.len() == 1);
    let validity = leaf.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 3600 + 20);
    let (_, root) = X509Certificate::from_der(&mesh.roots()[0]).unwrap();
    let (_, issuer) = X509Certificate::from_der(&client.chain[1]).unwrap();
    assert_eq!((leaf.issuer(), issuer.issuer(), client.chain.len()), (issuer.subject(), root.subject(), 2));
}

#[tokio::test]
async fn each_wrong_token_is_refused_with_its_code() {
    let mesh = Mesh::start(&[("pods.yaml", &pod("shop", "web-1", "web", "127.0.0.1", true))]).await;
    let directory = tempfile::tempdir().unwrap();
    let foreign = Minter::open(&Store::open(directory.path()).unwrap()).unwrap();
    let web = identity("shop", "web");
    let minute = Duration::from_mins(1);
    let mint = |identity: &Identity, pod| mesh.minter.mint(identity, pod, minute).unwrap();
    let used = mesh.token("shop", "web", "web-1");
    mesh.call_certify(request(used.clone(), &web)).await.unwrap();
    let elsewhere = Identity::new("elsewhere", "shop", "web").unwrap();
    let other_uid = Pod { uid: "another".into(), ..pod_claim("shop", "web-1") };
    let admin = identity("shop", "admin");
    for (fault, token, identity, outcome) in [
        ("no token", String::new(), &web, Outcome::TokenInvalid),
        (
            "foreign signer",
            foreign.mint(&web, pod_claim("shop", "web-1"), minute).unwrap(),
            &web,
            Outcome::TokenInvalid,
        ),
        ("used", used, &web, Outcome::TokenUsed),
        ("other identity", mesh.token("shop", "web", "web-1"), &admin, Outcome::IdentityMismatch),
        ("other trust domain", mint(&elsewhere, pod_claim("shop", "web-1")), &elsewhere, Outcome::IdentityMismatch),
        ("other namespace", mint(&web, pod_claim("other", "web-1")), &web, Outcome::IdentityMismatch),
        ("other uid", mint(&web, other_uid), &web, Outcome::IdentityMismatch),
        ("account not the pod's", mint(&admin, pod_claim("shop", "web-1")), &admin, Outcome::IdentityMismatch),
    ] {
        let refused = mesh.call_certify(request(token, identity)).await.unwrap_err();
        assert_eq!(refused.outcome, Some(outcome), "{fault}: {refused}");
    }
}

/// Tokens that nobody can mint, signed with the right key.
#[tokio::test]
async fn an_expired_and_a_foreign_token_with_a_good_signature_are_refused() {
    let mesh = Mesh::start(&[]).await;
    let pem = std::fs::read_to_string(mesh.state.join("join-token.key")).unwrap();
    let key = jsonwebtoken::EncodingKey::from_ed_der(KeyPair::from_pem(&pem).unwrap().serialized_der());
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let web = identity("shop", "web");
    let pod = serde_json::to_value(pod_claim("shop", "web-1")).unwrap();
    let audience = mesh_proto::names::TOKEN_AUDIENCE;
    for (fault, audience, exp, expected) in [
        ("none", audience, now + 60, None),
        ("expired", audience, now - 60, Some(Outcome::TokenExpired)),
        ("for others", "https://kubernetes.default.svc", now + 60, Some(Outcome::TokenInvalid)),
        ("too long", audience, now + 3600, Some(Outcome::TokenInvalid)),
    ] {
        let claims = serde_json::json!({
            "aud": audience, "sub": web.as_str(), "pod": pod, "iat": now, "exp": exp, "jti": fault,
        });
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        let answer = mesh.call_certify(request(token, &web)).await;
        assert_eq!(answer.err().and_then(|refused| refused.outcome), expected, "{fault}");
    }
}

#[tokio::test]
async fn a_request_for_more_or_less_than_the_identity_is_refused() {
    let mesh = Mesh::start(&[]).await;
    let web = identity("shop", "web");
    let key = KeyPair::generate().unwrap();
    let authority = {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![SanType::URI(web.as_str().try_into().unwrap())];
        params.serialize_request(&key).unwrap().der().to_vec()
    };
    let with_name = {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(web.as_str().try_into().unwrap()));
        params.serialize_request(&key).unwrap().der().to_vec()
    };
    let mut forged = csr(&key, &[web.as_str()]).to_vec();
    *forged.last_mut().unwrap() ^= 1;
    for (fault, csr) in [
        ("two URIs", csr(&key, &[web.as_str(), "spiffe://cluster.local/ns/shop/sa/admin"])),
        ("another URI", csr(&key, &["spiffe://cluster.local/ns/shop/sa/admin"])),
        ("no URI", csr(&key, &[])),
        ("a DNS name besides", with_name.into()),
        ("authority", authority.into()),
        ("forged signature", forged.into()),
        ("nothing", Bytes::new()),
        ("too long", vec![0x30; 20_000].into()),
    ] {
        let token = mesh.token("shop", "web", "web-1");
        let request = Certify { token, identity: web.clone(), csr };
        let refused = mesh.call_certify(request).await.unwrap_err();
        assert_eq!(refused.outcome, Some(Outcome::CertificateRequestInvalid), "{fault}: {refused}");
    }
}

#[tokio::test]
async fn a_used_token_stays_used_and_a_new_one_good_when_the_controller_restarts() {
    let mesh = Mesh::start(&[]).await;
    let web = identity("shop", "web");
    let (used, unused) = (mesh.token("shop", "web", "web-1"), mesh.token("shop", "web", "web-1"));
    mesh.call_certify(request(used.clone(), &web)).await.unwrap();
    let mesh = mesh.restart().await;
    let refused = mesh.call_certify(request(used, &web)).await.unwrap_err();
    assert_eq!(refused.outcome, Some(Outcome::TokenUsed), "{refused}");
    mesh.call_certify(request(unused, &web)).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_asks_for_certificates_without_end_is_refused_and_the_others_are_not() {
    let mesh = Mesh::start(&[]).await;
    let (web, load) = (identity("shop", "web"), identity("shop", "load"));
    for _ in 0..mesh_controller::ca::limit::BURST {
        mesh.call_certify(request(mesh.token("shop", "web", "web-1"), &web)).await.unwrap();
    }
    let refused = mesh.call_certify(request(mesh.token("shop", "web", "web-1"), &web)).await.unwrap_err();
    assert_eq!(refused.outcome, Some(Outcome::Overloaded), "{refused}");
    mesh.call_certify(request(mesh.token("shop", "load", "load-1"), &load)).await.unwrap();
}

#[tokio::test]
async fn strangers_that_hold_every_connection_of_theirs_leave_room_for_proxies() {
    let mesh = Mesh::start(&[("pods.yaml", &pod("shop", "web-1", "web", "127.0.0.2", true))]).await;
    let client = mesh.certify("shop", "web", "web-1").await;
    let web = identity("shop", "web");
    let mut strangers = Vec::new();
    let refused = loop {
        let Ok(channel) = mesh.try_channel("127.0.0.2", None).await else { break true };
        let mut stranger = mesh_proto::client::IdentityClient::new(channel);
        // TLS 1.3: a client learns with its first read that it was cut.
        let answer = stranger.certify(request("no token".into(), &web)).await.unwrap_err();
        strangers.push(stranger);
        if answer.outcome.is_none() || strangers.len() > 100 {
            break answer.outcome.is_none();
        }
    };
    assert!(refused, "{} connections of one stranger", strangers.len());
    mesh.hello(&client, crate::support::hello("shop", "web-1"), "127.0.0.2").await.unwrap();
    mesh.certify("shop", "load", "load-1").await;
}

#[tokio::test]
async fn a_restart_keeps_the_root() {
    let mesh = Mesh::start(&[("pods.yaml", &pod("shop", "web-1", "web", "127.0.0.1", true))]).await;
    let before = mesh.roots().to_vec();
    let client = mesh.certify("shop", "web", "web-1").await;
    let mut proxy = mesh.hello(&client, crate::support::hello("shop", "web-1"), "127.0.0.1").await.unwrap();
    let mesh = mesh.restart().await;
    // An open stream ends with the controller and does not hold it up.
    assert!(!matches!(proxy.stream.next().await, Ok(Some(_))));
    assert_eq!(mesh.roots(), before);
    mesh.hello(&client, crate::support::hello("shop", "web-1"), "127.0.0.1").await.unwrap();
}
