//! Forward error correction for datagrams: codecs, and what they need to know about loss.
//!
//! Pure: no clock, no randomness, no I/O. A sender asks a [`codec::Encoder`] for repair symbols
//! over its packets; a receiver gives a [`codec::Decoder`] whatever arrived and gets back what did
//! not; [`loss`] turns the fate of past packets into the numbers a controller decides by.

#![forbid(unsafe_code)]

pub mod codec;
pub mod control;
pub mod forecast;
mod gf256;
pub mod loss;
pub mod rs16;
pub mod sequence;
pub mod slc;
#[cfg(test)]
mod testing;
mod tinymt32;
mod window;

pub use codec::{Codec, Counters, Decoder, Encoder, Header, Refused};
