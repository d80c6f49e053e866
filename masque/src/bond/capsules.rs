//! The layer's reliable messages: capsules on the request stream of a path.

use crate::{capsule, varint};

/// BOND_ASSIGN: the client registers the Context ID (the pattern of RFC 9298 §4's registrations).
pub const BOND_ASSIGN: u64 = 0x10ee_1089;
/// BOND_ACK: the proxy accepts it.
pub const BOND_ACK: u64 = 0x2539_c7c8;
/// BOND_CLOSE: either end ends the bond; the tunnel goes on with Context ID 0.
pub const BOND_CLOSE: u64 = 0x2da2_f190;
/// BOND_TOKEN: the proxy hands out a right to join.
pub const BOND_TOKEN: u64 = 0x2040_feb2;
/// BOND_JOIN: the client uses it on a new connection.
pub const BOND_JOIN: u64 = 0x2b91_3262;
/// PATH_STATUS: either end says what it thinks of a path.
pub const PATH_STATUS: u64 = 0x0094_1414;

/// All of them.
pub const TYPES: [u64; 6] = [BOND_ASSIGN, BOND_ACK, BOND_CLOSE, BOND_TOKEN, BOND_JOIN, PATH_STATUS];

/// The longest value any of them has, bytes.
pub const MAX_CAPSULE: usize = 32;

/// 128 random bits that let one connection join, once, within [`super::tokens::LIFETIME`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why a bond ends, or a join is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// Nothing is wrong.
    Done,
    /// The token is unknown, was used, is too old, or was another account's.
    BadToken,
    /// The path's id is in use, or there are as many paths as were agreed upon.
    NoRoom,
    /// The bond the token was for is gone.
    Gone,
    /// The peer broke a rule of the extension.
    Protocol,
    /// The peer's reports cannot be true.
    Lying,
    /// A code from a later version.
    Other(u64),
}

impl CloseCode {
    const fn number(self) -> u64 {
        match self {
            Self::Done => 0,
            Self::BadToken => 1,
            Self::NoRoom => 2,
            Self::Gone => 3,
            Self::Protocol => 4,
            Self::Lying => 5,
            Self::Other(n) => n,
        }
    }

    const fn from_number(n: u64) -> Self {
        match n {
            0 => Self::Done,
            1 => Self::BadToken,
            2 => Self::NoRoom,
            3 => Self::Gone,
            4 => Self::Protocol,
            5 => Self::Lying,
            n => Self::Other(n),
        }
    }
}

/// What an end thinks of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// It carries packets.
    Active,
    /// It is to be kept warm only.
    Standby,
    /// It is dead, as far as this end can see.
    Down,
}

/// One capsule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BondCapsule {
    /// Use this Context ID.
    Assign(u64),
    /// It will be used.
    Ack(u64),
    /// The bond, or the attempt to join, is over.
    Close(CloseCode),
    /// A right to join.
    Token(Token),
    /// The connection joins as this path.
    Join {
        /// The right.
        token: Token,
        /// The path's id.
        path: u8,
    },
    /// A path's state.
    Status {
        /// Counts up from 0 for each path; an older one is ignored.
        serial: u64,
        /// The path's id.
        path: u8,
        /// The state.
        state: PathState,
    },
}

/// Why a capsule cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleFlaw {
    /// It is too short or too long for its type.
    #[error("wrong length")]
    Length,
    /// A number is out of its range.
    #[error("value {0} is out of range")]
    Range(u64),
    /// It is no capsule of this extension.
    #[error("unknown type {0:#x}")]
    Type(u64),
}

/// Reads a capsule's value.
pub fn parse(kind: u64, value: &[u8]) -> Result<BondCapsule, CapsuleFlaw> {
    let mut rest = value;
    let capsule = match kind {
        BOND_ASSIGN => BondCapsule::Assign(context(&mut rest)?),
        BOND_ACK => BondCapsule::Ack(context(&mut rest)?),
        BOND_CLOSE => BondCapsule::Close(CloseCode::from_number(number(&mut rest)?)),
        BOND_TOKEN => BondCapsule::Token(token(&mut rest)?),
        BOND_JOIN => BondCapsule::Join { token: token(&mut rest)?, path: path(&mut rest)? },
        PATH_STATUS => BondCapsule::Status {
            serial: number(&mut rest)?,
            path: path(&mut rest)?,
            state: match number(&mut rest)? {
                0 => PathState::Active,
                1 => PathState::Standby,
                2 => PathState::Down,
                n => return Err(CapsuleFlaw::Range(n)),
            },
        },
        _ => return Err(CapsuleFlaw::Type(kind)),
    };
    if rest.is_empty() { Ok(capsule) } else { Err(CapsuleFlaw::Length) }
}

