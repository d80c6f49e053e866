//! Erasure codecs: an honest encoder, a path that loses, delays and repeats, and a forger.

use bauta_fec::codec::{MAX_COVER, REPAIR_CREDIT, SPAN};
use bauta_fec::{Codec, Decoder, Encoder, Header};

/// Both codecs by the same script, four bytes a step.
///
/// As long as nothing was forged, what is recovered is what was sent, once, and nothing that had
/// arrived. Whatever happens, what arrived stays as it was, and no more than the bounds is held.
pub fn codecs(data: &[u8]) {
    for codec in Codec::ALL {
        Run::new(codec).script(data);
    }
}

struct Run {
    encoder: Box<dyn Encoder>,
    decoder: Box<dyn Decoder>,
    base: u64,
    sent: Vec<Vec<u8>>,
    /// What came out of each: nothing, the packet itself, or what was recovered.
    arrived: Vec<bool>,
    recovered: Vec<bool>,
    last: Option<(Header, Vec<u8>)>,
    honest: bool,
    accepted: u64,
}

impl Run {
    fn new(codec: Codec) -> Self {
        Self {
            encoder: codec.encoder(),
            decoder: codec.decoder(),
            base: 0,
            sent: Vec::new(),
            arrived: Vec::new(),
            recovered: Vec::new(),
            last: None,
            honest: true,
            accepted: 0,
        }
    }

    fn script(&mut self, data: &[u8]) {
        let Some((first, steps)) = data.split_first() else { return };
        // Also numbers near the top of their range.
        self.base = if *first > 240 { u64::MAX - 40 } else { u64::from(*first) << 32 };
        for step in steps.chunks_exact(4) {
            let [op, a, b, c] = [step[0], step[1], step[2], step[3]];
            match op % 10 {
                0..=2 => self.send(a, b, true),
                3 => self.send(a, b, false),
                4 => self.repair(None),
                5 => self.repair(Some(self.base.wrapping_add(u64::from(a)))),
                6 => self.late(a),
                7 => self.replay(a, b),
                8 => self.forge(a, b, c),
                _ => {
                    self.encoder.set_cover(usize::from(a) * 2);
                    self.encoder.close();
                }
            }
            self.drain();
            assert!(self.decoder.deficit() <= SPAN);
            assert!(self.accepted <= u64::from(REPAIR_CREDIT) + self.sent.len() as u64);
        }
        for (at, packet) in self.sent.iter().enumerate().filter(|(at, _)| self.arrived[*at]) {
            let kept = self.decoder.packet(self.base + at as u64);
            assert!(kept.is_none_or(|kept| kept == packet));
        }
    }

    fn send(&mut self, length: u8, fill: u8, arrives: bool) {
        let seq = self.base.wrapping_add(self.sent.len() as u64);
        let packet = vec![fill; usize::from(length) * 6];
        if self.encoder.push(seq, &packet).is_err() {
            assert_eq!(seq, u64::MAX);
            self.base = self.base.saturating_sub(1 << 20);
            (self.sent.clear(), self.arrived.clear(), self.recovered.clear());
            (self.encoder, self.decoder) = (Codec::Slc.encoder(), Codec::Slc.decoder());
            self.last = None;
            return;
        }
        self.sent.push(packet);
        self.arrived.push(false);
        self.recovered.push(false);
        if arrives {
            self.arrive(self.sent.len() - 1);
        }
    }

    fn arrive(&mut self, at: usize) {
        let new = self.decoder.source(self.base + at as u64, &self.sent[at]);
        if let Ok(new) = new {
            let known = self.arrived[at] || self.recovered[at];
            assert!(new != known || !self.honest);
            self.arrived[at] |= new;
        }
    }

    fn late(&mut self, from: u8) {
        let lost = (usize::from(from)..self.sent.len()).find(|at| !self.arrived[*at]);
        if let Some(at) = lost {
            self.arrive(at);
        }
    }

    fn repair(&mut self, seq: Option<u64>) {
        let made = match seq {
            None => self.encoder.repair(),
            Some(seq) => self.encoder.top_up(seq),
        };
        let Some((header, symbol)) = made else { return };
        assert!((1..=MAX_COVER).contains(&usize::from(header.cover)));
        self.last = Some((header, symbol.to_vec()));
        self.accepted += u64::from(self.decoder.repair(&header, symbol).is_ok());
    }

    /// The last repair symbol again: as it was, cut short, or with a byte changed.
    fn replay(&mut self, how: u8, at: u8) {
        let Some((header, mut symbol)) = self.last.clone() else { return };
        match how % 3 {
            0 => {}
            1 => symbol.truncate(usize::from(at)),
            _ => {
                let at = usize::from(at) % symbol.len().max(1);
                symbol.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= how | 1);
            }
        }
        self.honest &= how % 3 == 0;
        self.accepted += u64::from(self.decoder.repair(&header, &symbol).is_ok());
    }

    fn forge(&mut self, a: u8, b: u8, c: u8) {
        let end = self.base.wrapping_add(self.sent.len() as u64);
        let base = match a % 4 {
            0 => end.wrapping_sub(u64::from(b)),
            1 => end.wrapping_add(u64::from(b) << (c % 48)),
            2 => u64::from(b),
            _ => u64::MAX - u64::from(b),
        };
        let header = Header { base, cover: u16::from(c) * (1 + u16::from(a) / 100), key: b.into() };
        self.honest = false;
        let symbol = vec![a; usize::from(c) * 8 + usize::from(b % 3)];
        self.accepted += u64::from(self.decoder.repair(&header, &symbol).is_ok());
    }

    fn drain(&mut self) {
        while let Some((seq, packet)) = self.decoder.poll() {
            let at = seq.wrapping_sub(self.base) as usize;
            if self.honest {
                assert_eq!(packet, self.sent[at], "what was recovered is what was sent");
                assert!(!self.arrived[at] && !self.recovered[at], "once");
            }
            if let Some(recovered) = self.recovered.get_mut(at) {
                *recovered = true;
            }
        }
    }
}
