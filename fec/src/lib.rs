//! Forward error correction for datagrams: codecs, and what they need to know about loss.
//!
//! Pure: no clock, no randomness, no I/O. A sender asks [`block::Encoder`] for repair symbols over
//! a block of source symbols; a receiver gives [`block::Decoder`] whatever arrived; [`loss`] turns
//! the fate of past packets into the numbers a controller decides by.

#![forbid(unsafe_code)]

pub mod block;
pub mod loss;
