//! Quantities as people write them: `50mbit`, `20ms`, `250KB`, `0.5%`.

use std::time::Duration;

use super::parse::ParseError;

/// The fastest rate a link may claim, in bit/s.
const RATE_MAX: f64 = 400e9;
/// The longest span of time.
const DURATION_MAX: f64 = 3600.0;
/// The largest number of bytes.
const BYTES_MAX: f64 = 4e9;

type Units = &'static [(&'static str, f64)];

const RATES: Units = &[
    ("gbit", 1e9),
    ("mbit", 1e6),
    ("kbit", 1e3),
    ("gbps", 1e9),
    ("mbps", 1e6),
    ("kbps", 1e3),
    ("bps", 1.0),
    ("bit", 1.0),
];
const DURATIONS: Units = &[("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("s", 1.0)];
const BYTES: Units = &[
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("b", 1.0),
];

/// A rate in bit/s: `50mbit`, `1.5gbit`, `9600bit`; `unlimited` is 0.
pub fn parse_rate(word: &str) -> Result<u64, ParseError> {
    if word == "unlimited" {
        return Ok(0);
    }
    let rate = quantity(word, RATES, RATE_MAX)
        .ok_or_else(|| ParseError::new(word, "a rate like 50mbit, 1.5gbit or unlimited"))?;
    if rate < 1.0 {
        return Err(ParseError::new(word, "a rate of 1bit or more, or unlimited"));
    }
    Ok(rate as u64)
}

/// A span of time: `20ms`, `0.5s`, `100us`.
pub fn parse_duration(word: &str) -> Result<Duration, ParseError> {
    quantity(word, DURATIONS, DURATION_MAX)
        .map(|seconds| Duration::from_nanos((seconds * 1e9).round() as u64))
        .ok_or_else(|| ParseError::new(word, "a time like 20ms, 0.5s or 100us, at most an hour"))
}

/// A number of bytes: `250KB` (250,000), `64KiB`, `1500B`.
pub fn parse_bytes(word: &str) -> Result<u64, ParseError> {
    quantity(word, BYTES, BYTES_MAX)
        .map(|bytes| bytes.round() as u64)
        .ok_or_else(|| ParseError::new(word, "a size like 250KB, 64KiB or 1500B"))
}

/// A share of one: `0.5%` is 0.005.
pub fn parse_percent(word: &str) -> Result<f64, ParseError> {
    word.strip_suffix('%')
        .and_then(|number| number.parse::<f64>().ok())
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| ParseError::new(word, "a share like 0.5%, from 0% to 100%"))
}

fn quantity(word: &str, units: Units, max: f64) -> Option<f64> {
    let lower = word.to_ascii_lowercase();
    let unit_at = lower.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = lower.split_at(unit_at);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    let value = number.parse::<f64>().ok()? * factor;
    (0.0..=max).contains(&value).then_some(value)
}

/// A rate as [`parse_rate`] reads it.
#[must_use]
pub fn format_rate(rate: u64) -> String {
    match rate {
        0 => "unlimited".into(),
        r if r % 1_000_000_000 == 0 => format!("{}gbit", r / 1_000_000_000),
        r if r % 1_000_000 == 0 => format!("{}mbit", r / 1_000_000),
        r if r % 1_000 == 0 => format!("{}kbit", r / 1_000),
        r => format!("{r}bit"),
    }
}

/// A span as [`parse_duration`] reads it.
pub(super) fn format_duration(span: Duration) -> String {
    match span.as_nanos() {
        n if n % 1_000_000 == 0 => format!("{}ms", n / 1_000_000),
        n if n % 1_000 == 0 => format!("{}us", n / 1_000),
        n => format!("{n}ns"),
    }
}

/// A share as [`parse_percent`] reads it.
pub(super) fn format_percent(share: f64) -> String {
    // Twelve digits hide that 0.07 × 100 is not quite 7.
    let digits = format!("{:.12}", share * 100.0);
    format!("{}%", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        assert_eq!(parse_rate("50mbit").unwrap(), 50_000_000);
        assert_eq!(parse_rate("1.5Gbit").unwrap(), 1_500_000_000);
        assert_eq!(parse_rate("unlimited").unwrap(), 0);
        assert_eq!(parse_duration("0.5s").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("100us").unwrap(), Duration::from_micros(100));
        assert_eq!(parse_bytes("250KB").unwrap(), 250_000);
        assert_eq!(parse_bytes("64KiB").unwrap(), 65_536);
        assert_eq!(parse_percent("0.5%").unwrap(), 0.005);
    }

    #[test]
    fn nonsense_is_refused() {
        for word in ["", "mbit", "50", "50mbyte", "-1mbit", "1e99mbit", "NaNmbit", "0bit"] {
            assert!(parse_rate(word).is_err(), "{word}");
        }
        assert!(parse_duration("20").is_err());
        assert!(parse_percent("101%").is_err());
        assert!(parse_percent("NaN%").is_err());
        assert!(parse_percent("5").is_err());
    }

    #[test]
    fn formatted_quantities_are_read_back() {
        for rate in [0, 9_600, 50_000_000, 1_500_000_000, 7] {
            assert_eq!(parse_rate(&format_rate(rate)).unwrap(), rate);
        }
        assert_eq!(format_percent(0.07), "7%");
        assert_eq!(format_percent(0.005), "0.5%");
        assert_eq!(format_duration(Duration::from_micros(1500)), "1500us");
    }
}
