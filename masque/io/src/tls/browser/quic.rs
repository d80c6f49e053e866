//! Over QUIC: transport parameters beside the ClientHello.

use boring::ssl::SslRef;
use foreign_types::ForeignTypeRef;

use super::{Parameter, Quic, TlsError, Value, chromium, offer, unhex};
use crate::cid;

/// Makes a connection that has sent nothing yet speak as the browser does.
///
/// # Errors
/// BoringSSL refuses something.
pub(crate) fn disguise(ssl: &mut SslRef, scid: &[u8]) -> Result<(), TlsError> {
    set_parameters(ssl, scid)?;
    offer(ssl, &chromium()?.quic.hello)
}

/// Replaces the transport parameters that quiche has written: at the start, and after a Retry.
///
/// # Errors
/// BoringSSL refuses them.
pub(crate) fn set_parameters(ssl: &mut SslRef, scid: &[u8]) -> Result<(), TlsError> {
    let parameters = encode(&chromium()?.quic, scid)?;
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
pub(super) fn encode(profile: &Quic, scid: &[u8]) -> Result<Vec<u8>, TlsError> {
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

pub(super) const INITIAL_SOURCE_CONNECTION_ID: u64 = 0x0f;
pub(super) const VERSION_INFORMATION: u64 = 0x11;

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
