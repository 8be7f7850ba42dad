//! The real proxy with the real controller: `mesh-proxy run` processes behind the real redirect, join tokens, and a directory
//! of manifests that changes. As an ordinary user; where no network can be made, the tests fail.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy cannot tell here")]

#[path = "mesh/admin.rs"]
mod admin;
#[path = "mesh/away.rs"]
mod away;
#[path = "mesh/changes.rs"]
mod changes;
#[path = "mesh/closed.rs"]
mod closed;
#[path = "it/support/collector.rs"]
mod collector;
#[path = "mesh/destinations.rs"]
mod destinations;
#[path = "mesh/drain.rs"]
mod drain;
#[path = "mesh/elsewhere.rs"]
mod elsewhere;
#[path = "mesh/floods.rs"]
mod floods;
#[path = "mesh/identity.rs"]
mod identity;
#[path = "mesh/load.rs"]
mod load;
#[path = "mesh/malformed.rs"]
mod malformed;
#[path = "matrix/all.rs"]
mod matrix;
#[path = "mesh/overload.rs"]
mod overload;
#[path = "mesh/paths.rs"]
mod paths;
#[path = "mesh/protocols.rs"]
mod protocols;
#[path = "mesh/rotation.rs"]
mod rotation;
#[path = "mesh/slow.rs"]
mod slow;
#[path = "mesh/telemetry.rs"]
mod telemetry;
#[path = "mesh/thread.rs"]
mod thread;
#[path = "mesh/upstreams.rs"]
mod upstreams;

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
};

use libtest_mimic::{Arguments, Failed, Trial};
use mesh_testbed::{Mesh, Settings, apps::LINES_PORT, manifests};

fn main() -> ExitCode {
    if let Some(ended) = mesh_testbed::enter() {
        return ended;
    }
    let trial = |(name, test): &(&str, Test)| {
        let test = *test;
        Trial::test(*name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
    };
    libtest_mimic::run(&Arguments::from_args(), TESTS.iter().chain(protocols::ALL).map(trial).collect()).exit_code()
}

type Test = fn() -> anyhow::Result<()>;

/// Tests by their names.
macro_rules! tests {
    ($($module:ident::$test:ident)*) => {
        &[$((stringify!($test), $module::$test)),*]
    };
}

const TESTS: &[(&str, Test)] = tests! {
    thread::a_request_and_a_connection_go_by_service_over_mutual_tls
    identity::certificates_are_renewed_under_load_and_nobody_notices
    rotation::a_root_is_rotated_under_load_and_nobody_notices
    identity::a_token_of_another_account_makes_no_proxy_ready
    identity::an_expired_token_makes_no_proxy_ready
    away::what_is_known_outlives_the_controller_and_what_is_not_is_refused
    changes::a_changed_route_is_in_force
    changes::a_changed_authorization_is_in_force
    changes::an_open_connection_does_not_outlive_its_permission
    telemetry::the_access_log_has_a_line_for_every_request_and_connection_and_no_query
    paths::a_route_decides_by_a_path_with_one_reading_and_refuses_others
    admin::what_is_for_the_pod_itself_is_shown_on_loopback_only
    telemetry::what_a_proxy_counts_is_described_family_by_family_and_label_by_label
    malformed::a_malformed_request_is_refused_with_a_code_and_never_forwarded
    telemetry::a_request_is_one_trace_through_both_proxies_and_in_their_access_logs
    drain::no_request_is_lost_when_a_pod_under_load_ends
    drain::where_no_drain_begins_the_hook_of_an_application_is_answered_all_the_same
    drain::a_draining_proxy_serves_on_until_its_clients_let_go
    drain::an_application_waits_for_the_acknowledgements_of_its_clients_for_as_long_as_it_may
    drain::at_the_deadline_and_at_a_second_signal_what_is_left_is_cut
    overload::connections_are_bounded_over_all_workers_and_neither_direction_starves_the_other
    overload::connections_are_refused_when_descriptors_run_short
    overload::connections_and_requests_are_refused_when_memory_runs_short
    overload::a_scan_of_ports_does_not_grow_the_page_of_metrics_and_requests_are_still_counted
    slow::a_client_that_is_too_slow_is_cut_at_its_limit_and_an_idle_one_is_not
    slow::half_a_hello_has_the_time_of_a_handshake_and_not_that_of_a_head_too
    floods::floods_of_frames_end_their_own_connection_and_harm_nobody_else
    elsewhere::what_one_application_refuses_goes_to_the_other_and_is_seen_once
    elsewhere::a_pod_whose_proxy_is_gone_costs_no_request_and_no_connection
    upstreams::hostile_servers_harm_neither_the_proxy_nor_requests_to_others
    destinations::a_service_is_routed_over_mutual_tls_byte_for_byte
    destinations::a_pod_is_dialled_by_its_address_as_it_is_meshed
    destinations::the_own_pod_is_handed_over_in_process
    destinations::what_is_outside_the_mesh_is_passed_through
    destinations::a_client_outside_the_mesh_reaches_the_pods_own_address_only
    destinations::the_proxys_own_ports_are_refused
    destinations::loopback_is_not_redirected
    closed::both_proxies_tell_who_ended_a_connection
    changes::a_malformed_manifest_changes_nothing_else
};

/// Cluster IP of the Service `web`: the pods with this label.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Likewise of `web-a` and `web-b`: the pods `a` and `b` alone.
const WEB_A: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 2);
const WEB_B: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 3);

fn settings() -> Settings {
    Settings::new(env!("CARGO_BIN_EXE_mesh-proxy"))
}

/// A mesh with the Services and no pod.
fn mesh(settings: Settings) -> anyhow::Result<Mesh> {
    let mesh = Mesh::start(settings)?;
    for (name, label, ip) in
        [("web", ("app", "web"), WEB), ("web-a", ("pod", "a"), WEB_A), ("web-b", ("pod", "b"), WEB_B)]
    {
        mesh.control.apply(&format!("service-{name}.yaml"), &manifests::service(name, label, ip))?;
    }
    Ok(mesh)
}

fn http(service: Ipv4Addr) -> SocketAddr {
    (service, 80).into()
}

fn lines(service: Ipv4Addr) -> SocketAddr {
    (service, LINES_PORT).into()
}
