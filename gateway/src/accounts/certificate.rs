//! Client certificates. What counts of one is its key: an account names the SHA-256 of the
//! SubjectPublicKeyInfo. Who issued it, for which names and until when does not matter; that the
//! client has the key it shows by TLS itself.

use std::path::Path;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bauta_masque_io::mark::CERTIFICATE_KIND;
use bauta_masque_io::tls::{TlsError, certificate_spki};
use sha2::{Digest, Sha256};

use super::concealed::{key_hash, key_text, parse_key};
use super::{Accounts, Grant};

/// What stands before the hash, among an account's keys.
const PREFIX: &str = "cert:";

/// The certificate of nobody, for the work of looking for one.
const NOBODY: [u8; 32] = [0; 32];

/// The hash a certificate is found by, of a kind with those of tokens and keys.
fn certificate_hash(spki: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(CERTIFICATE_KIND).chain_update(spki).finalize().into()
}

/// One of an account's keys as people pass it on, in its one form: an Ed25519 public key, or
/// `cert:` and the hash of a certificate's, both 32 bytes in base64url.
pub fn canonical_key(text: &str) -> Option<String> {
    match text.trim().strip_prefix(PREFIX) {
        Some(spki) => Some(format!("{PREFIX}{}", key_text(&parse_key(spki)?))),
        None => parse_key(text).map(|key| key_text(&key)),
    }
}

/// The hash by which such a key is found.
pub(super) fn hash_of(text: &str) -> Option<[u8; 32]> {
    match text.strip_prefix(PREFIX) {
        Some(spki) => parse_key(spki).map(|spki| certificate_hash(&spki)),
        None => parse_key(text).map(|key| key_hash(&key)),
    }
}

/// The key of the first certificate in a PEM file, as an account names it.
///
/// # Errors
/// The file and what is wrong with it.
pub fn certificate_key(path: &Path) -> Result<String, TlsError> {
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(certificate_spki(path)?)))
}

impl Accounts {
    /// The account of a certificate that was shown; the same work without one.
    pub fn authenticate_certificate(
        &self,
        spki: Option<[u8; 32]>,
        now: SystemTime,
    ) -> Option<Grant> {
        let hash = certificate_hash(&spki.unwrap_or(NOBODY));
        let account = self.find(&hash).filter(|account| account.valid(now))?;
        spki.map(|_| Grant { account, credential: hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{Entry, FileError, edit};

    #[test]
    fn a_certificate_opens_by_its_key_until_that_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.toml");
        let text = |byte| format!("{PREFIX}{}", key_text(&[byte; 32]));
        edit::<_, FileError>(&path, |file| {
            let keys = vec![text(7), text(0)];
            file.accounts.push(Entry { name: "alice".into(), keys, ..Entry::default() });
            Ok(())
        })
        .unwrap();
        let accounts = Accounts::load(path.clone(), None).unwrap();
        let now = SystemTime::UNIX_EPOCH;
        let find = |spki| accounts.authenticate_certificate(spki, now);
        let grant = find(Some([7; 32])).unwrap();
        assert_eq!(grant.account.name, "alice");
        assert!(find(Some([8; 32])).is_none() && find(None).is_none());
        assert!(accounts.stands(&grant, now));
        edit::<_, FileError>(&path, |file| {
            file.accounts[0].keys.clear();
            Ok(())
        })
        .unwrap();
        accounts.reload().unwrap();
        assert!(!accounts.stands(&grant, now) && find(Some([7; 32])).is_none());
    }

    #[test]
    fn a_key_has_one_form() {
        let (key, certificate) = (key_text(&[3; 32]), format!("cert:{}", key_text(&[3; 32])));
        assert_eq!(canonical_key(&format!(" {key}= ")).as_ref(), Some(&key));
        assert_eq!(canonical_key(&format!("{certificate}=")).as_ref(), Some(&certificate));
        assert!(hash_of(&key).is_some() && hash_of(&key) != hash_of(&certificate));
        for wrong in ["", "cert:", "cert:AAAA", "CERT:", "nonsense"] {
            assert!(canonical_key(wrong).is_none() && hash_of(wrong).is_none(), "{wrong}");
        }
    }
}
