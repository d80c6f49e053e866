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

use super::TlsError;
use crate::cid;

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

/// What a browser says in its first flight over QUIC.
#[derive(Debug, Clone, Deserialize)]
pub struct Profile {
    /// Which browser.
    pub browser: String,
    /// JA4 of its ClientHello.
    pub ja4: String,
    /// Groups with a key share, in order.
    pub key_shares: Vec<u16>,
    /// Signature algorithms, in order.
    pub signature_algorithms: Vec<u16>,
    /// Trust anchors that are asked for, as in the extension, in hexadecimal; empty: not sent.
    pub trust_anchors: String,
    /// Whether ALPS is offered for HTTP/3.
    pub application_settings: bool,
    /// Transport parameters, but for GREASE and the connection id.
    pub transport_parameters: Vec<Parameter>,
    /// Bytes of a datagram of the first flight.
    pub datagram: usize,
    /// How many datagrams that is.
    pub datagrams: usize,
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
pub(super) fn dress(tls: &mut SslContextBuilder) -> Result<(), TlsError> {
    let profile = chromium()?;
    let algorithms: Vec<_> = profile
        .signature_algorithms
        .iter()
        .map(|code| SslSignatureAlgorithm::from(*code))
        .collect();
    tls.set_verify_algorithm_prefs(&algorithms)?;
    tls.set_permute_extensions(true);
    tls.add_certificate_compression_algorithm(Brotli)?;
    Ok(())
}

/// Makes a connection that has sent nothing yet speak as the browser does.
///
/// # Errors
/// BoringSSL refuses something.
pub(crate) fn disguise(ssl: &mut SslRef, scid: &[u8]) -> Result<(), TlsError> {
    let profile = chromium()?;
    ssl.set_enable_ech_grease(true);
    let anchors = unhex(&profile.trust_anchors)?;
    set_parameters(ssl, scid)?;
    let ssl = ssl.as_ptr();
    // SAFETY: `ssl` is a live SSL that we have exclusive access to, and each call copies the bytes
    // that its pointer and length describe before it returns.
    let done = unsafe {
        (!profile.application_settings
            || boring_sys::SSL_add_application_settings(ssl, b"h3".as_ptr(), 2, [].as_ptr(), 0)
                == 1)
            && (anchors.is_empty()
                || boring_sys::SSL_set1_requested_trust_anchors(
                    ssl,
                    anchors.as_ptr(),
                    anchors.len(),
                ) == 1)
            && boring_sys::SSL_set1_client_key_shares(
                ssl,
                profile.key_shares.as_ptr(),
                profile.key_shares.len(),
            ) == 1
    };
    if done { Ok(()) } else { Err(boring::error::ErrorStack::get().into()) }
}

/// Replaces the transport parameters that quiche has written: at the start, and after a Retry.
///
/// # Errors
/// BoringSSL refuses them.
pub(crate) fn set_parameters(ssl: &mut SslRef, scid: &[u8]) -> Result<(), TlsError> {
    let parameters = encode(chromium()?, scid)?;
    // SAFETY: the SSL is live and ours alone, and the bytes are copied before the call returns.
    let done = unsafe {
        boring_sys::SSL_set_quic_transport_params(
            ssl.as_ptr(),
            parameters.as_ptr(),
            parameters.len(),
        )
    };
    if done == 1 { Ok(()) } else { Err(boring::error::ErrorStack::get().into()) }
}

/// The transport parameters in an order of their own, with the source connection id and one GREASE
/// parameter (RFC 9000 section 18.1), as Chromium sends them.
fn encode(profile: &Profile, scid: &[u8]) -> Result<Vec<u8>, TlsError> {
    let mut parts = Vec::new();
    for Parameter { id, value } in &profile.transport_parameters {
        let mut value = match value {
            Value::Number(n) => varint(*n),
            Value::Hex(text) => unhex(text)?,
        };
        if *id == VERSION_INFORMATION {
            value.extend(grease_version());
        }
        parts.push((*id, value));
    }
    parts.push((INITIAL_SOURCE_CONNECTION_ID, scid.to_vec()));
    let mut noise = [0; 24];
    cid::random(&mut noise);
    let (id, grease) = noise.split_at(8);
    let id = u64::from_le_bytes(id.try_into().unwrap_or_default());
    let len = usize::from(grease[0] % 16);
    parts.push((31 * (id % (1 << 57)) + 27, grease[..len].to_vec()));
    // Fisher and Yates, with a bias too small to see.
    let mut draw = [0; 64];
    cid::random(&mut draw);
    for (i, random) in (1..parts.len()).rev().zip(draw.iter().cycle()) {
        parts.swap(i, usize::from(*random) % (i + 1));
    }
    let mut out = Vec::new();
    for (id, value) in parts {
        out.extend(varint(id));
        out.extend(varint(value.len() as u64));
        out.extend(value);
    }
    Ok(out)
}

const INITIAL_SOURCE_CONNECTION_ID: u64 = 0x0f;
const VERSION_INFORMATION: u64 = 0x11;

/// A version nobody speaks (RFC 9000 section 15): `?a?a?a?a`.
fn grease_version() -> [u8; 4] {
    let mut noise = [0; 4];
    cid::random(&mut noise);
    noise.map(|byte| byte & 0xf0 | 0x0a)
}

fn varint(n: u64) -> Vec<u8> {
    match n {
        0..0x40 => vec![n as u8],
        0x40..0x4000 => (n as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (n as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (n | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
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
