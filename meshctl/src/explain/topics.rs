//! Pages of prose: how the mesh works, as far as a user must know. What they say is fixed in docs/contracts.md.

use super::{About, Page};
use crate::{failure::Exit, install::Values};

pub(super) fn pages() -> Vec<Page> {
    let mut pages: Vec<Page> = TOPICS.iter().map(page).collect();
    pages.push(exit_codes());
    pages.push(install());
    pages
}

struct Topic {
    name: &'static str,
    summary: &'static str,
    details: &'static [&'static str],
    example: &'static str,
}

fn page(topic: &Topic) -> Page {
    Page {
        name: topic.name.to_owned(),
        about: About::Topic,
        summary: topic.summary.to_owned(),
        details: topic.details.iter().map(|&paragraph| paragraph.to_owned()).collect(),
        fix: None,
        example: Some(topic.example.to_owned()),
    }
}

/// From the very values that the command takes.
fn install() -> Page {
    let values = Values::defaults();
    let lines: Vec<String> = values.keys().iter().map(|key| format!("  {key:<24}{}", values.get(key))).collect();
    Page {
        name: "install".to_owned(),
        about: About::Topic,
        summary: "What --set and --values may say, with what is said where nobody does.".to_owned(),
        details: vec![
            lines.join("\n"),
            "--profile permissive, authenticated or deny sets defaultPolicy; --ha sets three replicas of each part and \
             injector.failurePolicy=Fail. Defaults come first, then --ha and --profile, then files, then --set."
                .to_owned(),
            "The manifest holds no secret: keys are made in the cluster. Applying it twice changes nothing. It records the \
             values in ConfigMap mesh-values, from where meshctl upgrade starts."
                .to_owned(),
        ],
        fix: None,
        example: Some(
            "meshctl check --pre && meshctl install --apply\nmeshctl install --ha | kubectl apply -f -".to_owned(),
        ),
    }
}

fn exit_codes() -> Page {
    let line = |exit: Exit| format!("  {:>3}  {}", exit as u8, exit.text());
    let lines: Vec<String> = std::iter::once("    0  success".to_owned()).chain(Exit::ALL.map(line)).collect();
    Page {
        name: "exit-codes".to_owned(),
        about: About::Topic,
        summary: "What the exit code of meshctl says; it is the same whatever -o asks for.".to_owned(),
        details: vec![
            lines.join("\n"),
            "Data goes to stdout, everything else to stderr. A list without items is success and one line on stderr, \
             unless --fail-empty."
                .to_owned(),
        ],
        fix: None,
        example: Some("meshctl check --fail-on warning -o short || echo \"exit code $?\"".to_owned()),
    }
}