/// Appends a whole capsule to `out`.
pub fn encode(of: &BondCapsule, out: &mut Vec<u8>) {
    let mut value = Vec::with_capacity(MAX_CAPSULE);
    let kind = match *of {
        BondCapsule::Assign(context) => {
            varint::encode(context, &mut value);
            BOND_ASSIGN
        }
        BondCapsule::Ack(context) => {
            varint::encode(context, &mut value);
            BOND_ACK
        }
        BondCapsule::Close(code) => {
            varint::encode(code.number(), &mut value);
            BOND_CLOSE
        }
        BondCapsule::Token(token) => {
            value.extend_from_slice(&token.0);
            BOND_TOKEN
        }
        BondCapsule::Join { token, path } => {
            value.extend_from_slice(&token.0);
            value.push(path);
            BOND_JOIN
        }
        BondCapsule::Status { serial, path, state } => {
            varint::encode(serial, &mut value);
            value.extend([path, state as u8]);
            PATH_STATUS
        }
    };
    capsule::encode(kind, &value, out);
}

fn number(rest: &mut &[u8]) -> Result<u64, CapsuleFlaw> {
    let (n, len) = varint::decode(rest).ok_or(CapsuleFlaw::Length)?;
    *rest = &rest[len..];
    Ok(n)
}

fn context(rest: &mut &[u8]) -> Result<u64, CapsuleFlaw> {
    match number(rest)? {
        n if n == 0 || n > super::field::MAX_CONTEXT => Err(CapsuleFlaw::Range(n)),
        n => Ok(n),
    }
}

fn path(rest: &mut &[u8]) -> Result<u8, CapsuleFlaw> {
    let (id, after) = rest.split_first().ok_or(CapsuleFlaw::Length)?;
    *rest = after;
    if usize::from(*id) < super::MAX_PATHS {
        Ok(*id)
    } else {
        Err(CapsuleFlaw::Range((*id).into()))
    }
}

fn token(rest: &mut &[u8]) -> Result<Token, CapsuleFlaw> {
    let (token, after) = rest.split_first_chunk().ok_or(CapsuleFlaw::Length)?;
    *rest = after;
    Ok(Token(*token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capsule_reads_as_it_was_written() {
        let token = Token([7; 16]);
        for capsule in [
            BondCapsule::Assign(2),
            BondCapsule::Ack(62),
            BondCapsule::Close(CloseCode::Other(900)),
            BondCapsule::Token(token),
            BondCapsule::Join { token, path: 7 },
            BondCapsule::Status { serial: 70_000, path: 1, state: PathState::Down },
        ] {
            let mut bytes = Vec::new();
            encode(&capsule, &mut bytes);
            let (kind, a) = varint::decode(&bytes).unwrap();
            let (len, b) = varint::decode(&bytes[a..]).unwrap();
            let value = &bytes[a + b..];
            assert!(value.len() as u64 == len && value.len() <= MAX_CAPSULE);
            assert_eq!(parse(kind, value), Ok(capsule));
            assert!(parse(kind, &value[..value.len() - 1]).is_err());
            assert_eq!(parse(kind, &[value, &[0]].concat()), Err(CapsuleFlaw::Length));
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(parse(BOND_ASSIGN, &[0]), Err(CapsuleFlaw::Range(0)));
        assert_eq!(parse(PATH_STATUS, &[0, 8, 0]), Err(CapsuleFlaw::Range(8)));
        assert_eq!(parse(PATH_STATUS, &[0, 0, 3]), Err(CapsuleFlaw::Range(3)));
        assert_eq!(parse(0x01, &[]), Err(CapsuleFlaw::Type(1)));
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", Token([0x41; 16])), "Token(…)");
    }

    #[test]
    fn no_type_is_another_s() {
        for kind in TYPES {
            assert!(kind > 0x3f && !capsule::is_grease(kind) && kind != crate::dns::DNS_ASSIGN);
        }
    }
}
