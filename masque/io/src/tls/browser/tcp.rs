//! Over TCP: TLS 1.2 and 1.3, then HTTP/2 or HTTP/1.1.

use std::net::IpAddr;

use boring::ssl::{Ssl, SslCipher, SslContext, SslMethod, SslMode, SslVersion};
use boring::x509::verify::X509CheckFlags;

use super::super::client::{Roots, trust};
use super::super::{Certified, server::present};
use super::{Hello, TlsError, chromium, dress, offer};

/// A client's TLS over TCP, as the captured browser speaks it. Cheap to clone.
#[derive(Clone)]
pub struct TcpTls {
    context: SslContext,
}

impl TcpTls {
    /// For connections to servers that `roots` vouch for.
    ///
    /// # Errors
    /// Unreadable roots, or a setting that BoringSSL refuses.
    pub fn new(roots: &Roots) -> Result<Self, TlsError> {
        Self::new_as(roots, None)
    }

    /// The same for a client that shows a certificate when it is asked for one.
    ///
    /// # Errors
    /// As [`TcpTls::new`].
    pub fn new_as(roots: &Roots, identity: Option<&Certified>) -> Result<Self, TlsError> {
        let names: Vec<_> = chromium()?.tcp.hello.alpn.iter().map(String::as_bytes).collect();
        Self::make(roots, &names, identity)
    }

    /// The same with other protocols in ALPN, by which it looks like no browser; each of 1 to 255 bytes.
    ///
    /// # Errors
    /// As [`TcpTls::new`].
    pub fn offering(roots: &Roots, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        Self::make(roots, alpn, None)
    }

    fn make(roots: &Roots, alpn: &[&[u8]], identity: Option<&Certified>) -> Result<Self, TlsError> {
        let hello = &chromium()?.tcp.hello;
        let mut tls = SslContext::builder(SslMethod::tls())?;
        tls.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        tls.set_max_proto_version(Some(SslVersion::TLS1_3))?;
        // What is written again after a full socket may lie elsewhere by then.
        tls.set_mode(SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER);
        dress(&mut tls, hello)?;
        tls.set_strict_cipher_list(&tls12(hello)?)?;
        tls.enable_ocsp_stapling();
        tls.enable_signed_cert_timestamps();
        let names = alpn.iter().flat_map(|name| [&[name.len() as u8], *name].concat());
        tls.set_alpn_protos(&names.collect::<Vec<_>>())?;
        trust(&mut tls, roots)?;
        if let Some(certified) = identity {
            present(&mut tls, certified)?;
        }
        Ok(Self { context: tls.build() })
    }

    /// A connection to `name`, a DNS name or an IP address, before its handshake.
    ///
    /// # Errors
    /// A name that BoringSSL does not take.
    pub(crate) fn begin(&self, name: &str) -> Result<Ssl, TlsError> {
        let mut ssl = Ssl::new(&self.context)?;
        match name.parse::<IpAddr>() {
            Ok(ip) => ssl.param_mut().set_ip(ip)?,
            Err(_) => {
                ssl.set_hostname(name)?;
                let verify = ssl.param_mut();
                verify.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
                verify.set_host(name)?;
            }
        }
        offer(&mut ssl, &chromium()?.tcp.hello)?;
        Ok(ssl)
    }
}

/// The suites of TLS 1.2 by BoringSSL's names; those of 1.3 are not to be chosen.
fn tls12(hello: &Hello) -> Result<String, TlsError> {
    const TLS13: std::ops::Range<u16> = 0x1300..0x1400;
    let suites = hello.cipher_suites.iter().filter(|code| !TLS13.contains(code));
    let names: Option<Vec<_>> =
        suites.map(|code| SslCipher::from_value(*code).map(|suite| suite.name())).collect();
    let unknown = "fingerprint/chromium.json: BoringSSL does not know one of its cipher suites";
    Ok(names.ok_or_else(|| TlsError::Settings(unknown.into()))?.join(":"))
}
