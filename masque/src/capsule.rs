//! The Capsule Protocol (RFC 9297 §3): an incremental parser that never waits for a whole capsule
//! it does not need.
//!
//! The parser is told which capsule types its session knows and how long each may be. A capsule
//! that lies whole in the pushed bytes is handed on without a copy; one that is split is gathered
//! up to its bound. Unknown types are skipped as they arrive, and so is a DATAGRAM capsule above
//! [`MAX_DATAGRAM`].

use bytes::Bytes;

use crate::{address, bond, dns, route, varint};

/// DATAGRAM (RFC 9297 §3.5).
pub const DATAGRAM: u64 = 0x00;
/// ADDRESS_ASSIGN (RFC 9484 §4.7.1).
pub const ADDRESS_ASSIGN: u64 = 0x01;
/// ADDRESS_REQUEST (RFC 9484 §4.7.2).
pub const ADDRESS_REQUEST: u64 = 0x02;
/// ROUTE_ADVERTISEMENT (RFC 9484 §4.7.3).
pub const ROUTE_ADVERTISEMENT: u64 = 0x03;

/// The longest DATAGRAM capsule value that is gathered, in bytes: a context id of the longest form
/// and the largest IP packet without a jumbo payload. A longer one is discarded as it arrives.
pub const MAX_DATAGRAM: usize = varint::MAX_LEN + 65_535;

/// A known capsule type and the longest value of it that is gathered, in bytes.
pub type Known = (u64, usize);

/// What a CONNECT-UDP session understands.
pub const KNOWN_UDP: &[Known] = &[(DATAGRAM, MAX_DATAGRAM)];

/// What a CONNECT-IP session understands.
pub const KNOWN_IP: &[Known] = &[
    (DATAGRAM, MAX_DATAGRAM),
    (ADDRESS_ASSIGN, address::MAX_CAPSULE),
    (ADDRESS_REQUEST, address::MAX_CAPSULE),
    (ROUTE_ADVERTISEMENT, route::MAX_CAPSULE),
    (dns::DNS_ASSIGN, dns::MAX_CAPSULE),
];

/// What it understands when a [bond](crate::bond) was negotiated.
pub const KNOWN_BONDED_IP: &[Known] = &[
    (DATAGRAM, MAX_DATAGRAM),
    (ADDRESS_ASSIGN, address::MAX_CAPSULE),
    (ADDRESS_REQUEST, address::MAX_CAPSULE),
    (ROUTE_ADVERTISEMENT, route::MAX_CAPSULE),
    (dns::DNS_ASSIGN, dns::MAX_CAPSULE),
    (bond::capsules::BOND_ASSIGN, bond::capsules::MAX_CAPSULE),
    (bond::capsules::BOND_ACK, bond::capsules::MAX_CAPSULE),
    (bond::capsules::BOND_CLOSE, bond::capsules::MAX_CAPSULE),
    (bond::capsules::BOND_TOKEN, bond::capsules::MAX_CAPSULE),
    (bond::capsules::BOND_JOIN, bond::capsules::MAX_CAPSULE),
    (bond::capsules::PATH_STATUS, bond::capsules::MAX_CAPSULE),
];

/// One whole capsule of a known type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capsule<'a> {
    /// The capsule type.
    pub kind: u64,
    /// The capsule value.
    pub value: &'a [u8],
}

/// Why a stream of capsules cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// The stream ended inside a capsule (RFC 9297 §3.3).
    #[error("the stream ended inside a capsule")]
    Truncated,
    /// A control capsule is longer than its bound.
    #[error("a capsule of type {kind:#x} is {len} bytes long; at most {max} are accepted")]
    TooLong {
        /// The capsule type.
        kind: u64,
        /// The length it announced.
        len: u64,
        /// The bound.
        max: usize,
    },
}

/// The longest header: type and length, each in the longest form.
const MAX_HEADER: usize = 2 * varint::MAX_LEN;

#[derive(Debug, Clone, Copy)]
enum State {
    /// Gathering type and length in `header[..have]`.
    Header { have: usize },
    /// Gathering the value in `buffer`.
    Value { kind: u64, len: usize },
    /// Throwing `left` bytes away.
    Skip { left: u64 },
}

/// The parser of one direction of one stream.
#[derive(Debug)]
pub struct CapsuleParser {
    known: &'static [Known],
    state: State,
    header: [u8; MAX_HEADER],
    buffer: Vec<u8>,
    oversize: u64,
}

impl Default for CapsuleParser {
    fn default() -> Self {
        Self::new(KNOWN_UDP)
    }
}

