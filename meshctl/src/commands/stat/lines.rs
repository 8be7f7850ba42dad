//! What `stat` is asked, which proxies can answer it, and the lines that come of two readings. Pure.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;

use super::{
    Reading,
    row::{Backend, Of, Row},
    window,
};
use crate::{
    cli,
    cluster::PodInfo,
    commands::select_any,
    failure::{Exit, Failure},
    golden::{self, Golden, samples::Sample},
    resource::Resource,
};

/// What the lines of one workload are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// The Services and workloads that its requests went to
    Backend,
}

/// What is asked.
pub(super) struct Question<'a> {
    namespace: Option<&'a str>,
    resources: &'a [Resource],
    to: Option<&'a Resource>,
    from: Option<&'a Resource>,
    by: Option<By>,
}

/// Whose lines, and whose proxies.
pub(super) struct Selected {
    pub(super) pods: Vec<PodInfo>,
    pub(super) proxies: Vec<PodInfo>,
}

impl<'a> Question<'a> {
    /// Refuses what proxies do not count: they know the workloads and Services they talk to, not the pods.
    pub(super) fn new(namespace: Option<&'a str>, args: &'a cli::Stat) -> Result<Self, Failure> {
        let question =
            Self { namespace, resources: &args.resources, to: args.to.as_ref(), from: args.from.as_ref(), by: args.by };
        let peers: &[Resource] = if args.from.is_some() { &args.resources } else { &[] };
        if let Some(pod) = peers.iter().chain(&args.to).find(|peer| matches!(peer, Resource::Pod(_))) {
            return Err(Failure::new(
                Exit::Usage,
                format!("clients do not count by pod, so there is nothing to {pod}"),
            )
            .fix("name its workload, or: meshctl tap --to POD"));
        }
        Ok(question)
    }

    /// Where pods are looked for: clients may be of another namespace.
    pub(super) fn namespace_to_list(&self) -> Option<&'a str> {
        self.namespace.filter(|_| !matches!(self.from, Some(Resource::Namespace(_))))
    }

    pub(super) fn select(&self, all: Vec<PodInfo>) -> Result<Selected, Failure> {
        let here = |pod: &PodInfo| self.namespace.is_none_or(|namespace| pod.namespace == namespace);
        let pods = select_any(all.iter().filter(|pod| here(pod)).cloned().collect(), self.resources)?;
        let readers = match self.from {
            Some(from) => {
                let near = |pod: &PodInfo| here(pod) || matches!(from, Resource::Namespace(_));
                select_any(all.into_iter().filter(near).collect(), std::slice::from_ref(from))?
            }
            None => pods.clone(),
        };
        let proxies: Vec<PodInfo> = readers.into_iter().filter(|pod| pod.meshed).collect();
        if let (Some(from), true) = (self.from, proxies.is_empty()) {
            return Err(Failure::new(
                Exit::NotFound,
                format!("no pod of {from} is meshed, so nobody counts what it sends"),
            )
            .fix("meshctl list shows why not; without --from the servers' proxies are read"));
        }
        Ok(Selected { pods, proxies })
    }

    /// Why there are no lines.
    pub(super) fn nothing(&self) -> String {
        let place = self.namespace.map_or("any namespace".to_owned(), |name| format!("namespace {name}"));
        match self.by {
            Some(By::Backend) => format!("nothing in {place} has sent anything yet"),
            None => format!("no pods in {place}"),
        }
    }

    fn direction(&self) -> &'static str {
        if self.to.is_some() || self.from.is_some() || self.by.is_some() { "outbound" } else { "inbound" }
    }

    /// Whether what is counted went where `--to` says.
    fn is_to(&self, sample: &Sample) -> bool {
        let label = |name| sample.label(name).unwrap_or_default();
        let here = self.namespace.is_none_or(|namespace| label("dst_namespace") == namespace);
        match self.to {
            None => true,
            Some(Resource::Namespace(name)) => label("dst_namespace") == name,
            Some(Resource::Service(name)) => here && label("dst_service") == name,
            Some(Resource::Workload(name)) => here && label("dst_workload") == name,
            Some(Resource::Kind(kind)) => here && label("dst_workload").split('/').next() == Some(kind),
            // Refused before.
            Some(Resource::Pod(_)) => false,
        }
    }
}

