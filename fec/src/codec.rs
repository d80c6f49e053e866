//! What a codec is to the tunnel: packets in, repair symbols out, and back again.
//!
//! Source packets of one stream are numbered consecutively from anywhere; numbers are 64 bits wide
//! here and cut short on the wire ([`crate::sequence`]). A *symbol* is a packet with its length
//! before it (two bytes, big-endian) and zeros behind it, up to the length of the longest symbol
//! that a repair symbol covers. A *repair symbol* is a combination of the symbols of consecutive
//! packets; its [`Header`] tells which packets, and how they were combined.
//!
//! Both ends keep a bounded number of recent packets, [`SPAN`] of them: nothing older is repaired,
//! nothing a peer sends makes them keep more.

use crate::{rs16, slc};

/// Packets an encoder or a decoder keeps: how far behind the newest one repair can reach.
pub const SPAN: usize = 1024;
/// Longest packet, in bytes: what a jumbo frame carries, less what a symbol adds.
pub const MAX_PACKET: usize = 9214;
/// What a symbol adds to a packet: its length.
pub const LENGTH_SIZE: usize = 2;
/// Longest symbol, in bytes.
pub const MAX_SYMBOL: usize = MAX_PACKET + LENGTH_SIZE;
/// Most packets one repair symbol covers.
pub const MAX_COVER: usize = 256;
/// Repair symbols a decoder works on ahead of the packets that arrive: each packet that arrives
/// allows one more, up to this many. More repair than sources is never of use, and this bounds
/// what a peer can make a decoder compute.
pub const REPAIR_CREDIT: u32 = 512;

/// What tells a decoder how a repair symbol was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Number of the first packet it covers.
    pub base: u64,
    /// How many consecutive packets it covers, 1 to [`MAX_COVER`].
    pub cover: u16,
    /// How they were combined: for `slc` the repair key from which the coefficients are drawn,
    /// for `rs16` the row of the block's parity.
    pub key: u16,
}

/// Why a packet or a repair symbol was not taken. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Refused {
    /// Longer than [`MAX_PACKET`].
    #[error("a packet of {length} bytes is longer than {MAX_PACKET}")]
    Packet { length: usize },
    /// More than [`SPAN`] behind the newest packet.
    #[error("packet {seq} is too far behind {newest}, the newest")]
    Old { seq: u64, newest: u64 },
    /// A header that no encoder writes.
    #[error("a repair symbol over {cover} packets from {base} on, key {key}, is out of bounds")]
    Header { base: u64, cover: u16, key: u16 },
    /// A symbol of a length that no encoder writes, or that contradicts the packets it covers.
    #[error("a repair symbol of {length} bytes does not fit the packets it covers")]
    Symbol { length: usize },
    /// More repair than the packets that arrived can warrant ([`REPAIR_CREDIT`]).
    #[error("more repair symbols than the packets that arrived warrant")]
    Flood,
}

/// What became of repair symbols; each number only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Repair symbols taken.
    pub repair: u64,
    /// Of these, what told nothing new: every packet was there, or earlier repair told the same.
    pub idle: u64,
    /// Packets recovered.
    pub recovered: u64,
    /// Repair symbols given up: a packet they covered fell out of the span, or too much was missing.
    pub expired: u64,
    /// Packets and repair symbols refused.
    pub refused: u64,
}

/// Makes repair symbols over the packets that were sent.
pub trait Encoder: Send {
    /// Takes the next packet. A number that does not follow the one before starts afresh: nothing
    /// before it is covered any more.
    fn push(&mut self, seq: u64, packet: &[u8]) -> Result<(), Refused>;

    /// How many of the newest packets a repair symbol covers, 1 to [`MAX_COVER`] (held within):
    /// the window of `slc`; the length at which a block of `rs16` closes by itself.
    fn set_cover(&mut self, packets: usize);

    /// `rs16`: closes the open block, so that it can be repaired before it is full. `slc` has
    /// nothing to close.
    fn close(&mut self);

    /// One more repair symbol: over the newest packets (`slc`), or the block last closed (`rs16`).
    /// `None` while there is nothing to cover, or the block's parity is used up.
    fn repair(&mut self) -> Option<(Header, &[u8])>;

    /// One more repair symbol that covers packet `seq`, at the receiver's request. `slc` covers it
    /// and what follows, as far as [`Encoder::set_cover`] allows; `rs16` its block. `None` if it
    /// is no longer kept, or not yet in a closed block.
    fn top_up(&mut self, seq: u64) -> Option<(Header, &[u8])>;

    /// A packet that is still kept, for retransmission.
    fn packet(&self, seq: u64) -> Option<&[u8]>;
}

/// Restores packets from those that arrived and repair symbols.
pub trait Decoder: Send {
    /// Takes a packet that arrived, in whatever order; `false` if it was there already.
    fn source(&mut self, seq: u64, packet: &[u8]) -> Result<bool, Refused>;

    /// Takes a repair symbol; what it restores is to be had from [`Decoder::poll`].
    fn repair(&mut self, header: &Header, symbol: &[u8]) -> Result<(), Refused>;

    /// The next packet that was recovered, in the order of recovery; until `None` after each call
    /// of the two above.
    fn poll(&mut self) -> Option<(u64, &[u8])>;

    /// A packet that arrived or was recovered, as long as it is kept.
    fn packet(&self, seq: u64) -> Option<&[u8]>;

    /// How many more independent repair symbols would restore all that repair symbols have covered.
    fn deficit(&self) -> usize;

    /// Whether a packet is missing and retransmitting it is of use. Not all that is missing need
    /// come again: with those that are wanted, the repair symbols at hand give the rest.
    fn wants(&self, seq: u64) -> bool;

    /// What became of everything so far.
    fn counters(&self) -> Counters;
}

/// The codecs there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Blocks of Reed-Solomon over GF(65536): any `k` of a block's symbols restore it, and more
    /// parity of the same block can follow on request.
    Rs16,
    /// A sliding window with random coefficients over GF(256), after RFC 8681.
    Slc,
}

impl Codec {
    /// Every codec.
    pub const ALL: [Self; 2] = [Self::Rs16, Self::Slc];

    /// Its number in a registration.
    pub const fn id(self) -> u8 {
        match self {
            Self::Rs16 => 1,
            Self::Slc => 2,
        }
    }

    /// The codec of a number, if there is one.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.id() == id)
    }

    /// An encoder. It keeps copies of packets, up to [`SPAN`], in buffers that grow with use.
    pub fn encoder(self) -> Box<dyn Encoder> {
        match self {
            Self::Rs16 => Box::new(rs16::Encoder::new()),
            Self::Slc => Box::new(slc::Encoder::new()),
        }
    }

    /// A decoder. It keeps copies of packets, up to [`SPAN`], and repair symbols up to the bounds
    /// of its module.
    pub fn decoder(self) -> Box<dyn Decoder> {
        match self {
            Self::Rs16 => Box::new(rs16::Decoder::new()),
            Self::Slc => Box::new(slc::Decoder::new()),
        }
    }
}

#[cfg(test)]
mod tests;
