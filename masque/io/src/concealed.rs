//! Concealed authentication (RFC 9729) where it meets TLS and Ed25519; its format is in
//! [`bauta_masque::concealed`].

use std::fmt;

use bauta_masque::concealed::{self, Credential, ED25519, EXPORTED, LABEL, Origin};
use boring::ssl::SslRef;
use boring::x509::X509;
use ring::signature::{self, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::{Connection, cid};

/// Bytes of an Ed25519 public key, and of the seed of a secret one.
pub const KEY: usize = 32;

/// What a connection's TLS tells of its peer.
pub trait Export {
    /// The exporter (RFC 8446 §7.5), for Concealed authentication alone: 48 bytes for this context; `None` where the handshake is not done, or TLS is older than 1.3.
    fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]>;

    /// SHA-256 of the SubjectPublicKeyInfo of the certificate that the peer has shown, whose key it
    /// thereby has; `None` without one.
    fn peer_spki(&mut self) -> Option<[u8; 32]> {
        None
    }
}

impl Export for Connection {
    fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]> {
        if !self.is_established() {
            return None;
        }
        let tls: &mut SslRef = self.quic.as_mut();
        let mut out = [0; EXPORTED];
        tls.export_keying_material(&mut out, LABEL, Some(context)).ok()?;
        Some(out)
    }

    fn peer_spki(&mut self) -> Option<[u8; 32]> {
        spki_sha256(self.quic.peer_cert()?)
    }
}

/// SHA-256 of the SubjectPublicKeyInfo of a certificate in DER; `None` where it is damaged.
pub(crate) fn spki_sha256(certificate: &[u8]) -> Option<[u8; 32]> {
    let key = X509::from_der(certificate).ok()?.public_key().ok()?;
    Some(boring::sha::sha256(&key.public_key_to_der().ok()?))
}

/// A client's secret key. `Debug` shows the public one.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key of a seed; `None` where it is not 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self)
    }

    /// A fresh seed, to be kept secret.
    pub fn new_seed() -> [u8; KEY] {
        let mut seed = [0; KEY];
        cid::random(&mut seed);
        seed
    }

    /// The public key, which is its own key id.
    pub fn public_key(&self) -> [u8; KEY] {
        let mut out = [0; KEY];
        out.copy_from_slice(self.0.public_key().as_ref());
        out
    }

    /// The value of `Authorization` for requests to `origin` on this connection, and on no other.
    pub fn authorization(&self, tls: &mut dyn Export, origin: Origin<'_>) -> Option<String> {
        let public_key = self.public_key();
        let context = concealed::context(ED25519, &public_key, &public_key, origin, b"");
        let exported = tls.export(&context)?;
        let credential = Credential {
            key_id: public_key.to_vec(),
            public_key: public_key.to_vec(),
            proof: self.0.sign(&concealed::content(&exported)).as_ref().to_vec(),
            scheme: ED25519,
            verification: concealed::verification(&exported).to_vec(),
            realm: Vec::new(),
        };
        Some(credential.value())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.0.public_key()).finish()
    }
}

/// Whether `proof` signs what was exported. Takes the same time for every signature that
/// [`is_canonical`], be it right or wrong.
pub fn verify(public_key: &[u8; KEY], exported: &[u8; EXPORTED], proof: &[u8]) -> bool {
    let key = UnparsedPublicKey::new(&signature::ED25519, public_key);
    key.verify(&concealed::content(exported), proof).is_ok()
}

/// Whether a signature has the form of one (RFC 8032 §5.1.7): 64 bytes, its scalar below the
/// group's order. Any other is refused before the costly part, which somebody could time.
pub fn is_canonical(proof: &[u8]) -> bool {
    /// 2^252 + 27742317777372353535851937790883648493, the least byte first.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    proof.len() == 64 && proof[32..].iter().rev().lt(ORDER.iter().rev())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed([u8; EXPORTED]);

    impl Export for Fixed {
        fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]> {
            // As a real exporter: another context, another output.
            let mut out = self.0;
            for (i, byte) in context.iter().enumerate() {
                // Into what is signed.
                out[i % 32] ^= byte.rotate_left(i as u32 / 32);
            }
            Some(out)
        }
    }

    const HOME: Origin<'_> = Origin { scheme: b"https", host: b"a.org", port: 443 };

    #[test]
    fn ed25519_is_that_of_rfc_8032() {
        // RFC 8032 §7.1, TEST 1: the public key of a secret one.
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2)
                .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
                .collect()
        };
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let key = SigningKey::from_seed(&seed).unwrap();
        let wanted = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(key.public_key()[..], wanted[..]);
    }

    #[test]
    fn a_signature_is_for_one_key_one_connection_and_one_origin() {
        let key = SigningKey::from_seed(&SigningKey::new_seed()).unwrap();
        let other = SigningKey::from_seed(&SigningKey::new_seed()).unwrap();
        let value = key.authorization(&mut Fixed([5; EXPORTED]), HOME).unwrap();
        let credential = Credential::parse(value.as_bytes()).unwrap();
        assert_eq!(credential.key_id, key.public_key());
        let good = Fixed([5; EXPORTED]).export(&credential.context(HOME)).unwrap();
        assert!(verify(&key.public_key(), &good, &credential.proof));
        assert!(!verify(&other.public_key(), &good, &credential.proof));
        let elsewhere = Fixed([6; EXPORTED]).export(&credential.context(HOME)).unwrap();
        assert!(!verify(&key.public_key(), &elsewhere, &credential.proof));
        let port = Origin { port: 444, ..HOME };
        let elsewhere = Fixed([5; EXPORTED]).export(&credential.context(port)).unwrap();
        assert!(!verify(&key.public_key(), &elsewhere, &credential.proof));
    }

    #[test]
    fn a_signature_is_canonical_below_the_order() {
        let with = |last: u8, first: u8| {
            let mut proof = [0; 64];
            (proof[32], proof[63]) = (first, last);
            is_canonical(&proof)
        };
        assert!(with(0x0f, 0xff) && with(0x10, 0) && !with(0x11, 0) && !with(0xff, 0));
        let mut order = [0; 64];
        order[32..48].copy_from_slice(&[
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14,
        ]);
        order[63] = 0x10;
        assert!(!is_canonical(&order));
        order[32] -= 1;
        assert!(is_canonical(&order));
        assert!(!is_canonical(&[0; 63]));
    }

    #[test]
    fn a_secret_key_does_not_show() {
        let key = SigningKey::from_seed(&[1; KEY]).unwrap();
        assert!(!format!("{key:?}").contains("0101"));
        assert!(SigningKey::from_seed(&[1; 31]).is_none());
    }
}
