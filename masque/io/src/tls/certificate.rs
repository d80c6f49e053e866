//! A certificate chain with its key, checked when it is loaded.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use boring::asn1::Asn1Time;
use boring::x509::X509;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::TlsError;
use crate::concealed::spki_sha256;

/// A certificate chain, the host's own first, and the private key that belongs to it.
#[derive(Clone)]
pub struct Certified {
    pub(super) chain_pem: Vec<u8>,
    pub(super) key_pem: Vec<u8>,
    pub(super) rustls: Arc<CertifiedKey>,
    leaf: X509,
    origin: String,
}

impl Certified {
    /// Reads the two PEM files.
    ///
    /// # Errors
    /// Which file is unreadable or malformed and how, or that the two do not belong together. A
    /// certificate that is expired loads; [`check_time`](Self::check_time) tells.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
        };
        let (chain_pem, key_pem) = (read(chain)?, read(key)?);
        Self::parse(chain_pem, key_pem, &chain.display().to_string(), &key.display().to_string())
    }

    /// Takes the two PEM texts, as an ACME client hands them over.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_pem(chain_pem: Vec<u8>, key_pem: Vec<u8>) -> Result<Self, TlsError> {
        Self::parse(chain_pem, key_pem, "the certificate chain", "the private key")
    }

    fn parse(
        chain_pem: Vec<u8>,
        key_pem: Vec<u8>,
        chain_origin: &str,
        key_origin: &str,
    ) -> Result<Self, TlsError> {
        let bad = |origin: &str, problem: String| TlsError::Malformed {
            origin: origin.to_owned(),
            problem,
        };
        let chain = CertificateDer::pem_slice_iter(&chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| bad(chain_origin, format!("not PEM: {e}")))?;
        let Some(first) = chain.first() else {
            let problem = "holds no certificate; expected -----BEGIN CERTIFICATE-----";
            return Err(bad(chain_origin, problem.into()));
        };
        let leaf = X509::from_der(first)
            .map_err(|_| bad(chain_origin, "the first certificate is damaged".into()))?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| {
            let problem =
                "holds no private key; expected an unencrypted -----BEGIN PRIVATE KEY-----";
            bad(key_origin, problem.into())
        })?;
        let rustls = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let rustls = rustls.map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::KeyMismatch { chain: chain_origin.to_owned(), key: key_origin.to_owned() }
            }
            other => bad(key_origin, format!("cannot be used: {other}")),
        })?;
        let origin = chain_origin.to_owned();
        Ok(Self { chain_pem, key_pem, rustls: Arc::new(rustls), leaf, origin })
    }

    /// Says whether the certificate is valid at `now`.
    ///
    /// # Errors
    /// [`TlsError::Expired`] and [`TlsError::NotYetValid`].
    pub fn check_time(&self, now: SystemTime) -> Result<(), TlsError> {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let now = Asn1Time::from_unix(seconds.try_into().unwrap_or(i64::MAX))?;
        let chain = self.origin.clone();
        if *self.leaf.not_after() < now {
            return Err(TlsError::Expired { chain, not_after: self.leaf.not_after().to_string() });
        }
        if *self.leaf.not_before() > now {
            let not_before = self.leaf.not_before().to_string();
            return Err(TlsError::NotYetValid { chain, not_before });
        }
        Ok(())
    }

    /// The certificate is one for this host name, wildcards included.
    pub fn covers(&self, host: &str) -> bool {
        self.leaf.check_host(host).unwrap_or(false)
    }

    /// SHA-256 of the leaf's SubjectPublicKeyInfo: what a client may pin.
    ///
    /// # Errors
    /// When the key of the certificate cannot be written out.
    pub fn spki_sha256(&self) -> Result<[u8; 32], TlsError> {
        Ok(boring::sha::sha256(&self.leaf.public_key()?.public_key_to_der()?))
    }
}

/// SHA-256 of the SubjectPublicKeyInfo of the first certificate in a PEM file.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn certificate_spki(path: &Path) -> Result<[u8; 32], TlsError> {
    let pem = std::fs::read(path)
        .map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })?;
    let first = CertificateDer::pem_slice_iter(&pem).next().and_then(Result::ok);
    first.and_then(|der| spki_sha256(&der)).ok_or_else(|| TlsError::Malformed {
        origin: path.display().to_string(),
        problem: "holds no certificate; expected -----BEGIN CERTIFICATE-----".into(),
    })
}

impl fmt::Debug for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certified").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// The certificate of running TCP listeners; exchanging it affects the connections that come after.
#[derive(Debug)]
pub struct HotCertificate(RwLock<Option<Arc<CertifiedKey>>>);

impl HotCertificate {
    /// Serves `certified` until it is replaced; handshakes without one fail.
    pub fn new(certified: Option<&Certified>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(certified.map(|certified| certified.rustls.clone()))))
    }

    /// Serves `certified` from now on.
    pub fn replace(&self, certified: &Certified) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(certified.rustls.clone());
    }
}

impl ResolvesServerCert for HotCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
