//! Concealed authentication (RFC 9729): the same work for every request that is let in nowhere,
//! whatever it carries, so that nobody can time what it does to a credential.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bauta_masque::concealed::{self, Credential, ED25519, EXPORTED, Origin};
use bauta_masque_io::concealed::{Export, KEY, SigningKey, is_canonical, verify};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Accounts, Grant};

/// What stands before a key when it is hashed, so that no token has the hash of a key.
const KIND: &[u8] = bauta_masque_io::mark::PUBLIC_KEY_KIND;

/// Where a request without an authority of its own is addressed to.
const NOWHERE: Origin<'static> = Origin { scheme: b"https", host: b"example.org", port: 443 };

/// What is checked where there is nothing to check.
#[derive(Debug)]
pub(super) struct Decoy {
    /// Nobody has its secret half: that was forgotten when it was made.
    public_key: [u8; KEY],
    /// A field's value, as long as a genuine one.
    value: String,
}

impl Decoy {
    pub(super) fn new() -> Self {
        let seed = SigningKey::new_seed();
        let public_key = SigningKey::from_seed(&seed).map_or(seed, |key| key.public_key());
        let credential = Credential {
            key_id: public_key.to_vec(),
            public_key: public_key.to_vec(),
            proof: vec![0x55; 64],
            scheme: ED25519,
            verification: vec![0x55; 16],
            realm: Vec::new(),
        };
        Self { public_key, value: credential.value() }
    }

    fn credential(&self) -> Credential {
        Credential::parse(self.value.as_bytes()).unwrap_or_else(|| Credential {
            key_id: Vec::new(),
            public_key: Vec::new(),
            proof: Vec::new(),
            scheme: 0,
            verification: Vec::new(),
            realm: Vec::new(),
        })
    }

    /// A signature in form: never the same, and never right.
    fn proof(exported: &[u8; EXPORTED]) -> [u8; 64] {
        let mut proof = [0; 64];
        proof[..32].copy_from_slice(&exported[16..]);
        proof[32..].copy_from_slice(&exported[..32]);
        proof[63] &= 0x0f;
        proof
    }
}

/// The hash a key is found by, of a kind with those of tokens.
pub(super) fn key_hash(public_key: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(KIND).chain_update(public_key).finalize().into()
}

/// A public key as people pass it on: base64url of its 32 bytes.
pub fn parse_key(text: &str) -> Option<[u8; KEY]> {
    URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).ok()?.try_into().ok()
}

