//! Incremental Gaussian elimination over the packets that are missing.

use std::collections::VecDeque;

use crate::codec::{
    self, Counters, Header, LENGTH_SIZE, MAX_COVER, MAX_SYMBOL, REPAIR_CREDIT, Refused, SPAN,
};
use crate::gf256;
use crate::tinymt32::TinyMt32;
use crate::window::Window;

/// Most missing packets that are worked on at once, and with it the most equations held.
pub const MAX_UNKNOWN: usize = 256;

/// No column.
const NONE: u16 = u16::MAX;

/// Restores what repair symbols and the packets that arrived determine.
///
/// What is missing and covered gets a *column*; each repair symbol, less the packets that are
/// there, becomes an *equation*. The equations stay fully reduced: each has a pivot, the oldest
/// packet in it, that no other has. One that has nothing but its pivot is a packet.
pub struct Decoder {
    window: Window,
    equations: Vec<Equation>,
    /// Buffers of equations that are done with.
    spare: Vec<Equation>,
    /// The column of each missing packet, by number modulo the span.
    columns: Vec<u16>,
    /// The packet of each column, if it has one.
    unknown: Vec<Option<u64>>,
    /// How many columns have one.
    missing: usize,
    /// Everything below has left the span; its columns are free.
    swept: u64,
    recovered: VecDeque<u64>,
    credit: u32,
    counters: Counters,
}

struct Equation {
    coefficients: [u8; MAX_UNKNOWN],
    symbol: Vec<u8>,
    /// The column of the oldest packet in it.
    pivot: usize,
}

impl Equation {
    /// `self += factor · other`.
    fn add(&mut self, other: &Self, factor: u8) {
        gf256::add_scaled(&mut self.coefficients, &other.coefficients, factor);
        if self.symbol.len() < other.symbol.len() {
            self.symbol.resize(other.symbol.len(), 0);
        }
        gf256::add_scaled(&mut self.symbol, &other.symbol, factor);
    }

    fn is_single(&self) -> bool {
        self.coefficients.iter().filter(|c| **c != 0).count() == 1
    }
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub fn new() -> Self {
        Self {
            window: Window::new(),
            equations: Vec::new(),
            spare: Vec::new(),
            columns: vec![NONE; SPAN],
            unknown: vec![None; MAX_UNKNOWN],
            missing: 0,
            swept: 0,
            recovered: VecDeque::new(),
            credit: REPAIR_CREDIT,
            counters: Counters::default(),
        }
    }

    fn slot(seq: u64) -> usize {
        (seq % SPAN as u64) as usize
    }

    /// The column of a missing packet, a new one if there is room.
    fn column(&mut self, seq: u64) -> Option<usize> {
        let known = self.columns[Self::slot(seq)];
        if known != NONE {
            return Some(usize::from(known));
        }
        let free = self.unknown.iter().position(Option::is_none)?;
        self.unknown[free] = Some(seq);
        self.columns[Self::slot(seq)] = free as u16;
        self.missing += 1;
        Some(free)
    }

    fn free(&mut self, column: usize) {
        if let Some(seq) = self.unknown[column].take() {
            self.columns[Self::slot(seq)] = NONE;
            self.missing -= 1;
        }
    }

    /// Moves the span on; what falls out of it is given up. Oldest first, so that an equation goes
    /// with its pivot, and what is left of the others is untouched.
    fn advance(&mut self, end: u64) {
        self.window.advance(end);
        let start = self.window.start();
        let from = std::mem::replace(&mut self.swept, start);
        if self.missing == 0 {
            return;
        }
        for seq in from..start.min(from + SPAN as u64) {
            let column = self.columns[Self::slot(seq)];
            if column == NONE || self.unknown[usize::from(column)] != Some(seq) {
                continue;
            }
            if let Some(at) = self.with_pivot(usize::from(column)) {
                let equation = self.equations.swap_remove(at);
                self.spare.push(equation);
                self.counters.expired += 1;
            }
            self.free(usize::from(column));
        }
    }

    fn with_pivot(&self, column: usize) -> Option<usize> {
        self.equations.iter().position(|equation| equation.pivot == column)
    }

