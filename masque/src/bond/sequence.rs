//! Truncated sequence numbers, as in draft-ihlar-masque-datagram-numbers and RFC 9000 §A.3: the low
//! bits travel, the receiver knows the rest from what it expects.

/// The full number nearest to `expected` whose low `bits` are `low`.
#[inline]
pub(crate) const fn expand(low: u64, bits: u32, expected: u64) -> u64 {
    let window = 1u64 << bits;
    let candidate = (expected & !(window - 1)) | (low & (window - 1));
    if candidate + window / 2 <= expected {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_within_half_a_window_of_the_expected_one_is_found(
            expected in 0u64..1 << 60, off in -30_000i64..30_000, bits in 16u32..32,
        ) {
            let Some(full) = expected.checked_add_signed(off) else { return Ok(()) };
            prop_assert_eq!(expand(full & ((1 << bits) - 1), bits, expected), full);
        }
    }

    #[test]
    fn the_first_numbers_do_not_wrap_below_zero() {
        assert_eq!(expand(0xffff, 16, 0), 0xffff);
        assert_eq!(expand(3, 16, 0xfffe), 0x1_0003);
    }
}
