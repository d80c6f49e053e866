//! What proves to an authority that a name is ours: a file over plain HTTP (RFC 8555 section 8.3),
//! a certificate for `acme-tls/1` over TLS (RFC 8737).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_acme::ResolvesServerCertAcme;

/// The path that HTTP-01 asks for, before the token.
pub const HTTP01_PATH: &str = "/.well-known/acme-challenge/";

/// The protocol that TLS-ALPN-01 asks for.
pub const TLS_ALPN01: &[u8] = b"acme-tls/1";

/// The answers in force, shared between the source and the listeners. There are some only while an
/// order is on its way; otherwise nobody can tell that there ever are.
#[derive(Clone, Default)]
pub struct Challenges(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    http: HashMap<String, String>,
    tls: HashMap<String, Arc<CertifiedKey>>,
    library: Option<Arc<ResolvesServerCertAcme>>,
    config: Option<Arc<ServerConfig>>,
}

impl Challenges {
    /// The content of `HTTP01_PATH` + token.
    pub fn http01(&self, token: &str) -> Option<String> {
        let answers = self.lock();
        let own = answers.http.get(token).cloned();
        own.or_else(|| answers.library.as_ref()?.get_http_01_key_auth(token))
    }

    /// The TLS settings for a client that offers `acme-tls/1` and nothing else.
    pub fn tls_alpn01(&self) -> Option<Arc<ServerConfig>> {
        self.lock().config.clone()
    }

    /// Answers as rustls-acme says, until the guard is dropped.
    pub(super) fn by_library(&self, resolver: Arc<ResolvesServerCertAcme>) -> Guard {
        self.begin(Answers { library: Some(resolver), ..Answers::default() })
    }

    /// Answers as the other methods say, until the guard is dropped.
    pub(super) fn by_hand(&self) -> Guard {
        self.begin(Answers::default())
    }

    fn begin(&self, answers: Answers) -> Guard {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map(|builder| {
                let resolver = Arc::new(self.clone());
                let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
                config.alpn_protocols = vec![TLS_ALPN01.to_vec()];
                config.send_tls13_tickets = 0;
                Arc::new(config)
            });
        *self.lock() = Answers { config: config.ok(), ..answers };
        Guard(self.clone())
    }

    pub(super) fn put_http01(&self, token: String, answer: String) {
        self.lock().http.insert(token, answer);
    }

    /// A certificate for `name`, a domain or an IP address, that carries the digest.
    pub(super) fn put_tls_alpn01(&self, name: &str, digest: &[u8]) -> Result<(), rcgen::Error> {
        let mut params = rcgen::CertificateParams::new([name.to_owned()])?;
        params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = ring::sign::any_ecdsa_type(&der).map_err(|_| rcgen::Error::RemoteKeyError)?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], signer);
        self.lock().tls.insert(server_name(name), Arc::new(certified));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenges(..)")
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (own, library) = {
            let answers = self.lock();
            let own = hello.server_name().and_then(|name| answers.tls.get(name).cloned());
            (own, answers.library.clone())
        };
        own.or_else(|| library?.resolve(hello))
    }
}

/// While it lives there are answers.
pub(super) struct Guard(Challenges);

impl Drop for Guard {
    fn drop(&mut self) {
        *self.0.lock() = Answers::default();
    }
}

/// The name in the ClientHello: an address is asked for by its reverse DNS name (RFC 8738
/// section 6).
fn server_name(name: &str) -> String {
    match name.parse() {
        Ok(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(ip)) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|b| [b & 15, b >> 4]);
            nibbles.map(|n| format!("{n:x}.")).collect::<String>() + "ip6.arpa"
        }
        Err(_) => name.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_asked_for_by_their_reverse_name() {
        assert_eq!(server_name("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        let v6 = server_name("2001:db8::1");
        assert!(v6.starts_with("1.0.0.0.") && v6.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"), "{v6}");
        assert_eq!(server_name("A.org"), "a.org");
    }

    #[test]
    fn there_are_answers_only_while_an_order_is_on_its_way() {
        let challenges = Challenges::default();
        assert!(challenges.tls_alpn01().is_none());
        let guard = challenges.by_hand();
        challenges.put_http01("t".into(), "t.k".into());
        challenges.put_tls_alpn01("a.org", &[7; 32]).unwrap();
        assert_eq!(challenges.http01("t").as_deref(), Some("t.k"));
        assert_eq!(challenges.http01("u"), None);
        assert!(challenges.tls_alpn01().is_some());
        drop(guard);
        assert!(challenges.tls_alpn01().is_none() && challenges.http01("t").is_none());
    }
}
