//! Restores the missing packets of blocks.

use std::collections::VecDeque;

use reed_solomon_simd::ReedSolomonDecoder;

use super::MAX_ROWS;
use super::few::{Few, MAX_FEW, Task};
use crate::codec::{
    self, Counters, Header, LENGTH_SIZE, MAX_COVER, MAX_SYMBOL, REPAIR_CREDIT, Refused,
};
use crate::window::Window;

/// Incomplete blocks that are worked on at once; the oldest makes room.
pub const MAX_BLOCKS: usize = 64;
/// Repair symbols that are held at once, of all blocks; the oldest block makes room.
pub const MAX_HELD: usize = 256;

/// Holds repair symbols of incomplete blocks until they suffice.
pub struct Decoder {
    window: Window,
    blocks: VecDeque<Block>,
    /// Repair symbols held, of all blocks.
    held: usize,
    spare: Vec<Row>,
    /// Empty lists of rows, as large as they once were.
    lists: Vec<Vec<Row>>,
    /// For a few missing packets of a block, and for many.
    solver: Option<Box<Few>>,
    inner: Option<ReedSolomonDecoder>,
    padded: Vec<u8>,
    recovered: VecDeque<u64>,
    credit: u32,
    counters: Counters,
}

struct Block {
    base: u64,
    cover: u16,
    length: usize,
    missing: usize,
    rows: Vec<Row>,
}

#[derive(Default)]
struct Row {
    row: u16,
    symbol: Vec<u8>,
}

impl Block {
    fn covers(&self, seq: u64) -> bool {
        (self.base..self.base + u64::from(self.cover)).contains(&seq)
    }
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub fn new() -> Self {
        Self {
            window: Window::new(),
            blocks: VecDeque::new(),
            held: 0,
            spare: Vec::new(),
            lists: Vec::new(),
            solver: None,
            inner: None,
            padded: Vec::new(),
            recovered: VecDeque::new(),
            credit: REPAIR_CREDIT,
            counters: Counters::default(),
        }
    }

    fn check(&mut self, header: &Header, symbol: &[u8]) -> Result<(), Refused> {
        let Header { base, cover, key } = *header;
        let end = base.checked_add(u64::from(cover)).filter(|end| *end < u64::MAX);
        let shape = (1..=MAX_COVER).contains(&usize::from(cover)) && usize::from(key) < MAX_ROWS;
        let (true, Some(end)) = (shape, end) else {
            return Err(Refused::Header { base, cover, key });
        };
        let length = symbol.len();
        if !(LENGTH_SIZE..=MAX_SYMBOL).contains(&length) || !length.is_multiple_of(2) {
            return Err(Refused::Symbol { length });
        }
        if base < self.window.start() {
            return Err(Refused::Old { seq: base, newest: self.window.end().saturating_sub(1) });
        }
        let known = (base..end).filter_map(|seq| self.window.symbol(seq));
        if known.map(<[u8]>::len).max().is_some_and(|longest| longest > length) {
            return Err(Refused::Symbol { length });
        }
        self.credit = self.credit.checked_sub(1).ok_or(Refused::Flood)?;
        self.advance(end);
        Ok(())
    }

    fn advance(&mut self, end: u64) {
        self.window.advance(end);
        let start = self.window.start();
        while let Some(at) = self.blocks.iter().position(|block| block.base < start) {
            self.give_up(at);
        }
    }

    fn give_up(&mut self, at: usize) {
        if let Some(block) = self.take(at) {
            self.counters.expired += block.rows.len() as u64;
            self.recycle(block);
        }
    }

    fn take(&mut self, at: usize) -> Option<Block> {
        let block = self.blocks.remove(at)?;
        self.held -= block.rows.len();
        Some(block)
    }

    fn recycle(&mut self, mut block: Block) {
        self.spare.append(&mut block.rows);
        self.lists.push(block.rows);
    }

    /// Tells every block that a packet is there now.
    fn arrived(&mut self, seq: u64) {
        for block in self.blocks.iter_mut().filter(|block| block.covers(seq)) {
            block.missing -= 1;
        }
    }

    /// Restores every block that has enough rows.
    fn settle(&mut self) {
        let enough = |block: &Block| block.missing <= block.rows.len();
        while let Some(at) = self.blocks.iter().position(enough) {
            let Some(block) = self.take(at) else { return };
            self.counters.idle += (block.rows.len() - block.missing) as u64;
            if block.missing > 0 {
                self.restore(&block);
            }
            self.recycle(block);
        }
    }

    fn restore(&mut self, block: &Block) {
        let before = self.recovered.len();
        let done = if block.missing <= MAX_FEW { self.few(block) } else { self.many(block) };
        if done.is_none() {
            self.counters.expired += block.missing as u64;
        }
        for at in before..self.recovered.len() {
            self.counters.recovered += 1;
            self.arrived(self.recovered[at]);
        }
    }

    fn keep(&mut self, seq: u64, symbol: &[u8]) {
        if self.window.insert_symbol(seq, symbol) {
            self.recovered.push_back(seq);
        } else {
            // No packet has such a length: some row was not an encoder's.
            self.counters.refused += 1;
        }
    }

