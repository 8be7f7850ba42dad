//! Values of single variables: text in, value or reason out.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use mesh_runtime::telemetry::{self, Format};

use crate::config::{AccessLog, HostPort, Unresolved};

pub(super) fn host_port(text: &str) -> Result<HostPort, String> {
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("{port:?} is no port"))?;
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match in_brackets {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
        Some(address) => return Err(format!("{address:?} is no IPv6 address")),
        None if host.contains(':') => return Err("an IPv6 address stands in brackets".into()),
        None => host,
    };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(in_name) {
        return Err(format!("{host:?} is no host name"));
    }
    Ok(HostPort { host: host.to_owned(), port })
}

pub(super) fn access_log(text: &str) -> Result<AccessLog, String> {
    [AccessLog::Off, AccessLog::Json]
        .into_iter()
        .find(|known| known.as_str() == text)
        .ok_or_else(|| "is neither".into())
}

pub(super) fn collector(text: &str) -> Result<HostPort, String> {
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return Err(format!("{scheme} is not spoken")),
        None => return Err("has no http://".into()),
    };
    host_port(rest.strip_suffix('/').unwrap_or(rest))
}

pub(super) fn mark(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    number.filter(|mark| *mark != 0).ok_or_else(|| "is not a number from 1 to 0xffffffff".into())
}

pub(super) fn unresolved(text: &str) -> Result<Unresolved, String> {
    [Unresolved::Refuse, Unresolved::PassThrough]
        .into_iter()
        .find(|known| known.as_str() == text)
        .ok_or_else(|| "is neither".into())
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    telemetry::check(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

pub(super) fn log_format(text: &str) -> Result<Format, String> {
    match text {
        "plain" => Ok(Format::Plain),
        "json" => Ok(Format::Json),
        _ => Err("is neither plain nor json".into()),
    }
}

pub(super) fn within<T: FromStr + PartialOrd + fmt::Display>(text: &str, least: T, most: T) -> Result<T, String> {
    let number: Option<T> = text.parse().ok();
    number
        .filter(|number| *number >= least && *number <= most)
        .ok_or_else(|| format!("is not a number from {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controller_addresses() {
        for (text, good) in [
            ("mesh-controller.mesh-system.svc:8443", true),
            ("10.0.0.1:1", true),
            ("[::1]:8443", true),
            ("host", false),
            ("host:0", false),
            ("host:99999", false),
            (":8443", false),
            ("[host]:1", false),
            ("https://host:1", false),
        ] {
            assert_eq!(host_port(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn collectors_are_spoken_to_in_clear_text() {
        for (text, good) in [
            ("http://otel:4317", true),
            ("http://[fd00::1]:4317/", true),
            ("https://otel:4317", false),
            ("otel:4317", false),
            ("http://otel", false),
            ("http://otel:4317/v1/traces", false),
        ] {
            assert_eq!(collector(text).is_ok(), good, "{text}");
        }
    }
}
