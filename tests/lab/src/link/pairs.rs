//! The sixteen pairs of paths that multipath tunnels are compared on.

use super::spec::LinkSpec;

/// Two paths between a client and a gateway, by the name the comparison knows them by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathPair {
    /// The name of the pair.
    pub name: &'static str,
    /// The first path, in words.
    pub a: &'static str,
    /// The second path, in words.
    pub b: &'static str,
}

impl PathPair {
    /// The pair of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        SIXTEEN_PAIRS.iter().find(|pair| pair.name == name).copied()
    }

    /// The first path.
    #[must_use]
    pub fn first(&self) -> LinkSpec {
        read(self.a)
    }

    /// The second path.
    #[must_use]
    pub fn second(&self) -> LinkSpec {
        read(self.b)
    }
}

/// A test reads every word of the table, so that none is ever wrong.
fn read(words: &str) -> LinkSpec {
    words.parse().unwrap_or_default()
}

const fn pair(name: &'static str, a: &'static str, b: &'static str) -> PathPair {
    PathPair { name, a, b }
}

/// The pairs; the second figure after a delay is normally distributed jitter.
pub const SIXTEEN_PAIRS: &[PathPair] = &[
    pair("baseline", "delay 20ms rate 50mbit", "delay 20ms rate 50mbit"),
    pair("rtt_40", "delay 20ms rate 50mbit", "delay 40ms rate 50mbit"),
    pair("rtt_70", "delay 20ms rate 50mbit", "delay 70ms rate 50mbit"),
    pair("rtt_120", "delay 20ms rate 50mbit", "delay 120ms rate 50mbit"),
    pair("rtt_320", "delay 20ms rate 50mbit", "delay 320ms rate 50mbit"),
    pair("jit_5", "delay 20ms 5ms normal rate 50mbit", "delay 20ms 5ms normal rate 50mbit"),
    pair("jit_20", "delay 20ms 20ms normal rate 50mbit", "delay 20ms 20ms normal rate 50mbit"),
    pair("loss_05", "delay 20ms loss 0.5% rate 50mbit", "delay 20ms loss 0.5% rate 50mbit"),
    pair("loss_2", "delay 20ms loss 2% rate 50mbit", "delay 20ms loss 2% rate 50mbit"),
    pair("bw_4to1", "delay 20ms rate 50mbit", "delay 20ms rate 12mbit"),
    pair("bw_10to1", "delay 20ms rate 100mbit", "delay 20ms rate 10mbit"),
    pair(
        "dual_lte",
        "delay 30ms 5ms normal loss 0.5% rate 40mbit",
        "delay 45ms 8ms normal loss 0.5% rate 25mbit",
    ),
    pair("fiber_lte", "delay 8ms rate 300mbit", "delay 40ms 8ms normal loss 0.5% rate 30mbit"),
    pair(
        "lte_starlink",
        "delay 35ms 8ms normal rate 40mbit",
        "delay 50ms 25ms normal loss 1% rate 100mbit",
    ),
    pair("lte_geo", "delay 35ms rate 40mbit", "delay 320ms 20ms normal loss 0.5% rate 20mbit"),
    pair(
        "congested",
        "delay 50ms 20ms normal loss 2% rate 20mbit",
        "delay 60ms 25ms normal loss 2% rate 15mbit",
    ),
];
