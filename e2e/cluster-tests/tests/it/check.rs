//! `meshctl check` and `describe` on a real cluster: what is in order, what is not, and the way out of each.

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, Output, kubectl, mesh, meshctl, until};
use serde_json::Value;

/// A meshed workload with a Service, one that cannot be meshed, and one that belongs to another mesh.
const SHOP: &str = r"
apiVersion: v1
kind: Service
metadata: {name: orders}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders}
spec:
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec:
      containers:
        - name: orders
          image: mesh-shop:dev
          args: [orders]
          ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]
";

/// A sidecar by the name of another mesh's; it is only the demo shop.
const OTHER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: other}
spec: {containers: [{name: istio-proxy, image: "mesh-shop:dev", args: [orders, "--listen=127.0.0.1:0"]}]}
"#;

/// A machine with much to do is none that does not answer.
const PATIENT: [&str; 1] = ["--request-timeout=60s"];

fn check(more: &[&str]) -> anyhow::Result<Output> {
    meshctl(&[&["check", "--timeout=240s"], more, &PATIENT].concat(), "")
}

/// How one check came out.
fn outcome(report: &Output, id: &str) -> anyhow::Result<Value> {
    let report: Value = serde_json::from_str(&report.stdout).with_context(|| report.to_string())?;
    let checks = report["checks"].as_array().context("checks")?;
    checks.iter().find(|check| check["id"] == id).cloned().with_context(|| format!("{id}: {report:#}"))
}

