//! Names in the playground: what the DNS of a cluster would answer, made from the objects as they are now. Pure.
//!
//! The names are those of the specification "Kubernetes DNS-Based Service Discovery" 1.1.0: Services, the pods of headless Services,
//! ports as SRV, and pods by address. [`server`] does the talking. It knows no name outside the cluster and asks nobody.

// By its path, for the fuzz target that includes this file.
#[path = "dns/server.rs"]
pub(crate) mod server;

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA, SRV},
    },
};
use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec};

use super::select;

/// The zone of the cluster.
pub(crate) const ZONE: &str = "cluster.local";

/// Seconds an answer may be kept, as CoreDNS says in clusters; short, since the playground changes while one looks.
const TTL: u32 = 5;

/// A pod, its address, and whether it is ready.
pub(crate) type PodFact<'a> = (&'a Pod, Ipv4Addr, bool);

/// The answer to a query. One question, as every resolver asks; names outside [`ZONE`] are refused.
pub(crate) fn answer(query: &Message, services: &[Service], pods: &[PodFact<'_>]) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    // Several are no query (RFC 9619), and back with their answer they might not fit.
    if let [question] = query.queries.as_slice() {
        answer.add_query(question.clone());
    }
    if query.edns.is_some() {
        answer.set_edns(Edns::new());
    }
    answer.metadata.response_code = match query.queries.as_slice() {
        _ if query.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [question] if question.query_class() == DNSClass::IN => fill(&mut answer, question, services, pods),
        _ => ResponseCode::FormErr,
    };
    answer
}

fn fill(answer: &mut Message, question: &Query, services: &[Service], pods: &[PodFact<'_>]) -> ResponseCode {
    let asked = question.name().to_lowercase().to_ascii();
    let asked = asked.trim_end_matches('.');
    let Some(within) =
        asked.strip_suffix(ZONE).and_then(|rest| rest.strip_suffix('.').or(rest.is_empty().then_some("")))
    else {
        return ResponseCode::Refused;
    };
    answer.metadata.authoritative = true;
    let labels: Vec<&str> = within.split('.').filter(|label| !label.is_empty()).collect();
    let Some(data) = data(&labels, services, pods) else {
        answer.add_authority(start_of_authority());
        return ResponseCode::NXDomain;
    };
    let wanted = |data: &RData| {
        let kind = data.record_type();
        kind == question.query_type() || kind == RecordType::CNAME || question.query_type() == RecordType::ANY
    };
    let records = data.into_iter().filter(wanted).map(|data| Record::from_rdata(question.name().clone(), TTL, data));
    answer.add_answers(records);
    if answer.answers.is_empty() {
        answer.add_authority(start_of_authority());
    }
    ResponseCode::NoError
}

/// All records of a name below the zone; none where it does not exist.
fn data(labels: &[&str], services: &[Service], pods: &[PodFact<'_>]) -> Option<Vec<RData>> {
    let service = |name: &str, namespace: &str| {
        services.iter().find(|service| {
            service.metadata.name.as_deref() == Some(name)
                && service.metadata.namespace.as_deref().unwrap_or("default") == namespace
        })
    };
    let known = |namespace: &str| {
        let of_service = services.iter().map(|service| service.metadata.namespace.as_deref());
        of_service
            .chain(pods.iter().map(|(pod, ..)| pod.metadata.namespace.as_deref()))
            .any(|one| one == Some(namespace))
    };
    match *labels {
        [] | ["svc" | "pod"] => Some(Vec::new()),
        [namespace, "svc" | "pod"] => known(namespace).then(Vec::new),
        [address, namespace, "pod"] => {
            let address: Ipv4Addr = address.replace('-', ".").parse().ok()?;
            known(namespace).then(|| vec![RData::A(A(address))])
        }
        [name, namespace, "svc"] => Some(of_service(service(name, namespace)?, pods)),
        [host, name, namespace, "svc"] if !host.starts_with('_') => {
            let addresses: Vec<_> = members(service(name, namespace)?, pods)
                .filter(|(pod, ..)| host_in(pod, name).is_some_and(|known| known == host))
                .map(|(_, ip, _)| RData::A(A(*ip)))
                .collect();
            (!addresses.is_empty()).then_some(addresses)
        }
        [port, protocol, name, namespace, "svc"] => {
            let (port, protocol) = (port.strip_prefix('_')?, protocol.strip_prefix('_')?);
            let records = ports(service(name, namespace)?, name, namespace, port, protocol, pods);
            (!records.is_empty()).then_some(records)
        }
        _ => None,
    }
}

/// The addresses of a Service: its cluster IP, its ready pods where it is headless, another name where it is external.
fn of_service(service: &Service, pods: &[PodFact<'_>]) -> Vec<RData> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if let (Some("ExternalName"), Some(name)) = (spec.type_.as_deref(), &spec.external_name) {
        return Name::from_utf8(name).map(|name| RData::CNAME(CNAME(name))).into_iter().collect();
    }
    if is_headless(spec) {
        return members(service, pods).map(|(_, ip, _)| RData::A(A(*ip))).collect();
    }
    let addresses =
        spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.as_ref().filter(|_| spec.cluster_ips.is_none()));
    let address = |address: &String| match address.parse().ok()? {
        IpAddr::V4(ip) => Some(RData::A(A(ip))),
        IpAddr::V6(ip) => Some(RData::AAAA(AAAA(ip))),
    };
    addresses.filter_map(address).collect()
}

/// The ports of a Service by name: with its own name as the target, or those of its pods where it is headless.
fn ports(
    service: &Service,
    name: &str,
    namespace: &str,
    port: &str,
    protocol: &str,
    pods: &[PodFact<'_>],
) -> Vec<RData> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let named = spec.ports.iter().flatten().filter(|known| {
        let known_protocol = known.protocol.as_deref().unwrap_or("TCP");
        known.name.as_deref() == Some(port) && known_protocol.eq_ignore_ascii_case(protocol)
    });
    let domain = format!("{name}.{namespace}.svc.{ZONE}.");
    let record = |target: String, port: u16| Some(RData::SRV(SRV::new(0, 100, port, Name::from_utf8(target).ok()?)));
    named
        .flat_map(|known| -> Vec<RData> {
            if is_headless(spec) {
                let target = |(pod, ip, _): &PodFact<'_>| {
                    let host = host_in(pod, name).map_or_else(|| ip.to_string().replace('.', "-"), str::to_owned);
                    record(format!("{host}.{domain}"), select::target_port(known, pod)?)
                };
                members(service, pods).filter_map(target).collect()
            } else {
                u16::try_from(known.port).ok().and_then(|port| record(domain.clone(), port)).into_iter().collect()
            }
        })
        .collect()
}

/// The pods of a Service that may be asked.
fn members<'a, 'b>(service: &'a Service, pods: &'a [PodFact<'b>]) -> impl Iterator<Item = &'a PodFact<'b>> {
    let all = service.spec.as_ref().is_some_and(|spec| spec.publish_not_ready_addresses == Some(true));
    pods.iter().filter(move |(pod, _, ready)| (all || *ready) && select::is_member(service, pod))
}

/// The pod's own label below the domain of a headless Service.
fn host_in<'a>(pod: &'a Pod, service: &str) -> Option<&'a str> {
    let spec = pod.spec.as_ref().filter(|spec| spec.subdomain.as_deref() == Some(service))?;
    spec.hostname.as_deref().or(pod.metadata.name.as_deref())
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

/// Goes with every "no", so that resolvers know how long it holds.
fn start_of_authority() -> Record {
    let name = |text: &str| Name::from_ascii(text).expect("a constant name");
    let zone = name("cluster.local.");
    let data = SOA::new(name("ns.dns.cluster.local."), name("hostmaster.cluster.local."), 1, 7200, 1800, 86400, TTL);
    Record::from_rdata(zone, TTL, RData::SOA(data))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})).unwrap()
    }

    fn pod(name: &str, app: &str, spec: serde_json::Value) -> Pod {
        let metadata = json!({"name": name, "namespace": "shop", "labels": {"app": app}});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    /// The answer as text: a code, or the data in order.
    fn ask(name: &str, kind: RecordType) -> String {
        let services = [
            service("web", json!({"clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 80}]})),
            service("both", json!({"clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11", "fd00:96::b"]})),
            service(
                "db",
                json!({"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "sql", "port": 5432, "targetPort": 6000}]}),
            ),
            service("out", json!({"type": "ExternalName", "externalName": "example.com."})),
        ];
        let named = json!({"hostname": "db-0", "subdomain": "db", "containers": []});
        let (first, second, late) = (
            pod("db-0", "db", named),
            pod("x", "db", json!({"containers": []})),
            pod("y", "db", json!({"containers": []})),
        );
        let ip = |last| Ipv4Addr::new(10, 244, 0, last);
        let pods = [(&first, ip(2), true), (&second, ip(3), true), (&late, ip(4), false)];
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let answer = answer(&query, &services, &pods);
        match answer.metadata.response_code {
            ResponseCode::NoError => {
                answer.answers.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(" | ")
            }
            code => format!("{code:?}"),
        }
    }

    #[test]
    fn names_mean_what_they_mean_in_a_cluster() {
        use RecordType::{A, AAAA, SRV};
        for (name, kind, expected) in [
            ("web.shop.svc.cluster.local.", A, "10.96.0.10"),
            ("WEB.Shop.svc.cluster.local.", A, "10.96.0.10"),
            // The name is there, an address of this family is not: no error, or resolvers would give up on A as well.
            ("web.shop.svc.cluster.local.", AAAA, ""),
            ("both.shop.svc.cluster.local.", A, "10.96.0.11"),
            ("both.shop.svc.cluster.local.", AAAA, "fd00:96::b"),
            ("db.shop.svc.cluster.local.", A, "10.244.0.2 | 10.244.0.3"),
            ("db-0.db.shop.svc.cluster.local.", A, "10.244.0.2"),
            ("db-1.db.shop.svc.cluster.local.", A, "NXDomain"),
            ("_http._tcp.web.shop.svc.cluster.local.", SRV, "0 100 80 web.shop.svc.cluster.local."),
            (
                "_sql._tcp.db.shop.svc.cluster.local.",
                SRV,
                "0 100 6000 db-0.db.shop.svc.cluster.local. | 0 100 6000 10-244-0-3.db.shop.svc.cluster.local.",
            ),
            ("_sql._udp.db.shop.svc.cluster.local.", SRV, "NXDomain"),
            ("10-244-0-2.shop.pod.cluster.local.", A, "10.244.0.2"),
            ("out.shop.svc.cluster.local.", A, "example.com."),
            ("none.shop.svc.cluster.local.", A, "NXDomain"),
            ("web.other.svc.cluster.local.", A, "NXDomain"),
            ("shop.svc.cluster.local.", A, ""),
            ("cluster.local.", A, ""),
            ("example.com.", A, "Refused"),
            ("notcluster.local.", A, "Refused"),
            (".", A, "Refused"),
        ] {
            assert_eq!(ask(name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn what_is_no_question_is_told_so() {
        let mut update = Message::query();
        update.metadata.op_code = OpCode::Update;
        assert_eq!(answer(&update, &[], &[]).metadata.response_code, ResponseCode::NotImp);
        assert_eq!(answer(&Message::query(), &[], &[]).metadata.response_code, ResponseCode::FormErr);
    }
}
