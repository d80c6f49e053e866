//! The virtio header in front of every packet of a TUN queue with offload, and where things lie
//! inside a TCP or UDP packet.

use tun_rs::{VIRTIO_NET_HDR_LEN, checksum};

/// Bytes of the header (`struct virtio_net_hdr`, without merged buffers).
pub(super) const VNET_LEN: usize = VIRTIO_NET_HDR_LEN;

pub(super) const NEEDS_CSUM: u8 = 1;
pub(super) const GSO_NONE: u8 = 0;
pub(super) const GSO_TCPV4: u8 = 1;
pub(super) const GSO_TCPV6: u8 = 4;
pub(super) const GSO_UDP_L4: u8 = 5;
/// Joined to a TCP type when the first segment carries CWR.
const GSO_ECN: u8 = 0x80;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const UDP_HEADER: usize = 8;
pub(super) const TCP_CHECKSUM: usize = 16;
pub(super) const UDP_CHECKSUM: usize = 6;

/// A decoded virtio header; all fields are in the machine's byte order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vnet {
    pub(super) flags: u8,
    pub(super) gso_type: u8,
    pub(super) header_len: u16,
    pub(super) gso_size: u16,
    pub(super) csum_start: u16,
    pub(super) csum_offset: u16,
}

impl Vnet {
    pub(super) fn read(b: &[u8; VNET_LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([b[at], b[at + 1]]);
        Self {
            flags: b[0],
            gso_type: b[1] & !GSO_ECN,
            header_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    pub(super) fn write(&self) -> [u8; VNET_LEN] {
        let mut b = [0; VNET_LEN];
        b[0] = self.flags;
        b[1] = self.gso_type;
        for (at, word) in
            [(2, self.header_len), (4, self.gso_size), (6, self.csum_start), (8, self.csum_offset)]
        {
            put(&mut b, at, word.to_ne_bytes());
        }
        b
    }
}

/// Where the transport header and payload of an unfragmented packet lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) v6: bool,
    pub(super) protocol: u8,
    /// Offset of the transport header.
    pub(super) transport: usize,
    /// Offset of the payload.
    pub(super) payload: usize,
}

impl Layout {
    /// Reads a whole TCP or UDP packet without IP options, extension headers or fragmentation;
    /// `None` for anything else, and for lengths that contradict each other.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let (v6, protocol, transport) = match packet.first()? >> 4 {
            4 if packet.len() >= 20 && packet[0] & 15 == 5 => {
                let fragment = word(packet, 6) & 0x3fff;
                if usize::from(word(packet, 2)) != packet.len() || fragment != 0 {
                    return None;
                }
                (false, packet[9], 20)
            }
            6 if packet.len() >= 40 => {
                if usize::from(word(packet, 4)) != packet.len() - 40 {
                    return None;
                }
                (true, packet[6], 40)
            }
            _ => return None,
        };
        let segment = &packet[transport..];
        let header = match protocol {
            TCP if segment.len() >= 20 => usize::from(segment[12] >> 4) * 4,
            UDP if segment.len() >= UDP_HEADER
                && usize::from(word(segment, 4)) == segment.len() =>
            {
                UDP_HEADER
            }
            _ => return None,
        };
        let valid =
            header >= UDP_HEADER && header <= segment.len() && (protocol == UDP || header >= 20);
        valid.then_some(Self { v6, protocol, transport, payload: transport + header })
    }

    /// Offset of the transport checksum inside the transport header.
    pub(super) fn csum_offset(&self) -> usize {
        if self.protocol == TCP { TCP_CHECKSUM } else { UDP_CHECKSUM }
    }

    /// Source and destination address, as they lie in the IP header.
    pub(super) fn addresses<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        if self.v6 { &packet[8..40] } else { &packet[12..20] }
    }

    /// A packet with this layout and one with the other's belong to one flow.
    pub(super) fn same_flow(&self, packet: &[u8], other: &Self, theirs: &[u8]) -> bool {
        let ports = self.transport..self.transport + 4;
        (self.v6, self.protocol) == (other.v6, other.protocol)
            && self.addresses(packet) == other.addresses(theirs)
            && packet[ports.clone()] == theirs[ports]
    }

    /// The transport checksum of a whole packet is right.
    pub(super) fn checksum_holds(&self, packet: &[u8]) -> bool {
        let segment = &packet[self.transport..];
        let pseudo = pseudo_sum(self.addresses(packet), self.protocol, segment.len());
        // Zero means that a UDP sender computed none.
        (self.protocol == TCP || word(segment, UDP_CHECKSUM) != 0)
            && checksum(segment, pseudo) == 0xffff
    }
}

/// The unfolded sum of the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1).
pub(super) fn pseudo_sum(addresses: &[u8], protocol: u8, transport_len: usize) -> u64 {
    let words = addresses.chunks_exact(2).map(|w| u64::from(u16::from_be_bytes([w[0], w[1]])));
    words.sum::<u64>() + u64::from(protocol) + transport_len as u64
}

/// Folds a sum to 16 bits.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Sets the length fields of the IP header (and the checksum of an IPv4 one) for a packet of `len`
/// bytes whose transport header starts at `transport`.
pub(super) fn set_ip_length(header: &mut [u8], v6: bool, transport: usize, len: usize) {
    if v6 {
        put(header, 4, ((len - 40) as u16).to_be_bytes());
    } else {
        put(header, 2, (len as u16).to_be_bytes());
        put(header, 10, [0, 0]);
        let sum = !checksum(&header[..transport], 0);
        put(header, 10, sum.to_be_bytes());
    }
}

pub(super) fn word(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

pub(super) fn put<const N: usize>(b: &mut [u8], at: usize, value: [u8; N]) {
    b[at..at + N].copy_from_slice(&value);
}
