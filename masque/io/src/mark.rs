//! Telling a tunnel from a visitor before the first packet is answered.
//!
//! A tunnel's connection has its own rate control and needs QUIC's congestion window out of the way;
//! a visitor's keeps an ordinary controller. quiche chooses the controller when a connection is
//! accepted, so the client says which it is in the one field it chooses freely: the destination
//! connection id of its first Initial (RFC 9000 section 7.2), eight bytes that look random.
//!
//! ```text
//! mark = nonce (4 bytes) | SipHash-2-4(key, nonce | hour) (its first 4 bytes)
//! key  = SHA-256("bauta connection mark" | SHA-256(token)) (its first 16 bytes)
//! ```
//!
//! For a credential that is a key pair, its public half behind a label takes the token's place.
//! `hour` counts hours since 1970 as 4 bytes in network order. Nobody without the token can make or
//! recognise a mark; an account holder recognises their own alone. The nonce also steers (see
//! [`crate::steer`]). A mark is good once, within an hour or so, and until a tunnel has been
//! authorised the connection sends no faster than slow start would (see `connection/trust.rs`), so
//! that replaying one shows a stranger nothing.

use std::collections::HashMap;
use std::hash::Hasher;
use std::time::{Duration, SystemTime};

use siphasher::sip::SipHasher24;

use crate::steer::CID_LEN;

/// What stands before a public key when it is hashed, so that no token has the hash of a key.
pub const PUBLIC_KEY_KIND: &[u8] = b"ed25519 public key\0";
/// The same before the SHA-256 of the SubjectPublicKeyInfo of a client's certificate.
pub const CERTIFICATE_KIND: &[u8] = b"client certificate\0";

const LABEL: &[u8] = b"bauta connection mark";
const HOUR: u64 = 3600;
/// Marks remembered so that none is good twice; beyond that connections pass for visitors'.
const MAX_SEEN: usize = 1 << 16;
/// Keys tried for one Initial at most, each twice 20 ns or so: a flood of Initials must not become
/// expensive by the number of accounts. Tunnels of further tokens pass for visitors'.
pub const MAX_KEYS: usize = 4096;

/// What a token's marks are made with.
#[derive(Clone)]
pub struct MarkKey([u8; 16]);

impl MarkKey {
    /// From the SHA-256 of a token, which is what a gateway stores.
    pub fn new(token_hash: &[u8; 32]) -> Self {
        let digest = boring::sha::sha256(&[LABEL, token_hash].concat());
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }

    /// From a token.
    pub fn of_token(token: &[u8]) -> Self {
        Self::new(&boring::sha::sha256(token))
    }

    /// From the public half of a key pair, which its owner and the gateway know.
    pub fn of_public_key(key: &[u8]) -> Self {
        Self::new(&boring::sha::sha256(&[PUBLIC_KEY_KIND, key].concat()))
    }

    /// From the SHA-256 of the SubjectPublicKeyInfo of a client's certificate.
    pub fn of_certificate(spki: &[u8; 32]) -> Self {
        Self::new(&boring::sha::sha256(&[CERTIFICATE_KIND, spki].concat()))
    }

    fn tag(&self, nonce: [u8; 4], hour: u64) -> [u8; 4] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&nonce);
        hasher.write(&(hour as u32).to_be_bytes());
        let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
        [a, b, c, d]
    }

    /// Draws a mark whose first four bytes `suit`: all do, or those that lead to one worker.
    pub fn draw(
        &self,
        now: SystemTime,
        suit: impl Fn(&[u8]) -> bool,
        mut random: impl FnMut(&mut [u8]),
    ) -> [u8; CID_LEN] {
        let mut nonce = [0; 4];
        loop {
            random(&mut nonce);
            if suit(&nonce) {
                break;
            }
        }
        let mut mark = [0; CID_LEN];
        mark[..4].copy_from_slice(&nonce);
        mark[4..].copy_from_slice(&self.tag(nonce, seconds(now) / HOUR));
        mark
    }
}

