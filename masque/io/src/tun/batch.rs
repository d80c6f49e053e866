//! The memory packets are read into.

use super::split::{Malformed, Place, split};
use super::vnet::{VNET_LEN, Vnet};
use super::{HEADROOM, MAX_PACKET};

/// Bytes of a batch, and how many of them one read may need: a super-packet, and its segments with
/// their headers and room, even those of a TCP connection with a segment size of 48 bytes.
const ARENA: usize = 1 << 20;
const READ_ROOM: usize = 400 << 10;

/// Packets read from a queue, one after another in one piece of memory. Made once a worker.
pub struct TunBatch {
    arena: Box<[u8]>,
    used: usize,
    places: Vec<Place>,
}

impl TunBatch {
    /// Reserves 1 MiB of address space; the system backs it as it is first used.
    pub fn new() -> Self {
        let places = Vec::with_capacity(ARENA / 256);
        Self { arena: vec![0; ARENA].into_boxed_slice(), used: 0, places }
    }

    /// The number of packets.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// There is no packet.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Calls `f` with each IP packet, in order.
    pub fn for_each(&mut self, mut f: impl FnMut(&mut [u8])) {
        self.for_each_with_room(|room| f(&mut room[HEADROOM..]));
    }

    /// Calls `f` with [`HEADROOM`] free bytes and the IP packet behind them.
    pub fn for_each_with_room(&mut self, mut f: impl FnMut(&mut [u8])) {
        for &(start, len) in &self.places {
            f(&mut self.arena[start as usize - HEADROOM..(start + len) as usize]);
        }
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.places.clear();
    }

    /// Where the next read goes; `None` when the batch is full.
    pub(super) fn room(&mut self, vnet: bool) -> Option<&mut [u8]> {
        let start = self.used + HEADROOM;
        (self.used + READ_ROOM <= ARENA)
            .then(|| &mut self.arena[start - if vnet { VNET_LEN } else { 0 }..start + MAX_PACKET])
    }

    /// Takes over what was read into [`room`](Self::room); `false` when it is malformed.
    pub(super) fn take(&mut self, read: usize, vnet: bool) -> bool {
        let start = self.used + HEADROOM;
        let before = if vnet { VNET_LEN } else { 0 };
        let Some(len) = read.checked_sub(before).filter(|len| *len > 0) else { return false };
        let header = match self.arena[start - before..start].first_chunk() {
            Some(header) => Vnet::read(header),
            None => Vnet::default(),
        };
        let count = self.places.len();
        match split(&mut self.arena, start, len, &header, &mut self.places) {
            Ok(end) => self.used = end,
            Err(Malformed) => self.places.truncate(count),
        }
        self.places.len() > count
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
