//! The certificate authority over the years: its files, given ones, and the rotation of its root without a restart.

use std::{fs, path::Path};

use mesh_controller::{CaArgs, CaStep, ca::store::Store};
use mesh_proto::{
    config::{Key, Value},
    trust::TrustBundle,
};
use mesh_runtime::tls;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::support::{Client, DEADLINE, Mesh, Proxy, hello, pod};

fn step(mesh: &Mesh, step: CaStep) {
    let args = CaArgs { state_dir: mesh.state.clone(), trust_domain: "cluster.local".into(), step };
    mesh_controller::rotate(&args).unwrap();
}

async fn bundle(proxy: &mut Proxy) -> TrustBundle {
    match proxy.update().await.value {
        Value::TrustBundle(bundle) => bundle,
        other => panic!("{other:?}"),
    }
}

/// Whether whoever has these roots accepts a chain.
fn accepts(bundle: &TrustBundle, client: &Client) -> bool {
    let roots: Vec<CertificateDer<'_>> = bundle.roots.iter().map(|root| root.to_vec().into()).collect();
    let anchors: Vec<_> = roots.iter().map(|root| webpki::anchor_from_trusted_cert(root).unwrap()).collect();
    let algorithms = tls::provider().signature_verification_algorithms.all;
    let leaf = EndEntityCert::try_from(&client.chain[0]).unwrap();
    let (now, usage) = (UnixTime::now(), KeyUsage::server_auth());
    leaf.verify_for_usage(algorithms, &anchors, &client.chain[1..], now, usage, None, None).is_ok()
}

async fn connects(mesh: &Mesh, client: &Client) -> bool {
    mesh.lets_in(client, hello("shop", "web-1"), "127.0.0.1").await
}

#[tokio::test]
async fn a_root_is_rotated_without_a_restart() {
    let mut mesh = Mesh::start(&[("pods.yaml", &pod("shop", "web-1", "web", "127.0.0.1", true))]).await;
    let old = mesh.certify("shop", "web", "web-1").await;
    let mut proxy = mesh.hello(&old, hello("shop", "web-1"), "127.0.0.1").await.unwrap();
    let Value::TrustBundle(before) = proxy.subscribe(Key::TrustBundle).await.value else { panic!() };
    assert_eq!(before.roots.len(), 1);

    step(&mesh, CaStep::AddRoot);
    let both = bundle(&mut proxy).await;
    assert_eq!((both.roots.len(), &both.roots[0]), (2, &before.roots[0]));
    // Trusted, and not used: whoever does not know it yet is not left behind.
    assert!(accepts(&before, &mesh.certify("shop", "web", "web-1").await));

    step(&mesh, CaStep::SwitchIssuer);
    mesh.trust(&both);
    let switched = async {
        // Each for another pod, which the index does not know: one pod gets ten at once.
        let mut pods = 2..;
        while accepts(&before, &mesh.certify("shop", "web", &format!("web-{}", pods.next().unwrap())).await) {}
        mesh.certify("shop", "web", "web-1").await
    };
    let new = tokio::time::timeout(DEADLINE, switched).await.expect("the new root signs");
    assert!(accepts(&both, &new) && accepts(&both, &old));
    assert!(connects(&mesh, &old).await && connects(&mesh, &new).await);

    step(&mesh, CaStep::DropRoots);
    let after = bundle(&mut proxy).await;
    assert_eq!(after.roots, both.roots[1..]);
    mesh.trust(&after);
    let refused = async {
        while connects(&mesh, &old).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.expect("the old root is trusted no longer");
    assert!(connects(&mesh, &new).await);
    mesh.no_problem("certificate authority").await;
}

#[tokio::test]
async fn what_cannot_be_used_is_reported_and_leaves_in_force_what_was_before() {
    let mesh = Mesh::start(&[("pods.yaml", &pod("shop", "web-1", "web", "127.0.0.1", true))]).await;
    let other = Mesh::start(&[]).await;
    let good = fs::read_to_string(mesh.state.join("tls.crt")).unwrap();
    for (name, text, expected) in [
        ("tls.crt", fs::read_to_string(other.state.join("tls.crt")).unwrap(), "do not belong together"),
        ("tls.crt", "nonsense".to_owned(), "there is no certificate in it"),
        ("ca.crt", fs::read_to_string(other.state.join("ca.crt")).unwrap(), "no root of ca.crt vouches for tls.crt"),
        ("ca.crt", String::new(), "0 roots"),
    ] {
        let before = fs::read_to_string(mesh.state.join(name)).unwrap();
        let store = Store::open(&mesh.state).unwrap();
        store.replace(name, &text).unwrap();
        mesh.problem(expected).await;
        mesh.problem("; what was before stays in force").await;
        mesh.certify("shop", "web", "web-1").await;
        store.replace(name, &before).unwrap();
        mesh.no_problem("certificate authority").await;
    }
    assert_eq!(fs::read_to_string(mesh.state.join("tls.crt")).unwrap(), good);
}

#[tokio::test]
async fn a_given_authority_is_used_and_not_written_to() {
    let maker = Mesh::start(&[]).await;
    let given = tempfile::tempdir().unwrap();
    copy(&maker.state, given.path(), &["ca.crt", "tls.crt", "tls.key"]);
    let mesh =
        Mesh::start_with_ca(given.path().to_owned(), &[("pods.yaml", &pod("shop", "web-1", "web", "127.0.0.1", true))])
            .await;
    assert_eq!(mesh.roots(), maker.roots());
    let client = mesh.certify("shop", "web", "web-1").await;
    assert!(connects(&mesh, &client).await);
    assert_eq!(fs::read_dir(given.path()).unwrap().count(), 3);
    assert!(!mesh.state.join("root.pem").exists());
}

#[tokio::test]
async fn the_key_of_the_root_is_not_needed_for_daily_work() {
    let mesh = Mesh::start(&[("pods.yaml", &pod("shop", "web-1", "web", "127.0.0.1", true))]).await;
    fs::remove_file(mesh.state.join("root.pem")).unwrap();
    let mesh = mesh.restart().await;
    let client = mesh.certify("shop", "web", "web-1").await;
    assert!(connects(&mesh, &client).await);
    assert!(!mesh.state.join("root.pem").exists());
}

#[test]
fn the_steps_of_a_rotation_come_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let step = |step| {
        let args = CaArgs { state_dir: directory.path().to_owned(), trust_domain: "cluster.local".into(), step };
        mesh_controller::rotate(&args).map(|_| ()).map_err(|error| error.to_string())
    };
    let refused = |step: Result<(), String>, expected: &str| {
        let error = step.unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    refused(step(CaStep::AddRoot), "start the controller once");
    let store = Store::open(directory.path()).unwrap();
    let life = std::time::Duration::from_hours(1);
    mesh_controller::ca::Authority::open(&store, None, "cluster.local", life).unwrap();
    refused(step(CaStep::SwitchIssuer), "begin with: mesh-controller ca add-root");
    step(CaStep::AddRoot).unwrap();
    refused(step(CaStep::AddRoot), "go on with: mesh-controller ca switch-issuer");
    refused(step(CaStep::DropRoots), "go on with: mesh-controller ca switch-issuer");
    step(CaStep::SwitchIssuer).unwrap();
    step(CaStep::DropRoots).unwrap();
    let authority = mesh_controller::ca::Authority::open(&store, None, "cluster.local", life).unwrap();
    assert_eq!(authority.trust_bundle().roots.len(), 1);
}

fn copy(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}