impl std::fmt::Debug for MarkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MarkKey(..)")
    }
}

/// The marks a gateway has seen. One for each worker: an id always leads to the same one.
#[derive(Debug, Default)]
pub struct Marks {
    seen: HashMap<[u8; CID_LEN], u64>,
    swept: u64,
}

impl Marks {
    /// Whether `dcid` is a mark under one of `keys`, and not seen before.
    pub fn admit(&mut self, dcid: &[u8], keys: &[MarkKey], now: SystemTime) -> bool {
        let Ok(mark) = <[u8; CID_LEN]>::try_from(dcid) else { return false };
        let [n0, n1, n2, n3, tag @ ..] = mark;
        let seconds = seconds(now);
        let hour = seconds / HOUR;
        // Clocks differ: half an hour early or late is taken as well.
        let other = if seconds % HOUR < HOUR / 2 { hour.saturating_sub(1) } else { hour + 1 };
        let nonce = [n0, n1, n2, n3];
        let good = |key: &MarkKey| key.tag(nonce, hour) == tag || key.tag(nonce, other) == tag;
        if !keys.iter().take(MAX_KEYS).any(good) {
            return false;
        }
        if self.swept != hour {
            self.swept = hour;
            self.seen.retain(|_, seen| *seen + 2 >= hour);
        }
        if self.seen.len() >= MAX_SEEN {
            return false;
        }
        self.seen.insert(mark, hour).is_none()
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::worker_of;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 / HOUR * HOUR + seconds)
    }

    fn draw(key: &MarkKey, now: SystemTime) -> [u8; 8] {
        key.draw(now, |_| true, crate::cid::random)
    }

    #[test]
    fn a_mark_is_good_once_for_its_key_and_its_hour() {
        let keys = [MarkKey::of_token(b"one"), MarkKey::of_token(b"two")];
        let mut marks = Marks::default();
        let mark = draw(&keys[1], at(100));
        assert!(!marks.admit(&mark, &keys[..1], at(100)), "another key");
        assert!(marks.admit(&mark, &keys, at(101)));
        assert!(!marks.admit(&mark, &keys, at(102)), "replayed");
        for (made, read, good) in [(3500, 3700, true), (3700, 3500, true), (0, 2 * HOUR, false)] {
            let mark = draw(&keys[0], at(made));
            assert_eq!(marks.admit(&mark, &keys, at(read)), good, "{made} {read}");
        }
    }

    #[test]
    fn what_is_drawn_at_random_is_no_mark() {
        let keys = [MarkKey::of_token(b"one")];
        let mut marks = Marks::default();
        for _ in 0..10_000 {
            let mut id = [0; 8];
            crate::cid::random(&mut id);
            assert!(!marks.admit(&id, &keys, at(0)));
        }
        for len in [0, 4, 7, 9, 20] {
            assert!(!marks.admit(&[0; 20][..len], &keys, at(0)));
        }
    }

    #[test]
    fn a_mark_leads_to_the_worker_that_is_wanted() {
        let key = MarkKey::of_token(b"one");
        for worker in 0..5 {
            let mark = key.draw(at(0), |id| worker_of(id, 5) == worker, crate::cid::random);
            assert_eq!(worker_of(&mark, 5), worker);
            assert!(Marks::default().admit(&mark, std::slice::from_ref(&key), at(0)));
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_old_is_forgotten() {
        let key = [MarkKey::of_token(b"one")];
        let mut marks = Marks::default();
        for n in 0..MAX_SEEN as u64 {
            marks.seen.insert(n.to_be_bytes(), seconds(at(0)) / HOUR);
        }
        marks.swept = seconds(at(0)) / HOUR;
        assert!(!marks.admit(&draw(&key[0], at(0)), &key, at(0)), "full: as if it were no mark");
        assert!(marks.admit(&draw(&key[0], at(3 * HOUR)), &key, at(3 * HOUR)));
        assert_eq!(marks.seen.len(), 1);
    }
}
