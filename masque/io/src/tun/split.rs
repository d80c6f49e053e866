//! Super-packets from the kernel (GSO) into the packets they stand for.

use tun_rs::checksum;

use super::vnet::{
    GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, TCP, TCP_CHECKSUM, UDP, UDP_CHECKSUM,
    UDP_HEADER, Vnet, pseudo_sum, put, set_ip_length, word,
};
use crate::buffers::DatagramBuf;

const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 0x80;

/// The virtio header contradicts the packet: the packet is dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Completes what the kernel left to us in `packet` and appends the packets it stands for to `out`,
/// each in a buffer of its own.
pub(super) fn split(
    packet: &mut [u8],
    vnet: &Vnet,
    out: &mut Vec<DatagramBuf>,
) -> Result<(), Malformed> {
    if vnet.gso_type == GSO_NONE {
        if vnet.flags & NEEDS_CSUM != 0 {
            complete_checksum(packet, vnet)?;
        }
        out.push(DatagramBuf::copy_of(packet));
        return Ok(());
    }
    let super_packet = Super::parse(packet, vnet)?;
    for n in 0..super_packet.segments() {
        out.push(super_packet.segment(n));
    }
    Ok(())
}

/// The field holds the sum of the pseudo header; the rest is ours (`CHECKSUM_PARTIAL`).
fn complete_checksum(packet: &mut [u8], vnet: &Vnet) -> Result<(), Malformed> {
    let start = usize::from(vnet.csum_start);
    let at = start + usize::from(vnet.csum_offset);
    if at + 2 > packet.len() {
        return Err(Malformed);
    }
    let partial = u64::from(word(packet, at));
    put(packet, at, [0, 0]);
    let sum = nonzero_for_udp(!checksum(&packet[start..], partial), vnet.csum_offset.into());
    put(packet, at, sum.to_be_bytes());
    Ok(())
}

/// UDP says "no checksum" with zero, so a sum of zero is sent as its other form (RFC 768).
fn nonzero_for_udp(sum: u16, csum_offset: usize) -> u16 {
    if sum == 0 && csum_offset == UDP_CHECKSUM { 0xffff } else { sum }
}

struct Super<'a> {
    packet: &'a [u8],
    v6: bool,
    protocol: u8,
    transport: usize,
    payload: usize,
    size: usize,
}

impl<'a> Super<'a> {
    fn parse(packet: &'a [u8], vnet: &Vnet) -> Result<Self, Malformed> {
        let v6 = match packet.first().ok_or(Malformed)? >> 4 {
            4 => false,
            6 => true,
            _ => return Err(Malformed),
        };
        let protocol = match vnet.gso_type {
            GSO_TCPV4 if !v6 => TCP,
            GSO_TCPV6 if v6 => TCP,
            GSO_UDP_L4 => UDP,
            _ => return Err(Malformed),
        };
        // The kernel's header_len may be the length of the whole first packet when it forwards, so
        // the transport header is measured here.
        let transport = usize::from(vnet.csum_start);
        let header = match protocol {
            TCP => usize::from(packet.get(transport + 12).ok_or(Malformed)? >> 4) * 4,
            _ => UDP_HEADER,
        };
        let payload = transport + header;
        let fits = transport >= if v6 { 40 } else { 20 }
            && header >= if protocol == TCP { 20 } else { UDP_HEADER }
            && payload < packet.len()
            && vnet.gso_size > 0;
        let size = usize::from(vnet.gso_size);
        if fits {
            Ok(Self { packet, v6, protocol, transport, payload, size })
        } else {
            Err(Malformed)
        }
    }

    fn segments(&self) -> usize {
        (self.packet.len() - self.payload).div_ceil(self.size)
    }

    /// Segment `n`, complete.
    fn segment(&self, n: usize) -> DatagramBuf {
        let from = self.payload + n * self.size;
        let to = (from + self.size).min(self.packet.len());
        let len = self.payload + (to - from);
        let mut buf = DatagramBuf::take();
        let out = buf.grow(len);
        out[..self.payload].copy_from_slice(&self.packet[..self.payload]);
        out[self.payload..].copy_from_slice(&self.packet[from..to]);
        if !self.v6 {
            let id = word(out, 4).wrapping_add(n as u16);
            put(out, 4, id.to_be_bytes());
        }
        set_ip_length(out, self.v6, self.transport, len);
        let addresses = if self.v6 { &self.packet[8..40] } else { &self.packet[12..20] };
        let pseudo = pseudo_sum(addresses, self.protocol, len - self.transport);
        let segment = &mut out[self.transport..];
        let csum_at = if self.protocol == TCP {
            let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
            put(segment, 4, sequence.wrapping_add((n * self.size) as u32).to_be_bytes());
            if to != self.packet.len() {
                segment[13] &= !(FIN | PSH);
            }
            if n > 0 {
                segment[13] &= !CWR;
            }
            TCP_CHECKSUM
        } else {
            put(segment, 4, ((len - self.transport) as u16).to_be_bytes());
            UDP_CHECKSUM
        };
        put(segment, csum_at, [0, 0]);
        let sum = nonzero_for_udp(!checksum(segment, pseudo), csum_at);
        put(segment, csum_at, sum.to_be_bytes());
        buf
    }
}
