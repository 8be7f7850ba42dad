//! Lists of ports and networks as people write them in annotations and the injector writes them into environments.
//!
//! One parser for the injector (validates), the redirect (skips), the controller (derives which ports are meshed) and the
//! proxy. Pure.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::IpNet;

/// Most entries one list may have: each becomes an element of a kernel set, and annotations are written by tenants.
pub const MAX_ENTRIES: usize = 256;

/// Ports, e.g. `25,3000-3010`: sorted, merged, never 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PortSet(Vec<RangeInclusive<u16>>);

/// Networks, e.g. `10.0.0.0/8,fd00::/8`; a bare address is that one address. In the order written, without repetition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Subnets(Vec<IpNet>);

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// Neither a port nor a range.
    #[error("{0:?} is not a port (1-65535) or a range such as 3000-3010")]
    Port(String),
    /// A range that ends before it starts.
    #[error("the range {0} ends before it starts")]
    Backwards(String),
    /// Neither a network nor an address.
    #[error("{0:?} is not a network such as 10.0.0.0/8 or an address")]
    Subnet(String),
    /// More than [`MAX_ENTRIES`].
    #[error("more than {MAX_ENTRIES} entries")]
    TooMany,
}

impl PortSet {
    /// The set of these ranges.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| *range.end() > 0 && !range.is_empty()).collect();
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
        for range in ranges {
            let start = (*range.start()).max(1);
            match merged.last_mut() {
                Some(last) if u32::from(start) <= u32::from(*last.end()) + 1 => {
                    *last = *last.start()..=(*last.end()).max(*range.end());
                }
                _ => merged.push(start..=*range.end()),
            }
        }
        Self(merged)
    }

    /// Whether the port is in it.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// Its ranges: ascending, disjoint, not adjacent.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }

    /// Whether it has no port.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for PortSet {
    type Err = BadList;

    fn from_str(text: &str) -> Result<Self, BadList> {
        Ok(Self::new(entries(text)?.into_iter().map(range).collect::<Result<Vec<_>, _>>()?))
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (start, end) = (range.start(), range.end());
            if start == end { write!(f, "{comma}{start}")? } else { write!(f, "{comma}{start}-{end}")? }
        }
        Ok(())
    }
}

impl Subnets {
    /// Its networks, each with its host bits cleared.
    pub fn nets(&self) -> &[IpNet] {
        &self.0
    }

    /// Whether it has no network.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<IpNet> for Subnets {
    fn from_iter<T: IntoIterator<Item = IpNet>>(nets: T) -> Self {
        let mut distinct = Vec::new();
        for net in nets {
            let net = net.trunc();
            if !distinct.contains(&net) {
                distinct.push(net);
            }
        }
        Self(distinct)
    }
}

impl FromStr for Subnets {
    type Err = BadList;

    fn from_str(text: &str) -> Result<Self, BadList> {
        entries(text)?
            .into_iter()
            .map(|entry| {
                let net = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
                net.map_err(|_| BadList::Subnet(quoted(entry)))
            })
            .collect()
    }
}

impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, net) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{net}")?;
        }
        Ok(())
    }
}

/// The entries between commas; spaces around them and empty entries do not count.
fn entries(text: &str) -> Result<Vec<&str>, BadList> {
    let entries: Vec<&str> =
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).take(MAX_ENTRIES + 1).collect();
    if entries.len() > MAX_ENTRIES { Err(BadList::TooMany) } else { Ok(entries) }
}

fn range(entry: &str) -> Result<RangeInclusive<u16>, BadList> {
    let bad = || BadList::Port(quoted(entry));
    let (start, end) = entry.split_once('-').unwrap_or((entry, entry));
    let (start, end) = (port(start).ok_or_else(bad)?, port(end).ok_or_else(bad)?);
    if start > end { Err(BadList::Backwards(quoted(entry))) } else { Ok(start..=end) }
}

fn port(text: &str) -> Option<u16> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|port| *port != 0)
}

/// Foreign text, short enough for a message.
fn quoted(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_sorted_and_merged() {
        for (text, want) in [
            ("", ""),
            (" , ", ""),
            ("80", "80"),
            ("443, 80", "80,443"),
            ("3000-3010,3005-3020,3021", "3000-3021"),
            ("1-65535,65535", "1-65535"),
        ] {
            assert_eq!(text.parse::<PortSet>().expect("parses").to_string(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in ["0", "65536", "http", "-1", "+80", "80-", "-80", "90-80", "80;81", "1-2-3", "٣"] {
            assert!(text.parse::<PortSet>().is_err(), "{text}");
        }
        assert_eq!("1,".repeat(300).parse::<PortSet>(), Err(BadList::TooMany));
    }

    #[test]
    fn a_set_contains_its_ports() {
        let set: PortSet = "25,3000-3010".parse().expect("parses");
        assert!(set.contains(25) && set.contains(3000) && set.contains(3010));
        assert!(!set.contains(26) && !set.contains(2999) && !set.contains(3011) && !set.contains(0));
    }

    #[test]
    fn subnets_are_networks_or_addresses() {
        let nets: Subnets = "10.1.2.3/8, fd00::/8,192.0.2.1,10.0.0.0/8".parse().expect("parses");
        assert_eq!(nets.to_string(), "10.0.0.0/8,fd00::/8,192.0.2.1/32");
        for text in ["10.0.0.0/33", "local", "10.0.0/8", "::1/129"] {
            assert!(text.parse::<Subnets>().is_err(), "{text}");
        }
    }
}
