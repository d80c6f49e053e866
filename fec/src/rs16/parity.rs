//! The parity rows of one block, from packets in a window.

use reed_solomon_simd::ReedSolomonEncoder;

use super::MAX_ROWS;
use crate::window::Window;

/// Computes parity; keeps its buffers.
pub(super) struct Parity {
    inner: Option<ReedSolomonEncoder>,
    padded: Vec<u8>,
    rows: Vec<u8>,
    length: usize,
}

impl Parity {
    pub(super) fn new() -> Self {
        Self { inner: None, padded: Vec::new(), rows: Vec::new(), length: 0 }
    }

    /// Computes the first `rows` rows over packets `base..base + cover`, in symbols of `length`
    /// bytes (even, and no symbol is longer); packets that are not there count as zeros. `false`
    /// if the code has no such shape.
    pub(super) fn compute(
        &mut self,
        window: &Window,
        base: u64,
        cover: u16,
        length: usize,
        rows: usize,
    ) -> bool {
        let filled = self.fill(usize::from(cover), length, |at| {
            window.symbol(base + at as u64).unwrap_or_default()
        });
        filled && self.encode(length, rows)
    }

    /// Computes the rows of the block of `cover` symbols of one element each, of which the one at
    /// `place` is 1 and all others are 0.
    pub(super) fn compute_unit(&mut self, cover: u16, place: usize) -> bool {
        let filled = self.fill(usize::from(cover), 2, |at| if at == place { &[1] } else { &[] });
        filled && self.encode(2, MAX_ROWS)
    }

    fn encode(&mut self, length: usize, rows: usize) -> bool {
        let Some(inner) = &mut self.inner else { return false };
        let Ok(result) = inner.encode() else { return false };
        self.rows.clear();
        self.length = length;
        result.recovery_iter().take(rows).for_each(|row| self.rows.extend_from_slice(row));
        true
    }

    fn fill<'a>(&mut self, k: usize, length: usize, symbol: impl Fn(usize) -> &'a [u8]) -> bool {
        let ready = match &mut self.inner {
            Some(inner) => inner.reset(k, MAX_ROWS, length).is_ok(),
            none => {
                *none = ReedSolomonEncoder::new(k, MAX_ROWS, length).ok();
                none.is_some()
            }
        };
        let Some(inner) = self.inner.as_mut().filter(|_| ready) else { return false };
        (0..k).all(|at| {
            self.padded.clear();
            self.padded.extend_from_slice(symbol(at));
            self.padded.resize(length, 0);
            inner.add_original_shard(&self.padded).is_ok()
        })
    }

    /// A row that was computed.
    pub(super) fn row(&self, row: usize) -> Option<&[u8]> {
        self.rows.get(row * self.length..(row + 1) * self.length)
    }
}

/// The length of a block's symbols: even, and at least the longest packet's.
pub(super) fn symbol_length(window: &Window, base: u64, cover: u16) -> usize {
    let symbols = (base..base + u64::from(cover)).filter_map(|seq| window.symbol(seq));
    symbols.map(<[u8]>::len).max().unwrap_or(0).next_multiple_of(2)
}

pub(super) fn warm_up() {
    let mut window = Window::new();
    let _ = window.insert(0, &[0]);
    Parity::new().compute(&window, 0, 1, 4, 1);
}
