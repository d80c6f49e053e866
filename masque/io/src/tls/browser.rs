//! The handshake of a browser: what a client's first flight shows to whoever looks.
//!
//! The numbers are a capture of a real Chromium, `fingerprint/chromium.json`, made by
//! `tests/interop/fingerprint.py recapture`; none is written down here. `fingerprint/README.md`
//! lists what quiche and BoringSSL cannot be made to match, and why.

use std::io::{self, Write};
use std::sync::LazyLock;

use boring::ssl::{
    CertificateCompressionAlgorithm, CertificateCompressor, SslContextBuilder, SslRef,
    SslSignatureAlgorithm,
};
use foreign_types::ForeignTypeRef;
use serde::Deserialize;

mod quic;
mod tcp;

use super::TlsError;
pub(crate) use quic::{disguise, set_parameters};
pub use tcp::TcpTls;

/// The most a compressed certificate chain may unfold to, in bytes; BoringSSL itself announces less.
const MAX_CHAIN: u64 = 1 << 20;

/// Transport parameters of a connection: their ids and values.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A varint.
    Number(u64),
    /// Bytes, in hexadecimal.
    Hex(String),
}

/// One transport parameter (RFC 9000 section 18).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Parameter {
    /// Its id.
    pub id: u64,
    /// Its value; GREASE is drawn anew for each connection and is not in here.
    pub value: Value,
}

/// What a ClientHello says, over either transport. Numbers are those of TLS's registries, in order, without GREASE.
#[derive(Debug, Clone, Deserialize)]
pub struct Hello {
    /// JA4 of it.
    pub ja4: String,
    /// Cipher suites.
    pub cipher_suites: Vec<u16>,
    /// Whether GREASE (RFC 8701) is among its values.
    pub grease: bool,
    /// Groups.
    pub groups: Vec<u16>,
    /// Groups with a key share.
    pub key_shares: Vec<u16>,
    /// Signature algorithms.
    pub signature_algorithms: Vec<u16>,
    /// Protocols that ALPN offers.
    pub alpn: Vec<String>,
    /// Protocols for which ALPS is offered.
    pub application_settings: Vec<String>,
    /// Trust anchors that are asked for, as in the extension, in hexadecimal; empty: not sent.
    pub trust_anchors: String,
}

/// What a browser says first over QUIC.
#[derive(Debug, Clone, Deserialize)]
pub struct Quic {
    /// Its ClientHello.
    #[serde(flatten)]
    pub hello: Hello,
    /// Transport parameters, but for GREASE and the connection id.
    pub transport_parameters: Vec<Parameter>,
    /// Bytes of a datagram of the first flight.
    pub datagram: usize,
    /// How many datagrams that is.
    pub datagrams: usize,
}

/// What a browser says first over TCP.
#[derive(Debug, Clone, Deserialize)]
pub struct Tcp {
    /// Its ClientHello.
    #[serde(flatten)]
    pub hello: Hello,
    /// Its first frames, should HTTP/2 be chosen.
    pub http2: Http2,
}

/// A browser's first frames over HTTP/2.
#[derive(Debug, Clone, Deserialize)]
pub struct Http2 {
    /// SETTINGS: identifiers and values, in order (RFC 9113 section 6.5).
    pub settings: Vec<(u16, u32)>,
    /// Bytes by which the connection's window is opened beyond its first 65,535.
    pub window_update: u32,
}

/// A browser.
#[derive(Debug, Clone, Deserialize)]
pub struct Profile {
    /// Which.
    pub browser: String,
    /// Over QUIC.
    pub quic: Quic,
    /// Over TCP.
    pub tcp: Tcp,
}

static CHROMIUM: LazyLock<Result<Profile, String>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../fingerprint/chromium.json"))
        .map_err(|e| format!("fingerprint/chromium.json: {e}"))
});

/// The captured Chromium.
///
/// # Errors
/// The file that was built in is damaged.
pub fn chromium() -> Result<&'static Profile, TlsError> {
    CHROMIUM.as_ref().map_err(|e| TlsError::Settings(e.clone()))
}

/// What all connections of a client have in common.
pub(super) fn dress(tls: &mut SslContextBuilder, hello: &Hello) -> Result<(), TlsError> {
    let algorithms: Vec<_> =
        hello.signature_algorithms.iter().map(|code| SslSignatureAlgorithm::from(*code)).collect();
    tls.set_verify_algorithm_prefs(&algorithms)?;
    tls.set_grease_enabled(hello.grease);
    tls.set_permute_extensions(true);
    tls.add_certificate_compression_algorithm(Brotli)?;
    // SAFETY: the context is live and ours alone, and the groups are copied before the call returns.
    let done = unsafe {
        boring_sys::SSL_CTX_set1_group_ids(tls.as_ptr(), hello.groups.as_ptr(), hello.groups.len())
    };
    if done == 1 { Ok(()) } else { Err(boring::error::ErrorStack::get().into()) }
}

/// What BoringSSL wants to be told anew for each connection, before it has sent anything.
fn offer(ssl: &mut SslRef, hello: &Hello) -> Result<(), TlsError> {
    ssl.set_enable_ech_grease(true);
    let anchors = unhex(&hello.trust_anchors)?;
    let ssl = ssl.as_ptr();
    // SAFETY: `ssl` is a live SSL that we have exclusive access to, and each call copies the bytes
    // that its pointer and length describe before it returns.
    let done = unsafe {
        hello.application_settings.iter().all(|protocol| {
            let (name, len) = (protocol.as_ptr(), protocol.len());
            boring_sys::SSL_add_application_settings(ssl, name, len, [].as_ptr(), 0) == 1
        }) && (anchors.is_empty()
            || boring_sys::SSL_set1_requested_trust_anchors(ssl, anchors.as_ptr(), anchors.len())
                == 1)
            && boring_sys::SSL_set1_client_key_shares(
                ssl,
                hello.key_shares.as_ptr(),
                hello.key_shares.len(),
            ) == 1
    };
    if done { Ok(()) } else { Err(boring::error::ErrorStack::get().into()) }
}

fn unhex(text: &str) -> Result<Vec<u8>, TlsError> {
    let bytes = (0..text.len()).step_by(2).map(|at| {
        let pair = text.get(at..at + 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Option<_> = bytes.collect();
    bytes.ok_or_else(|| TlsError::Settings("fingerprint/chromium.json: bad hexadecimal".into()))
}

/// Certificates compressed by Brotli (RFC 8879): offered, and taken.
struct Brotli;

impl CertificateCompressor for Brotli {
    const ALGORITHM: CertificateCompressionAlgorithm = CertificateCompressionAlgorithm::BROTLI;
    const CAN_COMPRESS: bool = false;
    const CAN_DECOMPRESS: bool = true;

    fn decompress<W: Write>(&self, input: &[u8], output: &mut W) -> io::Result<()> {
        let reader = brotli_decompressor::Decompressor::new(input, 4096);
        io::copy(&mut io::Read::take(reader, MAX_CHAIN), output).map(drop)
    }
}

#[cfg(test)]
mod tests;
