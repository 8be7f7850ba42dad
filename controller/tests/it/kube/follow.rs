//! What the API says is in force, and stays in force whatever becomes of the API.

use http::StatusCode;
use mesh_proto::{
    config::{Key, Update, Value},
    outbound::OutboundPolicy,
};

use super::server::{ApiServer, PODS, POLICIES, ROUTES};
use crate::support::{Mesh, Proxy, hello, pod, service};

const WEB: &str = "10.9.0.1:80";

/// A proxy at 127.0.0.2, a Service `web` and two pods of it.
async fn shop() -> ApiServer {
    let api = ApiServer::start().await;
    api.put(&pod("shop", "load-1", "load", "127.0.0.2", true));
    api.put(&service("shop", "web", "10.9.0.1"));
    api.put(&web(1, true));
    api.put(&web(2, true));
    api
}

fn web(number: u8, ready: bool) -> String {
    pod("shop", &format!("web-{number}"), "web", &format!("10.1.0.{number}"), ready)
}

async fn mesh(api: &ApiServer) -> Mesh {
    let mesh = Mesh::start_kube(|directory| api.kubeconfig(directory)).await;
    mesh.ready().await;
    mesh
}

async fn proxy(mesh: &Mesh) -> Proxy {
    mesh.proxy("shop", "load", "load-1", "127.0.0.2").await
}

pub(super) fn endpoints(update: &Update) -> Vec<String> {
    let Value::Outbound(OutboundPolicy::Service(service)) = &update.value else { panic!("{update:?}") };
    let mut endpoints: Vec<String> = service
        .backends
        .iter()
        .flat_map(|backend| &backend.endpoints)
        .map(|endpoint| endpoint.address.to_string())
        .collect();
    endpoints.sort();
    endpoints
}

async fn subscribed(proxy: &mut Proxy) -> Vec<String> {
    endpoints(&proxy.subscribe(Key::Outbound(WEB.parse().unwrap())).await)
}

#[tokio::test]
async fn what_the_api_says_is_in_force_and_every_change_of_it() {
    let api = shop().await;
    let mesh = mesh(&api).await;
    let mut proxy = proxy(&mesh).await;
    assert_eq!(subscribed(&mut proxy).await, ["10.1.0.1:8080", "10.1.0.2:8080"]);
    api.put(&web(3, true));
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"]);
    api.delete(PODS, "shop/web-1");
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.2:8080", "10.1.0.3:8080"]);
}

/// A long list comes in pages; a version that is too old means listing again; neither is seen by a proxy.
#[tokio::test]
async fn a_list_after_410_withdraws_what_is_gone_and_nothing_else() {
    let api = shop().await;
    api.page(2);
    let mesh = mesh(&api).await;
    let mut proxy = proxy(&mesh).await;
    assert_eq!(subscribed(&mut proxy).await, ["10.1.0.1:8080", "10.1.0.2:8080"]);
    // Its second page fails, twice; then its first, because the list has become too old meanwhile.
    api.fail("list /api/v1/pods", &[StatusCode::GONE, StatusCode::INTERNAL_SERVER_ERROR]);
    api.delete_untold(PODS, "shop/web-2");
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.1:8080"]);
    // It follows from where the list was.
    api.put(&web(3, true));
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.1:8080", "10.1.0.3:8080"]);
}

#[tokio::test]
async fn a_list_that_breaks_off_withdraws_nothing() {
    let api = shop().await;
    api.page(1);
    let mesh = mesh(&api).await;
    let mut proxy = proxy(&mesh).await;
    assert_eq!(subscribed(&mut proxy).await, ["10.1.0.1:8080", "10.1.0.2:8080"]);
    let lists = api.count("list /api/v1/pods");
    // Every list of pods ends after its first page.
    api.refuse("next /api/v1/pods", StatusCode::INTERNAL_SERVER_ERROR, "etcd is away");
    api.delete_untold(PODS, "shop/web-2");
    mesh.problem("list pods").await;
    api.asked("list /api/v1/pods", lists + 8).await;
    // Of what is new the list has shown a part; of what is missing from it nothing follows.
    let mut late = mesh.proxy("shop", "load", "load-1", "127.0.0.2").await;
    assert_eq!(subscribed(&mut late).await, ["10.1.0.1:8080", "10.1.0.2:8080"]);
    api.allow("next /api/v1/pods");
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.1:8080"]);
    mesh.no_problem("list pods").await;
}

