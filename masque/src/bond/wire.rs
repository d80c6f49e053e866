//! The layer's datagrams, byte by byte. All numbers are in network byte order; a datagram is the
//! HTTP Datagram Payload behind the Context ID.
//!
//! ```text
//! source    00 C S BB 00 | path number 16 | sequence 24 | back 0, 8 or 16 | IP packet
//! repair    01 K 00000   | path number 16 | base 24 | span 16 | row 16 | symbol
//! feedback  10 000000    | clock 32 | settled 24 | next 24 | counters | paths | missing
//! probe     11 000000    | path number 16 | zeros
//! ```

use crate::varint;

/// The most bytes the layer puts in front of a packet, Context ID left out: those of a repair
/// symbol, whose content is a packet and the four bytes of [`SYMBOL_HEADER`].
pub const MAX_OVERHEAD: usize = REPAIR_HEADER + SYMBOL_HEADER;

/// Kind, path number, base, span and row.
pub const REPAIR_HEADER: usize = 1 + 2 + 3 + 2 + 2;

/// In front of a packet within a symbol: its `back` and its length.
pub const SYMBOL_HEADER: usize = 4;

/// The most source packets a repair symbol may be about.
pub const MAX_SPAN: u16 = 256;

/// The most bytes of missing ranges in one feedback.
pub const MAX_RANGES: usize = 960;

/// The longest feedback datagram, bytes.
pub const MAX_FEEDBACK: usize = FEEDBACK_HEADER + super::MAX_PATHS * PATH_ENTRY + MAX_RANGES;

const FEEDBACK_HEADER: usize = 1 + 4 + 3 + 3 + 4 + 4 + 4 + 2 + 1;
const PATH_ENTRY: usize = 1 + 4 + 4 + 4 + 4 + 4;

/// Why a datagram was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WireError {
    /// Neither Context ID 0 nor the agreed one.
    #[error("unknown context")]
    Context,
    /// It ends too soon.
    #[error("truncated")]
    Truncated,
    /// A reserved bit is set, or a value is out of its range.
    #[error("out of range")]
    Range,
    /// It is too old, or too far ahead, to be of use.
    #[error("outside the window")]
    Window,
    /// It is there already.
    #[error("duplicate")]
    Duplicate,
    /// The context has not been registered yet.
    #[error("the context is not registered yet")]
    NotReady,
    /// The path is not part of the bond.
    #[error("unknown path")]
    Path,
}

/// What is in a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// Context ID 0: an IP packet.
    Plain,
    /// A numbered packet.
    Source(Source),
    /// A repair symbol and where it begins.
    Repair(Repair),
    /// A report.
    Feedback(Feedback<'a>),
    /// Nothing but a path number.
    Probe {
        /// The path number, truncated.
        number: u16,
    },
}

/// The header of a numbered packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Counts datagrams on the path, truncated to 16 bits.
    pub number: u16,
    /// The packet's number in its direction, truncated to 24 bits.
    pub sequence: u32,
    /// How far before it the packet went that must be delivered first; 0: none must.
    pub back: u16,
    /// It has been sent before, or will be again.
    pub copy: bool,
    /// It belongs to a flow that sends little and must not wait.
    pub sparse: bool,
    /// Where the packet begins in the payload, Context ID included.
    pub at: usize,
}

/// The header of a repair symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// Counts datagrams on the path, truncated to 16 bits.
    pub number: u16,
    /// Sliding window, or block.
    pub window: bool,
    /// The first sequence number it is about, truncated to 24 bits.
    pub base: u32,
    /// How many packets from there on it is about.
    pub span: u16,
    /// Block: the row of the code. Window: the seed of the coefficients.
    pub row: u16,
    /// Where the symbol begins in the payload, Context ID included.
    pub at: usize,
}

/// A report by the receiver. Counters count from 0 and wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feedback<'a> {
    /// The receiver's clock, microseconds.
    pub clock: u32,
    /// All sequence numbers below have arrived, were recovered or given up; 24 bits.
    pub settled: u32,
    /// The first sequence number nothing is known of; 24 bits.
    pub next: u32,
    /// Packets brought back by repair.
    pub recovered: u32,
    /// Packets that came more than once.
    pub duplicates: u32,
    /// Packets given up.
    pub given_up: u32,
    /// Repair symbols that would help now.
    pub deficit: u16,
    paths: &'a [u8],
    missing: &'a [u8],
}

