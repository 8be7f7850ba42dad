//! Values of filter options: statuses, latencies, durations. Pure.

use std::{str::FromStr, time::Duration};

/// `503`, `5xx` or `500-504`; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatusRange(pub(crate) u16, pub(crate) u16);

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is not a status such as 503, 5xx or 500-504");
        let number = |text: &str| text.parse().ok().filter(|n| (100..=599).contains(n)).ok_or_else(error);
        if let Some(class) = text.strip_suffix("xx") {
            let class: u16 = class.parse().ok().filter(|n| (1..=5).contains(n)).ok_or_else(error)?;
            return Ok(Self(class * 100, class * 100 + 99));
        }
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let range = Self(number(least)?, number(most)?);
        if range.0 <= range.1 { Ok(range) } else { Err(error()) }
    }
}

/// `200ms`, also written `>200ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LatencyFloor(pub(crate) Duration);

impl FromStr for LatencyFloor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let floor = text.trim_start_matches(['>', '=']);
        parse_duration(floor).map(Self).ok_or_else(|| format!("{text:?} is not a latency such as 200ms or '>200ms'"))
    }
}

/// A whole or decimal number with a unit: `us`, `ms`, `s`, `m`, `h`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

/// [`parse_duration`] for the command line.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is not a duration such as 500ms, 2s or 1m"))
}

/// A time between two looks: not so short that nothing can be told, nor so long that nobody waits.
pub(crate) fn window(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_millis(100), Duration::from_hours(1));
    let window = duration(text)?;
    if (least..=most).contains(&window) { Ok(window) } else { Err(format!("{text:?} is not between 100ms and 1h")) }
}

/// A latency for people: three digits and a unit.
pub(crate) fn show_latency(latency: Duration) -> String {
    let us = latency.as_micros();
    match us {
        0..1_000 => format!("{us}µs"),
        1_000..10_000 => format!("{:.1}ms", latency.as_secs_f64() * 1e3),
        10_000..1_000_000 => format!("{}ms", latency.as_millis()),
        1_000_000..60_000_000 => format!("{:.1}s", latency.as_secs_f64()),
        _ => show_span(latency),
    }
}

/// A longer time for people: its two largest units.
pub(crate) fn show_span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// A number of bytes for people.
pub(crate) fn show_bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes}B"),
        1_024..1_048_576 => format!("{:.1}KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1}MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_single_classes_or_ranges() {
        for (text, expected) in [("503", Some((503, 503))), ("5xx", Some((500, 599))), ("200-204", Some((200, 204)))] {
            assert_eq!(text.parse::<StatusRange>().ok().map(|range| (range.0, range.1)), expected, "{text}");
        }
        for text in ["", "xx", "6xx", "0xx", "99", "600", "504-500", "5x", "-", "500-"] {
            assert!(text.parse::<StatusRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in [
            ("200ms", Some(Duration::from_millis(200))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("2m", Some(Duration::from_mins(2))),
            ("5", None),
            ("s", None),
            ("1..2s", None),
            ("", None),
            ("9999999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        for (text, good) in
            [("0s", false), ("99ms", false), ("100ms", true), ("1h", true), ("61m", false), ("x", false)]
        {
            assert_eq!(window(text).is_ok(), good, "{text}");
        }
        assert_eq!(">200ms".parse::<LatencyFloor>(), Ok(LatencyFloor(Duration::from_millis(200))));
    }

    #[test]
    fn people_read_two_units_at_most() {
        assert_eq!(show_latency(Duration::from_micros(840)), "840µs");
        assert_eq!(show_latency(Duration::from_micros(3_140)), "3.1ms");
        assert_eq!(show_latency(Duration::from_millis(12)), "12ms");
        assert_eq!(show_latency(Duration::from_millis(2_340)), "2.3s");
        assert_eq!(show_span(Duration::from_mins(24 * 60 - 1)), "23h59m");
        assert_eq!(show_bytes(1536), "1.5KiB");
    }
}
