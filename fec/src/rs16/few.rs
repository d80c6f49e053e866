//! Restores a few missing packets without the transform over the whole field.
//!
//! The crate's decoder costs the same however little is missing: a transform of 65,536 points.
//! With `e` packets missing it is cheaper to encode the block again with zeros in their place: what
//! arrived of the parity, less that, is `e` equations in `e` unknowns, whose coefficients are the
//! parity of unit vectors.

use reed_solomon_simd::engine::{DefaultEngine, Engine, GF_MODULUS, GfElement, tables};

use super::MAX_ROWS;
use super::parity::Parity;
use crate::codec::MAX_COVER;
use crate::window::Window;

/// Most missing packets for which this is cheaper.
pub(super) const MAX_FEW: usize = 16;

/// Solves small systems; keeps its buffers.
pub(super) struct Few {
    engine: DefaultEngine,
    known: Parity,
    unit: Parity,
    /// Columns of the generator for blocks of `cover` packets, as far as they were needed.
    columns: Vec<Option<[GfElement; MAX_ROWS]>>,
    cover: u16,
    /// `e` right-hand sides in the engine's layout, and one more to compute with.
    sides: Vec<Vec<[u8; 64]>>,
    symbol: Vec<u8>,
    length: usize,
}

/// A block with as many parity rows as packets are missing.
pub(super) struct Task<'a> {
    pub(super) base: u64,
    pub(super) cover: u16,
    pub(super) length: usize,
    /// Places of the missing packets in the block; at most [`MAX_FEW`].
    pub(super) missing: &'a [usize],
    /// Numbers of the rows and their symbols, one for each missing packet.
    pub(super) rows: &'a [(usize, &'a [u8])],
}

impl Few {
    pub(super) fn new() -> Self {
        Self {
            engine: DefaultEngine::new(),
            known: Parity::new(),
            unit: Parity::new(),
            columns: vec![None; MAX_COVER],
            cover: 0,
            sides: Vec::new(),
            symbol: Vec::new(),
            length: 0,
        }
    }

    /// Restores the missing symbols, to be had from [`Few::symbol`]; `false` if it cannot.
    pub(super) fn restore(&mut self, window: &Window, task: &Task<'_>) -> bool {
        let Task { base, cover, length, missing, rows } = *task;
        let e = missing.len();
        if e > MAX_FEW || rows.len() != e {
            return false;
        }
        let most = rows.iter().map(|(row, _)| row + 1).max().unwrap_or(0);
        if !self.known.compute(window, base, cover, length, most) {
            return false;
        }
        self.sides.resize_with(self.sides.len().max(MAX_FEW + 1), Vec::new);
        for (side, (row, symbol)) in self.sides.iter_mut().zip(rows) {
            let Some(known) = self.known.row(*row) else { return false };
            lay_out(side, symbol, known);
        }
        let mut matrix = [[0; MAX_FEW]; MAX_FEW];
        for (at, place) in missing.iter().enumerate() {
            let Some(column) = self.column(cover, *place) else { return false };
            for (line, (row, _)) in matrix.iter_mut().zip(rows) {
                line[at] = column[*row];
            }
        }
        self.length = length;
        self.eliminate(&mut matrix, e)
    }

    /// The symbol of the missing packet that was given at `at`.
    pub(super) fn symbol(&mut self, at: usize) -> &[u8] {
        take_back(&mut self.symbol, &self.sides[at], self.length);
        &self.symbol
    }

    /// What one packet adds to each row.
    fn column(&mut self, cover: u16, place: usize) -> Option<[GfElement; MAX_ROWS]> {
        if self.cover != cover {
            self.columns.fill(None);
            self.cover = cover;
        }
        if self.columns.get(place)?.is_none() {
            self.unit.compute_unit(cover, place).then_some(())?;
            let row = |row| {
                let bytes = self.unit.row(row).and_then(|row| row.try_into().ok());
                GfElement::from_le_bytes(bytes.unwrap_or_default())
            };
            self.columns[place] = Some(std::array::from_fn(row));
        }
        self.columns[place]
    }

