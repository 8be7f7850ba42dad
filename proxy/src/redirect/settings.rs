//! What people may say about the redirect: text in, [`Settings`] out, with every mistake at once. Pure.

use std::fmt;

use mesh_proto::names;
use mesh_proto::ports::{PortSet, Subnets};

use super::Args;

/// What the redirect leaves alone. Ports of the proxy itself are fixed ([`names`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Inbound ports that are not redirected.
    pub skip_inbound_ports: PortSet,
    /// Outbound ports that are not redirected.
    pub skip_outbound_ports: PortSet,
    /// Networks whose addresses outbound connections reach without the proxy.
    pub skip_subnets: Subnets,
    /// How the proxy's own connections are known.
    pub exempt: Exempt,
}

/// The one thing that distinguishes the proxy's sockets from the application's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exempt {
    /// The user it runs as: in Kubernetes, where it has no capability and so cannot mark.
    User(u32),
    /// A mark it sets on its sockets: where all processes have the same user (playground).
    Mark(u32),
}

/// One setting that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSetting {
    /// Name of the environment variable; the argument is called alike.
    pub name: &'static str,
    /// What is wrong with its value.
    pub reason: String,
}

/// All settings that make no sense; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BadSettings(pub Vec<BadSetting>);

impl Default for Settings {
    /// Nothing is left alone but the proxy, known by its user id.
    fn default() -> Self {
        Self {
            skip_inbound_ports: PortSet::default(),
            skip_outbound_ports: PortSet::default(),
            skip_subnets: Subnets::default(),
            exempt: Exempt::User(names::PROXY_UID),
        }
    }
}

impl Settings {
    /// Reads the texts of the arguments (or of the environment behind them); empty means default.
    pub fn parse(args: &Args) -> Result<Self, BadSettings> {
        let mut bad = Vec::new();
        let settings = Self {
            skip_inbound_ports: parsed(names::ENV_SKIP_INBOUND_PORTS, args.skip_inbound_ports.parse(), &mut bad),
            skip_outbound_ports: parsed(names::ENV_SKIP_OUTBOUND_PORTS, args.skip_outbound_ports.parse(), &mut bad),
            skip_subnets: parsed(names::ENV_SKIP_SUBNETS, args.skip_subnets.parse(), &mut bad),
            exempt: parsed(names::ENV_SOCKET_MARK, exempt(args.socket_mark.trim()), &mut bad),
        };
        if bad.is_empty() { Ok(settings) } else { Err(BadSettings(bad)) }
    }
}

impl Default for Exempt {
    fn default() -> Self {
        Self::User(names::PROXY_UID)
    }
}

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, BadSetting { name, reason }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{name}: {reason}")?;
        }
        Ok(())
    }
}

fn exempt(mark: &str) -> Result<Exempt, String> {
    if mark.is_empty() {
        return Ok(Exempt::default());
    }
    let number = match mark.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => mark.parse(),
    };
    match number {
        // A mark of 0 is what every unmarked socket has.
        Ok(1..) if !mark.contains('+') => Ok(Exempt::Mark(number.unwrap_or_default())),
        _ => Err(format!(
            "{:?} is not a mark: 1 to {} or 0x1 to {:#x}",
            mark.chars().take(64).collect::<String>(),
            u32::MAX,
            u32::MAX
        )),
    }
}

/// The value, or its default with the mistake noted.
fn parsed<T: Default, E: fmt::Display>(name: &'static str, result: Result<T, E>, bad: &mut Vec<BadSetting>) -> T {
    result.unwrap_or_else(|error| {
        bad.push(BadSetting { name, reason: error.to_string() });
        T::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(inbound: &str, outbound: &str, subnets: &str, mark: &str) -> Args {
        Args {
            skip_inbound_ports: inbound.into(),
            skip_outbound_ports: outbound.into(),
            skip_subnets: subnets.into(),
            socket_mark: mark.into(),
            ..Args::default()
        }
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        assert_eq!(Settings::parse(&args("", " ", "", "")), Ok(Settings::default()));
    }

    #[test]
    fn a_mark_replaces_the_user() {
        for (text, mark) in [("1", 1), ("0x2102", 0x2102), (" 8450 ", 8450), ("0xffffffff", u32::MAX)] {
            assert_eq!(Settings::parse(&args("", "", "", text)).map(|s| s.exempt), Ok(Exempt::Mark(mark)), "{text}");
        }
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let bad = Settings::parse(&args("http", "90-80", "10.0.0.0/33", "0")).expect_err("all four are wrong");
        assert_eq!(
            bad.to_string(),
            "MESH_SKIP_INBOUND_PORTS: \"http\" is not a port (1-65535) or a range such as 3000-3010; \
             MESH_SKIP_OUTBOUND_PORTS: the range 90-80 ends before it starts; \
             MESH_SKIP_SUBNETS: \"10.0.0.0/33\" is not a network such as 10.0.0.0/8 or an address; \
             MESH_SOCKET_MARK: \"0\" is not a mark: 1 to 4294967295 or 0x1 to 0xffffffff"
        );
        for mark in ["+1", "0x", "-1", "4294967296", "0x100000000", "mark", "0x+1"] {
            assert!(Settings::parse(&args("", "", "", mark)).is_err(), "{mark}");
        }
    }
}