/// It says `text`, with a way out, and has a page.
fn ensure_found(report: &Output, id: &str, result: &str, text: &str) -> anyhow::Result<()> {
    let one = outcome(report, id)?;
    let found = one["findings"].as_array().context("findings")?;
    let says = found.iter().find(|found| found["text"].as_str().is_some_and(|said| said.contains(text)));
    let says = says.with_context(|| format!("{id} without {text:?}: {one:#}"))?;
    ensure!(one["result"] == result && says["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{one:#}");
    meshctl(&["explain", id], "")?.ok().map(drop)
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn check_says_what_is_wrong_in_every_form_with_one_exit_code_and_describe_agrees() -> anyhow::Result<()> {
    mesh::install()?;
    let shop = Namespace::meshed("mesh-e2e-check")?;
    shop.apply(SHOP)?;
    shop.rolled_out("deployment/orders")?;
    let here = ["-n", shop.name()];

    // All of it is in order: the API server has reached the webhook, for a dry run that leaves no trace.
    let good = until("all is well", || {
        let good = check(&[&here[..], &["-o", "json", "--fail-on", "warning"]].concat())?;
        ensure!(good.code == Some(0), "{good}");
        Ok(good)
    })?;
    let admitted = outcome(&good, "admission-works")?;
    ensure!(admitted["result"] == "ok" && admitted["note"].is_null(), "{admitted:#}");
    let pre = check(&["--pre", "-o", "json"])?;
    ensure!(pre.code == Some(0), "{pre}");
    let accepted = outcome(&pre, "install-accepted")?;
    ensure!(accepted["result"] == "ok" && accepted["note"].is_null(), "every object was tried: {accepted:#}");
    describe_agrees(&shop)?;

    // A pod of another mesh, and a namespace that asks two: warnings, which fail only where they are to.
    kubectl(&["label", "namespace", shop.name(), "istio-injection=enabled"], "")?.ok()?;
    shop.apply(OTHER)?;
    shop.run(&["wait", "--for=condition=Ready", "pod/other", "--timeout=240s"])?.ok()?;
    let forms = [("json", "other-mesh"), ("junit", "<failure"), ("table", "[one-mesh]"), ("short", "[one-mesh]")];
    for (form, of_warning) in forms {
        for proxy in [&["--proxy"][..], &[]] {
            let loose = check(&[&here[..], proxy, &["-o", form]].concat())?;
            ensure!(loose.code == Some(0), "{loose}");
            let strict = check(&[&here[..], proxy, &["-o", form, "--fail-on", "warning"]].concat())?;
            ensure!(strict.code == Some(5) && strict.stdout.contains(of_warning), "{strict}");
            ensure!(form != "short" || !strict.stdout.contains("[proxies-answer]"), "{strict}");
        }
    }
    let report = check(&[&here[..], &["-o", "json"]].concat())?;
    ensure_found(&report, "one-mesh", "warning", "by istio-injection=enabled, for another")?;
    ensure_found(&report, "pods-meshed", "warning", "container istio-proxy")?;
    // Of another namespace that says nothing.
    let elsewhere = check(&["--proxy", "-n", "default", "-o", "json", "--fail-on", "warning"])?;
    ensure!(elsewhere.code == Some(0), "{elsewhere}");
    Ok(())
}

fn describe_agrees(shop: &Namespace) -> anyhow::Result<()> {
    let describe = |resource: &str, more: &[&str]| {
        meshctl(&[&["describe", resource, "-o", "json"], more, &PATIENT].concat(), "").and_then(Output::ok)
    };
    let pod = &shop.objects("pods", "app=orders")?[0];
    let pod = format!("pod/{}", pod["metadata"]["name"].as_str().context("a name")?);
    let here = ["-n", shop.name()];
    let namespace = format!("ns/{}", shop.name());
    // A namespace is found by its name, wherever one is.
    for (resource, more) in [("deploy/orders", &here[..]), ("svc/orders", &here), (&pod, &here), (&namespace, &[])] {
        let said: Value = serde_json::from_str(&describe(resource, more)?)?;
        let one = &said["items"][0];
        ensure!(one["workload"] == "deployment/orders" && one["meshed"] == 1, "{resource}: {said:#}");
        ensure!(one["inForce"]["ready"] == true && one["inForce"]["controller"] == true, "{resource}: {said:#}");
        let text = one["ports"].to_string();
        ensure!(text.contains("8080") && text.contains("orders:80") && text.contains("\"udp\":true"), "{said:#}");
    }
    let service: Value = serde_json::from_str(&describe("svc/orders", &here)?)?;
    let service = &service["service"];
    ensure!(service["ports"][0]["protocol"] == "http/1" && service["warnings"] == serde_json::json!([]), "{service:#}");

    let label = "pod-security.kubernetes.io/enforce";
    kubectl(&["label", "namespace", shop.name(), &format!("{label}=restricted")], "")?.ok()?;
    let report = check(&[&here[..], &["-o", "json"]].concat())?;
    // What runs stays meshed; what is created now would not be.
    ensure!(report.code == Some(0), "{report}");
    shop.apply(
        r"
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: orders
      image: mesh-shop:dev
      args: [orders, --listen=127.0.0.1:0]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
",
    )?;
    let report = check(&[&here[..], &["-o", "json"]].concat())?;
    ensure_found(&report, "pods-meshed", "warning", "pod-security-forbids-redirect")?;
    let said: Value = serde_json::from_str(&describe("pod/plain", &here)?)?;
    let why = &said["items"][0]["notMeshed"];
    ensure!(why["code"] == "pod-security-forbids-redirect" && why["fix"].is_string(), "{said:#}");
    shop.run(&["delete", "pod", "plain", "--wait=false"])?.ok()?;
    kubectl(&["label", "namespace", shop.name(), &format!("{label}-")], "")?.ok()?;
    Ok(())
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn what_a_user_may_not_do_is_named_with_the_question_that_must_be_answered_with_yes() -> anyhow::Result<()> {
    mesh::install()?;
    for (line, code, says) in [
        (&["list", "-A"][..], 3, "`kubectl auth can-i list pods -A` says yes"),
        (&["list", "-n", "default"], 3, "`kubectl auth can-i list pods -n default` says yes"),
        (&["check"], 3, "not allowed"),
        (&["check", "--pre"], 3, "not allowed to create"),
        (&["upgrade"], 3, "kubectl auth can-i get"),
    ] {
        let said = meshctl(&[line, &["--as", "mesh-e2e-nobody"], &PATIENT].concat(), "")?;
        let all = format!("{}{}", said.stdout, said.stderr);
        ensure!(said.code == Some(code) && all.contains(says) && all.contains("fix: "), "{said}");
    }
    let wrong = meshctl(&["list", "--context", "mesh-e2e-none"], "")?;
    ensure!(wrong.code == Some(3) && wrong.stderr.contains("it has no context \"mesh-e2e-none\""), "{wrong}");
    Ok(())
}

/// A Gateway API of the past, or of the future.
const OTHER_ROUTES: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: httproutes.gateway.networking.k8s.io
  annotations: {api-approved.kubernetes.io: "unapproved, for a test"}
spec:
  group: gateway.networking.k8s.io
  names: {kind: HTTPRoute, listKind: HTTPRouteList, plural: httproutes, singular: httproute}
  scope: Namespaced
  versions:
    - name: v1beta9
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"#;

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_resource_that_is_not_served_in_the_version_that_is_read_is_found_before_and_after() -> anyhow::Result<()> {
    const ROUTES: &str = "customresourcedefinition/httproutes.gateway.networking.k8s.io";
    mesh::install()?;
    // Whoever uses the Gateway API keeps it.
    if !kubectl(&["get", ROUTES, "--ignore-not-found", "--output", "name"], "")?.ok()?.is_empty() {
        return Ok(());
    }
    kubectl(&["apply", "--filename", "-"], OTHER_ROUTES)?.ok()?;
    let found = until("check finds it", || {
        for more in [&["--pre"][..], &[]] {
            let report = check(&[more, &["-o", "json"]].concat())?;
            ensure_found(&report, "resource-versions", "error", "is served as v1beta9 and not as v1, which is read")?;
            ensure!(report.code == Some(1), "{report}");
        }
        Ok(())
    });
    kubectl(&["delete", ROUTES, "--timeout=240s"], "")?.ok()?;
    found?;
    mesh::ready()
}