/// What a feedback says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathFeedback {
    /// The path's id.
    pub path: u8,
    /// The highest path number that arrived, plus one; 0 when none has.
    pub next: u32,
    /// Datagrams that arrived.
    pub received: u32,
    /// Bytes of them, Context ID onward.
    pub bytes: u32,
    /// Runs of losses before the highest.
    pub runs: u32,
    /// How long ago the highest arrived when this was written, microseconds.
    pub held: u32,
}

impl<'a> Feedback<'a> {
    /// The paths.
    pub fn paths(&self) -> impl Iterator<Item = PathFeedback> + 'a {
        self.paths.chunks_exact(PATH_ENTRY).map(|e| PathFeedback {
            path: e[0],
            next: u32_at(e, 1),
            received: u32_at(e, 5),
            bytes: u32_at(e, 9),
            runs: u32_at(e, 13),
            held: u32_at(e, 17),
        })
    }

    /// Missing ranges in ascending order: how many are there after the end of the one before (or
    /// after `settled`), and how many are missing then.
    pub fn missing(&self) -> impl Iterator<Item = (u64, u64)> + 'a {
        let mut rest = self.missing;
        std::iter::from_fn(move || {
            let (there, a) = varint::decode(rest)?;
            let (gone, b) = varint::decode(&rest[a..])?;
            rest = &rest[a + b..];
            Some((there, gone))
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u24_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads an HTTP Datagram Payload. `context` is the agreed Context ID.
pub fn parse(payload: &[u8], context: u64) -> Result<Datagram<'_>, WireError> {
    let (id, at) = varint::decode(payload).ok_or(WireError::Truncated)?;
    if id == 0 {
        return Ok(Datagram::Plain);
    }
    if id != context {
        return Err(WireError::Context);
    }
    let bytes = &payload[at..];
    let first = *bytes.first().ok_or(WireError::Truncated)?;
    match first >> 6 {
        0 => source(first, bytes, at),
        1 => repair(first, bytes, at),
        2 => feedback(first, bytes),
        _ if first & 0x3f != 0 => Err(WireError::Range),
        _ if bytes.len() < 3 => Err(WireError::Truncated),
        _ => Ok(Datagram::Probe { number: u16_at(bytes, 1) }),
    }
}

fn source(first: u8, bytes: &[u8], at: usize) -> Result<Datagram<'_>, WireError> {
    let extra = usize::from(first >> 2 & 3);
    if first & 3 != 0 || extra == 3 {
        return Err(WireError::Range);
    }
    let len = 6 + extra;
    if bytes.len() <= len {
        return Err(WireError::Truncated);
    }
    let back = match extra {
        0 => 0,
        1 => u16::from(bytes[6]),
        _ => u16_at(bytes, 6),
    };
    Ok(Datagram::Source(Source {
        number: u16_at(bytes, 1),
        sequence: u24_at(bytes, 3),
        back,
        copy: first & 0x20 != 0,
        sparse: first & 0x10 != 0,
        at: at + len,
    }))
}

fn repair(first: u8, bytes: &[u8], at: usize) -> Result<Datagram<'_>, WireError> {
    if bytes.len() <= REPAIR_HEADER + SYMBOL_HEADER {
        return Err(WireError::Truncated);
    }
    let span = u16_at(bytes, 6);
    if first & 0x1f != 0 || span == 0 || span > MAX_SPAN {
        return Err(WireError::Range);
    }
    Ok(Datagram::Repair(Repair {
        number: u16_at(bytes, 1),
        window: first & 0x20 != 0,
        base: u24_at(bytes, 3),
        span,
        row: u16_at(bytes, 8),
        at: at + REPAIR_HEADER,
    }))
}

