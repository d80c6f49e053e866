//! The shape of what a client sends: how many bytes to add so that its packets have the sizes of a
//! browser's.
//!
//! Two means, both of which any peer of RFC 9298 and RFC 9484 bears: a header field that means
//! nothing, and HTTP Datagrams of a context nobody has registered, which are dropped in silence
//! (RFC 9298 section 4, RFC 9484 section 6). `EXTENSIONS.md` specifies them. The sizes are those of
//! `masque/io/fingerprint`'s browser on an ordinary page: requests of 340 to 496 bytes of UDP
//! payload, full packets of 1,250.

use std::ops::RangeInclusive;

use crate::varint;

/// The header field whose value is to be ignored.
pub const PADDING: &str = "padding";
/// The context of datagrams that are to be dropped: even, as a client allocates them.
pub const FILLER_CONTEXT: u64 = 0x2b4c;

/// Bytes of a request's field section with which its packet, the first capsules of a tunnel in it, is
/// as large as a browser's.
pub const REQUEST: RangeInclusive<usize> = 417..=429;
/// The same of what a browser asks for on a visit, each alone in its packet: bytes of UDP payload less
/// those of headers around the field section.
pub mod visit {
    use std::ops::RangeInclusive;

    /// A page.
    pub const PAGE: RangeInclusive<usize> = 428..=439;
    /// A style sheet.
    pub const STYLE: RangeInclusive<usize> = 344..=349;
    /// A script.
    pub const SCRIPT: RangeInclusive<usize> = 304..=306;
    /// A picture.
    pub const PICTURE: RangeInclusive<usize> = 399..=405;
}
/// Bytes of padding in the answer to a request that was padded: a page of the site.
pub const ANSWER: RangeInclusive<usize> = 1700..=1800;

/// UDP payload of a packet that carries a browser's request, bytes.
const SMALL: RangeInclusive<usize> = 484..=496;
/// UDP payload of a browser's full packet, bytes.
pub const FULL: usize = 1250;
/// Bytes of a packet beside its frames: flags, connection id, packet number, tag.
const OVERHEAD: usize = 1 + 8 + 2 + 16;
/// Type and length of a DATAGRAM frame, bytes.
const FRAME: usize = 3;
/// Packets at the start of a connection whose sizes are a browser's.
const START: u32 = 16;
/// Characters of eight bits each in the Huffman code of HPACK and QPACK (RFC 7541 appendix B).
const EVEN: [u8; 6] = *b"&*,;XZ";

/// How much of the traffic is given a shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// None of it.
    None,
    /// The request, and the first packets of a connection.
    #[default]
    Start,
    /// All packets.
    Web,
}

/// A value of `len` bytes for [`PADDING`], as many on the wire.
pub fn padding(len: usize, seed: u64) -> String {
    let mut dice = Dice(seed);
    (0..len).map(|_| char::from(EVEN[dice.below(EVEN.len())])).collect()
}

/// One of `range`, by `seed`.
pub fn draw(range: &RangeInclusive<usize>, seed: u64) -> usize {
    Dice(seed).within(range)
}

/// Watches the datagrams of one connection as they are queued, packs them into packets as QUIC
/// does, and says which fillers make those as large as a browser's.
#[derive(Debug)]
pub struct Shaper {
    dice: Dice,
    /// Packets that are still given a shape.
    left: u32,
    /// Whether that is counted.
    counted: bool,
    /// Bytes of frames in the packet that is being filled.
    packed: usize,
}

impl Shaper {
    /// For a new connection; `None` where there is nothing to do.
    pub fn new(shape: Shape, seed: u64) -> Option<Self> {
        let counted = match shape {
            Shape::None => return None,
            Shape::Start => true,
            Shape::Web => false,
        };
        Some(Self { dice: Dice(seed), left: START, counted, packed: 0 })
    }

    /// A datagram of `len` bytes is about to be queued on a path of `mtu` bytes of UDP payload. A
    /// filler of that many bytes, if one is told, has to be queued before it.
    pub fn push(&mut self, len: usize, mtu: usize) -> Option<usize> {
        let room = mtu.saturating_sub(OVERHEAD);
        let filler =
            if self.packed > 0 && self.packed + FRAME + len > room { self.end(mtu) } else { None };
        self.packed += FRAME + len;
        filler
    }

