//! The proxy's book of join tokens: each good once, for thirty seconds, for one owner.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::capsules::Token;

/// How long a token is good for.
pub const LIFETIME: Duration = Duration::from_secs(30);

/// The most tokens outstanding at once in one book; the oldest goes first.
pub const MAX_TOKENS: usize = 4_096;

/// Why a token opens nothing. The peer is told no more than
/// [`BadToken`](super::capsules::CloseCode::BadToken).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Never issued, used before, or pushed out by newer ones.
    #[error("unknown or used")]
    Unknown,
    /// Too old.
    #[error("expired")]
    Expired,
    /// Issued to somebody else. It is void now.
    #[error("issued to another account")]
    Foreign,
}

/// Tokens that were handed out and not used. `B` names a bond, `O` the account that may join it.
#[derive(Debug)]
pub struct Tokens<B, O> {
    issued: HashMap<Token, (Instant, B, O)>,
}

impl<B, O> Default for Tokens<B, O> {
    fn default() -> Self {
        Self { issued: HashMap::new() }
    }
}

impl<B, O: PartialEq> Tokens<B, O> {
    /// Makes a token of 16 bytes of a cryptographic generator.
    pub fn issue(&mut self, now: Instant, random: [u8; 16], bond: B, owner: O) -> Token {
        if self.issued.len() >= MAX_TOKENS {
            self.expire(now);
        }
        if self.issued.len() >= MAX_TOKENS
            && let Some(oldest) =
                self.issued.iter().min_by_key(|(_, (at, ..))| *at).map(|(t, _)| *t)
        {
            self.issued.remove(&oldest);
        }
        let token = Token(random);
        self.issued.insert(token, (now, bond, owner));
        token
    }

    /// Uses a token up, whatever comes of it.
    pub fn redeem(&mut self, now: Instant, token: &Token, owner: &O) -> Result<B, TokenError> {
        let (at, bond, of) = self.issued.remove(token).ok_or(TokenError::Unknown)?;
        if now.saturating_duration_since(at) > LIFETIME {
            return Err(TokenError::Expired);
        }
        if of != *owner { Err(TokenError::Foreign) } else { Ok(bond) }
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now: Instant) {
        self.issued.retain(|_, (at, ..)| now.saturating_duration_since(*at) <= LIFETIME);
    }

    /// How many are outstanding.
    pub fn len(&self) -> usize {
        self.issued.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.issued.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any moment does")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_token_opens_its_bond_once() {
        let (mut tokens, now) = (Tokens::default(), start());
        let token = tokens.issue(now, [1; 16], 7, "ann");
        assert_eq!(tokens.redeem(now + LIFETIME, &token, &"ann"), Ok(7));
        assert_eq!(tokens.redeem(now, &token, &"ann"), Err(TokenError::Unknown));
    }

    #[test]
    fn a_stolen_token_is_void() {
        let (mut tokens, now) = (Tokens::default(), start());
        let token = tokens.issue(now, [1; 16], 7, "ann");
        assert_eq!(tokens.redeem(now, &token, &"bob"), Err(TokenError::Foreign));
        assert_eq!(tokens.redeem(now, &token, &"ann"), Err(TokenError::Unknown));
    }

    #[test]
    fn an_old_token_opens_nothing() {
        let (mut tokens, now) = (Tokens::default(), start());
        let token = tokens.issue(now, [1; 16], 7, "ann");
        let late = now + LIFETIME + Duration::from_millis(1);
        assert_eq!(tokens.redeem(late, &token, &"ann"), Err(TokenError::Expired));
    }

    #[test]
    fn the_book_is_bounded() {
        let (mut tokens, now) = (Tokens::default(), start());
        for i in 0..2 * MAX_TOKENS as u128 {
            tokens.issue(now, i.to_be_bytes(), i, ());
        }
        assert_eq!(tokens.len(), MAX_TOKENS);
        tokens.expire(now + 2 * LIFETIME);
        assert!(tokens.is_empty());
    }
}
