//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::Ipv6Addr;

/// Adds the 16-bit words of `data` to a running sum; an odd last byte counts as a high byte, so
/// only the last of several pieces may be odd.
pub fn add(mut sum: u64, data: &[u8]) -> u64 {
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_be_bytes(*word));
    }
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    sum + u64::from(u32::from_be_bytes(last))
}

/// Folds a running sum into the checksum that goes on the wire.
pub fn finish(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of `data`; 0 if `data` holds a right one.
pub fn checksum(data: &[u8]) -> u16 {
    finish(add(0, data))
}

/// The sum of the IPv6 pseudo-header (RFC 8200 §8.1).
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: usize) -> u64 {
    let sum = add(add(0, &source.octets()), &destination.octets());
    sum + len as u64 + u64::from(protocol)
}

/// The checksum after one 16-bit word it covers went from `old` to `new` (RFC 1624 equation 3).
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_holds() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    proptest! {
        #[test]
        fn an_update_equals_a_new_computation(
            mut data in prop::collection::vec(any::<u8>(), 20), word: u16, at in 1usize..10
        ) {
            // A header is never all zero, where the two representations of zero would differ.
            data[0] |= 1;
            let before = checksum(&data);
            let old = u16::from_be_bytes([data[2 * at], data[2 * at + 1]]);
            data[2 * at..2 * at + 2].copy_from_slice(&word.to_be_bytes());
            prop_assert_eq!(update(before, old, word), checksum(&data));
        }

        #[test]
        fn data_with_its_checksum_sums_to_zero(mut data in prop::collection::vec(any::<u8>(), 2..80)) {
            data[0] = 0;
            data[1] = 0;
            let sum = checksum(&data);
            data[..2].copy_from_slice(&sum.to_be_bytes());
            prop_assert_eq!(checksum(&data), 0);
        }
    }
}