    /// What was queued leaves. A filler of that many bytes, if one is told, has to go with it.
    pub fn end(&mut self, mtu: usize) -> Option<usize> {
        let packed = std::mem::take(&mut self.packed);
        if packed == 0 || self.left == 0 {
            return None;
        }
        if self.counted {
            self.left -= 1;
        }
        let least = FRAME + filler_prefix();
        let size = packed + OVERHEAD;
        let small = self.dice.within(&SMALL);
        let wanted = [small, FULL.min(mtu)].into_iter().find(|wanted| size + least <= *wanted)?;
        Some(wanted - size - FRAME)
    }

    /// Whether nothing is left to be given a shape.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }
}

/// Bytes of a filler that its context id takes; a quarter stream id of one byte comes before it.
fn filler_prefix() -> usize {
    1 + varint::len(FILLER_CONTEXT)
}

/// SplitMix64: enough to look arbitrary in an encrypted packet's size.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn within(&mut self, range: &RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The packets that QUIC makes of datagrams, oldest first, as many in each as fit.
    fn pack(datagrams: &[usize], mtu: usize) -> Vec<usize> {
        let mut packets: Vec<usize> = Vec::new();
        for len in datagrams {
            match packets.last_mut() {
                Some(last) if *last + FRAME + len <= mtu => *last += FRAME + len,
                _ => packets.push(OVERHEAD + FRAME + len),
            }
        }
        packets
    }

    /// What is queued when `datagrams` are, a flush behind each group.
    fn shaped(shaper: &mut Shaper, groups: &[Vec<usize>], mtu: usize) -> Vec<usize> {
        groups
            .iter()
            .flat_map(|group| {
                let mut queue = Vec::new();
                for len in group {
                    queue.extend(shaper.push(*len, mtu));
                    queue.push(*len);
                }
                queue.extend(shaper.end(mtu));
                pack(&queue, mtu)
            })
            .collect()
    }

    #[test]
    fn small_packets_are_as_large_as_a_request_and_larger_ones_are_full() {
        let mut shaper = Shaper::new(Shape::Web, 7).unwrap();
        let sizes = shaped(&mut shaper, &[vec![60], vec![700], vec![60; 30], vec![60; 3]], 1472);
        assert!(SMALL.contains(&sizes[0]), "{sizes:?}");
        assert_eq!(sizes[1], FULL);
        assert!(SMALL.contains(sizes.last().unwrap()), "{sizes:?}");
        assert!(sizes.len() >= 5, "{sizes:?}");
    }

    #[test]
    fn the_start_is_shaped_and_the_rest_is_left_alone() {
        let mut shaper = Shaper::new(Shape::Start, 1).unwrap();
        let groups = vec![vec![60]; 2 * START as usize];
        let sizes = shaped(&mut shaper, &groups, 1472);
        let (start, rest) = sizes.split_at(START as usize);
        assert!(start.iter().all(|size| SMALL.contains(size)), "{sizes:?}");
        assert!(rest.iter().all(|size| *size == OVERHEAD + FRAME + 60), "{sizes:?}");
        assert!(shaper.is_done() && Shaper::new(Shape::None, 1).is_none());
    }

    #[test]
    fn padding_is_as_long_as_asked_and_not_the_same_twice() {
        assert_eq!(padding(300, 1).len(), 300);
        assert_ne!(padding(300, 1), padding(300, 2));
        assert_eq!(padding(0, 1), "");
        for seed in 0..100 {
            assert!(REQUEST.contains(&draw(&REQUEST, seed)));
        }
    }

    proptest! {
        #[test]
        fn no_packet_is_larger_than_the_path_and_none_is_between_the_sizes(
            groups in prop::collection::vec(prop::collection::vec(1usize..1440, 1..12), 1..40),
            mtu in 1200usize..1472,
            seed in any::<u64>(),
        ) {
            let groups: Vec<Vec<usize>> = groups
                .into_iter()
                .map(|group| group.into_iter().map(|len| len.min(mtu - OVERHEAD - FRAME)).collect())
                .collect();
            let mut shaper = Shaper::new(Shape::Web, seed).unwrap();
            let least = FRAME + filler_prefix();
            for size in shaped(&mut shaper, &groups, mtu) {
                prop_assert!(size <= mtu);
                prop_assert!(
                    (SMALL.start() - least..=*SMALL.end()).contains(&size)
                        || size + least > FULL.min(mtu),
                    "{size} of {mtu}"
                );
            }
        }
    }
}
