//! The TinyMT32 generator (RFC 8682), from which both ends draw the same coefficients.

const MAT1: u32 = 0x8f70_11ee;
const MAT2: u32 = 0xfc78_ff1f;
const TMAT: u32 = 0x3793_fdff;

/// A generator in the state after seeding, RFC 8682 §2.
pub(crate) struct TinyMt32([u32; 4]);

impl TinyMt32 {
    pub(crate) fn new(seed: u32) -> Self {
        let mut st = [seed, MAT1, MAT2, TMAT];
        for i in 1..8u32 {
            let last = st[(i as usize - 1) & 3];
            let mixed = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30));
            st[i as usize & 3] ^= i.wrapping_add(mixed);
        }
        let mut this = Self(st);
        (0..8).for_each(|_| this.step());
        this
    }

    fn step(&mut self) {
        let st = &mut self.0;
        let mut y = st[3];
        let mut x = (st[0] & 0x7fff_ffff) ^ st[1] ^ st[2];
        x ^= x << 1;
        y ^= (y >> 1) ^ x;
        let odd = (y & 1).wrapping_neg();
        *st = [st[1], st[2] ^ (MAT1 & odd), x ^ (y << 10) ^ (MAT2 & odd), y];
    }

    /// 32 random bits.
    pub(crate) fn next(&mut self) -> u32 {
        self.step();
        let [s0, _, s2, s3] = self.0;
        let t = s0.wrapping_add(s2 >> 8);
        s3 ^ t ^ (TMAT & (t & 1).wrapping_neg())
    }

    /// A coefficient: a random byte that is not zero (RFC 8681 §3.6, density threshold 15).
    pub(crate) fn coefficient(&mut self) -> u8 {
        loop {
            let byte = self.next() as u8;
            if byte != 0 {
                return byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_rfc_8682() {
        let mut generator = TinyMt32::new(1);
        let first = [2545341989, 981918433, 3715302833, 2387538352, 3591001365, 3820442102];
        assert_eq!(first, std::array::from_fn(|_| generator.next()));
    }
}