#[tokio::test]
async fn bookmarks_keep_a_quiet_watch_from_becoming_too_old() {
    let api = shop().await;
    let mesh = mesh(&api).await;
    let mut proxy = proxy(&mesh).await;
    subscribed(&mut proxy).await;
    let (lists, watches) = (api.count("list /api/v1/pods"), api.count("watch /api/v1/pods"));
    // Services have their own pace, and without a bookmark their version is soon too old.
    api.put(&service("shop", "other", "10.9.0.2"));
    api.bookmark(PODS);
    api.compact_before_now();
    api.asked("watch /api/v1/pods", watches + 2).await;
    assert_eq!(api.count("list /api/v1/pods"), lists, "it goes on from the bookmark");
    api.put(&web(1, false));
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.2:8080"]);
}

#[tokio::test]
async fn a_watch_that_hangs_silently_is_noticed() {
    let api = shop().await;
    let mesh = mesh(&api).await;
    let mut proxy = proxy(&mesh).await;
    subscribed(&mut proxy).await;
    api.hang(PODS);
    api.put(&web(1, false));
    mesh.problem("watch pods").await;
    mesh.problem("the API server has been silent for 3s; what is known stays in force").await;
    api.recover(PODS);
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.2:8080"]);
    mesh.no_problem("watch pods").await;
}

#[tokio::test]
async fn with_the_api_away_what_is_known_is_served_and_then_caught_up_with() {
    let api = shop().await;
    let mesh = mesh(&api).await;
    let mut proxy = proxy(&mesh).await;
    subscribed(&mut proxy).await;
    let client = mesh.certify("shop", "load", "load-1").await;
    api.stop();
    mesh.problem("Connection refused").await;
    assert!(mesh.is_ready());
    // A destination that nobody has asked for before, and a stream that has not been here before.
    let update = proxy.subscribe(Key::Outbound("10.1.0.1:8080".parse().unwrap())).await;
    assert!(matches!(update.value, Value::Outbound(OutboundPolicy::Pod(_))), "{update:?}");
    let mut late = mesh.hello(&client, hello("shop", "load-1"), "127.0.0.2").await.unwrap();
    assert_eq!(subscribed(&mut late).await, ["10.1.0.1:8080", "10.1.0.2:8080"]);
    api.put(&web(2, false));
    api.resume().await;
    assert_eq!(endpoints(&late.update().await), ["10.1.0.1:8080"]);
    mesh.no_problem("Connection refused").await;
}

/// Nothing is known of absence before everything was read, so that nobody takes a Service for a place outside.
#[tokio::test]
async fn it_is_ready_and_answers_only_when_every_kind_was_read() {
    let api = shop().await;
    api.refuse("list /api/v1/services", StatusCode::TOO_MANY_REQUESTS, "slow down");
    let mesh = Mesh::start_kube(|directory| api.kubeconfig(directory)).await;
    mesh.problem("list services").await;
    mesh.problem("429 Too Many Requests: slow down").await;
    api.asked("watch /api/v1/pods", 1).await;
    assert!(!mesh.is_ready());
    api.allow("list /api/v1/services");
    mesh.ready().await;
    assert_eq!(subscribed(&mut proxy(&mesh).await).await, ["10.1.0.1:8080", "10.1.0.2:8080"]);
}

