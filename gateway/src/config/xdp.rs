//! `[xdp]`: datagrams straight from an interface's receive queues.

use bauta_xdp::Mode;
use serde::Deserialize;

/// `[xdp]`: AF_XDP ingress.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Xdp {
    /// Whether, and where in the kernel.
    pub mode: XdpMode,
    /// The interfaces; empty: those that hold `listen`'s address, or have a default route.
    pub interfaces: Vec<String>,
}

/// Where in the kernel datagrams are taken. What cannot be had is logged, and the UDP socket
/// receives as it does without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Nowhere: the UDP socket receives all of them.
    #[default]
    Off,
    /// In the driver if it can, else behind it.
    Auto,
    /// In the driver or not at all.
    Native,
    /// Behind the driver, on any Ethernet interface.
    Skb,
}

impl XdpMode {
    /// The modes to be tried, in order.
    pub fn modes(self) -> &'static [Mode] {
        match self {
            Self::Off => &[],
            Self::Auto => &bauta_xdp::FASTEST_FIRST,
            Self::Native => &[Mode::Native],
            Self::Skb => &[Mode::Skb],
        }
    }
}
