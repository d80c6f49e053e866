//! Blocks of Reed-Solomon over GF(65536): any `k` of a block's symbols restore it.
//!
//! The code is reed-solomon-simd's (the FFT construction of Lin, Han and Chung) with
//! [`MAX_ROWS`] rows of parity, whatever the block's length: so each row is the same however many
//! are sent, and more can follow on request. Symbols are padded with zeros to the length of the
//! block's longest, and to an even one, as the field's elements have two bytes.

mod decoder;
mod encoder;
mod few;
mod parity;

pub use decoder::{Decoder, MAX_BLOCKS, MAX_HELD};
pub use encoder::Encoder;

/// Rows of parity in the code, a power of two; a header's key is one of them.
pub const MAX_ROWS: usize = 64;

/// Builds the crate's tables (some 12 ms and 8 MiB, once in a process), so that no packet waits
/// for them.
pub fn warm_up() {
    parity::warm_up();
}
