//! Which first packets are read at all while far more of them come than the door can answer.
//!
//! Reading a datagram costs several times what turning it away costs, so during a flood the kernel
//! does the latter, by a filter on the socket ([`program`]). Sources share [`BUCKETS`] by a keyed
//! hash. The buckets that bring the most are *loud*: of theirs a share passes, drawn by lot, such
//! that all that passes is what the door can answer. A source that is none of the flood's passes as
//! if there were none, unless it shares a bucket with one of the flood's. Packets of connections,
//! which have short headers, pass unseen; so do Handshake packets.
//!
//! Pure: `now` and the seed are arguments, and what to give the kernel is data.

pub(super) mod program;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::DoorLimits;
use crate::cid;

/// Sources told apart; a power of two.
const BUCKETS: usize = 2048;
const BUCKET_BITS: u32 = BUCKETS.trailing_zeros();
/// 32-bit words of one bit a bucket.
const WORDS: usize = BUCKETS / 32;
/// How often the flood is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// Intervals with less than half of what is bearable, after which nothing is turned away.
const CALM: u32 = 8;
/// How much of what was known of a bucket goes with each interval.
const FADE: f32 = 0.15;
/// How much less than others a loud bucket has to bring to be quiet again: what is known of it comes
/// from a few packets.
const DISTRUST: f32 = 4.0;
/// The part of what can be answered that quiet buckets may bring.
const QUIET: f32 = 0.25;
/// The part of it that shall come, so that there is an answer left for whoever knocks in between.
const AIM: f32 = 0.4;

/// Lengths of the tokens that this program's Retry packets bring, which a first byte says alone:
/// four bytes of time, the original connection id (RFC 9000 section 7.2), a hash of sixteen.
const TOKENS: std::ops::RangeInclusive<u8> = 4 + 8 + 16..=4 + 20 + 16;

/// What a first packet may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// Nothing: an Initial as a client begins with, or what is none.
    Nothing,
    /// What has the length of a Retry token.
    Token,
}

impl Shows {
    /// By the fields that no key is needed for (RFC 9000 section 17.2); `None`: not a first packet.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let first = packet.first()?;
        if first & 0x80 == 0 {
            return None;
        }
        if packet.get(1..5) != Some(&[0, 0, 0, 1]) {
            return Some(Self::Nothing);
        }
        match first & 0x30 {
            0x20 => None,
            0 => Some(Self::token(packet).unwrap_or(Self::Nothing)),
            _ => Some(Self::Nothing),
        }
    }

    fn token(packet: &[u8]) -> Option<Self> {
        let longest = quiche::MAX_CONN_ID_LEN;
        let dcid = usize::from(*packet.get(5)?);
        let scid = usize::from(*packet.get(6 + dcid).filter(|_| dcid <= longest)?);
        let token = packet.get(7 + dcid + scid).filter(|_| scid <= longest)?;
        TOKENS.contains(token).then_some(Self::Token)
    }
}

/// What is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    keys: [u32; 2],
    /// One bit a bucket: of these only a share passes.
    loud: [u32; WORDS],
    /// A draw from all 32-bit numbers passes up to this, by [`Shows`].
    shares: [u32; 2],
}

impl Rules {
    fn bucket(&self, from: SocketAddr) -> usize {
        bucket(self.keys, from)
    }

    /// Whether a packet is read, by the `draw` of a random number.
    pub(super) fn passes(&self, packet: &[u8], from: SocketAddr, draw: u32) -> bool {
        let Some(shows) = Shows::of(packet) else { return true };
        let at = self.bucket(from);
        !is_set(&self.loud, at) || draw <= self.shares[shows as usize]
    }
}

/// An IPv4 address, or the first 64 bits of an IPv6 address, by multiplication: the kernel's filters
/// know nothing better.
fn bucket(keys: [u32; 2], from: SocketAddr) -> usize {
    let folded = match from.ip().to_canonical() {
        IpAddr::V4(v4) => u32::from(v4),
        IpAddr::V6(v6) => {
            let [high, low] = [96, 64].map(|shift| (u128::from(v6) >> shift) as u32);
            high.wrapping_mul(keys[1]) ^ low
        }
    };
    (folded.wrapping_mul(keys[0]) >> (u32::BITS - BUCKET_BITS)) as usize
}

/// What there is to do after an interval.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// Turn away what [`Gate::rules`] say now.
    Narrow,
    /// Turn nothing away any more.
    Open,
}

/// The state of it, of one endpoint.
#[derive(Debug)]
pub(super) struct Gate {
    /// First packets a second that are to be read, by [`Shows`].
    budget: [f32; 2],
    /// First packets a second that the door deals with by itself.
    bearable: f32,
    rules: Rules,
    /// What came through in this interval.
    seen: Box<[[u32; 2]]>,
    total: u32,
    /// What comes, a second, as far as what came through tells; while narrow.
    rates: Box<[[f32; 2]]>,
    order: Box<[u16]>,
    begun: Instant,
    narrow: bool,
    calm: u32,
    draw: u64,
}

