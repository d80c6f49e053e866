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
        let filled = self.fill(window, base, cover, length);
        let Some(inner) = self.inner.as_mut().filter(|_| filled) else { return false };
        let Ok(result) = inner.encode() else { return false };
        self.rows.clear();
        self.length = length;
        result.recovery_iter().take(rows).for_each(|row| self.rows.extend_from_slice(row));
        true
    }

    fn fill(&mut self, window: &Window, base: u64, cover: u16, length: usize) -> bool {
        let k = usize::from(cover);
        let ready = match &mut self.inner {
            Some(inner) => inner.reset(k, MAX_ROWS, length).is_ok(),
            none => {
                *none = ReedSolomonEncoder::new(k, MAX_ROWS, length).ok();
                none.is_some()
            }
        };
        let Some(inner) = self.inner.as_mut().filter(|_| ready) else { return false };
        (base..base + u64::from(cover)).all(|seq| {
            self.padded.clear();
            self.padded.extend_from_slice(window.symbol(seq).unwrap_or_default());
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
