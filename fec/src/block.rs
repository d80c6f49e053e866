//! Block Reed-Solomon code over GF(65536): any `k` of the `k + r` symbols restore the block.

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

/// Most source symbols a block may have; bounds what a peer can make a decoder hold.
pub const MAX_SOURCE: usize = 256;
/// Most repair symbols a block may have.
pub const MAX_REPAIR: usize = 128;
/// Longest symbol, in bytes: a datagram of a jumbo frame.
pub const MAX_SYMBOL: usize = 9216;

/// What a block looks like; both ends have to agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    source: usize,
    repair: usize,
    symbol: usize,
}

/// Why a shape or a symbol was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The shape is outside the limits of this module.
    #[error(
        "a block of {source_symbols} source and {repair} repair symbols of {symbol} bytes is out of bounds"
    )]
    #[expect(missing_docs, reason = "the message names them")]
    Shape { source_symbols: usize, repair: usize, symbol: usize },
    /// A symbol has the wrong length or number, or came twice.
    #[error("symbol {index} does not belong to the block")]
    #[expect(missing_docs, reason = "the message names it")]
    Symbol { index: usize },
    /// Fewer than `k` symbols are there.
    #[error("{missing} symbols are missing to restore the block")]
    #[expect(missing_docs, reason = "the message names it")]
    TooFew { missing: usize },
}

impl Shape {
    /// `source` symbols protected by `repair` more, each `symbol` bytes long (even, as the field's
    /// elements have two bytes).
    pub fn new(source: usize, repair: usize, symbol: usize) -> Result<Self, BlockError> {
        let fits = (1..=MAX_SOURCE).contains(&source)
            && (1..=MAX_REPAIR).contains(&repair)
            && (2..=MAX_SYMBOL).contains(&symbol)
            && symbol.is_multiple_of(2);
        if fits {
            Ok(Self { source, repair, symbol })
        } else {
            Err(BlockError::Shape { source_symbols: source, repair, symbol })
        }
    }
}

/// Makes the repair symbols of a block.
pub struct Encoder {
    shape: Shape,
    inner: ReedSolomonEncoder,
    added: usize,
}

impl Encoder {
    /// An encoder for blocks of one shape, reused from block to block.
    pub fn new(shape: Shape) -> Result<Self, BlockError> {
        let inner = ReedSolomonEncoder::new(shape.source, shape.repair, shape.symbol)
            .map_err(|_| shape.refused())?;
        Ok(Self { shape, inner, added: 0 })
    }

    /// Adds the next source symbol.
    pub fn push(&mut self, symbol: &[u8]) -> Result<(), BlockError> {
        let index = self.added;
        self.inner.add_original_shard(symbol).map_err(|_| BlockError::Symbol { index })?;
        self.added += 1;
        Ok(())
    }

    /// Once all source symbols are in: hands out each repair symbol, and is ready for the next block.
    pub fn finish(&mut self, mut repair: impl FnMut(usize, &[u8])) -> Result<(), BlockError> {
        let missing = self.shape.source - self.added;
        let result = self.inner.encode().map_err(|_| BlockError::TooFew { missing })?;
        result.recovery_iter().enumerate().for_each(|(i, symbol)| repair(i, symbol));
        self.added = 0;
        Ok(())
    }
}

/// Restores the missing source symbols of a block.
pub struct Decoder {
    shape: Shape,
    inner: ReedSolomonDecoder,
    got: usize,
}

impl Decoder {
    /// A decoder for blocks of one shape, reused from block to block.
    pub fn new(shape: Shape) -> Result<Self, BlockError> {
        let inner = ReedSolomonDecoder::new(shape.source, shape.repair, shape.symbol)
            .map_err(|_| shape.refused())?;
        Ok(Self { shape, inner, got: 0 })
    }

