//! The webhook's certificate has expired: the mesh's own is replaced, and one that a person gave is found by `check`.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{kubectl, mesh, meshctl, until};
use mesh_proto::names;
use serde_json::{Value, json};

/// Who manages it: `mesh-injector` replaces what is its own.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Makes an authority, and a certificate of it for the name `$1` that ended long ago.
const MAKE: &str = r#"set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=gone -keyout ca.key -out ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=webhook -keyout tls.key -out csr
printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\npolicy=p\ndefault_md=sha256\nrand_serial=yes\n[p]\ncommonName=supplied\n' > config
echo "subjectAltName=DNS:$1" > names; : > index
openssl ca -batch -notext -config config -cert ca.crt -keyfile ca.key -in csr -extfile names -out tls.crt \
    -startdate 200101000000Z -enddate 210101000000Z
"#;

/// A Secret like the injector's, whose certificate has expired.
fn expired(labels: &Value) -> anyhow::Result<String> {
    let directory = tempfile::tempdir()?;
    let service = format!("{}.{}.svc", names::INJECTOR_NAME, names::SYSTEM_NAMESPACE);
    let made = Command::new("bash").args(["-c", MAKE, "make", &service]).current_dir(&directory).output()?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let mut files = serde_json::Map::new();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        files.insert(name.to_owned(), fs::read_to_string(directory.path().join(name))?.into());
    }
    let metadata = json!({
        "name": names::WEBHOOK_SECRET_NAME, "namespace": names::SYSTEM_NAMESPACE, "labels": labels,
    });
    let kind = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "stringData": files,
    });
    Ok(kind.to_string())
}

fn system(arguments: &[&str], stdin: &str) -> anyhow::Result<String> {
    kubectl(&[&["--namespace", names::SYSTEM_NAMESPACE], arguments].concat(), stdin)?.ok()
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_webhook_certificate_that_has_expired_is_replaced_or_found() -> anyhow::Result<()> {
    mesh::install()?;
    let injector = format!("deployment/{}", names::INJECTOR_NAME);
    let scale = |replicas: &str| system(&["scale", &injector, replicas], "");

    // The mesh was away for longer than its certificate lasts.
    scale("--replicas=0")?;
    let pods = format!("app.kubernetes.io/name={}", names::INJECTOR_NAME);
    system(&["wait", "--for=delete", "pod", "--selector", &pods, "--timeout=240s"], "")?;
    system(&["replace", "--filename", "-"], &expired(&json!({MANAGED_BY: names::INJECTOR_NAME}))?)?;
    scale("--replicas=1")?;
    mesh::ready()?;

    // What a person gave is theirs to renew: it is served as it is, and told of.
    system(&["replace", "--filename", "-"], &expired(&json!({}))?)?;
    let found = until("check finds it", || {
        let check = meshctl(&["check", "-o", "json"], "")?;
        let report: Value = serde_json::from_str(&check.stdout).with_context(|| check.to_string())?;
        let checks = report["checks"].as_array().context("checks")?;
        let one = |id: &str| checks.iter().find(|check| check["id"] == id).context("the check").cloned();
        let valid = one("webhook-cert-valid")?;
        let said = &valid["findings"][0];
        ensure!(said["text"] == "it expired at 2021-01-01T00:00:00Z" && check.code == Some(1), "{valid:#}");
        ensure!(said["fix"] == "kubectl -n mesh-system logs deployment/mesh-injector", "{valid:#}");
        // The API server says the same of it.
        let works = one("admission-works")?;
        ensure!(works["result"] == "error", "{works:#}");
        Ok(())
    });
    // As the fix says.
    system(&["delete", "secret", names::WEBHOOK_SECRET_NAME], "")?;
    found?;
    mesh::ready()
}