/// A public key as text.
pub fn key_text(key: &[u8; KEY]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

impl Accounts {
    /// The account whose key signed for this connection and `origin`. `value` is that of
    /// `Authorization` or `Proxy-Authorization`, if there is one; the work is the same without.
    pub fn authenticate_concealed(
        &self,
        value: Option<&[u8]>,
        origin: Option<Origin<'_>>,
        tls: &mut dyn Export,
        now: SystemTime,
    ) -> Option<Grant> {
        let given = value.and_then(Credential::parse);
        let genuine = given.is_some() && origin.is_some();
        let credential = given.unwrap_or_else(|| self.decoy.credential());
        let exported = tls.export(&credential.context(origin.unwrap_or(NOWHERE)))?;
        let hash = key_hash(&credential.public_key);
        let account = self.find(&hash);
        let shown = credential.verification.ct_eq(concealed::verification(&exported));
        let known = match <[u8; KEY]>::try_from(credential.public_key.as_slice()) {
            Ok(key)
                if genuine
                    && account.is_some()
                    && bool::from(shown)
                    && credential.scheme == ED25519
                    && credential.key_id == credential.public_key
                    && is_canonical(&credential.proof) =>
            {
                Some(key)
            }
            _ => None,
        };
        let decoy = Decoy::proof(&exported);
        let (key, proof) = match &known {
            Some(key) => (key, credential.proof.as_slice()),
            None => (&self.decoy.public_key, decoy.as_slice()),
        };
        let signed = verify(key, &exported, proof);
        let account = account.filter(|account| account.valid(now));
        (signed && known.is_some()).then_some(())?;
        Some(Grant { account: account?, credential: hash })
    }

    /// The work of a check, for a page that is not there and whose request was not looked at.
    pub fn pretend(&self, tls: &mut dyn Export, now: SystemTime) {
        let _ = self.authenticate(None, now);
        let _ = self.authenticate(None, now);
        let _ = self.authenticate_concealed(None, None, tls, now);
        let _ = self.authenticate_certificate(tls.peer_spki(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{Entry, FileError, edit};

    /// A connection's exporter, as far as anybody can tell.
    struct Connection(u8);

    impl Export for Connection {
        fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]> {
            let hash: [u8; 32] =
                Sha256::new().chain_update([self.0]).chain_update(context).finalize().into();
            let mut out = [0; EXPORTED];
            out[..32].copy_from_slice(&hash);
            out[32..].copy_from_slice(&hash[..16]);
            Some(out)
        }
    }

    const SITE: Origin<'_> = Origin { scheme: b"https", host: b"site.test", port: 443 };

    fn folder() -> (tempfile::TempDir, Accounts, SigningKey) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.toml");
        let key = SigningKey::from_seed(&SigningKey::new_seed()).unwrap();
        let keys = vec![key_text(&key.public_key())];
        edit::<_, FileError>(&path, |file| {
            file.accounts.push(Entry { name: "alice".into(), keys, ..Entry::default() });
            Ok(())
        })
        .unwrap();
        (dir, Accounts::load(path, None).unwrap(), key)
    }

    fn name(accounts: &Accounts, value: &str, origin: Origin<'_>, conn: u8) -> Option<String> {
        let value = Some(value.as_bytes());
        let now = SystemTime::UNIX_EPOCH;
        let grant =
            accounts.authenticate_concealed(value, Some(origin), &mut Connection(conn), now);
        grant.map(|grant| grant.account.name.clone())
    }

    #[test]
    fn rule_90_only_the_right_key_on_its_connection_for_this_origin_opens() {
        let (_dir, accounts, key) = folder();
        let value = key.authorization(&mut Connection(1), SITE).unwrap();
        assert_eq!(name(&accounts, &value, SITE, 1).as_deref(), Some("alice"));
        assert_eq!(name(&accounts, &value, SITE, 2), None, "replayed on another connection");
        assert_eq!(name(&accounts, &value, Origin { port: 444, ..SITE }, 1), None);
        let stranger = SigningKey::from_seed(&SigningKey::new_seed()).unwrap();
        let theirs = stranger.authorization(&mut Connection(1), SITE).unwrap();
        assert_eq!(name(&accounts, &theirs, SITE, 1), None, "an unknown key");
        let good = Credential::parse(value.as_bytes()).unwrap();
        let broken: [fn(&mut Credential); 6] = [
            |c| c.proof[0] ^= 1,
            |c| c.proof.truncate(63),
            |c| c.proof[63] = 0xff,
            |c| c.verification[0] ^= 1,
            |c| c.scheme = 0x0403,
            |c| c.key_id = b"alice".to_vec(),
        ];
        for (i, spoil) in broken.into_iter().enumerate() {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert_eq!(name(&accounts, &bad.value(), SITE, 1), None, "{i}");
        }
        // Signed for the realm it names, and therefore right.
        let realm = Credential { realm: b"x".to_vec(), ..good };
        assert_eq!(name(&accounts, &realm.value(), SITE, 1), None, "a realm nobody signed");
    }

    #[test]
    fn a_decoy_has_the_form_of_a_signature() {
        let decoy = Decoy::new();
        assert_eq!(decoy.credential().public_key, decoy.public_key);
        for byte in 0..=255 {
            assert!(is_canonical(&Decoy::proof(&[byte; EXPORTED])));
        }
    }

    #[test]
    fn a_key_taken_away_no_longer_stands() {
        let (dir, accounts, key) = folder();
        let value = key.authorization(&mut Connection(1), SITE).unwrap();
        let now = SystemTime::UNIX_EPOCH;
        let grant = accounts
            .authenticate_concealed(Some(value.as_bytes()), Some(SITE), &mut Connection(1), now)
            .unwrap();
        assert!(accounts.stands(&grant, now));
        edit::<_, FileError>(&dir.path().join("accounts.toml"), |file| {
            file.accounts[0].keys.clear();
            Ok(())
        })
        .unwrap();
        accounts.reload().unwrap();
        assert!(!accounts.stands(&grant, now));
        assert_eq!(name(&accounts, &value, SITE, 1), None);
    }
}