const TOPICS: &[Topic] = &[
    Topic {
        name: "mtls",
        summary: "Between two meshed pods every connection is mutual TLS: both sides prove an identity.",
        details: &[
            "The identity is the service account: spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME. The proxy makes its key \
             itself, the controller certifies it for a day, and it is renewed after 70 % of that without a broken \
             connection.",
            "An endpoint that is meshed is never dialled in plain: if it cannot prove its identity, the request fails \
             with a code (tls-failed, peer-identity-mismatch). Pods outside the mesh are reached in plain, as before.",
            "Whether a connection is protected is the √ of tap.",
        ],
        example: "meshctl identity --all\nmeshctl tap deploy/web -n shop -o wide",
    },
    Topic {
        name: "detection",
        summary: "The proxy looks at the first bytes of a connection to tell HTTP/1, HTTP/2 and everything else apart.",
        details: &[
            "No clock decides where the server speaks first: as long as neither side has spoken, both are listened to. \
             A client that has begun has one second to show what it speaks; then its bytes are TCP.",
            "To say it instead: appProtocol (http, http2, grpc, tcp …) of a Service's port, the beginning of the port's \
             name (http-web), or the annotation meshctl.dev/opaque-ports for bytes.",
        ],
        example: "spec:\n  ports:\n  - port: 9000\n    appProtocol: tcp",
    },
    Topic {
        name: "balancing",
        summary: "Requests go to the endpoint that answers best; connections of other protocols likewise, one by one.",
        details: &[
            "Of two endpoints chosen at random the one with the lower cost is taken: its latency (a peak-sensitive moving \
             average) times what is under way there. HTTP/1 and HTTP/2 are balanced by request, everything else by \
             connection.",
        ],
        example: "meshctl stat deploy/web -n shop",
    },
    Topic {
        name: "retries",
        summary: "A request is repeated where nothing of it can have reached an application, and nowhere else.",
        details: &[
            "Safe are codes like app-refused, connect-failed, connect-timeout: `meshctl explain CODE` says so of each. \
             The second attempt goes to another endpoint.",
            "What an application may have seen is its client's to repeat: only that knows whether it is safe.",
        ],
        example: "meshctl explain app-refused",
    },
    Topic {
        name: "routes",
        summary: "An HTTPRoute of the Gateway API whose parent is a Service decides where that Service's requests go.",
        details: &[
            "Rules match by path, header and method, the most specific first; backends share by weight. A rule without \
             matches takes the rest; a request that no rule matches is answered 404 no-route.",
            "A part of a route that the mesh does not know is reported by `meshctl check`, and never applied in part.",
        ],
        example: "spec:\n  parentRefs: [{group: \"\", kind: Service, name: web, port: 80}]\n  rules:\n  - backendRefs: [{name: web-v2, port: 80}]\n    matches: [{headers: [{name: x-version, value: v2}]}]",
    },
    Topic {
        name: "policy",
        summary: "Who may connect to a port is decided by the proxy of the server, from the identity that was proved.",
        details: &[
            "Where no AuthorizationPolicy selects a port, the default holds: meshctl.dev/default-policy of pod, \
             namespace or mesh, which is allow unless set. An Allow policy that selects a port admits whom it names and \
             nobody else; Deny wins over Allow.",
            "The refused see 403 or a closed connection with the code denied. A change is in force for the next request, \
             also on an open HTTP connection.",
        ],
        example: "apiVersion: meshctl.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: stock, namespace: shop}\nspec:\n  targetRefs: [{kind: Service, name: stock}]\n  from: [{serviceAccounts: [web]}]",
    },
    Topic {
        name: "injection",
        summary: "A webhook adds the sidecar to pods when they are created.",
        details: &[
            "It adds two containers: mesh-proxy, a native sidecar that starts first and ends last, and mesh-redirect, \
             which sets up the redirect once. Probes of the application are performed by the proxy, so that they need no \
             hole in policies.",
            "A pod without a sidecar has a reason with a code: `meshctl list` shows it. `meshctl inject` does the same to \
             a file, and `meshctl uninject` undoes it.",
        ],
        example: "kubectl label namespace shop meshctl.dev/inject=enabled\nkubectl -n shop rollout restart deployment\nmeshctl list -n shop",
    },
    Topic {
        name: "drain",
        summary: "A pod that ends loses no request.",
        details: &[
            "On its end the controller is told at once, so that others stop choosing it; what still arrives is served. \
             Clients are asked to let go (GOAWAY, Connection: close), and the proxy ends when it is idle or at its \
             deadline. A second signal ends it at once.",
        ],
        example: "kubectl -n shop delete pod NAME",
    },
    Topic {
        name: "closed",
        summary: "Who ended a connection, and why: each proxy keeps the last ones, and counts all of them.",
        details: &[
            "  app          the pod's own application\n  peer-app     the application at the other end, by itself or passed on by its proxy\n  peer-proxy   the proxy at the other end\n  us           this proxy",
            "Of others the reason is end (it said that it was done), reset, cut (TLS broke off without an end), timeout (it was \
             no longer there) or broken. What a peer-proxy has cut or reset has its reason at that proxy: ask it.",
            "Of this proxy it is a code with a page of its own (`meshctl explain denied`), or done (HTTP was over: one side had \
             asked for no more requests), drain (the pod ends, and nothing was under way), drain-over (it ended, and \
             something was), no-ping (a client of HTTP/2 was no longer there).",
            "A proxy keeps 500 for each of its workers. Connections that were refused because a limit was reached are \
             only counted, in overloaded_total.",
        ],
        example: "meshctl connections deploy/web -n shop --closed\nmeshctl connections --closed -o ndjson",
    },
    Topic {
        name: "controller",
        summary: "The controller is on nobody's path: proxies keep what they know while it is away.",
        details: &["Destinations that a proxy has resolved are served on; one that it never resolved is answered \
             discovery-unavailable after a second, never sent in plain (meshctl.dev/unresolved changes that). \
             Certificates last for a day, so that is the time there is to bring it back."],
        example: "meshctl check --proxy",
    },
    Topic {
        name: "ports",
        summary: "Ports that the sidecar takes in a pod.",
        details: &[
            "  4140  outbound, on loopback only\n  4143  inbound\n  4191  live, ready, metrics, probes; on loopback also tap and settings",
            "A container that declares one of them is not meshed (uses-proxy-port). Ports 25, 587, 3306, 4444, 5432, \
             6379, 9300 and 11211 carry bytes unless declared otherwise.",
        ],
        example: "kubectl -n shop port-forward pod/NAME 4191",
    },
    Topic {
        name: "mesh-error",
        summary: "The header of every answer that the mesh itself gave: its value is the code that says why.",
        details: &[
            "An answer without it is the application's own, whatever its status. A gRPC caller finds the same text in \
             grpc-message. Each code has a page, with what to do: meshctl explain CODE; meshctl explain lists them.",
            "The same codes are in mesh_error_total, in the proxy's log, and in brackets at the end of a line of tap.",
        ],
        example: "meshctl explain no-endpoints",
    },
    Topic {
        name: "stat",
        summary: "Success, rate and latency from the proxies' own counters, read twice: nothing is stored anywhere.",
        details: &[
            "A line is what a workload's own proxies served. --to and --from tell what one sends another, as the clients' \
             proxies saw it, with retries in -o wide; --by backend tells where the requests of each workload went. Proxies \
             do not count by route: tap -o wide names the route of each request.",
            "Success is the share of answers without a 5xx and without a failing gRPC status. READ/S and WRITTEN/S are bytes of \
             opaque connections only; TIMEOUTS are ends at a time limit of the mesh, counted per proxy.",
        ],
        example: "meshctl stat -n shop --sort success\nmeshctl stat deploy/web -n shop --to svc/prices -o wide\nmeshctl stat -n shop --by backend --watch",
    },
    Topic {
        name: "tap",
        summary: "Live requests, from the proxies themselves: nothing is stored anywhere.",
        details: &[
            "Each proxy filters what it can, also by status and latency, and sends one event for each request or \
             connection that finished. No body ever leaves it; a header or a query does where --show-header or \
             --show-query asks for it by name.",
            "A request between two pods that are both tapped is shown once, as the server's proxy saw it; with --to \
             svc/NAME as the client's did, for only that knows which Service was dialled. --not leaves out, as in --not \
             path=/health --not status=2xx. The last line says how much there was beside what matched.",
            "Silent? Then the pods are not meshed (`meshctl list`), nothing that matches finishes, or the filter is too \
             narrow: tap says which after five seconds.",
        ],
        example: "meshctl tap -n shop --status 5xx\nmeshctl tap deploy/web -n shop --latency 200ms -o ndjson -c 10\nmeshctl tap -n shop --grpc --not status=2xx --show-header x-request-id",
    },
    Topic {
        name: "rights",
        summary: "What a user of meshctl needs to be allowed to do on a cluster.",
        details: &[
            "  list                 list pods, get namespaces\n  stat, tap, identity  also: get and create on pods/portforward\n  describe             also: list services\n  check                also: list pods and port-forward in mesh-system, get the webhook configuration,\n                       create pods (a dry run; what may not be tried is said)\n  install              get and patch what the manifest is made of: an administrator of the cluster\n  upgrade              also: list and delete that\n  uninstall            get all that, list pods and configmaps everywhere; kubectl deletes",
            "A Role in one namespace is enough to look at that namespace. Whoever may port-forward to a pod reaches its \
             ports anyway, and so the proxy's own admin port is no wider a door.",
        ],
        example: "kubectl auth can-i create pods/portforward -n shop\nmeshctl list -n shop --as system:serviceaccount:shop:viewer",
    },
    Topic {
        name: "playground",
        summary: "The real controller, injector and proxies with a small shop, on one Linux machine and without root.",
        details: &[
            "Pods are network namespaces of your own user. Nothing listens outside of them, and nothing is left when it \
             ends. Every command that looks at a mesh takes --playground.",
        ],
        example: "meshctl playground --detach\nmeshctl stat --playground\nmeshctl playground stop",
    },
    Topic {
        name: "annotations",
        summary: "What can be set by annotation on a namespace or a pod template; the pod wins.",
        details: &[
            "Names and values are checked when a pod is created: a name that is not known and a value that makes no sense \
             are warnings with what was probably meant, and count as not written. `meshctl explain` lists them all.",
        ],
        example: "meshctl explain opaque-ports\nmeshctl check -f deploy/",
    },
];

#[cfg(test)]
mod tests {
    use mesh_proto::names;

    use super::*;

    #[test]
    fn the_ports_of_the_page_are_those_of_the_proxy() {
        let page = TOPICS.iter().find(|topic| topic.name == "ports").map(page).unwrap().render(100);
        for port in [names::PORT_OUTBOUND, names::PORT_INBOUND, names::PORT_PROXY_ADMIN] {
            assert!(page.contains(&port.to_string()), "{page}");
        }
        for port in names::DEFAULT_OPAQUE_PORTS {
            assert!(page.contains(&port.to_string()), "{page}");
        }
    }

    #[test]
    fn all_exit_codes_are_told() {
        let page = exit_codes().render(100);
        for code in ["0  success", "1  ", "2  ", "3  ", "4  ", "5  ", "6  ", "130  "] {
            assert!(page.contains(code), "{page}");
        }
    }
}
