//! What holds for every codec.

use super::*;
use crate::testing::Random;

/// Sends `count` packets through a lossy channel, with `due` repair symbols after every eighth;
/// whatever comes out has to be what went in. Returns how many packets never came out.
fn run(codec: Codec, random: &mut Random, count: u64, loss: f64, due: usize) -> usize {
    let (mut encoder, mut decoder) = (codec.encoder(), codec.decoder());
    encoder.set_cover(if codec == Codec::Rs16 { 8 } else { 64 });
    let base = random.below(1 << 40);
    let sent: Vec<_> = (0..count).map(|_| random.packet(1400)).collect();
    let mut got = vec![false; sent.len()];
    let drain = |decoder: &mut dyn Decoder, got: &mut Vec<bool>| {
        while let Some((seq, packet)) = decoder.poll() {
            let at = (seq - base) as usize;
            assert_eq!(packet, sent[at], "{codec:?}: packet {at}");
            assert!(!got[at], "{codec:?}: packet {at} twice");
            got[at] = true;
        }
    };
    for (at, packet) in sent.iter().enumerate() {
        let seq = base + at as u64;
        encoder.push(seq, packet).unwrap();
        if random.unit() >= loss {
            assert_eq!(decoder.source(seq, packet), Ok(true));
            assert_eq!(decoder.source(seq, packet), Ok(false));
            got[at] = true;
            drain(&mut *decoder, &mut got);
        }
        for _ in 0..if at % 8 == 7 { due } else { 0 } {
            let Some((header, symbol)) = encoder.repair() else { continue };
            if random.unit() >= loss {
                decoder.repair(&header, symbol).unwrap();
                drain(&mut *decoder, &mut got);
            }
        }
    }
    let counters = decoder.counters();
    assert_eq!((counters.refused, counters.expired), (0, counters.expired));
    got.iter().filter(|got| !**got).count()
}

#[test]
fn enough_repair_restores_everything() {
    for codec in Codec::ALL {
        let mut random = Random(1);
        let lost = run(codec, &mut random, 4000, 0.05, 4);
        assert!(lost <= 2, "{codec:?}: {lost}");
    }
}

#[test]
fn too_little_repair_restores_something() {
    for codec in Codec::ALL {
        let mut random = Random(2);
        let lost = run(codec, &mut random, 8000, 0.1, 1);
        assert!((1..800).contains(&lost), "{codec:?}: {lost}");
    }
}

#[test]
fn top_ups_fill_what_is_missing() {
    for codec in Codec::ALL {
        let mut random = Random(3);
        let (mut encoder, mut decoder) = (codec.encoder(), codec.decoder());
        encoder.set_cover(16);
        let packets: Vec<_> = (0..64).map(|_| random.packet(1200)).collect();
        for (seq, packet) in packets.iter().enumerate() {
            encoder.push(seq as u64, packet).unwrap();
            if !(20..23).contains(&seq) {
                decoder.source(seq as u64, packet).unwrap();
            }
        }
        for _ in 0..4 {
            let (header, symbol) = encoder.top_up(20).unwrap();
            decoder.repair(&header, symbol).unwrap();
        }
        let mut got: Vec<u64> = std::iter::from_fn(|| decoder.poll().map(|(seq, _)| seq)).collect();
        got.sort_unstable();
        assert_eq!(got, [20, 21, 22], "{codec:?}");
        assert_eq!((decoder.deficit(), decoder.packet(21)), (0, Some(&*packets[21])), "{codec:?}");
        assert_eq!(encoder.packet(20), Some(&*packets[20]));
        assert!(encoder.top_up(64).is_none() && encoder.top_up(u64::MAX).is_none());
    }
}

#[test]
fn what_no_encoder_writes_is_refused() {
    for codec in Codec::ALL {
        let mut decoder = codec.decoder();
        decoder.source(5000, &[1, 2, 3]).unwrap();
        for (base, cover, key) in [(5000, 0, 0), (5000, 257, 0), (u64::MAX - 3, 3, 0)] {
            let refused = decoder.repair(&Header { base, cover, key }, &[0; 8]);
            assert_eq!(refused, Err(Refused::Header { base, cover, key }), "{codec:?}");
        }
        let header = Header { base: 5000, cover: 2, key: 0 };
        for length in [0, 1, 4, MAX_SYMBOL + 2] {
            let refused = decoder.repair(&header, &vec![0; length]);
            assert_eq!(refused, Err(Refused::Symbol { length }), "{codec:?}");
        }
        let old = decoder.repair(&Header { base: 3976, ..header }, &[0; 8]);
        assert_eq!(old, Err(Refused::Old { seq: 3976, newest: 5000 }), "{codec:?}");
        assert!(decoder.source(3976, &[]).is_err() && decoder.source(u64::MAX, &[]).is_err());
        assert!(decoder.source(5001, &[0; MAX_PACKET + 1]).is_err());
        let refused = (0..=u64::from(REPAIR_CREDIT))
            .find_map(|i| decoder.repair(&Header { base: 5001 + i * 2, ..header }, &[0; 8]).err());
        assert_eq!(refused, Some(Refused::Flood), "{codec:?}");
        assert!(decoder.poll().is_none());
    }
}
