//! Packets on their way into the kernel, joined into super-packets (GRO) where they belong to one
//! run of one flow. The order within a flow is kept.

use std::io::IoSlice;

use super::vnet::{
    GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, Layout, NEEDS_CSUM, TCP, VNET_LEN, Vnet, fold, pseudo_sum,
    put, set_ip_length,
};
use super::{MAX_PACKET, thin};
use crate::buffers::DatagramBuf;

/// Packets gathered before they must be written.
pub(super) const MAX_PACKETS: usize = 256;
/// Bytes gathered before they must be written: two full super-packets. More would leave the
/// processor's cache before the kernel reads them.
const MAX_BYTES: usize = 128 << 10;
/// Packets in one super-packet; older kernels refuse more UDP segments (`UDP_MAX_SEGMENTS`).
const MAX_SEGMENTS: usize = 64;
/// Flows looked at, newest first, for one to append to.
const MAX_FLOWS_SEARCHED: usize = 16;
/// Ends a chain of pieces.
const NONE: u16 = u16::MAX;

const ACK: u8 = 0x10;
const PSH: u8 = 8;

/// What is joined.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joining {
    pub(super) tcp: bool,
    pub(super) udp: bool,
}

/// A packet: a head with its headers, or a follower of which only the payload is written.
#[derive(Debug)]
struct Piece {
    buf: DatagramBuf,
    next: u16,
}

/// A packet, and those joined to it.
#[derive(Debug)]
struct Run {
    head: u16,
    last: u16,
    packets: u16,
    /// Bytes of the packet as it will be written.
    len: u32,
    /// `None` for what cannot be joined nor recognised as a flow.
    layout: Option<Layout>,
    /// The payload of every packet but the last.
    size: u32,
    /// More may be joined.
    open: bool,
    /// The checksum of the head was seen to hold; joining recomputes it, so a wrong one must not be
    /// joined and thereby made right.
    verified: bool,
    /// The virtio header to write before it.
    vnet: [u8; VNET_LEN],
}

pub(super) struct Gather {
    joining: Joining,
    bytes: usize,
    pieces: Vec<Piece>,
    runs: Vec<Run>,
}

impl Gather {
    pub(super) fn new(joining: Joining) -> Self {
        Self {
            joining,
            bytes: 0,
            pieces: Vec::with_capacity(MAX_PACKETS),
            runs: Vec::with_capacity(MAX_PACKETS),
        }
    }

