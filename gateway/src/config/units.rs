//! The units of the configuration file: networks, rates and times as people write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A network: an address whose host bits are zero, and a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Net {
    /// The first address.
    pub addr: IpAddr,
    /// Bits that are fixed: 0–32 or 0–128.
    pub len: u8,
}

impl Net {
    /// Bits of an address of this family.
    pub const fn width(&self) -> u8 {
        if self.addr.is_ipv4() { 32 } else { 128 }
    }

    /// Whether `ip` lies in this network; never, for the other family.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.addr.is_ipv4() == ip.is_ipv4()
            && (bits(self.addr) ^ bits(ip)) & mask(self.width(), self.len) == 0
    }

    /// The address `offset` places after the first; `None` once it leaves the network.
    pub fn nth(&self, offset: u32) -> Option<IpAddr> {
        let ip = match self.addr {
            IpAddr::V4(a) => IpAddr::V4(u32::from(a).checked_add(offset)?.into()),
            IpAddr::V6(a) => IpAddr::V6(u128::from(a).checked_add(offset.into())?.into()),
        };
        self.contains(ip).then_some(ip)
    }

    /// How far `ip` is from the first address; `None` outside, or beyond `u32`.
    pub fn offset(&self, ip: IpAddr) -> Option<u32> {
        if !self.contains(ip) {
            return None;
        }
        u32::try_from(bits(ip) - bits(self.addr)).ok()
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

fn mask(width: u8, len: u8) -> u128 {
    if len == 0 {
        0
    } else {
        (u128::MAX >> (128 - u32::from(width))) & (u128::MAX << (width - len))
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr
            .parse()
            .map_err(|_| format!("`{text}` is not a network; write e.g. 10.77.0.0/16"))?;
        let width = if addr.is_ipv4() { 32 } else { 128 };
        let len = match len {
            None => width,
            Some(len) => len
                .parse()
                .ok()
                .filter(|len| *len <= width)
                .ok_or_else(|| format!("`{text}`: the prefix length must be 0 to {width}"))?,
        };
        if bits(addr) & !mask(width, len) & mask(width, width) != 0 {
            return Err(format!("`{text}` has bits set after its prefix of {len}; zero them"));
        }
        Ok(Self { addr, len })
    }
}

impl TryFrom<String> for Net {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A rate in bits a second: `800kbit`, `100mbit`, `2.5gbit`, or a plain number of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Scalar", into = "String")]
pub struct Rate(pub u64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0), ("", 1.0)];
        let lower = text.trim().to_ascii_lowercase();
        let lower = lower.strip_suffix("/s").unwrap_or(&lower);
        scaled(lower, &units)
            .filter(|bits| (1.0..=1e15).contains(bits))
            .map(|bits| Self(bits as u64))
            .ok_or_else(|| format!("`{text}` is not a rate; write e.g. 100mbit or 2.5gbit"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n % 1_000_000_000 == 0 => write!(f, "{}gbit", n / 1_000_000_000),
            n if n % 1_000_000 == 0 => write!(f, "{}mbit", n / 1_000_000),
            n if n % 1_000 == 0 => write!(f, "{}kbit", n / 1_000),
            n => write!(f, "{n}bit"),
        }
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

/// An amount of bytes: `500MB`, `1.5TB`, `100GiB`, or a plain number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Scalar", into = "String")]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const KIB: f64 = 1024.0;
        let units = [
            ("tb", 1e12),
            ("gb", 1e9),
            ("mb", 1e6),
            ("kb", 1e3),
            ("tib", KIB * KIB * KIB * KIB),
            ("gib", KIB * KIB * KIB),
            ("mib", KIB * KIB),
            ("kib", KIB),
            ("b", 1.0),
            ("", 1.0),
        ];
        scaled(&text.trim().to_ascii_lowercase(), &units)
            .filter(|bytes| (1.0..=1e18).contains(bytes))
            .map(|bytes| Self(bytes as u64))
            .ok_or_else(|| format!("`{text}` is not an amount; write e.g. 500MB or 1.5TB"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n > 0 && n % 1_000_000_000 == 0 => write!(f, "{}GB", n / 1_000_000_000),
            n if n > 0 && n % 1_000_000 == 0 => write!(f, "{}MB", n / 1_000_000),
            n => write!(f, "{n}B"),
        }
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl TryFrom<Scalar> for Size {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, String> {
        scalar.parse()
    }
}

/// A length of time: `500ms`, `30s`, `2m`, `1h`, or a plain number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)];
        scaled(text.trim(), &units)
            .filter(|secs| (0.0..=1e8).contains(secs))
            .map(|secs| Self(Duration::from_secs_f64(secs)))
            .ok_or_else(|| format!("`{text}` is not a time; write e.g. 500ms, 30s, 2m or 1h"))
    }
}

/// `12.5mbit` against `("mbit", 1e6)` gives 12.5e6.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].trim();
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    digits.trim().parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| n * scale)
}

