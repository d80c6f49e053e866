//! Credentials that never show in logs, errors or command lines.

use std::fmt;

use serde::Deserialize;

/// A bearer token. `Debug` and `Display` print a placeholder.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Token(String);

/// The longest token taken, in bytes: a header line stays well below what servers refuse.
pub const MAX_TOKEN: usize = 4096;

impl Token {
    /// Takes a token of the characters RFC 6750 §2.1 allows (`b64token`).
    pub fn new(token: impl Into<String>) -> Result<Token, String> {
        let token = token.into();
        let body = token.trim_end_matches('=');
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
        if body.is_empty() || token.len() > MAX_TOKEN || !body.bytes().all(fits) {
            return Err("the token has characters no bearer token may have, or is empty".into());
        }
        Ok(Token(token))
    }

    /// The value of the `authorization` header.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// The token itself. Only a link that is to be written somewhere needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Token {
    type Error = String;

    fn try_from(token: String) -> Result<Token, String> {
        Token::new(token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_not_show_when_printed() {
        let token = Token::new("abcDEF-123_~").unwrap();
        assert!(!format!("{token:?}").contains("abc"));
        assert_eq!(token.authorization(), "Bearer abcDEF-123_~");
    }

    #[test]
    fn header_injection_is_not_a_token() {
        for bad in ["", "a b", "a\r\nx: y", "ü", "==="] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
        assert!(Token::new("YWJj==").is_ok());
    }
}
