//! Variable-length integers (RFC 9000 §16).
//!
//! Encoding is always minimal; decoding accepts longer forms too, as the RFC wants.

/// The largest value a variable-length integer holds: 2^62 - 1.
pub const MAX: u64 = (1 << 62) - 1;

/// The longest encoding, in bytes.
pub const MAX_LEN: usize = 8;

/// Reads one integer from the front of `buf`: its value and how many bytes it took.
/// `None` when `buf` ends too soon.
#[inline]
pub fn decode(buf: &[u8]) -> Option<(u64, usize)> {
    let first = *buf.first()?;
    if first < 0x40 {
        return Some((u64::from(first), 1));
    }
    let len = 1usize << (first >> 6);
    let rest = buf.get(1..len)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |v, b| v << 8 | u64::from(*b));
    Some((value, len))
}

/// How many bytes the minimal encoding of `v` takes: 1, 2, 4 or 8.
#[inline]
pub const fn len(v: u64) -> usize {
    match v {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Writes `v` to the front of `out` and returns the length, or 0 if `out` is too short.
/// A value above [`MAX`] is written as [`MAX`].
#[inline]
pub fn write(v: u64, out: &mut [u8]) -> usize {
    let (bytes, len) = encoded(v);
    match out.get_mut(..len) {
        Some(out) => {
            out.copy_from_slice(&bytes[8 - len..]);
            len
        }
        None => 0,
    }
}

/// Appends `v` to `out`. A value above [`MAX`] is written as [`MAX`].
#[inline]
pub fn encode(v: u64, out: &mut Vec<u8>) {
    let (bytes, len) = encoded(v);
    out.extend_from_slice(&bytes[8 - len..]);
}

#[inline]
fn encoded(v: u64) -> ([u8; 8], usize) {
    let v = v.min(MAX);
    let len = len(v);
    let mut bytes = v.to_be_bytes();
    bytes[8 - len] |= (len.trailing_zeros() as u8) << 6;
    (bytes, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_rfc_9000_decode() {
        let table: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in table {
            assert_eq!(decode(bytes), Some((value, bytes.len())));
        }
    }

    #[test]
    fn rule_22_a_non_minimal_integer_is_accepted() {
        assert_eq!(decode(&[0xc0, 0, 0, 0, 0, 0, 0, 5]), Some((5, 8)));
        assert_eq!(decode(&[0x80, 0, 0, 5]), Some((5, 4)));
    }

    #[test]
    fn a_cut_integer_is_none() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0x40]), None);
        assert_eq!(decode(&[0xc0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn writing_into_too_little_room_writes_nothing() {
        let mut out = [0xaa; 1];
        assert_eq!(write(64, &mut out), 0);
        assert_eq!(out, [0xaa]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(v in 0..=MAX) {
            let mut out = Vec::new();
            encode(v, &mut out);
            prop_assert_eq!(out.len(), len(v));
            prop_assert_eq!(decode(&out), Some((v, out.len())));
            let mut room = [0; 8];
            prop_assert_eq!(write(v, &mut room), out.len());
            prop_assert_eq!(&room[..out.len()], &out[..]);
        }
    }
}
