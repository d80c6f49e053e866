//! Closes blocks of packets and hands out their parity, row by row.

use std::collections::VecDeque;

use super::MAX_ROWS;
use super::parity::{Parity, symbol_length};
use crate::codec::{self, Header, MAX_COVER, Refused, SPAN};
use crate::window::Window;

/// Parity of a block that is handed out at most: as much as the block itself, but never less than
/// this many rows.
const LEAST_ROWS: usize = 8;

/// Groups consecutive packets into blocks.
pub struct Encoder {
    window: Window,
    /// The first packet of the open block.
    open: u64,
    cover: usize,
    /// Closed blocks whose packets are all still kept, oldest first.
    closed: VecDeque<Block>,
    parity: Parity,
    /// The base of the block whose parity is in `parity`.
    computed: Option<u64>,
}

#[derive(Clone, Copy)]
struct Block {
    base: u64,
    cover: u16,
    used: u16,
}

impl Block {
    fn rows(self) -> usize {
        usize::from(self.cover).clamp(LEAST_ROWS, MAX_ROWS)
    }

    fn end(self) -> u64 {
        self.base + u64::from(self.cover)
    }
}

impl Encoder {
    /// An encoder that has seen nothing, with blocks of up to 32 packets.
    pub fn new() -> Self {
        Self {
            window: Window::new(),
            open: 0,
            cover: 32,
            closed: VecDeque::new(),
            parity: Parity::new(),
            computed: None,
        }
    }

    fn next_row(&mut self, at: usize) -> Option<(Header, &[u8])> {
        let block = self.closed.get_mut(at)?;
        if usize::from(block.used) == block.rows() {
            return None;
        }
        let header = Header { base: block.base, cover: block.cover, key: block.used };
        block.used += 1;
        if self.computed != Some(block.base) {
            let length = symbol_length(&self.window, block.base, block.cover);
            let Block { base, cover, .. } = *block;
            self.computed = None;
            if !self.parity.compute(&self.window, base, cover, length, block.rows()) {
                return None;
            }
            self.computed = Some(base);
        }
        self.parity.row(usize::from(header.key)).map(|row| (header, row))
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl codec::Encoder for Encoder {
    fn push(&mut self, seq: u64, packet: &[u8]) -> Result<(), Refused> {
        let end = self.window.end();
        if seq < end {
            return Err(Refused::Old { seq, newest: end - 1 });
        }
        self.window.insert(seq, packet)?;
        if seq != end {
            self.closed.clear();
            self.open = seq;
        }
        let start = self.window.start();
        while self.closed.front().is_some_and(|block| block.base < start) {
            self.closed.pop_front();
        }
        if (seq + 1 - self.open) as usize >= self.cover {
            self.close();
        }
        Ok(())
    }

    fn set_cover(&mut self, packets: usize) {
        self.cover = packets.clamp(1, MAX_COVER);
    }

    fn close(&mut self) {
        let (base, end) = (self.open, self.window.end());
        self.open = end;
        let base = base.max(self.window.start()).max(end.saturating_sub(MAX_COVER as u64));
        if base < end {
            if self.closed.len() == SPAN {
                self.closed.pop_front();
            }
            self.closed.push_back(Block { base, cover: (end - base) as u16, used: 0 });
        }
    }

    fn repair(&mut self) -> Option<(Header, &[u8])> {
        self.next_row(self.closed.len().checked_sub(1)?)
    }

    fn top_up(&mut self, seq: u64) -> Option<(Header, &[u8])> {
        let at = self.closed.partition_point(|block| block.end() <= seq);
        self.closed.get(at).filter(|block| block.base <= seq)?;
        self.next_row(at)
    }

    fn packet(&self, seq: u64) -> Option<&[u8]> {
        self.window.packet(seq)
    }
}
