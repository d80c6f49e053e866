//! HTTP Datagrams over HTTP/3 (RFC 9297 §2) and the numbers this protocol family uses.

use crate::varint;

/// Connection or stream error: a datagram broke its rules (RFC 9297 §5.2).
pub const H3_DATAGRAM_ERROR: u64 = 0x33;
/// Graceful end or nothing wrong (RFC 9114 §8.1).
pub const H3_NO_ERROR: u64 = 0x100;
/// An internal error of ours.
pub const H3_INTERNAL_ERROR: u64 = 0x102;
/// The peer makes more work than is bearable.
pub const H3_EXCESSIVE_LOAD: u64 = 0x107;
/// A stream or push identifier is used wrongly.
pub const H3_ID_ERROR: u64 = 0x108;
/// A SETTINGS frame holds a value that is not allowed.
pub const H3_SETTINGS_ERROR: u64 = 0x109;
/// The request was refused before any work on it.
pub const H3_REQUEST_REJECTED: u64 = 0x10b;
/// The request or its response is no longer wanted.
pub const H3_REQUEST_CANCELLED: u64 = 0x10c;
/// The stream ended before the message was whole.
pub const H3_REQUEST_INCOMPLETE: u64 = 0x10d;
/// A message was malformed; a malformed capsule is one (RFC 9297 §3.3).
pub const H3_MESSAGE_ERROR: u64 = 0x10e;
/// The TCP connection behind a CONNECT was reset or closed abnormally.
pub const H3_CONNECT_ERROR: u64 = 0x10f;

/// SETTINGS_H3_DATAGRAM (RFC 9297 §2.1.1).
pub const SETTINGS_H3_DATAGRAM: u64 = 0x33;
/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 9220 §5, RFC 8441 §3).
pub const SETTINGS_ENABLE_CONNECT_PROTOCOL: u64 = 0x08;

/// The largest Quarter Stream ID that still names a stream: 2^60 - 1.
pub const MAX_QUARTER_STREAM_ID: u64 = (1 << 60) - 1;

/// The prefix of an IP packet or UDP payload in an HTTP Datagram: Context ID zero.
pub const CONTEXT_ID_ZERO: [u8; 1] = [0];

/// Why a QUIC DATAGRAM frame cannot be an HTTP Datagram. Each one ends the *connection* with
/// [`H3_DATAGRAM_ERROR`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The payload ends inside its Quarter Stream ID.
    #[error("a datagram ends inside its Quarter Stream ID")]
    TooShort,
    /// The Quarter Stream ID names no possible stream.
    #[error("Quarter Stream ID {0} is above 2^60 - 1")]
    QuarterStreamId(u64),
}

impl DatagramError {
    /// The error code to close the connection with.
    pub const fn code(self) -> u64 {
        H3_DATAGRAM_ERROR
    }
}

/// The Quarter Stream ID of a client-initiated bidirectional stream.
pub const fn quarter_stream_id(stream_id: u64) -> u64 {
    stream_id / 4
}

/// Reads the Quarter Stream ID of a QUIC DATAGRAM frame's payload: the stream's id and the length
/// of the prefix, after which the HTTP Datagram Payload begins.
#[inline]
pub fn decode(payload: &[u8]) -> Result<(u64, usize), DatagramError> {
    match varint::decode(payload) {
        None => Err(DatagramError::TooShort),
        Some((quarter, _)) if quarter > MAX_QUARTER_STREAM_ID => {
            Err(DatagramError::QuarterStreamId(quarter))
        }
        Some((quarter, len)) => Ok((quarter * 4, len)),
    }
}

/// The value of SETTINGS_H3_DATAGRAM as a switch; `None` is a [`H3_SETTINGS_ERROR`].
pub const fn setting(value: u64) -> Option<bool> {
    match value {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_names_its_stream() {
        assert_eq!(quarter_stream_id(44), 11);
        assert_eq!(decode(&[11, 0, 1, 2]), Ok((44, 1)));
    }

    #[test]
    fn rule_2_a_quarter_stream_id_above_2_to_60_is_an_error() {
        let mut bytes = Vec::new();
        varint::encode(MAX_QUARTER_STREAM_ID + 1, &mut bytes);
        let error = decode(&bytes).unwrap_err();
        assert_eq!(error, DatagramError::QuarterStreamId(1 << 60));
        assert_eq!(error.code(), 0x33);
        bytes.clear();
        varint::encode(MAX_QUARTER_STREAM_ID, &mut bytes);
        assert_eq!(decode(&bytes), Ok((MAX_QUARTER_STREAM_ID * 4, 8)));
    }

    #[test]
    fn rule_3_a_datagram_without_a_whole_quarter_stream_id_is_an_error() {
        assert_eq!(decode(&[]), Err(DatagramError::TooShort));
        assert_eq!(decode(&[0x40]), Err(DatagramError::TooShort));
    }

    #[test]
    fn rule_8_the_setting_is_zero_or_one() {
        assert_eq!((setting(0), setting(1), setting(2)), (Some(false), Some(true), None));
    }
}