    fn few(&mut self, block: &Block) -> Option<()> {
        let e = block.missing;
        let mut missing = [0; MAX_FEW];
        let mut rows: [(usize, &[u8]); MAX_FEW] = [(0, &[]); MAX_FEW];
        for (to, seq) in missing.iter_mut().zip(self.window.missing(block.base, block.cover)) {
            *to = (seq - block.base) as usize;
        }
        for (to, row) in rows.iter_mut().zip(&block.rows) {
            *to = (usize::from(row.row), &row.symbol);
        }
        let Block { base, cover, length, .. } = *block;
        let (missing, rows) = (&missing[..e], &rows[..e]);
        let task = Task { base, cover, length, missing, rows };
        let mut few = self.solver.take().unwrap_or_else(|| Box::new(Few::new()));
        let done = few.restore(&self.window, &task);
        for at in (0..e).filter(|_| done) {
            self.keep(base + missing[at] as u64, few.symbol(at));
        }
        self.solver = Some(few);
        done.then_some(())
    }

    fn many(&mut self, block: &Block) -> Option<()> {
        let (k, length) = (usize::from(block.cover), block.length);
        let mut inner = match self.inner.take() {
            Some(mut inner) => inner.reset(k, MAX_ROWS, length).ok().map(|()| inner)?,
            None => ReedSolomonDecoder::new(k, MAX_ROWS, length).ok()?,
        };
        for at in 0..k {
            if let Some(symbol) = self.window.symbol(block.base + at as u64) {
                self.padded.clear();
                self.padded.extend_from_slice(symbol);
                self.padded.resize(length, 0);
                inner.add_original_shard(at, &self.padded).ok()?;
            }
        }
        for row in &block.rows[..block.missing] {
            inner.add_recovery_shard(usize::from(row.row), &row.symbol).ok()?;
        }
        let result = inner.decode().ok()?;
        for (at, symbol) in result.restored_original_iter() {
            self.keep(block.base + at as u64, symbol);
        }
        drop(result);
        self.inner = Some(inner);
        Some(())
    }

    fn hold(&mut self, header: &Header, symbol: &[u8]) {
        let Header { base, cover, key } = *header;
        let known = self.blocks.iter().position(|b| (b.base, b.cover) == (base, cover));
        let at = known.unwrap_or_else(|| {
            while self.blocks.len() >= MAX_BLOCKS {
                self.give_up(0);
            }
            let missing = self.window.missing(base, cover).count();
            let (length, rows) = (symbol.len(), self.lists.pop().unwrap_or_default());
            self.blocks.push_back(Block { base, cover, length, missing, rows });
            self.blocks.len() - 1
        });
        let block = &mut self.blocks[at];
        if block.length != symbol.len() || block.rows.iter().any(|row| row.row == key) {
            self.counters.idle += 1;
            return;
        }
        let mut row = self.spare.pop().unwrap_or_default();
        row.row = key;
        row.symbol.clear();
        row.symbol.extend_from_slice(symbol);
        block.rows.push(row);
        self.held += 1;
        self.settle();
        if self.held > MAX_HELD {
            self.give_up(0);
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl codec::Decoder for Decoder {
    fn source(&mut self, seq: u64, packet: &[u8]) -> Result<bool, Refused> {
        if packet.len() <= codec::MAX_PACKET && seq < u64::MAX {
            self.advance(seq + 1);
        }
        let new = self.window.insert(seq, packet);
        match new {
            Ok(true) => {
                self.credit = (self.credit + 1).min(REPAIR_CREDIT);
                self.arrived(seq);
                self.settle();
            }
            Ok(false) => {}
            Err(_) => self.counters.refused += 1,
        }
        new
    }

    fn repair(&mut self, header: &Header, symbol: &[u8]) -> Result<(), Refused> {
        if let Err(refused) = self.check(header, symbol) {
            self.counters.refused += 1;
            return Err(refused);
        }
        self.counters.repair += 1;
        if self.window.missing(header.base, header.cover).next().is_none() {
            self.counters.idle += 1;
            return Ok(());
        }
        self.hold(header, symbol);
        Ok(())
    }

    fn poll(&mut self) -> Option<(u64, &[u8])> {
        loop {
            let seq = self.recovered.pop_front()?;
            if self.window.packet(seq).is_some() {
                return self.window.packet(seq).map(|packet| (seq, packet));
            }
        }
    }

    fn packet(&self, seq: u64) -> Option<&[u8]> {
        self.window.packet(seq)
    }

    fn deficit(&self) -> usize {
        self.blocks.iter().map(|block| block.missing - block.rows.len()).sum()
    }

    fn wants(&self, seq: u64) -> bool {
        if self.window.symbol(seq).is_some() {
            return false;
        }
        // Of a block's missing packets the first ones are asked for, as many as rows are lacking.
        self.blocks.iter().filter(|block| block.covers(seq)).all(|block| {
            let before = (seq - block.base) as u16;
            self.window.missing(block.base, before).count() < block.missing - block.rows.len()
        })
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
