//! The Proxy-Status field (RFC 9209): what to tell an authorised client about a failed tunnel.
//!
//! The identifier names the deployment, never the product, and the field never belongs on the
//! website's ordinary responses.

use std::fmt::Write as _;

use crate::filter::Prohibited;

/// The field's name.
pub const NAME: &str = "proxy-status";

/// What went wrong (RFC 9209 §2.3), with the status code recommended for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyError {
    /// The resolver did not answer in time.
    DnsTimeout,
    /// The resolver answered with an error; say which with [`ProxyStatus::rcode`].
    DnsError,
    /// No way to the target for now.
    DestinationUnavailable,
    /// The target's address is refused by policy.
    DestinationIpProhibited,
    /// There is no route to the target's address.
    DestinationIpUnroutable,
    /// The target refused the connection.
    ConnectionRefused,
    /// The target did not answer in time.
    ConnectionTimeout,
    /// The connection to the target broke.
    ConnectionTerminated,
    /// As many connections as are allowed are open already.
    ConnectionLimitReached,
    /// The account may not do this.
    HttpRequestDenied,
    /// The request is malformed.
    HttpRequestError,
    /// The upgrade was not accepted by the next hop.
    HttpUpgradeFailed,
    /// The request went through this proxy before.
    ProxyLoopDetected,
    /// Our own configuration is at fault.
    ProxyConfigurationError,
    /// Something broke here.
    ProxyInternalError,
}

impl ProxyError {
    /// The token of the registry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DnsTimeout => "dns_timeout",
            Self::DnsError => "dns_error",
            Self::DestinationUnavailable => "destination_unavailable",
            Self::DestinationIpProhibited => "destination_ip_prohibited",
            Self::DestinationIpUnroutable => "destination_ip_unroutable",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTimeout => "connection_timeout",
            Self::ConnectionTerminated => "connection_terminated",
            Self::ConnectionLimitReached => "connection_limit_reached",
            Self::HttpRequestDenied => "http_request_denied",
            Self::HttpRequestError => "http_request_error",
            Self::HttpUpgradeFailed => "http_upgrade_failed",
            Self::ProxyLoopDetected => "proxy_loop_detected",
            Self::ProxyConfigurationError => "proxy_configuration_error",
            Self::ProxyInternalError => "proxy_internal_error",
        }
    }

    /// The recommended HTTP status code.
    pub const fn status(self) -> u16 {
        match self {
            Self::DnsTimeout | Self::ConnectionTimeout => 504,
            Self::DestinationUnavailable | Self::ConnectionLimitReached => 503,
            Self::HttpRequestDenied => 403,
            Self::HttpRequestError => 400,
            Self::ProxyConfigurationError | Self::ProxyInternalError => 500,
            _ => 502,
        }
    }
}

impl From<Prohibited> for ProxyError {
    fn from(_: Prohibited) -> Self {
        Self::DestinationIpProhibited
    }
}

/// One member of the list, ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyStatus(String);

impl ProxyStatus {
    /// A member for the deployment called `identifier`.
    pub fn new(identifier: &str) -> Self {
        Self(bare_item(identifier))
    }

    /// Adds the error.
    pub fn error(mut self, error: ProxyError) -> Self {
        let _ = write!(self.0, "; error={}", error.as_str());
        self
    }

    /// Adds the resolver's response code by name, as `NXDOMAIN`, for [`ProxyError::DnsError`].
    pub fn rcode(mut self, rcode: &str) -> Self {
        let _ = write!(self.0, "; rcode={}", string(rcode));
        self
    }

    /// Adds the address or name of the next hop.
    pub fn next_hop(mut self, hop: &str) -> Self {
        let _ = write!(self.0, "; next-hop={}", bare_item(hop));
        self
    }

    /// Adds free text for people. It must hold nothing about the deployment that is secret.
    pub fn details(mut self, details: &str) -> Self {
        let _ = write!(self.0, "; details={}", string(details));
        self
    }

    /// The field's value, behind what earlier proxies put there.
    pub fn append_to(&self, existing: Option<&str>) -> String {
        match existing.map(str::trim).filter(|e| !e.is_empty()) {
            Some(existing) => format!("{existing}, {}", self.0),
            None => self.0.clone(),
        }
    }

    /// The member alone.
    pub fn value(&self) -> &str {
        &self.0
    }
}

/// A token where the text is one (RFC 8941 §3.3.4), else a string.
fn bare_item(text: &str) -> String {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'*');
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b);
    if first && text.bytes().all(token) { text.to_owned() } else { string(text) }
}

/// A string (RFC 8941 §3.3.3); what is not printable ASCII becomes `?`.
fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_85_each_error_has_its_recommended_status() {
        let table = [
            (ProxyError::DnsTimeout, "dns_timeout", 504),
            (ProxyError::DnsError, "dns_error", 502),
            (ProxyError::DestinationUnavailable, "destination_unavailable", 503),
            (ProxyError::DestinationIpProhibited, "destination_ip_prohibited", 502),
            (ProxyError::DestinationIpUnroutable, "destination_ip_unroutable", 502),
            (ProxyError::ConnectionRefused, "connection_refused", 502),
            (ProxyError::ConnectionTimeout, "connection_timeout", 504),
            (ProxyError::ConnectionLimitReached, "connection_limit_reached", 503),
            (ProxyError::HttpRequestDenied, "http_request_denied", 403),
            (ProxyError::HttpUpgradeFailed, "http_upgrade_failed", 502),
            (ProxyError::ProxyLoopDetected, "proxy_loop_detected", 502),
            (ProxyError::ProxyInternalError, "proxy_internal_error", 500),
        ];
        for (error, token, status) in table {
            assert_eq!((error.as_str(), error.status()), (token, status));
        }
    }

    #[test]
    fn a_member_is_a_structured_field() {
        let status = ProxyStatus::new("proxy.example.org")
            .error(ProxyError::DnsError)
            .rcode("NXDOMAIN")
            .details("no \"such\" name\n");
        assert_eq!(
            status.value(),
            r#"proxy.example.org; error=dns_error; rcode="NXDOMAIN"; details="no \"such\" name?""#
        );
        let hop = ProxyStatus::new("9th gate").next_hop("2001:db8::1");
        assert_eq!(hop.value(), r#""9th gate"; next-hop="2001:db8::1""#);
    }

    #[test]
    fn rule_84_members_already_there_are_kept() {
        let ours = ProxyStatus::new("b");
        assert_eq!(ours.append_to(Some("a; error=dns_error")), "a; error=dns_error, b");
        assert_eq!(ours.append_to(Some(" ")), "b");
        assert_eq!(ours.append_to(None), "b");
    }
}