impl Gate {
    /// For a door of these limits; `seed` is secret, so that nobody knows whose bucket is whose.
    pub(super) fn new(limits: &DoorLimits, seed: u64, now: Instant) -> Self {
        let [answers, free, handshakes] =
            [limits.answers_per_second, limits.free_handshakes, limits.handshakes_per_second]
                .map(|rate| rate.max(1) as f32);
        let keys = [seed as u32 | 1, (seed >> 32) as u32 | 1];
        Self {
            // With a token come both datagrams of a ClientHello, and what is sent again.
            budget: [answers, 4.0 * handshakes],
            bearable: answers + free,
            rules: Rules { keys, loud: [0; WORDS], shares: [u32::MAX; 2] },
            seen: vec![[0; 2]; BUCKETS].into_boxed_slice(),
            total: 0,
            rates: vec![[0.0; 2]; BUCKETS].into_boxed_slice(),
            order: (0..BUCKETS as u16).collect(),
            begun: now,
            narrow: false,
            calm: 0,
            draw: seed | 1,
        }
    }

    /// With a seed of its own.
    pub(super) fn seeded(limits: &DoorLimits, now: Instant) -> Self {
        let mut seed = [0; 8];
        cid::random(&mut seed);
        Self::new(limits, u64::from_ne_bytes(seed), now)
    }

    /// A first packet came through.
    #[inline]
    pub(super) fn count(&mut self, from: SocketAddr, shows: Shows) {
        self.seen[self.rules.bucket(from)][shows as usize] += 1;
        self.total += 1;
    }

    /// Whether first packets are being turned away.
    pub(super) fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// What is turned away, while anything is.
    pub(super) fn rules(&self) -> Option<&Rules> {
        self.narrow.then_some(&self.rules)
    }

    /// The same for a packet that did not pass the kernel's filter.
    pub(super) fn passes(&mut self, packet: &[u8], from: SocketAddr) -> bool {
        if !self.narrow {
            return true;
        }
        self.draw ^= self.draw << 13;
        self.draw ^= self.draw >> 7;
        self.draw ^= self.draw << 17;
        self.rules.passes(packet, from, (self.draw >> 32) as u32)
    }

    /// When [`Gate::handle_timeout`] is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.narrow.then(|| self.begun + INTERVAL)
    }

    /// Looks at the interval that ended, if one did.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Change {
        let took = now.saturating_duration_since(self.begun);
        if took < INTERVAL || (self.total == 0 && !self.narrow) {
            return Change::None;
        }
        let came = self.total as f32 / took.as_secs_f32();
        let much = came > self.budget.iter().sum::<f32>() * 2.0;
        let change = if self.narrow || came > self.bearable {
            let coming = self.learn(took.as_secs_f32());
            self.calm = if coming < self.bearable / 2.0 { self.calm + 1 } else { 0 };
            self.judge(self.narrow && much)
        } else {
            Change::None
        };
        self.seen.fill([0; 2]);
        (self.total, self.begun) = (0, now);
        change
    }

    /// From what came through to what comes; returns how many a second did in this interval.
    fn learn(&mut self, seconds: f32) -> f32 {
        let mut coming = 0.0;
        let fade = if self.narrow { FADE } else { 1.0 };
        for (at, (seen, rate)) in self.seen.iter().zip(&mut self.rates).enumerate() {
            let loud = is_set(&self.rules.loud, at);
            for kind in 0..2 {
                let share = if loud { passing(self.rules.shares[kind]) } else { 1.0 };
                let now = seen[kind] as f32 / share / seconds;
                rate[kind] += (now - rate[kind]) * fade;
                coming += now;
            }
        }
        coming
    }

    /// Draws the line between loud and quiet, and the shares of the loud. `flood_moves`: the quiet
    /// bring too much, so whatever was learnt is past.
    fn judge(&mut self, flood_moves: bool) -> Change {
        if self.calm >= CALM {
            (self.narrow, self.calm) = (false, 0);
            (self.rules.loud, self.rules.shares) = ([0; WORDS], [u32::MAX; 2]);
            return Change::Open;
        }
        self.narrow = true;
        let (rates, was_loud) = (&self.rates, self.rules.loud);
        let weight = |at: usize| {
            let distrust = if is_set(&was_loud, at) { DISTRUST } else { 1.0 };
            (rates[at][0] + rates[at][1]) * distrust
        };
        self.order.sort_unstable_by(|a, b| weight((*b).into()).total_cmp(&weight((*a).into())));
        self.rules.loud = [0; WORDS];
        let mut above: f32 = (0..BUCKETS).map(weight).sum();
        let (mut quiet, mut loud) = (rates.iter().flatten().sum::<f32>(), [0.0; 2]);
        for at in self.order.iter().map(|at| usize::from(*at)) {
            if above <= self.budget[0] * QUIET && !flood_moves {
                break;
            }
            above -= weight(at);
            quiet -= rates[at][0] + rates[at][1];
            self.rules.loud[at / 32] |= 1 << (at % 32);
            for (all, rate) in loud.iter_mut().zip(rates[at]) {
                *all += rate;
            }
        }
        let left = [self.budget[0] * AIM - quiet.max(0.0), self.budget[1] * AIM];
        for kind in 0..2 {
            let share = (left[kind] / loud[kind].max(1.0)).clamp(1e-4, 1.0);
            self.rules.shares[kind] = (f64::from(share) * f64::from(u32::MAX)) as u32;
        }
        Change::Narrow
    }
}

fn is_set(bits: &[u32; WORDS], at: usize) -> bool {
    bits[at / 32] >> (at % 32) & 1 == 1
}

/// The share that a limit of [`Rules::shares`] lets pass.
fn passing(limit: u32) -> f32 {
    (f64::from(limit) / f64::from(u32::MAX)) as f32
}

#[cfg(test)]
mod tests;
