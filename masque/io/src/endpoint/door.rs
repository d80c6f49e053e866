//! Who may begin a connection, and at what cost to those who have one.
//!
//! Until a handshake is done a peer has shown nothing, not even that its address is its own. So each
//! thing it can ask for has a bound here: connections begun in a second, by all and by one source;
//! handshakes under way and their time; connections one source holds; answers sent without state.
//! When handshakes come faster than [`DoorLimits::free_handshakes`], an address has to be proven
//! first (Retry, RFC 9000 section 8.1.2): that costs one keyed hash and keeps nothing. When more
//! come than Retry can answer, most are not even read ([`gate`](super::gate)).
//!
//! Nothing here allocates with the number of packets; sources share a table of fixed size.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::ConnId;
use crate::cid::{self, Cid, LOCAL_CID_LEN};

/// The bounds of one endpoint. Each worker of a gateway has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections begun in a second without proof of the address; beyond, Retry asks for it.
    pub free_handshakes: u32,
    /// Handshakes under way above which Retry asks for proof.
    pub retry_above: usize,
    /// Handshakes under way at most; further Initials are dropped. Each takes about 60 KB.
    pub max_handshakes: usize,
    /// Connections begun in a second by all; one costs about 0.3 ms of a core.
    pub handshakes_per_second: u32,
    /// Connections begun in a second by one source: an IPv4 address, or an IPv6 network of 64 bits.
    pub source_per_second: u32,
    /// Connections held by one source.
    pub source_connections: u32,
    /// Time for a handshake.
    pub handshake_timeout: Duration,
    /// Answers without a connection in a second: Retry and version negotiation.
    pub answers_per_second: u32,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            free_handshakes: 200,
            retry_above: 256,
            max_handshakes: 2048,
            handshakes_per_second: 1000,
            source_per_second: 300,
            source_connections: 2048,
            handshake_timeout: Duration::from_secs(10),
            answers_per_second: 2000,
        }
    }
}

/// How long a Retry token is good for: a round trip, and the client's patience.
const TOKEN_LIFE: Duration = Duration::from_secs(10);
/// Bytes of a token's keyed hash.
const MAC: usize = 16;
/// Sources told apart; a power of two. More share a bucket.
const SOURCES: usize = 4096;
/// What a bucket lets pass at once after a silence, in seconds of its rate.
const BURST: f64 = 1.0;

/// What was done to those who asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorStats {
    /// Asked to prove their address.
    pub retries: u64,
    /// Initials dropped because too many came, of all or of one source.
    pub dropped: u64,
    /// First packets that did not decrypt.
    pub garbage: u64,
    /// Handshakes that took too long.
    pub timed_out: u64,
    /// Datagrams that the kernel did not hand over while a filter was on the socket, and datagrams
    /// of a ring that the same filter turned away.
    pub filtered: u64,
    /// Whether the filter is there now.
    pub filtering: bool,
}

/// What to do with a first Initial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Begin a connection.
    Accept,
    /// Ask for proof of the address.
    Retry,
    /// Nothing.
    Drop,
}

/// An IPv4 address or an IPv6 network of 64 bits: what bounds count as one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subnet(u64);

impl Subnet {
    pub(crate) fn of(addr: SocketAddr) -> Self {
        Self(match addr.ip().to_canonical() {
            // 192.0.2.0/24 as an IPv6 network would be 0:0:0:…; none is announced there.
            IpAddr::V4(v4) => u64::from(u32::from(v4)),
            IpAddr::V6(v6) => (u128::from(v6) >> 64) as u64,
        })
    }
}

/// A rate, kept as the time at which all that passed will have been due.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(u64);

impl Bucket {
    /// Whether one more may pass at `now`, in nanoseconds, at `rate` a second.
    fn pass(&mut self, now: u64, rate: u32) -> bool {
        let cost = 1_000_000_000 / u64::from(rate.max(1));
        let due = self.0.max(now) + cost;
        let fits = rate > 0 && due <= now + cost.max((BURST * 1e9) as u64);
        if fits {
            self.0 = due;
        }
        fits
    }
}

pub(super) struct Door {
    limits: DoorLimits,
    epoch: Instant,
    key: [u8; 32],
    free: Bucket,
    all: Bucket,
    answers: Bucket,
    sources: Box<[Bucket]>,
    hasher: RandomState,
    held: HashMap<Subnet, u32>,
    /// Handshakes under way.
    handshakes: usize,
    /// When each connection's handshake has to be done, those that are done included.
    deadlines: VecDeque<(Instant, ConnId)>,
    pub(super) stats: DoorStats,
}

