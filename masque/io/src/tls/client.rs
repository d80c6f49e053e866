//! The client's side of TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use boring::ssl::{SslAlert, SslContextBuilder, SslVerifyError, SslVerifyMode};
use boring::x509::X509;
use boring::x509::store::X509StoreBuilder;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Certified, TlsError, TransportConfig, browser, server};

/// Where distributions keep the certificate authorities they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom a client trusts to name the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The certificate authorities of this system, or of the file in `SSL_CERT_FILE`.
    System,
    /// Only the certificate authorities in a PEM file.
    Pem(PathBuf),
    /// Only a certificate with this key: SHA-256 of its SubjectPublicKeyInfo. Names, dates and
    /// authorities do not matter.
    PinnedSpki([u8; 32]),
}

/// TLS of a client.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// Whom to trust.
    pub roots: Roots,
    /// QUIC's numbers.
    pub transport: TransportConfig,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self { roots: Roots::System, transport: TransportConfig::client() }
    }
}

/// TLS 1.3 under QUIC, for HTTP/3, as a browser speaks it. The certificate must be one for the name given to
/// [`quiche::connect`].
///
/// # Errors
/// Unreadable roots, or a setting that a library refuses.
pub fn quic_client_config(client: &ClientTls) -> Result<quiche::Config, TlsError> {
    quic_client_config_as(client, None)
}

/// The same for a client that shows a certificate when it is asked for one.
///
/// # Errors
/// As [`quic_client_config`].
pub fn quic_client_config_as(
    client: &ClientTls,
    identity: Option<&Certified>,
) -> Result<quiche::Config, TlsError> {
    let mut tls = server::tls13()?;
    browser::dress(&mut tls, &browser::chromium()?.quic.hello)?;
    trust(&mut tls, &client.roots)?;
    if let Some(certified) = identity {
        server::present(&mut tls, certified)?;
    }
    let mut config = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, tls)?;
    client.transport.apply(&mut config)?;
    Ok(config)
}

/// Has the server's certificate checked.
pub(super) fn trust(tls: &mut SslContextBuilder, roots: &Roots) -> Result<(), TlsError> {
    if let Roots::PinnedSpki(pin) = *roots {
        tls.set_custom_verify_callback(SslVerifyMode::PEER, move |ssl| {
            let certificate = ssl.peer_certificate();
            match certificate.map(|c| spki_sha256(&c)) {
                Some(Ok(found)) if found == pin => Ok(()),
                _ => Err(SslVerifyError::Invalid(SslAlert::BAD_CERTIFICATE)),
            }
        });
        return Ok(());
    }
    let mut store = X509StoreBuilder::new()?;
    for root in root_certificates(roots)? {
        // Bundles carry the odd root that this library does not take.
        if let Ok(root) = X509::from_der(&root) {
            store.add_cert(root)?;
        }
    }
    tls.set_cert_store_builder(store);
    tls.set_verify(SslVerifyMode::PEER);
    Ok(())
}

/// TLS 1.2 and 1.3 over TCP by rustls, looking like no browser; `alpn` in order of preference.
///
/// # Errors
/// As [`quic_client_config`].
pub fn rustls_client_config(
    roots: &Roots,
    alpn: &[&[u8]],
) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let mut config = if let Roots::PinnedSpki(pin) = *roots {
        let pinned = Arc::new(Pinned { pin, provider });
        builder.dangerous().with_custom_certificate_verifier(pinned).with_no_client_auth()
    } else {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(root_certificates(roots)?);
        builder.with_root_certificates(store).with_no_client_auth()
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn root_certificates(roots: &Roots) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let path = match roots {
        Roots::Pem(path) => path.clone(),
        _ => match std::env::var_os("SSL_CERT_FILE") {
            Some(path) => path.into(),
            None => {
                let known = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
                known.ok_or(TlsError::NoRoots)?.to_owned()
            }
        },
    };
    let pem = std::fs::read(&path)
        .map_err(|source| TlsError::Unreadable { path: path.clone(), source })?;
    let malformed =
        |problem: String| TlsError::Malformed { origin: path.display().to_string(), problem };
    let found = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| malformed(format!("not PEM: {e}")))?;
    if found.is_empty() {
        return Err(malformed("holds no certificate of an authority".into()));
    }
    Ok(found)
}

fn spki_sha256(certificate: &X509) -> Result<[u8; 32], boring::error::ErrorStack> {
    Ok(boring::sha::sha256(&certificate.public_key()?.public_key_to_der()?))
}

/// Accepts one key. That the peer holds it is proven by its signature, as always.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = X509::from_der(end_entity).and_then(|c| spki_sha256(&c));
        match certificate {
            Ok(found) if found == self.pin => Ok(ServerCertVerified::assertion()),
            Ok(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
