//! What a certificate says of itself.

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::{CertError, Pem};
use crate::acme::schedule::Validity;

/// Names and dates of a certificate.
#[derive(Clone, Debug)]
pub struct Facts {
    /// DNS names and IP addresses it is for.
    pub names: Vec<String>,
    /// When it is valid.
    pub validity: Validity,
    /// The certificate itself.
    pub leaf: CertificateDer<'static>,
}

impl Facts {
    /// Reads the first certificate of a chain and tries the key on it.
    ///
    /// # Errors
    /// Not PEM, not X.509, or the key of another certificate; `from` is for the message.
    pub fn of(pem: &Pem, from: &str) -> Result<Self, CertError> {
        let bad = |problem: String| CertError::Malformed { from: from.to_owned(), problem };
        let chain = CertificateDer::pem_slice_iter(&pem.chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| bad(format!("the certificate chain is not PEM: {e}")))?;
        let leaf = chain.first().ok_or_else(|| bad("holds no certificate".into()))?.clone();
        let key = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|_| bad("holds no unencrypted private key".into()))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|e| bad(format!("certificate and key do not serve together: {e}")))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf)
            .map_err(|e| bad(format!("the first certificate is damaged: {e}")))?;
        let second = |t: x509_parser::time::ASN1Time| u64::try_from(t.timestamp()).unwrap_or(0);
        let validity = Validity {
            from: second(parsed.validity().not_before),
            until: second(parsed.validity().not_after),
        };
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let names = alternatives.map(|list| &list.value.general_names[..]).unwrap_or_default();
        let names = names.iter().filter_map(name).collect();
        Ok(Self { names, validity, leaf: leaf.clone() })
    }

    /// Whether it is for each of these, given in lower case.
    pub fn cover(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|b| std::net::IpAddr::from(b).to_string());
            let v6 = || <[u8; 16]>::try_from(*bytes).map(|b| std::net::IpAddr::from(b).to_string());
            v4.or_else(|_| v6()).ok()
        }
        _ => None,
    }
}