impl Door {
    pub(super) fn new(limits: DoorLimits, now: Instant) -> Self {
        let mut key = [0; 32];
        cid::random(&mut key);
        Self {
            limits,
            epoch: now,
            key,
            free: Bucket::default(),
            all: Bucket::default(),
            answers: Bucket::default(),
            sources: vec![Bucket::default(); SOURCES].into_boxed_slice(),
            hasher: RandomState::new(),
            held: HashMap::new(),
            handshakes: 0,
            deadlines: VecDeque::new(),
            stats: DoorStats::default(),
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// What to do with a first Initial from `from`, whose address is `proven` or not.
    pub(super) fn knock(&mut self, now: Instant, from: SocketAddr, proven: bool) -> Entry {
        let at = self.nanos(now);
        let limits = &self.limits;
        let entry = if self.handshakes >= limits.max_handshakes {
            Entry::Drop
        } else if !proven
            && (self.stats.filtering
                || self.handshakes >= limits.retry_above
                || !self.free.pass(at, limits.free_handshakes))
        {
            if self.answers.pass(at, limits.answers_per_second) {
                Entry::Retry
            } else {
                Entry::Drop
            }
        } else if self.has_room(at, Subnet::of(from)) {
            Entry::Accept
        } else {
            Entry::Drop
        };
        match entry {
            Entry::Retry => self.stats.retries += 1,
            Entry::Drop => self.stats.dropped += 1,
            Entry::Accept => {}
        }
        entry
    }

    fn has_room(&mut self, at: u64, source: Subnet) -> bool {
        let limits = &self.limits;
        let held = self.held.get(&source).copied().unwrap_or(0);
        let slot = self.hasher.hash_one(source) as usize % SOURCES;
        held < limits.source_connections
            && self.sources[slot].pass(at, limits.source_per_second)
            && self.all.pass(at, limits.handshakes_per_second)
    }

    /// Whether an answer may be sent that no connection stands behind.
    pub(super) fn may_answer(&mut self, now: Instant) -> bool {
        let at = self.nanos(now);
        self.answers.pass(at, self.limits.answers_per_second)
    }

    /// A connection has begun.
    pub(super) fn entered(&mut self, now: Instant, id: ConnId, source: Subnet) {
        self.handshakes += 1;
        *self.held.entry(source).or_insert(0) += 1;
        self.deadlines.push_back((now + self.limits.handshake_timeout, id));
    }

    /// A handshake is done, or given up.
    pub(super) fn settled(&mut self) {
        self.handshakes = self.handshakes.saturating_sub(1);
    }

    /// A connection is gone.
    pub(super) fn left(&mut self, source: Subnet) {
        if let Some(held) = self.held.get_mut(&source) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&source);
            }
        }
    }

    /// When the oldest handshake has to be done.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// A connection whose handshake should be done by now; whether it is, the caller knows.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<ConnId> {
        self.deadlines.front().filter(|(at, _)| *at <= now)?;
        self.deadlines.pop_front().map(|(_, id)| id)
    }

    /// A token that proves that `from` received it, for a connection to `chosen` that began as one
    /// to `original`: seconds, the original id, a keyed hash over all of it.
    pub(super) fn token(
        &self,
        now: Instant,
        from: SocketAddr,
        chosen: &[u8],
        original: &[u8],
    ) -> Option<Vec<u8>> {
        let seconds = now.saturating_duration_since(self.epoch).as_secs() as u32;
        let mut token = seconds.to_be_bytes().to_vec();
        token.extend_from_slice(original);
        token.extend_from_slice(&self.mac(&token, from, chosen)?);
        Some(token)
    }

    /// The original id of a token that is genuine, of this address and this connection, and fresh.
    pub(super) fn check(
        &self,
        now: Instant,
        from: SocketAddr,
        chosen: &[u8],
        token: &[u8],
    ) -> Option<Cid> {
        if chosen.len() != LOCAL_CID_LEN {
            return None;
        }
        let (body, mac) = token.split_at_checked(token.len().checked_sub(MAC)?)?;
        let (seconds, original) = body.split_first_chunk::<4>()?;
        let made = self.mac(body, from, chosen)?;
        if !boring::memcmp::eq(&made, mac) {
            return None;
        }
        let made = Duration::from_secs(u32::from_be_bytes(*seconds).into());
        let age = now.saturating_duration_since(self.epoch).saturating_sub(made);
        (age <= TOKEN_LIFE).then(|| Cid::new(original)).flatten()
    }

    fn mac(&self, body: &[u8], from: SocketAddr, chosen: &[u8]) -> Option<[u8; MAC]> {
        let mut all = [0; 16 + 2 + LOCAL_CID_LEN + 4 + quiche::MAX_CONN_ID_LEN];
        let len = 16 + 2 + LOCAL_CID_LEN + body.len();
        let ip = match from.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        all[..16].copy_from_slice(&ip.octets());
        all[16..18].copy_from_slice(&from.port().to_be_bytes());
        all.get_mut(18..18 + LOCAL_CID_LEN)?.copy_from_slice(chosen.get(..LOCAL_CID_LEN)?);
        all.get_mut(18 + LOCAL_CID_LEN..len)?.copy_from_slice(body);
        boring::hash::hmac_sha256(&self.key, &all[..len]).ok()?.first_chunk().copied()
    }
}

#[cfg(test)]
mod tests;
