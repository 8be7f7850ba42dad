//! What the kernel has after `apply` and `remove`, read back by netlink and, where there is an `nft`, by that too.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use mesh_netlab::Namespace;
use mesh_proxy::nft::{self, Action, Chain, Hook, Match, Protocol, Rule, Ruleset};
use mesh_proxy::redirect::{Settings, TABLE, rules};

use super::support::marked;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("the_kernel_has_exactly_the_rules", the_kernel_has_exactly_the_rules),
        Trial::test("applying_twice_is_applying_once", applying_twice_is_applying_once),
        Trial::test("applying_replaces_what_was_there", applying_replaces_what_was_there),
        Trial::test("removing_leaves_nothing_and_can_be_repeated", removing_leaves_nothing_and_can_be_repeated),
        Trial::test("the_longest_lists_fit", the_longest_lists_fit),
        Trial::test("a_refused_rule_is_named_and_changes_nothing", a_refused_rule_is_named_and_changes_nothing),
        Trial::test("the_text_is_what_nft_shows_and_reads", the_text_is_what_nft_shows_and_reads),
    ]
}

/// Settings with something in every list.
fn everything_skipped() -> Result<Settings, Failed> {
    Ok(Settings {
        skip_inbound_ports: "22,8000-8010".parse()?,
        skip_outbound_ports: "25,3306,5432-5433".parse()?,
        skip_subnets: "10.0.0.0/8,10.96.0.0/12,192.0.2.1,fd00::/8,2001:db8::/45,fd00::1,0.0.0.0/0".parse()?,
        ..marked()
    })
}

/// Every kind of match and action.
fn every_expression() -> Result<Ruleset, Failed> {
    let service = [Match::Destination("10.96.0.1/32".parse()?), Match::DestinationPort(Protocol::Tcp, 80..=80)];
    let dns = [Match::Destination("fd00:96::a/128".parse()?), Match::DestinationPort(Protocol::Udp, 53..=53)];
    let mut to_services = nft::spread(&service, &["10.0.0.1:8080".parse()?, "10.0.0.2:8080".parse()?]);
    to_services.extend(nft::spread(&dns, &["[fd00::1]:53".parse()?]));
    let itself = vec![Match::Source("10.0.0.1/32".parse()?), Match::Destination("10.0.0.1/32".parse()?)];
    let refuse = vec![Match::DestinationPort(Protocol::Tcp, 1..=1023)];
    Ok(Ruleset {
        table: "every",
        chains: vec![
            Chain { name: "services", hook: Hook::NatPrerouting, rules: to_services },
            Chain {
                name: "hairpin",
                hook: Hook::NatPostrouting,
                rules: vec![Rule { matches: itself, action: Action::Masquerade }],
            },
            Chain {
                name: "firewall",
                hook: Hook::FilterForward,
                rules: vec![Rule { matches: refuse, action: Action::Drop }],
            },
            Chain { name: "in", hook: Hook::FilterInput, rules: vec![] },
            Chain { name: "out", hook: Hook::FilterOutput, rules: vec![] },
        ],
    })
}

/// Applies in `namespace` and gives back whether the kernel has just that.
fn assert_applied(namespace: &Namespace, ruleset: &Ruleset) -> Result<(), Failed> {
    namespace.run(|| nft::apply(ruleset))??;
    let have = namespace.run(|| nft::list(ruleset.table))??;
    let want: Vec<_> = ruleset.chains.iter().map(Chain::in_kernel).collect();
    assert_eq!(have, Some(want), "{ruleset}");
    Ok(())
}

fn the_kernel_has_exactly_the_rules() -> Result<(), Failed> {
    let namespace = Namespace::create()?;
    for settings in [Settings::default(), marked(), everything_skipped()?] {
        assert_applied(&namespace, &rules(&settings))?;
    }
    assert_applied(&namespace, &every_expression()?)
}

fn applying_twice_is_applying_once() -> Result<(), Failed> {
    let namespace = Namespace::create()?;
    let ruleset = rules(&everything_skipped()?);
    assert_applied(&namespace, &ruleset)?;
    assert_applied(&namespace, &ruleset)
}

fn applying_replaces_what_was_there() -> Result<(), Failed> {
    let namespace = Namespace::create()?;
    assert_applied(&namespace, &rules(&everything_skipped()?))?;
    assert_applied(&namespace, &Ruleset { table: TABLE, ..every_expression()? })?;
    assert_applied(&namespace, &rules(&Settings::default()))
}

fn removing_leaves_nothing_and_can_be_repeated() -> Result<(), Failed> {
    let namespace = Namespace::create()?;
    let others = every_expression()?;
    assert_applied(&namespace, &others)?;
    assert_applied(&namespace, &rules(&Settings::default()))?;
    for _ in 0..2 {
        namespace.run(|| nft::remove(TABLE))??;
        assert_eq!(namespace.run(|| nft::list(TABLE))??, None);
        assert!(namespace.run(|| nft::list(others.table))??.is_some(), "only our table goes");
    }
    Ok(())
}

fn the_longest_lists_fit() -> Result<(), Failed> {
    let ports = (0..256).map(|n| (10_000 + 3 * n).to_string()).collect::<Vec<_>>().join(",");
    let subnets = (0..256).map(|n| format!("fd00:{n:x}::/37")).collect::<Vec<_>>().join(",");
    let settings = Settings {
        skip_inbound_ports: ports.parse()?,
        skip_outbound_ports: ports.parse()?,
        skip_subnets: subnets.parse()?,
        ..marked()
    };
    assert_eq!(settings.skip_subnets.nets().len(), 256);
    assert_applied(&Namespace::create()?, &rules(&settings))
}

fn a_refused_rule_is_named_and_changes_nothing() -> Result<(), Failed> {
    let namespace = Namespace::create()?;
    let before = rules(&Settings::default());
    assert_applied(&namespace, &before)?;
    let mut after = before.clone();
    // Only a nat chain can redirect.
    after.chains[0].hook = Hook::FilterOutput;
    let error = namespace.run(|| nft::apply(&after))?.expect_err("the kernel refuses it").to_string();
    assert!(error.contains("add to the chain outbound of the table inet mesh the rule `tcp flags"), "{error}");
    let want: Vec<_> = before.chains.iter().map(Chain::in_kernel).collect();
    assert_eq!(namespace.run(|| nft::list(TABLE))??, Some(want));
    Ok(())
}

/// Only where an `nft` is installed: the product and its tests need none.
fn the_text_is_what_nft_shows_and_reads() -> Result<(), Failed> {
    for ruleset in [rules(&Settings::default()), rules(&everything_skipped()?), every_expression()?] {
        let (ours, theirs) = (Namespace::create()?, Namespace::create()?);
        assert_applied(&ours, &ruleset)?;
        let shown =
            match ours.run(|| Command::new("nft").args(["-y", "list", "table", "inet", ruleset.table]).output())? {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                shown => shown?,
            };
        assert_eq!(String::from_utf8(shown.stdout)?, ruleset.to_string());

        for _ in 0..2 {
            let mut nft = theirs.spawn(Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()))?;
            nft.stdin.take().ok_or("no stdin")?.write_all(ruleset.script().as_bytes())?;
            assert!(nft.wait()?.success(), "{}", ruleset.script());
        }
        let read = theirs.run(|| nft::list(ruleset.table))??;
        assert_eq!(read, ours.run(|| nft::list(ruleset.table))??, "nft makes the same instructions of the text");
    }
    Ok(())
}
