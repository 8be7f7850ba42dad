//! `mesh-proxy redirect` as it is run: arguments and environment in, text, exit code and kernel state out.

use std::env;
use std::process::{Command, ExitCode, Output};

use libtest_mimic::{Failed, Trial};
use mesh_netlab::Namespace;
use mesh_proto::names;
use mesh_proxy::nft::{self, Chain};
use mesh_proxy::redirect::{Settings, TABLE, rules};
use nix::sched::{CloneFlags, unshare};

use super::support::marked;

const MESH_PROXY: &str = env!("CARGO_BIN_EXE_mesh-proxy");
/// Set for the copy of this test that gives up its rights over the network namespace.
const WITHOUT_RIGHTS: &str = "MESH_TEST_WITHOUT_RIGHTS";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("the_command_sets_up_and_removes_the_redirect", the_command_sets_up_and_removes_the_redirect),
        Trial::test("the_command_prints_and_changes_nothing", the_command_prints_and_changes_nothing),
        Trial::test("the_command_reports_all_bad_settings", the_command_reports_all_bad_settings),
        Trial::test("the_command_says_which_right_is_missing", the_command_says_which_right_is_missing),
    ]
}

fn redirect(namespace: &Namespace, args: &[&str], envs: &[(&str, &str)]) -> Result<Output, Failed> {
    let mut command = Command::new(MESH_PROXY);
    command.arg("redirect").args(args).env_clear().envs(envs.iter().copied());
    Ok(namespace.run(|| command.output())??)
}

fn the_command_sets_up_and_removes_the_redirect() -> Result<(), Failed> {
    let namespace = Namespace::create()?;
    let mark = names::PROXY_MARK.to_string();
    let settings = Settings { skip_inbound_ports: "22".parse()?, skip_outbound_ports: "25,26".parse()?, ..marked() };
    let want: Vec<_> = rules(&settings).chains.iter().map(Chain::in_kernel).collect();
    for _ in 0..2 {
        let env = [(names::ENV_SOCKET_MARK, mark.as_str()), (names::ENV_SKIP_INBOUND_PORTS, "22")];
        let output = redirect(&namespace, &["--skip-outbound-ports", "25-26"], &env)?;
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(namespace.run(|| nft::list(TABLE))??.as_ref(), Some(&want));
    }
    for _ in 0..2 {
        assert!(redirect(&namespace, &["--remove"], &[])?.status.success());
        assert_eq!(namespace.run(|| nft::list(TABLE))??, None);
    }
    Ok(())
}

fn the_command_prints_and_changes_nothing() -> Result<(), Failed> {
    let namespace = Namespace::create()?;
    let output = redirect(&namespace, &["--print"], &[(names::ENV_SKIP_SUBNETS, "10.0.0.0/8")])?;
    let settings = Settings { skip_subnets: "10.0.0.0/8".parse()?, ..Settings::default() };
    assert_eq!(String::from_utf8(output.stdout)?, rules(&settings).script());
    assert_eq!(namespace.run(|| nft::list(TABLE))??, None);
    Ok(())
}

fn the_command_reports_all_bad_settings() -> Result<(), Failed> {
    let env = [(names::ENV_SKIP_SUBNETS, "10.0.0.0/33"), (names::ENV_SOCKET_MARK, "high")];
    let output = redirect(&Namespace::create()?, &["--skip-inbound-ports", "http"], &env)?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr)?;
    for part in ["MESH_SKIP_INBOUND_PORTS", "\"http\"", "MESH_SKIP_SUBNETS", "10.0.0.0/33", "MESH_SOCKET_MARK"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    Ok(())
}

fn the_command_says_which_right_is_missing() -> Result<(), Failed> {
    let mut command = Command::new(env::current_exe()?);
    let output = Namespace::create()?.run(|| command.env(WITHOUT_RIGHTS, "1").output())??;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr)?;
    let start = "error: cannot set up the redirect: change the packet filter: needs CAP_NET_ADMIN";
    assert!(text.starts_with(start) && text.lines().count() == 1, "{text}");
    Ok(())
}

/// Whether this process is the copy started by the test above.
pub(crate) fn is_without_rights() -> bool {
    env::var_os(WITHOUT_RIGHTS).is_some()
}

/// In a further user namespace, the network namespace belongs to somebody else: as for a container without NET_ADMIN.
pub(crate) fn run_without_rights() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWUSER).expect("a user namespace inside ours");
    let status = Command::new(MESH_PROXY).arg("redirect").status().expect("mesh-proxy runs");
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