/// One line per workload of the question, or per backend of each.
pub(super) fn rows(question: &Question<'_>, before: &Reading, after: &Reading) -> Vec<Row> {
    let mut workloads: BTreeMap<(&str, String), Vec<&PodInfo>> = BTreeMap::new();
    for pod in &after.pods {
        workloads.entry((&pod.namespace, pod.workload_or_name())).or_default().push(pod);
    }
    let mut rows = Vec::new();
    for ((namespace, workload), pods) in workloads {
        let own: Vec<_> = pods.iter().map(|pod| (pod.namespace.clone(), pod.name.clone())).collect();
        // Under `--from` the clients tell, whoever's line it is.
        let readers = |pod: &(String, String)| question.from.is_some() || own.contains(pod);
        let read: Vec<_> = Reading::both(before, after).filter(|(pod, ..)| readers(pod)).collect();
        let of = |backend| Of {
            namespace: namespace.to_owned(),
            workload: workload.clone(),
            backend,
            pods: pods.len(),
            meshed: pods.iter().filter(|pod| pod.meshed).count(),
            unread: after.proxies.iter().filter(|(pod, reading)| readers(pod) && reading.is_err()).count(),
            direction: question.direction(),
        };
        let sum = |wanted: &dyn Fn(&Sample) -> bool| {
            let mut golden = Golden::default();
            for (_, before, after) in &read {
                golden.add(&Golden::between(before, after, question.direction(), wanted));
            }
            golden
        };
        let window = window(before, after);
        if question.by.is_some() {
            let seen = read.iter().flat_map(|(_, _, after)| after.iter());
            let counted = seen.filter(|sample| sample.label("direction") == Some("outbound") && question.is_to(sample));
            let backends: BTreeSet<Backend> = counted.filter_map(|sample| backend(&sample)).collect();
            for one in backends {
                let golden = sum(&|sample| question.is_to(sample) && backend(sample).as_ref() == Some(&one));
                // A Service counts by itself only what never got to an endpoint.
                if one.workload.is_some() || !golden.is_empty() {
                    rows.push(Row::new(of(Some(one)), &golden, None, window));
                }
            }
            continue;
        }
        let golden = sum(&|sample| {
            let label = |name| sample.label(name).unwrap_or_default();
            let is_line = || (label("dst_namespace"), label("dst_workload")) == (namespace, workload.as_str());
            question.is_to(sample) && (question.from.is_none() || is_line())
        });
        let timeouts =
            read.iter().map(|(_, before, after)| golden::timeouts(before, after)).fold(0.0, |sum, one| sum + one);
        rows.push(Row::new(of(None), &golden, Some(timeouts).filter(|_| question.direction() == "inbound"), window));
    }
    rows
}

