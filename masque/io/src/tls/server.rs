//! The server's side of TLS.

use std::fmt;
use std::sync::Arc;

use boring::pkey::PKey;
use boring::ssl::{SslContext, SslContextBuilder, SslMethod, SslVersion};
use boring::x509::X509;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};

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
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.ticketer = ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Serves a site, and beside it an authority that looks whether a domain is ours (TLS-ALPN-01,
/// RFC 8737): who offers `acme-tls/1` and nothing else gets the settings that `challenge` gives, while
/// it gives some.
pub struct AcmeAware<F> {
    site: Arc<ServerConfig>,
    challenge: F,
}

impl<F: Fn() -> Option<Arc<ServerConfig>> + Send + Sync + 'static> AcmeAware<F> {
    /// As said.
    pub fn new(site: Arc<ServerConfig>, challenge: F) -> Self {
        Self { site, challenge }
    }
}

impl<F: Fn() -> Option<Arc<ServerConfig>> + Send + Sync + 'static> SelectTls for AcmeAware<F> {
    fn select(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let mut protocols = hello.alpn().into_iter().flatten();
        let asks = protocols.next() == Some(b"acme-tls/1") && protocols.next().is_none();
        let challenge = if asks { (self.challenge)() } else { None };
        challenge.unwrap_or_else(|| self.site.clone())
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
    let mut tls = tls13()?;
    let mut chain = X509::stack_from_pem(&certified.chain_pem)?.into_iter();
    if let Some(leaf) = chain.next() {
        tls.set_certificate(&leaf)?;
    }
    for certificate in chain {
        tls.add_extra_chain_cert(certificate)?;
    }
    tls.set_private_key(PKey::private_key_from_pem(&certified.key_pem)?.as_ref())?;
    tls.check_private_key()?;
    let mut config = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, tls)?;
    config.set_ticket_key(&tickets.0)?;
    transport.apply(&mut config)?;
    Ok(config)
}

pub(super) fn tls13() -> Result<SslContextBuilder, TlsError> {
    let mut tls = SslContext::builder(SslMethod::tls())?;
    tls.set_min_proto_version(Some(SslVersion::TLS1_3))?;
    tls.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    tls.set_curves_list(GROUPS)?;
    Ok(tls)
}
