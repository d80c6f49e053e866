//! Arithmetic in GF(256) with the polynomial x⁸+x⁴+x³+x²+1 (RFC 5510 §8.1, used by RFC 8681).

/// The polynomial without its leading term.
const POLYNOMIAL: u8 = 0x1d;

/// Products of each element with 0..16 and with 0, 16, …, 240: what a byte shuffle looks up.
pub(crate) static NIBBLES: [[[u8; 16]; 2]; 256] = nibbles();

const fn slow_mul(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = (a << 1) ^ (if a & 0x80 != 0 { POLYNOMIAL } else { 0 });
        b >>= 1;
    }
    product
}

const fn nibbles() -> [[[u8; 16]; 2]; 256] {
    let mut table = [[[0; 16]; 2]; 256];
    let mut a = 0;
    while a < 256 {
        let mut i = 0;
        while i < 16 {
            table[a][0][i] = slow_mul(a as u8, i as u8);
            table[a][1][i] = slow_mul(a as u8, (i << 4) as u8);
            i += 1;
        }
        a += 1;
    }
    table
}

/// The inverse of each element; 0 for 0.
static INVERSE: [u8; 256] = {
    let mut table = [0; 256];
    let mut a = 1;
    while a < 256 {
        // a⁻¹ = a²⁵⁴
        let (mut power, mut square, mut left) = (1, a as u8, 254u8);
        while left != 0 {
            if left & 1 != 0 {
                power = slow_mul(power, square);
            }
            square = slow_mul(square, square);
            left >>= 1;
        }
        table[a] = power;
        a += 1;
    }
    table
};

/// The product of two elements.
pub(crate) fn mul(a: u8, b: u8) -> u8 {
    let [low, high] = &NIBBLES[usize::from(a)];
    low[usize::from(b & 15)] ^ high[usize::from(b >> 4)]
}

/// The inverse of an element; 0 for 0.
pub(crate) fn inverse(a: u8) -> u8 {
    INVERSE[usize::from(a)]
}

/// `sum += factor · symbol`, element by element; `symbol` is no longer than `sum`.
pub(crate) fn add_scaled(sum: &mut [u8], symbol: &[u8], factor: u8) {
    let sum = &mut sum[..symbol.len()];
    match factor {
        0 => {}
        1 => sum.iter_mut().zip(symbol).for_each(|(sum, byte)| *sum ^= byte),
        _ => kernel(sum, symbol, &NIBBLES[usize::from(factor)]),
    }
}

/// `symbol ·= factor`, element by element.
pub(crate) fn scale(symbol: &mut [u8], factor: u8) {
    if factor != 1 {
        symbol.iter_mut().for_each(|byte| *byte = mul(factor, *byte));
    }
}

fn kernel(sum: &mut [u8], symbol: &[u8], table: &[[u8; 16]; 2]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V4::try_new() {
        return simd.vectorize(Avx512 { simd, sum, symbol, table });
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(Avx2 { simd, sum, symbol, table });
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(simd) = pulp::aarch64::Neon::try_new() {
        return simd.vectorize(Neon { simd, sum, symbol, table });
    }
    scalar(sum, symbol, table);
}

#[inline(always)]
fn scalar(sum: &mut [u8], symbol: &[u8], [low, high]: &[[u8; 16]; 2]) {
    for (sum, byte) in sum.iter_mut().zip(symbol) {
        *sum ^= low[usize::from(byte & 15)] ^ high[usize::from(byte >> 4)];
    }
}

/// Vector by vector; what is left behind the last whole one is filled up with zeros to one of its own.
#[inline(always)]
fn by_vectors<const N: usize>(
    sum: &mut [u8],
    symbol: &[u8],
    vector: impl Fn(&mut [u8; N], &[u8; N]),
) {
    let (sums, sum) = sum.as_chunks_mut::<N>();
    let (symbols, symbol) = symbol.as_chunks::<N>();
    sums.iter_mut().zip(symbols).for_each(|(sum, symbol)| vector(sum, symbol));
    if symbol.is_empty() {
        return;
    }
    let (mut whole_sum, mut whole_symbol) = ([0; N], [0; N]);
    whole_sum[..sum.len()].copy_from_slice(sum);
    whole_symbol[..symbol.len()].copy_from_slice(symbol);
    vector(&mut whole_sum, &whole_symbol);
    sum.copy_from_slice(&whole_sum[..sum.len()]);
}

/// 64 elements at a time: both nibbles of each looked up by a byte shuffle.
#[cfg(target_arch = "x86_64")]
struct Avx512<'a> {
    simd: pulp::x86::V4,
    sum: &'a mut [u8],
    symbol: &'a [u8],
    table: &'a [[u8; 16]; 2],
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Avx512<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        use std::arch::x86_64::__m512i;
        const SUM_OF_THREE: i32 = 0x96;
        let Self { simd, sum, symbol, table } = self;
        let (f, bw) = (simd.avx512f, simd.avx512bw);
        let [low, high] = table.map(|half| f._mm512_broadcast_i32x4(pulp::cast(half)));
        let nibble = f._mm512_set1_epi8(15);
        let vector = |sum: &mut [u8; 64], symbol: &[u8; 64]| {
            let x: __m512i = pulp::cast(*symbol);
            let l = bw._mm512_shuffle_epi8(low, f._mm512_and_si512(x, nibble));
            let h = f._mm512_and_si512(bw._mm512_srli_epi16::<4>(x), nibble);
            let h = bw._mm512_shuffle_epi8(high, h);
            *sum = pulp::cast(f._mm512_ternarylogic_epi32::<SUM_OF_THREE>(pulp::cast(*sum), l, h));
        };
        by_vectors(sum, symbol, vector);
    }
}