impl CapsuleParser {
    /// A parser that hands on the types in `known` and skips all others.
    pub fn new(known: &'static [Known]) -> Self {
        Self {
            known,
            state: State::Header { have: 0 },
            header: [0; MAX_HEADER],
            buffer: Vec::new(),
            oversize: 0,
        }
    }

    /// How many DATAGRAM capsules were discarded because of their length.
    pub fn oversize_datagrams(&self) -> u64 {
        self.oversize
    }

    /// How many bytes of an unfinished capsule are held.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Takes the next bytes of the stream and calls `each` for every known capsule they complete.
    pub fn push(
        &mut self,
        mut data: &[u8],
        each: &mut impl FnMut(Capsule<'_>),
    ) -> Result<(), CapsuleError> {
        while !data.is_empty() {
            match self.state {
                State::Header { have } => {
                    let take = data.len().min(MAX_HEADER - have);
                    self.header[have..have + take].copy_from_slice(&data[..take]);
                    let Some((kind, len, used)) = header(&self.header[..have + take]) else {
                        self.state = State::Header { have: have + take };
                        return Ok(());
                    };
                    // Every byte gathered before was needed, so `used` is above `have`.
                    data = &data[used - have..];
                    self.state = self.begin(kind, len)?;
                    if let State::Value { kind, len } = self.state
                        && data.len() >= len
                    {
                        each(Capsule { kind, value: &data[..len] });
                        data = &data[len..];
                        self.state = State::Header { have: 0 };
                    }
                }
                State::Value { kind, len } => {
                    let take = data.len().min(len - self.buffer.len());
                    self.buffer.extend_from_slice(&data[..take]);
                    data = &data[take..];
                    if self.buffer.len() == len {
                        each(Capsule { kind, value: &self.buffer });
                        self.buffer.clear();
                        self.state = State::Header { have: 0 };
                    }
                }
                State::Skip { left } => {
                    let take = left.min(data.len() as u64);
                    data = &data[take as usize..];
                    self.state = match left - take {
                        0 => State::Header { have: 0 },
                        left => State::Skip { left },
                    };
                }
            }
        }
        Ok(())
    }

    /// The stream has ended: an error unless it did so between two capsules.
    pub fn finish(&self) -> Result<(), CapsuleError> {
        match self.state {
            State::Header { have: 0 } => Ok(()),
            _ => Err(CapsuleError::Truncated),
        }
    }

    fn begin(&mut self, kind: u64, len: u64) -> Result<State, CapsuleError> {
        let Some(&(_, max)) = self.known.iter().find(|(known, _)| *known == kind) else {
            return Ok(skip(len));
        };
        if len <= max as u64 {
            return Ok(State::Value { kind, len: len as usize });
        }
        if kind == DATAGRAM {
            self.oversize += 1;
            return Ok(skip(len));
        }
        Err(CapsuleError::TooLong { kind, len, max })
    }
}

const fn skip(len: u64) -> State {
    match len {
        0 => State::Header { have: 0 },
        left => State::Skip { left },
    }
}

fn header(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, a) = varint::decode(bytes)?;
    let (len, b) = varint::decode(&bytes[a..])?;
    Some((kind, len, a + b))
}

/// Appends one capsule to `out`.
pub fn encode(kind: u64, value: &[u8], out: &mut Vec<u8>) {
    out.reserve(MAX_HEADER + value.len());
    varint::encode(kind, out);
    varint::encode(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Appends a DATAGRAM capsule to `out`: `context` is the encoded Context ID, as in
/// [`CONTEXT_ID_ZERO`](crate::datagram::CONTEXT_ID_ZERO).
pub fn encode_datagram(context: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(MAX_HEADER + context.len() + payload.len());
    varint::encode(DATAGRAM, out);
    varint::encode((context.len() + payload.len()) as u64, out);
    out.extend_from_slice(context);
    out.extend_from_slice(payload);
}

/// The same as bytes of their own: the way of a packet to a peer without QUIC datagrams.
pub fn encode_datagram_capsule(context: &[u8], payload: &[u8]) -> Bytes {
    let mut out = Vec::new();
    encode_datagram(context, payload, &mut out);
    out.into()
}

/// Whether `kind` is reserved to exercise the rule that unknown types are skipped (RFC 9297 §5.4).
pub const fn is_grease(kind: u64) -> bool {
    kind >= 0x17 && (kind - 0x17).is_multiple_of(0x29)
}

/// The `n`-th reserved type; `n` is cut to the range in which it is one.
pub const fn grease(n: u64) -> u64 {
    (n % ((varint::MAX - 0x17) / 0x29)) * 0x29 + 0x17
}

#[cfg(test)]
mod tests;
