//! Sequence numbers cut short for the wire (as packet numbers are, RFC 9000 §17.1 and A.3).

/// The low `bits` bits of a number, 1 to 62.
pub const fn truncate(seq: u64, bits: u32) -> u64 {
    seq & ((1 << bits) - 1)
}

/// The number nearest to `expected` whose low `bits` bits (1 to 62) are `truncated`.
///
/// `expected` is one past the largest number seen. The sender keeps numbers in flight within half
/// of what `bits` can tell apart.
pub const fn expand(truncated: u64, bits: u32, expected: u64) -> u64 {
    let window = 1u64 << bits;
    let half = window / 2;
    let candidate = (expected & !(window - 1)) | truncate(truncated, bits);
    if candidate + half <= expected && candidate < u64::MAX - window {
        candidate + window
    } else if candidate > expected + half && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_9000() {
        assert_eq!(expand(0x9b32, 16, 0xa82f_30ea + 1), 0xa82f_9b32);
    }

    proptest! {
        #[test]
        fn numbers_near_the_expected_one_come_back(
            seq in 0u64..1 << 61, bits in 2u32..=32, off in any::<u64>(), ahead: bool,
        ) {
            let off = off % (1 << (bits - 1));
            let expected = if ahead { seq.saturating_sub(off) } else { seq + off };
            let exact = expected >= seq && off == 1 << (bits - 1);
            prop_assume!(!exact);
            prop_assert_eq!(expand(truncate(seq, bits), bits, expected), seq);
        }

        #[test]
        fn no_number_makes_it_panic(truncated: u64, bits in 1u32..=62, expected in 0u64..1 << 62) {
            expand(truncated, bits, expected);
        }
    }
}