fn feedback(first: u8, bytes: &[u8]) -> Result<Datagram<'_>, WireError> {
    if bytes.len() < FEEDBACK_HEADER {
        return Err(WireError::Truncated);
    }
    let paths = usize::from(bytes[FEEDBACK_HEADER - 1]);
    if first & 0x3f != 0 || paths > super::MAX_PATHS {
        return Err(WireError::Range);
    }
    let (paths, missing) = bytes[FEEDBACK_HEADER..]
        .split_at_checked(paths * PATH_ENTRY)
        .ok_or(WireError::Truncated)?;
    if missing.len() > MAX_RANGES {
        return Err(WireError::Range);
    }
    let mut at = 0;
    while at < missing.len() {
        for _ in 0..2 {
            at += varint::decode(&missing[at..]).ok_or(WireError::Truncated)?.1;
        }
    }
    Ok(Datagram::Feedback(Feedback {
        clock: u32_at(bytes, 1),
        settled: u24_at(bytes, 5),
        next: u24_at(bytes, 8),
        recovered: u32_at(bytes, 11),
        duplicates: u32_at(bytes, 15),
        given_up: u32_at(bytes, 19),
        deficit: u16_at(bytes, 23),
        paths,
        missing,
    }))
}

/// Appends the Context ID and header of a numbered packet; the packet follows.
#[inline]
pub fn put_source(context: u64, of: &Source, out: &mut Vec<u8>) {
    varint::encode(context, out);
    let extra = match of.back {
        0 => 0,
        1..=0xff => 1,
        _ => 2u8,
    };
    out.push(u8::from(of.copy) << 5 | u8::from(of.sparse) << 4 | extra << 2);
    out.extend_from_slice(&of.number.to_be_bytes());
    out.extend_from_slice(&of.sequence.to_be_bytes()[1..]);
    out.extend_from_slice(&of.back.to_be_bytes()[2 - usize::from(extra)..]);
}

/// Appends the Context ID and header of a repair symbol; the symbol follows.
pub fn put_repair(context: u64, of: &Repair, out: &mut Vec<u8>) {
    varint::encode(context, out);
    out.push(0x40 | u8::from(of.window) << 5);
    out.extend_from_slice(&of.number.to_be_bytes());
    out.extend_from_slice(&of.base.to_be_bytes()[1..]);
    out.extend_from_slice(&of.span.to_be_bytes());
    out.extend_from_slice(&of.row.to_be_bytes());
}

/// Appends a probe with its Context ID.
pub fn put_probe(context: u64, number: u16, out: &mut Vec<u8>) {
    varint::encode(context, out);
    out.push(0xc0);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends a feedback with its Context ID. Of `of` only the plain fields count; at most
/// [`MAX_PATHS`](super::MAX_PATHS) paths and [`MAX_RANGES`] bytes of ranges are written.
pub fn put_feedback(
    context: u64,
    of: &Feedback<'_>,
    paths: impl Iterator<Item = PathFeedback>,
    missing: impl Iterator<Item = (u64, u64)>,
    out: &mut Vec<u8>,
) {
    varint::encode(context, out);
    out.push(0x80);
    out.extend_from_slice(&of.clock.to_be_bytes());
    out.extend_from_slice(&of.settled.to_be_bytes()[1..]);
    out.extend_from_slice(&of.next.to_be_bytes()[1..]);
    for counter in [of.recovered, of.duplicates, of.given_up] {
        out.extend_from_slice(&counter.to_be_bytes());
    }
    out.extend_from_slice(&of.deficit.to_be_bytes());
    let count_at = out.len();
    out.push(0);
    for path in paths.take(super::MAX_PATHS) {
        out[count_at] += 1;
        out.push(path.path);
        for counter in [path.next, path.received, path.bytes, path.runs, path.held] {
            out.extend_from_slice(&counter.to_be_bytes());
        }
    }
    let end = out.len() + MAX_RANGES;
    for (there, gone) in missing {
        if out.len() + varint::len(there) + varint::len(gone) > end {
            return;
        }
        varint::encode(there, out);
        varint::encode(gone, out);
    }
}

impl Feedback<'_> {
    /// An empty report, to be filled in and [written](put_feedback).
    pub const EMPTY: Feedback<'static> = Feedback {
        clock: 0,
        settled: 0,
        next: 0,
        recovered: 0,
        duplicates: 0,
        given_up: 0,
        deficit: 0,
        paths: &[],
        missing: &[],
    };
}

#[cfg(test)]
mod tests;
