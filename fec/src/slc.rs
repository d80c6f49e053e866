//! A sliding-window code over GF(256), after RFC 8681.
//!
//! A repair symbol is `Σ cᵢ · symbolᵢ` over the packets its header names; the coefficients are
//! drawn from TinyMT32, seeded with the header's key, none of them zero (RFC 8681 §3.6 with a
//! density threshold of 15). There are no blocks to wait for: any repair symbol helps to restore
//! any packet it covers.

mod decoder;
mod encoder;

pub use decoder::{Decoder, MAX_UNKNOWN};
pub use encoder::Encoder;