    /// Takes a source symbol that arrived.
    pub fn source(&mut self, index: usize, symbol: &[u8]) -> Result<(), BlockError> {
        self.inner.add_original_shard(index, symbol).map_err(|_| BlockError::Symbol { index })?;
        self.got += 1;
        Ok(())
    }

    /// Takes a repair symbol that arrived.
    pub fn repair(&mut self, index: usize, symbol: &[u8]) -> Result<(), BlockError> {
        self.inner.add_recovery_shard(index, symbol).map_err(|_| BlockError::Symbol { index })?;
        self.got += 1;
        Ok(())
    }

    /// Hands out each source symbol that was missing, and is ready for the next block.
    pub fn finish(&mut self, mut restored: impl FnMut(usize, &[u8])) -> Result<(), BlockError> {
        let missing = self.shape.source.saturating_sub(self.got);
        let result = self.inner.decode().map_err(|_| BlockError::TooFew { missing })?;
        result.restored_original_iter().for_each(|(i, symbol)| restored(i, symbol));
        self.got = 0;
        Ok(())
    }
}

impl Shape {
    fn refused(self) -> BlockError {
        let Self { source, repair, symbol } = self;
        BlockError::Shape { source_symbols: source, repair, symbol }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(k: usize, symbol: usize, seed: u8) -> Vec<Vec<u8>> {
        (0..k).map(|i| (0..symbol).map(|j| seed ^ (i * 31 + j * 7) as u8).collect()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_k_of_the_symbols_restore_the_block(
            k in 1usize..40, r in 1usize..16, half in 1usize..40, seed: u8, order in any::<u64>(),
        ) {
            let shape = Shape::new(k, r, half * 2).unwrap();
            let source = block(k, half * 2, seed);
            let mut encoder = Encoder::new(shape).unwrap();
            source.iter().for_each(|s| encoder.push(s).unwrap());
            let mut repair = Vec::new();
            encoder.finish(|_, s| repair.push(s.to_vec())).unwrap();

            let lost = (order as usize % (r + 1)).min(k);
            let first = (order >> 32) as usize % k;
            let gone: Vec<usize> = (0..lost).map(|i| (first + i) % k).collect();
            let mut decoder = Decoder::new(shape).unwrap();
            for i in (0..k).filter(|i| !gone.contains(i)) {
                decoder.source(i, &source[i]).unwrap();
            }
            for (i, s) in repair.iter().enumerate().take(lost) {
                decoder.repair(i, s).unwrap();
            }
            let mut back = Vec::new();
            decoder.finish(|i, s| back.push((i, s.to_vec()))).unwrap();
            prop_assert_eq!(back.len(), lost);
            for (i, s) in back {
                prop_assert_eq!(&s, &source[i]);
            }
        }
    }

    #[test]
    fn too_few_symbols_are_counted_not_guessed() {
        let shape = Shape::new(4, 2, 8).unwrap();
        let mut decoder = Decoder::new(shape).unwrap();
        decoder.source(0, &[0; 8]).unwrap();
        let error = decoder.finish(|_, _| panic!("nothing can be restored")).unwrap_err();
        assert_eq!(error, BlockError::TooFew { missing: 3 });
    }

    #[test]
    fn absurd_shapes_and_foreign_symbols_are_refused() {
        assert!(Shape::new(0, 1, 8).is_err());
        assert!(Shape::new(1, MAX_REPAIR + 1, 8).is_err());
        assert!(Shape::new(1, 1, 7).is_err());
        let mut decoder = Decoder::new(Shape::new(4, 2, 8).unwrap()).unwrap();
        assert_eq!(decoder.source(4, &[0; 8]), Err(BlockError::Symbol { index: 4 }));
        assert_eq!(decoder.source(1, &[0; 6]), Err(BlockError::Symbol { index: 1 }));
        decoder.source(1, &[0; 8]).unwrap();
        assert_eq!(decoder.source(1, &[0; 8]), Err(BlockError::Symbol { index: 1 }));
    }
}