/// A number or a string; both spellings of rates and times are natural in TOML.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number or a string such as \"30s\" or \"100mbit\"")]
enum Scalar {
    Integer(u64),
    Float(f64),
    Text(String),
}

impl Scalar {
    fn parse<T: FromStr>(self) -> Result<T, T::Err> {
        match self {
            Self::Integer(n) => n.to_string().parse(),
            Self::Float(n) => n.to_string().parse(),
            Self::Text(text) => text.parse(),
        }
    }
}

impl TryFrom<Scalar> for Rate {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, String> {
        scalar.parse()
    }
}

impl TryFrom<Scalar> for Span {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, String> {
        scalar.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_counts_its_addresses() {
        let net: Net = "10.77.0.0/16".parse().unwrap();
        assert_eq!(net.nth(258).unwrap().to_string(), "10.77.1.2");
        assert_eq!(net.offset("10.77.1.2".parse().unwrap()), Some(258));
        assert_eq!(net.nth(65536), None);
        assert!(!net.contains("10.78.0.0".parse().unwrap()));
        let six: Net = "fd00::/64".parse().unwrap();
        assert_eq!(six.nth(2).unwrap().to_string(), "fd00::2");
        assert_eq!(six.offset("fd00::1:0:0".parse().unwrap()), None, "beyond u32");
        assert!(!net.contains("::".parse().unwrap()));
    }

    #[test]
    fn a_network_with_host_bits_is_refused_with_what_to_do() {
        assert!("10.0.0.1/8".parse::<Net>().unwrap_err().contains("zero them"));
        assert!("10.0.0.0/33".parse::<Net>().unwrap_err().contains("0 to 32"));
        assert!("ten/8".parse::<Net>().unwrap_err().contains("10.77.0.0/16"));
        assert_eq!("192.0.2.7".parse::<Net>().unwrap().len, 32);
        assert!("0.0.0.0/0".parse::<Net>().unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!("::/0".parse::<Net>().unwrap().contains("2001:db8::".parse().unwrap()));
    }

    #[test]
    fn rates_and_times_are_read_as_people_write_them() {
        assert_eq!("100mbit".parse(), Ok(Rate(100_000_000)));
        assert_eq!("2.5Gbit/s".parse(), Ok(Rate(2_500_000_000)));
        assert_eq!(Rate(2_500_000_000).to_string(), "2500mbit");
        assert!("0".parse::<Rate>().is_err());
        assert!("-5mbit".parse::<Rate>().is_err());
        assert_eq!("1.5TB".parse(), Ok(Size(1_500_000_000_000)));
        assert_eq!("2 gib".parse(), Ok(Size(2 << 30)));
        assert_eq!(
            (Size(100_000_000_000).to_string(), Size(7).to_string()),
            ("100GB".into(), "7B".into())
        );
        assert!("0".parse::<Size>().is_err() && "-1GB".parse::<Size>().is_err());
        assert_eq!("2m".parse(), Ok(Span::secs(120)));
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        assert!("NaN".parse::<Span>().is_err());
        assert!("soon".parse::<Span>().is_err());
    }
}
