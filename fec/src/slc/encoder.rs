//! Repair symbols over the newest packets.

use crate::codec::{self, Header, MAX_COVER, Refused};
use crate::gf256;
use crate::tinymt32::TinyMt32;
use crate::window::Window;

/// Covers the newest packets of a stream.
pub struct Encoder {
    window: Window,
    /// The oldest number that may be covered: packets were pushed without a gap from there on.
    first: u64,
    cover: usize,
    key: u16,
    symbol: Vec<u8>,
}

impl Encoder {
    /// An encoder that has seen nothing, and covers [`MAX_COVER`] packets.
    pub fn new() -> Self {
        Self { window: Window::new(), first: 0, cover: MAX_COVER, key: 0, symbol: Vec::new() }
    }

    fn combine(&mut self, base: u64, cover: usize) -> Option<(Header, &[u8])> {
        let cover = u16::try_from(cover).ok().filter(|cover| *cover > 0)?;
        self.key = self.key.wrapping_add(1);
        let header = Header { base, cover, key: self.key };
        let symbols = || (base..base + u64::from(cover)).filter_map(|seq| self.window.symbol(seq));
        let longest = symbols().map(<[u8]>::len).max()?;
        self.symbol.clear();
        self.symbol.resize(longest, 0);
        let mut random = TinyMt32::new(u32::from(self.key));
        for symbol in symbols() {
            gf256::add_scaled(&mut self.symbol, symbol, random.coefficient());
        }
        Some((header, &self.symbol))
    }

    fn oldest(&self) -> u64 {
        self.first.max(self.window.start())
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
            self.first = seq;
        }
        Ok(())
    }

    fn set_cover(&mut self, packets: usize) {
        self.cover = packets.clamp(1, MAX_COVER);
    }

    fn close(&mut self) {}

    fn repair(&mut self) -> Option<(Header, &[u8])> {
        let end = self.window.end();
        let base = end.saturating_sub(self.cover as u64).max(self.oldest());
        self.combine(base, (end - base) as usize)
    }

    fn top_up(&mut self, seq: u64) -> Option<(Header, &[u8])> {
        let end = self.window.end();
        if seq < self.oldest() || seq >= end {
            return None;
        }
        self.combine(seq, ((end - seq) as usize).min(self.cover))
    }

    fn packet(&self, seq: u64) -> Option<&[u8]> {
        self.window.packet(seq)
    }
}
