//! What an annotation may be set to: text in, the text that is passed on out, or what is wrong with it.
//!
//! Called through the table. What these let through, the proxy, the kubelet and the API server must take: a value that
//! they refuse would keep the pod from starting.

use std::{fmt::Display, str::FromStr};

use mesh_runtime::telemetry;

use super::table::like;

/// Foreign text, short enough for a message.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

/// One of a few words.
pub(super) fn one_of(text: &str, words: &[&str]) -> Result<String, String> {
    let text = text.trim();
    if words.contains(&text) {
        return Ok(text.to_owned());
    }
    let shown = short(text);
    Err(match like(text, words.iter().copied()) {
        Some(meant) => format!("{shown:?} is not known; did you mean {meant}?"),
        None => format!("{shown:?} is none of {}", words.join(", ")),
    })
}

/// A list of ports or networks.
pub(super) fn list<T: FromStr<Err: Display> + Display>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|list| list.to_string()).map_err(|error| error.to_string())
}

/// A whole number.
pub(super) fn whole(text: &str, least: u32, most: u32) -> Result<String, String> {
    let number = text.trim().parse::<u32>().ok().filter(|number| (least..=most).contains(number));
    number.map(|number| number.to_string()).ok_or_else(|| {
        let shown = short(text);
        format!("{shown:?} is not a number from {least} to {most}")
    })
}

/// A share of the whole.
pub(super) fn share(text: &str) -> Result<String, String> {
    let text = text.trim();
    let plain = !text.is_empty() && text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|number| plain && (0.0..=1.0).contains(number));
    number.map(|number| number.to_string()).ok_or_else(|| {
        let shown = short(text);
        format!("{shown:?} is not a number from 0 to 1, such as 0.1")
    })
}

/// A duration in milliseconds or seconds, as milliseconds.
pub(super) fn milliseconds(text: &str) -> Result<String, String> {
    let text = text.trim();
    let parsed = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => number.parse::<u32>().ok(),
        (None, Some(number)) => number.parse::<u32>().ok().and_then(|number| number.checked_mul(1000)),
        (None, None) => None,
    };
    parsed.filter(|number| (1..=60_000).contains(number)).map(|number| number.to_string()).ok_or_else(|| {
        let shown = short(text);
        format!("{shown:?} is not a time from 1ms to 60s, such as 500ms")
    })
}

/// A filter that the proxy will take.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let text = text.trim();
    telemetry::check(text).map(|()| text.to_owned()).map_err(|error| error.to_string().chars().take(180).collect())
}

/// `http://host:port` of a collector.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let host_and_port = text.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':'));
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    let good = host_and_port.is_some_and(|(host, port)| {
        let port = port.parse::<u16>().is_ok_and(|port| port != 0);
        port && !host.is_empty() && host.len() <= 253 && host.bytes().all(known)
    });
    if good {
        return Ok(text.to_owned());
    }
    let shown = short(text);
    Err(format!("{shown:?} is not like http://collector.observability:4317"))
}

/// An image reference: what a registry could hold, and nothing that could be read as something else.
pub(super) fn image(text: &str) -> Result<String, String> {
    let text = text.trim();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let starts = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if starts && text.len() <= 512 && text.bytes().all(known) && !text.ends_with([':', '/', '@']) {
        return Ok(text.to_owned());
    }
    let shown = short(text);
    Err(format!("{shown:?} is not an image reference such as registry.example/mesh-proxy:1.0"))
}

/// Cores, in whole or thousandths.
pub(super) fn cpu(text: &str) -> Result<String, String> {
    quantity(text, &["", "m"]).ok_or_else(|| {
        let shown = short(text);
        format!("{shown:?} is not an amount of CPU such as 100m or 2")
    })
}

/// Bytes, with a usual suffix; below 4 MiB no process starts.
pub(super) fn memory(text: &str) -> Result<String, String> {
    let found = quantity(text, &["", "k", "M", "G", "Ki", "Mi", "Gi"]);
    found.filter(|text| amount(text).is_some_and(|bytes| bytes >= 4_194_304.0)).ok_or_else(|| {
        let shown = short(text);
        format!("{shown:?} is not an amount of memory such as 64Mi")
    })
}

/// A positive Kubernetes quantity with one of these suffixes.
fn quantity(text: &str, suffixes: &[&str]) -> Option<String> {
    let text = text.trim();
    let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let good = suffixes.contains(&suffix) && amount(text).is_some_and(|amount| amount > 0.0);
    good.then(|| text.to_owned())
}

/// How much a quantity is, to compare it with another.
pub(super) fn amount(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[number.len()..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        _ => return None,
    };
    let digits = number.len() <= 12 && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    number.parse::<f64>().ok().filter(|_| digits).map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_passed_on_in_one_form() {
        assert_eq!(milliseconds(" 500ms"), Ok("500".into()));
        assert_eq!(milliseconds("2s"), Ok("2000".into()));
        assert_eq!(share("0.25"), Ok("0.25".into()));
        assert_eq!(whole("007", 0, 10), Ok("7".into()));
        assert_eq!(endpoint("http://[fd00::1]:4317"), Ok("http://[fd00::1]:4317".into()));
        for good in ["mesh-proxy:1", "r.example:5000/a/b@sha256:00ff", "a"] {
            assert_eq!(image(good), Ok(good.into()));
        }
        for good in ["1", "0.5", "100m"] {
            assert_eq!(cpu(good), Ok(good.into()));
        }
        for good in ["64Mi", "2G", "8000000", "4096Ki"] {
            assert_eq!(memory(good), Ok(good.into()));
        }
    }

    #[test]
    fn what_somebody_else_would_refuse_is_refused_here() {
        for wrong in ["0ms", "61s", "5", "1m", "-1s", "1.5s", "ms", "99999999999s"] {
            assert!(milliseconds(wrong).is_err(), "{wrong}");
        }
        for wrong in ["1.1", "-0", "1e-3", "NaN", "inf", ".", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "https://a:1",
            "a:1",
            "http://a",
            "http://a:0",
            "http://:1",
            "http://a/b:1",
            "http://u@a:1",
            "http://a:1/x",
        ] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "a b", "-a", "a:", "$(X)", "a\nb"] {
            assert!(image(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "0", "-1", "1Zi", "lots", "1 m", "1e3", "Mi", "1.2.3", "1234567890123"] {
            assert!(cpu(wrong).is_err() && memory(wrong).is_err(), "{wrong}");
        }
        assert!(cpu("64Mi").is_err() && memory("100m").is_err() && memory("64").is_err());
        assert_eq!(
            one_of("passthrough", &["refuse", "pass-through"]).unwrap_err(),
            "\"passthrough\" is not known; did you mean pass-through?"
        );
        assert_eq!(one_of("x", &["off", "json"]).unwrap_err(), "\"x\" is none of off, json");
    }
}
