//! The packets of one read, each in a buffer of its own that can go on into QUIC as it is.

use super::split::{Malformed, split};
use super::vnet::{Layout, VNET_LEN, Vnet};
use super::{MAX_PACKET, thin};
use crate::buffers::DatagramBuf;

/// Bytes of packets after which a batch is full. One super-packet reaches it: what was read, what it
/// is split into and the train it leaves in then stay in the processor's cache together.
const FULL: usize = 48 << 10;
/// Packets looked back at for an acknowledgement that a new one makes superfluous.
const LOOKED_AT: usize = 8;

/// Packets read from a queue. Made once a worker.
pub struct TunBatch {
    /// What one system call brings: a virtio header and a packet or super-packet.
    raw: Box<[u8]>,
    packets: Vec<DatagramBuf>,
    bytes: usize,
}

impl TunBatch {
    /// Reserves 64 KiB, and whatever packets need as they come.
    pub fn new() -> Self {
        let raw = vec![0; VNET_LEN + MAX_PACKET].into_boxed_slice();
        Self { raw, packets: Vec::with_capacity(128), bytes: 0 }
    }

    /// The number of packets.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// There is no packet.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Calls `f` with each IP packet, in order.
    pub fn for_each(&mut self, mut f: impl FnMut(&mut [u8])) {
        self.packets.iter_mut().for_each(|packet| f(packet.bytes_mut()));
    }

    /// Gives each IP packet away, in order, with [`HEADROOM`](crate::HEADROOM) before it.
    pub fn drain(&mut self) -> impl Iterator<Item = DatagramBuf> + '_ {
        self.packets.drain(..)
    }

    pub(super) fn clear(&mut self) {
        self.packets.clear();
        self.bytes = 0;
    }

    /// Where the next read goes; `None` when the batch is full.
    pub(super) fn room(&mut self, vnet: bool) -> Option<&mut [u8]> {
        (self.bytes < FULL).then(|| &mut self.raw[if vnet { 0 } else { VNET_LEN }..])
    }

    /// Takes over what was read into [`room`](Self::room); `false` when it is malformed.
    pub(super) fn take(&mut self, read: usize, vnet: bool) -> bool {
        let before = if vnet { VNET_LEN } else { 0 };
        let Some(len) = read.checked_sub(before).filter(|len| *len > 0) else { return false };
        self.bytes += len;
        let (header, packet) = self.raw.split_at_mut(VNET_LEN);
        let header = match header.first_chunk() {
            Some(header) if vnet => Vnet::read(header),
            _ => Vnet::default(),
        };
        let count = self.packets.len();
        let done = split(&mut packet[..len], &header, &mut self.packets);
        if done == Err(Malformed) {
            self.packets.truncate(count);
        } else if self.packets.len() == count + 1 {
            self.thin();
        }
        done.is_ok()
    }

    /// The last packet takes the place of one that says nothing it does not say.
    fn thin(&mut self) {
        let Some((newest, others)) = self.packets.split_last() else { return };
        let newest = newest.as_ref();
        let Some(layout) = Layout::of(newest).filter(|l| thin::is_pure(l, newest)) else { return };
        let last = others.iter().enumerate().rev().take(LOOKED_AT).find_map(|(at, other)| {
            let of = Layout::of(other.as_ref())?;
            layout.same_flow(newest, &of, other.as_ref()).then_some((at, of))
        });
        if let Some((at, other)) = last
            && thin::supersedes(&layout, newest, &other, others[at].as_ref())
        {
            self.packets.swap_remove(at);
        }
    }
}

impl Default for TunBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for TunBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunBatch").field("packets", &self.len()).finish_non_exhaustive()
    }
}
