use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_source_reads_as_it_was_written(
        number: u16, sequence in 0u32..1 << 24, back: u16, copy: bool, sparse: bool,
    ) {
        let mut of = Source { number, sequence, back, copy, sparse, at: 0 };
        let mut bytes = Vec::new();
        put_source(2, &of, &mut bytes);
        of.at = bytes.len();
        prop_assert!(of.at <= 1 + 8);
        prop_assert_eq!(parse(&bytes, 2), Err(WireError::Truncated));
        bytes.push(0x45);
        prop_assert_eq!(parse(&bytes, 2), Ok(Datagram::Source(of)));
    }

    #[test]
    fn a_repair_reads_as_it_was_written(
        number: u16, base in 0u32..1 << 24, span in 1..=MAX_SPAN, row: u16, window: bool,
    ) {
        let of = Repair { number, window, base, span, row, at: 1 + REPAIR_HEADER };
        let mut bytes = Vec::new();
        put_repair(2, &of, &mut bytes);
        prop_assert_eq!(bytes.len(), of.at);
        bytes.extend([0; SYMBOL_HEADER + 1]);
        prop_assert_eq!(parse(&bytes, 2), Ok(Datagram::Repair(of)));
        bytes.truncate(bytes.len() - 1);
        prop_assert_eq!(parse(&bytes, 2), Err(WireError::Truncated));
    }

    #[test]
    fn a_feedback_reads_as_it_was_written(
        n in any::<[u32; 4]>(), seqs in any::<[u16; 3]>(), paths in 0usize..9,
        ranges in prop::collection::vec((0u64..20_000, 1u64..300), 0..100),
    ) {
        let of = Feedback {
            clock: n[0], recovered: n[1], duplicates: n[2], given_up: n[3],
            settled: seqs[0].into(), next: seqs[1].into(), deficit: seqs[2], ..Feedback::EMPTY
        };
        let path = |i: usize| PathFeedback { path: i as u8, next: n[i % 4], ..Default::default() };
        let mut bytes = Vec::new();
        put_feedback(2, &of, (0..paths).map(path), ranges.iter().copied(), &mut bytes);
        prop_assert!(bytes.len() <= 1 + MAX_FEEDBACK);
        let Ok(Datagram::Feedback(got)) = parse(&bytes, 2) else { panic!("no feedback") };
        prop_assert_eq!(got.paths().collect::<Vec<_>>(), (0..paths).map(path).take(8).collect::<Vec<_>>());
        prop_assert_eq!(got.missing().collect::<Vec<_>>(), ranges);
        prop_assert_eq!(Feedback { paths: &[], missing: &[], ..got }, of);
        for cut in 0..26 + paths.min(8) * 21 {
            prop_assert!(parse(&bytes[..cut], 2).is_err());
        }
        bytes.push(0x40);
        prop_assert_eq!(parse(&bytes, 2), Err(WireError::Truncated));
        bytes.resize(2 + MAX_FEEDBACK, 0);
        prop_assert_eq!(parse(&bytes, 2), Err(WireError::Range));
    }

    #[test]
    fn no_bytes_make_the_parser_fail(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&[&[2], &bytes[..]].concat(), 2);
        let _ = parse(&bytes, 2);
    }
}

#[test]
fn reserved_bits_and_foreign_contexts_are_refused() {
    assert_eq!(parse(&[0, 0x45], 2), Ok(Datagram::Plain));
    assert_eq!(parse(&[4, 0x45], 2), Err(WireError::Context));
    assert_eq!(parse(&[], 2), Err(WireError::Truncated));
    for first in [0x01, 0x02, 0x0c, 0x41, 0x81, 0xc1] {
        let mut bytes = [0; 64];
        (bytes[0], bytes[1]) = (2, first);
        assert_eq!(parse(&bytes, 2), Err(WireError::Range), "{first:#x}");
    }
}