    /// Gauss and Jordan: makes the matrix the unit matrix, and the sides the missing symbols.
    fn eliminate(&mut self, matrix: &mut [[GfElement; MAX_FEW]; MAX_FEW], e: usize) -> bool {
        for pivot in 0..e {
            let Some(line) = (pivot..e).find(|line| matrix[*line][pivot] != 0) else {
                return false;
            };
            matrix.swap(pivot, line);
            self.sides.swap(pivot, line);
            let inverse = modulus_minus(log(matrix[pivot][pivot]));
            matrix[pivot][..e].iter_mut().for_each(|x| *x = mul(*x, inverse));
            self.engine.mul(&mut self.sides[pivot], inverse);
            let (above, rest) = self.sides.split_at_mut(MAX_FEW);
            let scratch = &mut rest[0];
            for line in (0..e).filter(|line| *line != pivot) {
                let factor = matrix[line][pivot];
                if factor == 0 {
                    continue;
                }
                let factor = log(factor);
                let added = matrix[pivot];
                for (x, added) in matrix[line][..e].iter_mut().zip(added) {
                    *x ^= mul(added, factor);
                }
                scratch.clone_from(&above[pivot]);
                self.engine.mul(scratch, factor);
                let added = scratch.as_flattened();
                above[line].as_flattened_mut().iter_mut().zip(added).for_each(|(a, b)| *a ^= b);
            }
        }
        true
    }
}

fn log(x: GfElement) -> GfElement {
    tables::get_exp_log().log[usize::from(x)]
}

fn modulus_minus(log: GfElement) -> GfElement {
    if log == 0 { 0 } else { GF_MODULUS - log }
}

fn mul(x: GfElement, log: GfElement) -> GfElement {
    let tables = tables::get_exp_log();
    tables::mul(x, log, &tables.exp, &tables.log)
}

/// Puts `a + b` into the engine's layout: of each 64 bytes the low halves of the elements first,
/// of what is left over at the end too.
fn lay_out(chunks: &mut Vec<[u8; 64]>, a: &[u8], b: &[u8]) {
    chunks.clear();
    chunks.resize(a.len().div_ceil(64), [0; 64]);
    let sum = a.iter().zip(b).map(|(a, b)| a ^ b);
    chunks.as_flattened_mut().iter_mut().zip(sum).for_each(|(to, from)| *to = from);
    let half = a.len() % 64 / 2;
    if let Some(last) = chunks.last_mut().filter(|_| half > 0) {
        last.copy_within(half..2 * half, 32);
        last[half..32].fill(0);
        last[32 + half..].fill(0);
    }
}

/// Undoes it.
fn take_back(symbol: &mut Vec<u8>, chunks: &[[u8; 64]], length: usize) {
    symbol.clear();
    symbol.extend_from_slice(chunks.as_flattened());
    let half = length % 64 / 2;
    if half > 0 {
        let last = length / 64 * 64;
        symbol.copy_within(last + 32..last + 32 + half, last + half);
    }
    symbol.truncate(length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use proptest::prelude::*;
    use reed_solomon_simd::ReedSolomonDecoder;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn to_the_bit_as_the_crates_decoder(
            k in 1usize..=128, half in 1usize..=120, seed: u64, e in 1usize..=MAX_FEW,
        ) {
            let (length, e, mut random) = (half * 2, e.min(k), Random(seed));
            let mut window = Window::new();
            let packets: Vec<_> = (0..k).map(|_| {
                (0..length - 2).map(|_| random.next() as u8).collect::<Vec<_>>()
            }).collect();
            for (seq, packet) in packets.iter().enumerate() {
                window.insert(seq as u64, packet).unwrap();
            }
            let mut parity = Parity::new();
            prop_assert!(parity.compute(&window, 0, k as u16, length, MAX_ROWS));
            let mut pick = |n: usize, of: usize| {
                let mut all: Vec<_> = (0..of).collect();
                (0..n).map(|_| all.swap_remove(random.below(all.len() as u64) as usize)).collect::<Vec<_>>()
            };
            let (missing, numbers) = (pick(e, k), pick(e, MAX_ROWS));
            let mut left = Window::new();
            let mut stock = ReedSolomonDecoder::new(k, MAX_ROWS, length).unwrap();
            left.advance(k as u64);
            for seq in (0..k).filter(|seq| !missing.contains(seq)) {
                left.insert(seq as u64, &packets[seq]).unwrap();
                stock.add_original_shard(seq, window.symbol(seq as u64).unwrap()).unwrap();
            }
            let rows: Vec<_> = numbers.iter().map(|row| (*row, parity.row(*row).unwrap())).collect();
            rows.iter().for_each(|(row, symbol)| stock.add_recovery_shard(*row, symbol).unwrap());
            let task = Task { base: 0, cover: k as u16, length, missing: &missing, rows: &rows };
            let mut few = Few::new();
            prop_assert!(few.restore(&left, &task));
            let mut got: Vec<_> =
                missing.iter().enumerate().map(|(i, at)| (*at, few.symbol(i).to_vec())).collect();
            got.sort();
            let stock = stock.decode().unwrap();
            let mut expected: Vec<_> =
                stock.restored_original_iter().map(|(at, symbol)| (at, symbol.to_vec())).collect();
            expected.sort();
            prop_assert_eq!(got, expected);
        }
    }
}
