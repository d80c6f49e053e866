//! Rates as people write them.

use std::str::FromStr;

use bauta_masque::bond::field::MIN_RATE;

/// The most that can be asked for, bits a second: a Terabit.
const MAX_RATE: f64 = 1e12;

/// Bits a second: `800kbit`, `50mbit`, `2.5gbit`, or a plain number of bits; 64 kbit/s to 1 Tbit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let lower = lower.strip_suffix("/s").unwrap_or(&lower);
        let number = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let scale = match &lower[number.len()..] {
            "" | "bit" => Some(1.0),
            "kbit" => Some(1e3),
            "mbit" => Some(1e6),
            "gbit" => Some(1e9),
            _ => None,
        };
        let bits = number.trim().parse::<f64>().ok().zip(scale).map(|(n, scale)| n * scale);
        bits.filter(|bits| (MIN_RATE as f64..=MAX_RATE).contains(bits))
            .map(|bits| Self(bits as u64))
            .ok_or_else(|| {
                format!("`{text}` is not a rate from 64kbit to 1000gbit; write e.g. 50mbit")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_bounded() {
        for (text, bits) in
            [("50mbit", 50_000_000), ("2.5 Gbit/s", 2_500_000_000), ("64000", 64_000)]
        {
            assert_eq!(text.parse(), Ok(Rate(bits)), "{text}");
        }
        for bad in ["", "fast", "10", "-5mbit", "nanmbit", "5mbyte", "2000gbit"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