#[tokio::test]
async fn a_kind_that_the_cluster_does_not_have_counts_as_empty_until_it_is_installed() {
    let api = shop().await;
    for kind in [ROUTES, POLICIES] {
        api.refuse(&format!("list {kind}"), StatusCode::NOT_FOUND, "404 page not found\n");
    }
    let mesh = mesh(&api).await;
    let mut proxy = proxy(&mesh).await;
    subscribed(&mut proxy).await;
    mesh.no_problems().await;
    api.allow(&format!("list {ROUTES}"));
    api.put(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: shop }
spec:
  parentRefs: [{ group: '', kind: Service, name: web }]
  rules: [{ matches: [{ path: { value: /blocked } }] }]
",
    );
    let update = proxy.update().await;
    let Value::Outbound(OutboundPolicy::Service(service)) = &update.value else { panic!("{update:?}") };
    assert_eq!(service.routes.len(), 1);
    // Gone again, as a whole and without a word; once may be a mistake of the API server's.
    let lists = api.count(&format!("list {ROUTES}"));
    api.refuse(&format!("list {ROUTES}"), StatusCode::NOT_FOUND, "404 page not found\n");
    api.compact();
    let update = proxy.update().await;
    let Value::Outbound(OutboundPolicy::Service(service)) = &update.value else { panic!("{update:?}") };
    assert!(service.routes.is_empty());
    assert!(api.count(&format!("list {ROUTES}")) >= lists + 3);
}

#[tokio::test]
async fn policies_that_may_not_be_read_keep_it_from_being_ready() {
    let api = shop().await;
    let question = format!("list {POLICIES}");
    api.refuse(&question, StatusCode::FORBIDDEN, "not for you");
    let mesh = Mesh::start_kube(|directory| api.kubeconfig(directory)).await;
    mesh.problem(
        "the API server answers 403 Forbidden: not for you; allow the controller's service account to get, list and \
         watch authorizationpolicies.meshctl.dev",
    )
    .await;
    api.asked("watch /api/v1/services", 1).await;
    api.asked(&question, 5).await;
    assert!(!mesh.is_ready());
    api.allow(&question);
    mesh.ready().await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_hides_only_itself_and_stays_as_it_was() {
    let api = shop().await;
    let mesh = mesh(&api).await;
    let mut proxy = proxy(&mesh).await;
    subscribed(&mut proxy).await;
    let broken = web(1, false).replace("podIPs: [", "podIPs: none #");
    api.put(&broken);
    mesh.problem("Pod shop/web-1 (as the API has it)").await;
    api.put(&web(3, true));
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"]);
    // A list does not read it either, nor withdraw it.
    let lists = api.count("list /api/v1/pods");
    api.compact();
    api.asked("list /api/v1/pods", lists + 1).await;
    api.put(&web(1, false));
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.2:8080", "10.1.0.3:8080"]);
    mesh.no_problem("web-1").await;
}

/// Each way to fail, several times: it asks again, not in a rush, and goes on.
#[tokio::test]
async fn an_api_that_stumbles_is_asked_again_and_not_flooded() {
    let api = shop().await;
    let mesh = mesh(&api).await;
    let mut proxy = proxy(&mesh).await;
    subscribed(&mut proxy).await;
    let watches = api.count("watch /api/v1/pods");
    let stumbles = [
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::GATEWAY_TIMEOUT,
        // It succeeds, and ends at once without a word.
        StatusCode::OK,
        StatusCode::OK,
        StatusCode::OK,
        StatusCode::UNAUTHORIZED,
    ];
    let started = std::time::SystemTime::now();
    api.fail("watch /api/v1/pods", &stumbles);
    api.cut(PODS);
    api.put(&web(1, false));
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.2:8080"]);
    // Waits double from at least 10 ms to at least 100 ms.
    assert!(started.elapsed().unwrap() > std::time::Duration::from_millis(10 + 20 + 40 + 80 + 3 * 100));
    assert!(api.count("watch /api/v1/pods") >= watches + stumbles.len());
}

/// As after a restore from a backup: the version that we have is in the server's future, for ever.
#[tokio::test]
async fn a_version_that_the_api_never_takes_again_leads_to_a_new_list() {
    let api = shop().await;
    let mesh = mesh(&api).await;
    let mut proxy = proxy(&mesh).await;
    subscribed(&mut proxy).await;
    api.fail("watch /api/v1/pods", &[StatusCode::GATEWAY_TIMEOUT; 5]);
    let lists = api.count("list /api/v1/pods");
    api.cut(PODS);
    api.asked("list /api/v1/pods", lists + 1).await;
    api.put(&web(1, false));
    assert_eq!(endpoints(&proxy.update().await), ["10.1.0.2:8080"]);
}
