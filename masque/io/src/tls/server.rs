//! The server's side of TLS.

use std::fmt;
use std::sync::Arc;

use boring::pkey::PKey;
use boring::ssl::{
    NameType, SslContext, SslContextBuilder, SslMethod, SslRef, SslVerifyMode, SslVersion,
};
use boring::x509::X509;
use foreign_types::ForeignTypeRef as _;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::{Certified, GROUPS, TlsError, TransportConfig};
use crate::tcp::SelectTls;

/// The key of session tickets under QUIC. Workers share one, so that a session begun with one of
/// them resumes with any.
#[derive(Clone)]
pub struct TicketKey([u8; 48]);

impl TicketKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random() -> Result<Self, TlsError> {
        let mut key = [0; 48];
        getrandom::fill(&mut key).map_err(|e| TlsError::Settings(e.to_string()))?;
        Ok(Self(key))
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

/// TLS 1.2 and 1.3 over TCP, with session tickets. `alpn` is in order of preference, for instance
/// `[b"h2", b"http/1.1"]`; a client that offers none of them is refused.
///
/// # Errors
/// When the library refuses a setting.
pub fn rustls_server_config(
    certificate: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    finish(config, alpn)
}

/// The same for handshakes in which a client is asked for a certificate, which it may decline. TLS
/// 1.3 alone: before, certificates went in the clear.
///
/// # Errors
/// As [`rustls_server_config`].
pub fn rustls_asking_config(
    certificate: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyKey(provider)))
        .with_cert_resolver(certificate);
    finish(config, alpn)
}

fn finish(mut config: ServerConfig, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.ticketer = ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Takes any certificate whose key the client has. Whether that key is anybody's is for whoever
/// reads [`Export::peer_spki`](crate::concealed::Export::peer_spki).
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The server names (RFC 6066 section 3) in whose handshakes a client is asked for a certificate; in
/// all others nothing shows that this is possible.
#[derive(Clone, Debug, Default)]
pub struct AskingNames(Arc<[String]>);

impl AskingNames {
    /// Of these names; upper and lower case are the same.
    pub fn new(names: &[String]) -> Self {
        Self(names.to_vec().into())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contain(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.0.iter().any(|one| one.eq_ignore_ascii_case(name)))
    }
}

/// Serves a site, and beside it an authority that looks whether a domain is ours (TLS-ALPN-01,
/// RFC 8737): who offers `acme-tls/1` and nothing else gets the settings that `challenge` gives, while
/// it gives some.
pub struct AcmeAware<F> {
    site: Arc<ServerConfig>,
    asking: Option<(AskingNames, Arc<ServerConfig>)>,
    challenge: F,
}

impl<F: Fn() -> Option<Arc<ServerConfig>> + Send + Sync + 'static> AcmeAware<F> {
    /// As said.
    pub fn new(site: Arc<ServerConfig>, challenge: F) -> Self {
        Self { site, asking: None, challenge }
    }

    /// Clients that ask for one of `names` get `config`, a [`rustls_asking_config`].
    #[must_use]
    pub fn asking(self, names: AskingNames, config: Arc<ServerConfig>) -> Self {
        Self { asking: Some((names, config)), ..self }
    }
}

impl<F: Fn() -> Option<Arc<ServerConfig>> + Send + Sync + 'static> SelectTls for AcmeAware<F> {
    fn select(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let mut protocols = hello.alpn().into_iter().flatten();
        let asks = protocols.next() == Some(b"acme-tls/1") && protocols.next().is_none();
        let challenge = if asks { (self.challenge)() } else { None };
        challenge.unwrap_or_else(|| match &self.asking {
            Some((names, config)) if names.contain(hello.server_name()) => config.clone(),
            _ => self.site.clone(),
        })
    }
}

/// TLS 1.3 under QUIC, for HTTP/3. Early data is off: a replayed request must not open a tunnel.
///
/// # Errors
/// When BoringSSL or quiche refuse a setting.
pub fn quic_server_config(
    certified: &Certified,
    tickets: &TicketKey,
    transport: &TransportConfig,
) -> Result<quiche::Config, TlsError> {
    quic_asking_config(certified, tickets, transport, &AskingNames::default())
}

/// The same where clients that ask for one of `names` are asked for a certificate, which they may
/// decline.
///
/// # Errors
/// As [`quic_server_config`].
pub fn quic_asking_config(
    certified: &Certified,
    tickets: &TicketKey,
    transport: &TransportConfig,
    names: &AskingNames,
) -> Result<quiche::Config, TlsError> {
    let mut tls = tls13()?;
    present(&mut tls, certified)?;
    if !names.is_empty() {
        let names = names.clone();
        tls.set_select_certificate_callback(move |mut hello| {
            if names.contain(hello.servername(NameType::HOST_NAME)) {
                let any_key = |_: &mut SslRef| Ok(());
                hello.ssl_mut().set_custom_verify_callback(SslVerifyMode::PEER, any_key);
            }
            Ok(())
        });
    }
    let mut config = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, tls)?;
    config.set_ticket_key(&tickets.0)?;
    transport.apply(&mut config)?;
    Ok(config)
}

/// Has a certificate shown to the peer: always by a server, by a client when it is asked.
pub(super) fn present(tls: &mut SslContextBuilder, certified: &Certified) -> Result<(), TlsError> {
    let mut chain = X509::stack_from_pem(&certified.chain_pem)?.into_iter();
    if let Some(leaf) = chain.next() {
        tls.set_certificate(&leaf)?;
    }
    for certificate in chain {
        tls.add_extra_chain_cert(certificate)?;
    }
    tls.set_private_key(PKey::private_key_from_pem(&certified.key_pem)?.as_ref())?;
    Ok(tls.check_private_key()?)
}

/// Lets a server's connection drop what only its handshake needs as soon as that is done: its copies
/// of the certificate, the ciphers, the groups; more than a kilobyte.
pub(crate) fn shed_handshake(ssl: &mut SslRef) {
    // SAFETY: the SSL is live and ours alone. The call sets a flag in it.
    unsafe { boring_sys::SSL_set_shed_handshake_config(ssl.as_ptr(), 1) }
}

pub(super) fn tls13() -> Result<SslContextBuilder, TlsError> {
    let mut tls = SslContext::builder(SslMethod::tls())?;
    tls.set_min_proto_version(Some(SslVersion::TLS1_3))?;
    tls.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    tls.set_curves_list(GROUPS)?;
    Ok(tls)
}