/// 32 elements at a time: both nibbles of each looked up by a byte shuffle.
#[cfg(target_arch = "x86_64")]
struct Avx2<'a> {
    simd: pulp::x86::V3,
    sum: &'a mut [u8],
    symbol: &'a [u8],
    table: &'a [[u8; 16]; 2],
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Avx2<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        use std::arch::x86_64::__m256i;
        let Self { simd, sum, symbol, table } = self;
        let (avx, avx2) = (simd.avx, simd.avx2);
        let [low, high] = table.map(|half| avx2._mm256_broadcastsi128_si256(pulp::cast(half)));
        let nibble = avx._mm256_set1_epi8(15);
        let vector = |sum: &mut [u8; 32], symbol: &[u8; 32]| {
            let x: __m256i = pulp::cast(*symbol);
            let l = avx2._mm256_and_si256(x, nibble);
            let h = avx2._mm256_and_si256(avx2._mm256_srli_epi16::<4>(x), nibble);
            let l = avx2._mm256_shuffle_epi8(low, l);
            let h = avx2._mm256_shuffle_epi8(high, h);
            let y = avx2._mm256_xor_si256(pulp::cast(*sum), avx2._mm256_xor_si256(l, h));
            *sum = pulp::cast(y);
        };
        by_vectors(sum, symbol, vector);
    }
}

/// 16 elements at a time, in the same way.
#[cfg(target_arch = "aarch64")]
struct Neon<'a> {
    simd: pulp::aarch64::Neon,
    sum: &'a mut [u8],
    symbol: &'a [u8],
    table: &'a [[u8; 16]; 2],
}

#[cfg(target_arch = "aarch64")]
impl pulp::NullaryFnOnce for Neon<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        use std::arch::aarch64::uint8x16_t;
        let Self { simd, sum, symbol, table } = self;
        let neon = simd.neon;
        let [low, high]: [uint8x16_t; 2] = table.map(|half| pulp::cast(half));
        let nibble: uint8x16_t = pulp::cast([15u8; 16]);
        let vector = |sum: &mut [u8; 16], symbol: &[u8; 16]| {
            let x: uint8x16_t = pulp::cast(*symbol);
            let l = neon.vqtbl1q_u8(low, neon.vandq_u8(x, nibble));
            let h = neon.vqtbl1q_u8(high, neon.vshrq_n_u8::<4>(x));
            *sum = pulp::cast(neon.veorq_u8(pulp::cast(*sum), neon.veorq_u8(l, h)));
        };
        by_vectors(sum, symbol, vector);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_element_but_zero_has_an_inverse() {
        for a in 1..=255 {
            assert_eq!(mul(a, inverse(a)), 1);
            assert_eq!(mul(a, 0), 0);
        }
    }

    proptest! {
        #[test]
        fn the_kernel_computes_what_the_field_says(
            symbol in proptest::collection::vec(any::<u8>(), 0..200), factor: u8, start: u8,
        ) {
            let wanted: Vec<u8> = symbol.iter().map(|b| start ^ slow_mul(factor, *b)).collect();
            let mut sum = vec![start; symbol.len() + 3];
            add_scaled(&mut sum, &symbol, factor);
            prop_assert_eq!(&sum[..symbol.len()], &wanted);
            prop_assert_eq!(&sum[symbol.len()..], &[start; 3]);
            // The kernels that this processor has and does not take.
            let table = &NIBBLES[usize::from(factor)];
            let mut sum = vec![start; symbol.len()];
            scalar(&mut sum, &symbol, table);
            prop_assert_eq!(&sum, &wanted);
            #[cfg(target_arch = "x86_64")]
            if let Some(simd) = pulp::x86::V3::try_new() {
                let mut sum = vec![start; symbol.len()];
                simd.vectorize(Avx2 { simd, sum: &mut sum, symbol: &symbol, table });
                prop_assert_eq!(&sum, &wanted);
            }
        }
    }
}
