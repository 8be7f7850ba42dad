//! `meshctl identity`: the certificates that proxies hold, as they tell themselves.

use std::time::Duration;

use jiff::{Timestamp, Unit};
use mesh_proto::admin::CONFIG;
use serde::{Deserialize, Serialize};

use crate::{
    cli,
    cluster::{Cluster, PodInfo},
    commands::pages,
    failure::{Exit, Failure},
    filter::show_span,
    printer::{
        Printer,
        table::{Cell, Column, Table, Tone},
    },
};

/// What a proxy says of itself at `/config`, as far as this command reads it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    identity: String,
    certificate: Option<Certificate>,
    trust_bundle: Option<TrustBundle>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    serial: String,
    issuer: String,
    not_before: Timestamp,
    not_after: Timestamp,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TrustBundle {
    trust_domain: String,
    roots: usize,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    pod: String,
    identity: String,
    /// None where the proxy has no certificate.
    serial: Option<String>,
    issuer: Option<String>,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    /// Negative once expired.
    remaining_seconds: Option<i64>,
    trust_domain: Option<String>,
    roots: usize,
}

pub(crate) async fn run(
    cluster: &Cluster,
    namespace: Option<&str>,
    args: &cli::Identity,
    printer: &Printer,
) -> Result<(), Failure> {
    let meshed = pages::meshed(cluster, namespace, args.resource.as_ref()).await?;
    let now = Timestamp::now();
    let pages = pages::of(cluster, meshed, CONFIG, |pod, text| row(pod, text, now), printer).await;
    let rows: Vec<&Row> = pages.read.iter().map(|(_, row)| row).collect();
    printer.list("IdentityList", &rows, |wide| table(&rows, wide))?;
    if let Some(bad) = rows.iter().find(|row| row.remaining_seconds.is_none_or(|seconds| seconds <= 0)) {
        let what = if bad.serial.is_some() { "has an expired certificate" } else { "has no certificate" };
        return Err(Failure::new(Exit::Bad, format!("pod {}/{} {what}", bad.namespace, bad.pod))
            .fix("its proxy's log names why the controller does not certify it"));
    }
    pages.done()
}

fn row(pod: &PodInfo, config: &str, now: Timestamp) -> Result<Row, Failure> {
    let config: Config = pages::json(CONFIG, config)?;
    let certificate = config.certificate;
    let remaining = certificate.as_ref().map(|certificate| certificate.not_after.duration_since(now).as_secs());
    Ok(Row {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        identity: config.identity,
        serial: certificate.as_ref().map(|certificate| certificate.serial.clone()),
        issuer: certificate.as_ref().map(|certificate| certificate.issuer.clone()),
        not_before: certificate.as_ref().map(|certificate| certificate.not_before),
        not_after: certificate.as_ref().map(|certificate| certificate.not_after),
        remaining_seconds: remaining,
        trust_domain: config.trust_bundle.as_ref().map(|bundle| bundle.trust_domain.clone()),
        roots: config.trust_bundle.map_or(0, |bundle| bundle.roots),
    })
}

fn table(rows: &[&Row], wide: bool) -> Table {
    let mut columns = vec![Column::namespace(), Column::name("POD"), Column::path("IDENTITY").readable(24)];
    columns.extend([Column::from("NOT_AFTER").leaves(1), "REMAINING".into(), Column::from("ROOTS").leaves(2)]);
    if wide {
        columns.extend(["ISSUER", "SERIAL"].map(Column::from));
    }
    let mut table = Table::new(columns);
    let dash = |text: Option<&str>| Cell::text(text.unwrap_or("-"));
    for row in rows {
        let not_after = row.not_after.and_then(|time| time.round(Unit::Second).ok()).map(|time| time.to_string());
        let (remaining, tone) = match row.remaining_seconds.map(u64::try_from) {
            Some(Ok(seconds)) => (show_span(Duration::from_secs(seconds)), Tone::Plain),
            Some(Err(_)) => ("expired".to_owned(), Tone::Bad),
            None => ("none".to_owned(), Tone::Bad),
        };
        let mut cells = vec![
            Cell::text(&row.namespace),
            Cell::text(&row.pod),
            Cell::text(&row.identity),
            dash(not_after.as_deref()),
            Cell::text(remaining).tone(tone),
            Cell::text(row.roots.to_string()),
        ];
        if wide {
            cells.extend([dash(row.issuer.as_deref()), dash(row.serial.as_deref())]);
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fixture;

    const PAGE: &str = r#"{
        "identity": "spiffe://cluster.local/ns/shop/sa/web",
        "certificate": {"serial": "0a:1b", "issuer": "CN=mesh", "notBefore": "2026-11-21T04:00:00Z", "notAfter": "2026-11-22T04:00:00Z"},
        "trustBundle": {"trustDomain": "cluster.local", "roots": 1},
        "something": "newer"
    }"#;

    #[test]
    fn a_certificate_is_shown_with_what_is_left_of_it() {
        let pod = fixture::pod("web-1", Some("web"), true, "10.0.0.1");
        let row = row(&pod, PAGE, "2026-11-21T04:01:00Z".parse().unwrap()).unwrap();
        assert_eq!(
            table(&[&row], false).render(true, false),
            "NAMESPACE   POD     IDENTITY                                NOT_AFTER              REMAINING   ROOTS\n\
             shop        web-1   spiffe://cluster.local/ns/shop/sa/web   2026-11-22T04:00:00Z   23h59m      1\n"
        );
    }

    #[test]
    fn a_proxy_without_a_certificate_and_an_expired_one_are_said() {
        let pod = fixture::pod("web-1", Some("web"), true, "10.0.0.1");
        let none = row(&pod, r#"{"identity": "x"}"#, Timestamp::now()).unwrap();
        let expired = row(&pod, PAGE, "2027-01-01T00:00:00Z".parse().unwrap()).unwrap();
        let text = table(&[&none, &expired], false).render(false, false);
        assert!(text.contains("none") && text.contains("expired"), "{text}");
    }
}
