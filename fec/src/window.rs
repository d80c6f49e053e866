//! The recent packets of a stream, kept as symbols.

use crate::codec::{LENGTH_SIZE, MAX_PACKET, Refused, SPAN};

/// The last [`SPAN`] packets up to the newest, with gaps. Buffers are reused.
pub(crate) struct Window {
    slots: Vec<Slot>,
    /// One past the newest number; 0 before the first packet.
    end: u64,
}

#[derive(Default)]
struct Slot {
    /// The packet's number plus one; 0 is nobody's.
    mark: u64,
    symbol: Vec<u8>,
}

const MASK: u64 = SPAN as u64 - 1;
const _: () = assert!(SPAN.is_power_of_two());

impl Window {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SPAN).map(|_| Slot::default()).collect(), end: 0 }
    }

    /// One past the newest number.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The oldest number that can be kept.
    pub(crate) fn start(&self) -> u64 {
        self.end.saturating_sub(SPAN as u64)
    }

    /// Moves on, so that `end` is one past the newest number.
    pub(crate) fn advance(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// Keeps a packet; `false` if it is there already.
    pub(crate) fn insert(&mut self, seq: u64, packet: &[u8]) -> Result<bool, Refused> {
        let Ok(length) = u16::try_from(packet.len()) else {
            return Err(Refused::Packet { length: packet.len() });
        };
        if packet.len() > MAX_PACKET {
            return Err(Refused::Packet { length: packet.len() });
        }
        if seq < self.start() || seq == u64::MAX {
            return Err(Refused::Old { seq, newest: self.end.saturating_sub(1) });
        }
        self.advance(seq + 1);
        let slot = &mut self.slots[(seq & MASK) as usize];
        if slot.mark == seq + 1 {
            return Ok(false);
        }
        slot.mark = seq + 1;
        slot.symbol.clear();
        slot.symbol.extend_from_slice(&length.to_be_bytes());
        slot.symbol.extend_from_slice(packet);
        Ok(true)
    }

    /// Keeps a recovered symbol, if it holds a packet: the length it tells fits it, zeros follow.
    pub(crate) fn insert_symbol(&mut self, seq: u64, symbol: &[u8]) -> bool {
        let Some((length, rest)) = symbol.split_first_chunk::<LENGTH_SIZE>() else { return false };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((packet, zeros)) = rest.split_at_checked(length) else { return false };
        zeros.iter().all(|byte| *byte == 0) && self.insert(seq, packet) == Ok(true)
    }

    /// The symbol of a packet, without zeros behind it.
    pub(crate) fn symbol(&self, seq: u64) -> Option<&[u8]> {
        let slot = &self.slots[(seq & MASK) as usize];
        (slot.mark == seq.wrapping_add(1) && seq >= self.start()).then_some(&*slot.symbol)
    }

    pub(crate) fn packet(&self, seq: u64) -> Option<&[u8]> {
        self.symbol(seq).map(|symbol| &symbol[LENGTH_SIZE..])
    }

    /// The numbers in `base..base + cover` that are not there.
    pub(crate) fn missing(&self, base: u64, cover: u16) -> impl Iterator<Item = u64> {
        (base..base + u64::from(cover)).filter(|seq| self.symbol(*seq).is_none())
    }
}
