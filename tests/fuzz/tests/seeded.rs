//! Every body on stable: seeded random bytes, and mutations of what is nearly right, since random
//! bytes alone seldom get past a header. `FUZZ_ROUNDS` asks for more than the default.

use bauta_fuzz::TARGETS;

/// What mutations begin from: something each parser accepts.
const SEEDS: &[&[u8]] = &[
    b"",
    // Capsules: ADDRESS_ASSIGN, ADDRESS_REQUEST, ROUTE_ADVERTISEMENT, DATAGRAM.
    &[7, 1, 7, 0, 4, 10, 7, 0, 2, 32, 2, 7, 1, 4, 0, 0, 0, 0, 32, 0, 3, 0, 1, 2],
    &[9, 3, 10, 4, 0, 0, 0, 0, 255, 255, 255, 255, 0],
    &[0, 4, 192, 0, 2, 0, 24, 1, 4, 10, 0, 0, 1, 32],
    &[4, 10, 0, 0, 0, 10, 0, 0, 9, 0, 4, 10, 0, 1, 0, 10, 0, 1, 9, 0],
    // DNS_ASSIGN: one nameserver, one internal domain.
    &[1, 0, 1, 1, 192, 0, 2, 33, 0, 0, 0, 1, 1, b'a', 0],
    // A template with a path, and header fields.
    b"/m/{target_host},{target_port}{?x}\n/m/a,1?x=2",
    b":method CONNECT\n:protocol connect-ip\n:scheme https\n:authority a\n:path /.well-known/masque/ip/*/*/",
    b"2001:db8::/32\n17",
    // A credential (RFC 9729), with a realm and a parameter nobody knows.
    b"Concealed k=YmFz, a=AAAA, s=2055, v=dmVy, p=SW5z, realm=\"a \\\" b\", later=x",
    // IPv4 and IPv6 packets; the latter with options and a fragment header.
    &[0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 7, 0, 2, 93, 184, 215, 14, 0, 1, 0, 2, 0, 8, 0, 0],
    &[
        0x60, 0, 0, 0, 0, 24, 60, 64, 0x20, 1, 13, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x20, 1, 13,
        0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 44, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, 1, 0, 0, 0, 9, 128, 0,
        0, 0, 0, 1, 0, 1,
    ],
    // The same behind an MTU of 68, and as records of a session.
    &[
        0, 68, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 7, 0, 2, 93, 184, 215, 14, 0, 1, 0, 2, 0, 8,
        0, 0,
    ],
    &[
        0, 1, 29, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 7, 0, 2, 93, 184, 215, 14, 0, 1, 0, 2,
        0, 8, 0, 0, 0, 9, 1, 7, 0, 4, 10, 7, 0, 2, 32,
    ],
    // Steps of a codec: packets of which some are lost, repair, a block closed, more repair.
    &[
        1, 0, 9, 1, 0, 3, 20, 2, 0, 0, 5, 3, 0, 3, 7, 4, 0, 4, 0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0,
        5, 1, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0,
    ],
];

/// SplitMix64: short, seeded, good enough.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.below(200)).map(|_| self.next() as u8).collect()
    }

    fn mutant(&mut self) -> Vec<u8> {
        let mut data = SEEDS[self.below(SEEDS.len())].to_vec();
        for _ in 0..self.below(5) {
            let at = self.below(data.len());
            match self.below(5) {
                0 if !data.is_empty() => data[at] ^= 1 << self.below(8),
                1 if !data.is_empty() => data[at] = self.next() as u8,
                2 => data.truncate(at),
                3 => data.insert(at, self.next() as u8),
                _ => data.extend_from_slice(SEEDS[self.below(SEEDS.len())]),
            }
        }
        data
    }
}

#[test]
fn no_body_panics_on_seeded_input() {
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    for (name, body) in TARGETS {
        let mut random = Random(0xba07a);
        for round in 0..rounds {
            let data = if round % 4 == 0 { random.bytes() } else { random.mutant() };
            let outcome = std::panic::catch_unwind(|| body(&data));
            assert!(outcome.is_ok(), "target {name}, round {round}, input {data:02x?}");
        }
    }
}

#[test]
fn every_seed_runs() {
    for (_, body) in TARGETS {
        SEEDS.iter().for_each(|seed| body(seed));
    }
}

#[test]
fn every_target_has_a_file() {
    for (name, _) in TARGETS {
        let file = format!("{}/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        assert!(std::path::Path::new(&file).is_file(), "{file}");
    }
}