/// Where what is counted went.
fn backend(sample: &Sample) -> Option<Backend> {
    let label = |name| sample.label(name).unwrap_or_default();
    let given = |name| Some(label(name)).filter(|text| !text.is_empty()).map(str::to_owned);
    Some(Backend {
        namespace: label("dst_namespace").to_owned(),
        service: given("dst_service"),
        workload: given("dst_workload"),
        port: label("dst_port").parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::{commands::fixture, golden::samples::Samples};

    const TEXT: &str = concat!(
        "response_total{direction=\"inbound\",status_code=\"200\",classification=\"success\"} 10\n",
        "response_total{direction=\"outbound\",dst_namespace=\"shop\",dst_service=\"db\",dst_workload=\"deployment/db\",dst_port=\"80\",status_code=\"200\",classification=\"success\"} 20\n",
        "response_total{direction=\"outbound\",dst_namespace=\"shop\",dst_service=\"prices\",dst_workload=\"deployment/prices\",dst_port=\"90\",status_code=\"500\",classification=\"failure\"} 40\n",
        "mesh_error_total{direction=\"outbound\",code=\"connect-timeout\"} 5\n",
    );

    fn args(resources: &[&str], to: Option<&str>, from: Option<&str>, by: Option<By>) -> cli::Stat {
        cli::Stat {
            resources: resources.iter().map(|text| text.parse().unwrap()).collect(),
            to: to.map(|text| text.parse().unwrap()),
            from: from.map(|text| text.parse().unwrap()),
            by,
            window: Duration::from_secs(1),
            watch: false,
            sort: super::super::Sort::Name,
        }
    }

    fn pods() -> Vec<PodInfo> {
        vec![fixture::pod("web-1", Some("web"), true, "10.0.0.1"), fixture::pod("db-1", Some("db"), true, "10.0.0.2")]
    }

    /// Namespace, workload and requests of each line where web's proxy has counted [`TEXT`].
    fn lines(args: &cli::Stat) -> Vec<(String, f64, Option<f64>)> {
        let question = Question::new(Some("shop"), args).unwrap();
        let selected = question.select(pods()).unwrap();
        let reading = |text: &str, at: Instant| Reading {
            at,
            pods: selected.pods.clone(),
            proxies: selected
                .proxies
                .iter()
                .map(|pod| {
                    let text = if pod.name == "web-1" { text } else { "" };
                    ((pod.namespace.clone(), pod.name.clone()), Ok(Samples::parse(text)))
                })
                .collect(),
        };
        let at = Instant::now();
        let rows = rows(&question, &reading("", at), &reading(TEXT, at + Duration::from_secs(1)));
        let service = |row: &Row| row.backend.as_ref().and_then(|backend| backend.service.clone());
        rows.iter()
            .map(|row| (service(row).unwrap_or_else(|| row.workload.clone()), row.requests_per_second, row.timeouts))
            .collect()
    }

    #[test]
    fn servers_tell_of_themselves_and_clients_of_whom_they_ask() {
        let line = |name: &str, requests: f64, timeouts| (name.to_owned(), requests, timeouts);
        let web = "deployment/web";
        for (what, args, expected) in [
            (
                "all",
                args(&[], None, None, None),
                vec![line("deployment/db", 0.0, Some(0.0)), line(web, 10.0, Some(5.0))],
            ),
            (
                "two",
                args(&["deploy/web", "deploy/db"], None, None, None),
                vec![line("deployment/db", 0.0, Some(0.0)), line(web, 10.0, Some(5.0))],
            ),
            ("to a workload", args(&["deploy/web"], Some("deploy/db"), None, None), vec![line(web, 20.0, None)]),
            ("to a Service", args(&["deploy/web"], Some("svc/prices"), None, None), vec![line(web, 40.0, None)]),
            ("to a namespace", args(&["deploy/web"], Some("ns/shop"), None, None), vec![line(web, 60.0, None)]),
            ("from", args(&["deploy/db"], None, Some("deploy/web"), None), vec![line("deployment/db", 20.0, None)]),
            (
                "by backend",
                args(&[], None, None, Some(By::Backend)),
                vec![line("db", 20.0, None), line("prices", 40.0, None)],
            ),
            ("by one backend", args(&[], Some("svc/db"), None, Some(By::Backend)), vec![line("db", 20.0, None)]),
        ] {
            assert_eq!(lines(&args), expected, "{what}");
        }
    }

    #[test]
    fn what_nobody_counts_is_refused() {
        for args in
            [args(&["deploy/web"], Some("pod/db-1"), None, None), args(&["pod/db-1"], None, Some("deploy/web"), None)]
        {
            let failure = Question::new(None, &args).err().unwrap();
            assert_eq!(failure.exit, Exit::Usage);
        }
        let from = args(&[], None, Some("deploy/none"), None);
        assert_eq!(Question::new(None, &from).unwrap().select(pods()).err().unwrap().exit, Exit::NotFound);
    }
}