    /// Another packet may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.pieces.len() < MAX_PACKETS && self.bytes < MAX_BYTES
    }

    pub(super) fn packets(&self) -> usize {
        self.pieces.len()
    }

    /// Takes a packet of at most [`MAX_PACKET`] bytes, while there is room.
    pub(super) fn push(&mut self, buf: DatagramBuf) {
        let packet = buf.as_ref();
        let layout = Layout::of(packet);
        let joinable = layout.filter(|l| self.joins(l, packet));
        if let Some(layout) = layout
            && let Some(at) = self.newest_of_flow(&layout, packet)
        {
            if joinable.is_some() && self.may_join(at, &layout, packet) {
                return self.join(at, &layout, buf);
            }
            let run = &self.runs[at];
            if run.packets == 1
                && let Some(other) = run.layout
                && thin::supersedes(&layout, packet, &other, self.head(run))
            {
                let head = usize::from(run.head);
                self.pieces[head].buf = buf;
                return;
            }
            // Something of this flow comes after the run, so nothing may be joined before it.
            self.runs[at].open = false;
        }
        let piece = self.pieces.len() as u16;
        self.runs.push(Run {
            head: piece,
            last: piece,
            packets: 1,
            len: packet.len() as u32,
            layout,
            size: joinable.map_or(0, |l| packet.len() - l.payload) as u32,
            open: joinable.is_some() && !pushes(joinable, packet),
            verified: false,
            vnet: [0; VNET_LEN],
        });
        self.store(buf);
    }

    /// Data and nothing that the receiver must see as a packet of its own.
    fn joins(&self, layout: &Layout, packet: &[u8]) -> bool {
        packet.len() > layout.payload
            && match layout.protocol {
                TCP => self.joining.tcp && packet[layout.transport + 13] & !PSH == ACK,
                _ => self.joining.udp,
            }
    }

    fn newest_of_flow(&self, layout: &Layout, packet: &[u8]) -> Option<usize> {
        self.runs.iter().enumerate().rev().take(MAX_FLOWS_SEARCHED).find_map(|(i, run)| {
            let other = run.layout?;
            layout.same_flow(packet, &other, self.head(run)).then_some(i)
        })
    }

    fn may_join(&self, at: usize, layout: &Layout, packet: &[u8]) -> bool {
        let run = &self.runs[at];
        let payload = packet.len() - layout.payload;
        run.open
            && run.layout == Some(*layout)
            && payload <= run.size as usize
            && usize::from(run.packets) < MAX_SEGMENTS
            && run.len as usize + payload <= MAX_PACKET
            && self.follows(run, layout, packet)
            && layout.checksum_holds(packet)
            && (run.verified || layout.checksum_holds(self.head(run)))
    }

    fn join(&mut self, at: usize, layout: &Layout, mut buf: DatagramBuf) {
        let pushes = pushes(Some(*layout), buf.as_ref());
        buf.advance(layout.payload);
        let (piece, payload) = (self.pieces.len() as u16, buf.len() as u32);
        let run = &mut self.runs[at];
        self.pieces[usize::from(run.last)].next = piece;
        run.last = piece;
        run.packets += 1;
        run.len += payload;
        run.verified = true;
        run.open = payload == run.size && !pushes;
        if layout.protocol == TCP && pushes {
            let head = self.pieces[usize::from(run.head)].buf.bytes_mut();
            head[layout.transport + 13] |= PSH;
        }
        self.store(buf);
    }

    /// The packet continues the run: headers equal but for lengths, checksums and identification,
    /// and sequence numbers adjoin.
    fn follows(&self, run: &Run, layout: &Layout, packet: &[u8]) -> bool {
        let head = self.head(run);
        let ip = if layout.v6 {
            head[..4] == packet[..4] && head[6..8] == packet[6..8]
        } else {
            head[..2] == packet[..2] && head[6..9] == packet[6..9]
        };
        let (ours, theirs) = (&head[layout.transport..], &packet[layout.transport..]);
        let header = layout.payload - layout.transport;
        ip && (layout.protocol != TCP || {
            let sequence = |b: &[u8]| u32::from_be_bytes([b[4], b[5], b[6], b[7]]);
            let carried = run.len - layout.payload as u32;
            // Acknowledgement, data offset; window; urgent pointer and options. Flags were looked at.
            sequence(ours).wrapping_add(carried) == sequence(theirs)
                && ours[8..13] == theirs[8..13]
                && ours[14..16] == theirs[14..16]
                && ours[18..header] == theirs[18..header]
        })
    }

    fn head(&self, run: &Run) -> &[u8] {
        self.pieces[usize::from(run.head)].buf.as_ref()
    }

    fn store(&mut self, buf: DatagramBuf) {
        self.bytes += buf.len();
        self.pieces.push(Piece { buf, next: NONE });
    }

    /// Hands each packet to `write`, in pieces, with its virtio header when `vnet`, and with the
    /// number of packets it stands for. Empty afterwards.
    pub(super) fn drain(&mut self, vnet: bool, mut write: impl FnMut(&[IoSlice<'_>], usize)) {
        for run in 0..self.runs.len() {
            self.seal(run);
            let run = &self.runs[run];
            let mut slices = [IoSlice::new(&[]); 1 + MAX_SEGMENTS];
            slices[0] = IoSlice::new(&run.vnet);
            let (mut count, mut next) = (1, run.head);
            while let Some(piece) = self.pieces.get(usize::from(next)) {
                slices[count] = IoSlice::new(piece.buf.as_ref());
                (count, next) = (count + 1, piece.next);
            }
            write(&slices[usize::from(!vnet)..count], usize::from(run.packets));
        }
        self.runs.clear();
        self.pieces.clear();
        self.bytes = 0;
    }

    /// Writes the virtio header, and the lengths and partial checksum of a super-packet.
    fn seal(&mut self, run: usize) {
        let run = &mut self.runs[run];
        let packet = self.pieces[usize::from(run.head)].buf.bytes_mut();
        let mut vnet = Vnet::default();
        if let Some(layout) = run.layout.filter(|_| run.packets > 1) {
            let transport_len = run.len as usize - layout.transport;
            set_ip_length(packet, layout.v6, layout.transport, run.len as usize);
            let pseudo = fold(pseudo_sum(layout.addresses(packet), layout.protocol, transport_len));
            let segment = &mut packet[layout.transport..];
            if layout.protocol != TCP {
                put(segment, 4, (transport_len as u16).to_be_bytes());
            }
            put(segment, layout.csum_offset(), pseudo.to_be_bytes());
            vnet = Vnet {
                flags: NEEDS_CSUM,
                gso_type: match (layout.protocol, layout.v6) {
                    (TCP, false) => GSO_TCPV4,
                    (TCP, true) => GSO_TCPV6,
                    _ => GSO_UDP_L4,
                },
                header_len: layout.payload as u16,
                gso_size: run.size as u16,
                csum_start: layout.transport as u16,
                csum_offset: layout.csum_offset() as u16,
            };
        }
        run.vnet = vnet.write();
    }
}

/// A TCP packet that its receiver should hand on at once.
fn pushes(layout: Option<Layout>, packet: &[u8]) -> bool {
    layout.is_some_and(|l| l.protocol == TCP && packet[l.transport + 13] & PSH != 0)
}