    /// Takes a packet that is now known out of every equation.
    fn substitute(&mut self, seq: u64) {
        let column = self.columns[Self::slot(seq)];
        if column == NONE {
            return;
        }
        let column = usize::from(column);
        let Some(symbol) = self.window.symbol(seq) else { return };
        let mut lost_its_pivot = None;
        for (at, equation) in self.equations.iter_mut().enumerate() {
            let factor = std::mem::take(&mut equation.coefficients[column]);
            if factor != 0 {
                if equation.symbol.len() < symbol.len() {
                    equation.symbol.resize(symbol.len(), 0);
                }
                gf256::add_scaled(&mut equation.symbol, symbol, factor);
            }
            if equation.pivot == column {
                lost_its_pivot = Some(at);
            }
        }
        self.free(column);
        if let Some(at) = lost_its_pivot {
            let equation = self.equations.swap_remove(at);
            self.settle(equation);
        }
        self.collect();
    }

    /// Brings an equation without columns of known packets into reduced form, or drops it if the
    /// others imply it.
    fn settle(&mut self, mut equation: Equation) {
        for other in &self.equations {
            let factor = equation.coefficients[other.pivot];
            if factor != 0 {
                equation.add(other, factor);
            }
        }
        let columns = equation.coefficients.iter().enumerate().filter(|(_, c)| **c != 0);
        let oldest =
            columns.min_by_key(|(column, _)| self.unknown[*column]).map(|(at, c)| (at, *c));
        let Some((pivot, leading)) = oldest else {
            self.counters.idle += 1;
            self.spare.push(equation);
            return;
        };
        let inverse = gf256::inverse(leading);
        gf256::scale(&mut equation.coefficients, inverse);
        gf256::scale(&mut equation.symbol, inverse);
        equation.pivot = pivot;
        for other in &mut self.equations {
            let factor = other.coefficients[pivot];
            if factor != 0 {
                other.add(&equation, factor);
            }
        }
        self.equations.push(equation);
    }

    /// Takes out every packet that an equation has come down to.
    fn collect(&mut self) {
        let mut at = 0;
        while at < self.equations.len() {
            if !self.equations[at].is_single() {
                at += 1;
                continue;
            }
            let equation = self.equations.swap_remove(at);
            let seq = self.unknown[equation.pivot];
            self.free(equation.pivot);
            match seq {
                Some(seq) if self.window.insert_symbol(seq, &equation.symbol) => {
                    self.recovered.push_back(seq);
                    self.counters.recovered += 1;
                }
                // No packet has such a length: the repair symbol was not an encoder's.
                _ => self.counters.refused += 1,
            }
            self.spare.push(equation);
        }
    }

    fn check(&mut self, header: &Header, symbol: &[u8]) -> Result<(), Refused> {
        let Header { base, cover, key } = *header;
        let end = base.checked_add(u64::from(cover)).filter(|end| *end < u64::MAX);
        let (true, Some(end)) = ((1..=MAX_COVER).contains(&usize::from(cover)), end) else {
            return Err(Refused::Header { base, cover, key });
        };
        if !(LENGTH_SIZE..=MAX_SYMBOL).contains(&symbol.len()) {
            return Err(Refused::Symbol { length: symbol.len() });
        }
        if base < self.window.start() {
            return Err(Refused::Old { seq: base, newest: self.window.end().saturating_sub(1) });
        }
        let known = (base..end).filter_map(|seq| self.window.symbol(seq));
        if known.map(<[u8]>::len).max().is_some_and(|longest| longest > symbol.len()) {
            return Err(Refused::Symbol { length: symbol.len() });
        }
        self.credit = self.credit.checked_sub(1).ok_or(Refused::Flood)?;
        self.advance(end);
        Ok(())
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
                self.substitute(seq);
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
        let mut equation = self.spare.pop().unwrap_or_else(|| Equation {
            coefficients: [0; MAX_UNKNOWN],
            symbol: Vec::new(),
            pivot: 0,
        });
        equation.coefficients.fill(0);
        equation.symbol.clear();
        equation.symbol.extend_from_slice(symbol);
        let mut random = TinyMt32::new(u32::from(header.key));
        for seq in header.base..header.base + u64::from(header.cover) {
            let factor = random.coefficient();
            if let Some(known) = self.window.symbol(seq) {
                gf256::add_scaled(&mut equation.symbol, known, factor);
            } else if let Some(column) = self.column(seq) {
                equation.coefficients[column] = factor;
            } else {
                self.counters.expired += 1;
                self.spare.push(equation);
                return Ok(());
            }
        }
        self.settle(equation);
        self.collect();
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
        self.missing - self.equations.len()
    }

    fn wants(&self, seq: u64) -> bool {
        if self.window.symbol(seq).is_some() {
            return false;
        }
        let column = self.columns[Self::slot(seq)];
        let covered = column != NONE && self.unknown[usize::from(column)] == Some(seq);
        !covered || self.with_pivot(usize::from(column)).is_none()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
