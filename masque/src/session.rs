//! What both kinds of session share: which end we are, and how a stream goes wrong.

use crate::address::AddressError;
use crate::capsule::CapsuleError;
use crate::datagram::{H3_DATAGRAM_ERROR, H3_EXCESSIVE_LOAD, H3_MESSAGE_ERROR};
use crate::dns::DnsError;
use crate::route::RouteError;

/// Which end of the request stream we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The one that accepted the request.
    Proxy,
    /// The one that made it.
    Client,
}

/// The peer broke a rule on this stream: abort the stream with [`SessionError::code`]. The
/// connection and its other streams go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The capsules themselves are malformed (RFC 9297 §3.3).
    #[error("malformed capsule: {0}")]
    Capsule(#[from] CapsuleError),
    /// An ADDRESS_ASSIGN or ADDRESS_REQUEST is malformed (RFC 9484 §4.7.1, §4.7.2).
    #[error("malformed address capsule: {0}")]
    Address(#[from] AddressError),
    /// A ROUTE_ADVERTISEMENT is malformed or against its rules (RFC 9484 §4.7.3).
    #[error("malformed ROUTE_ADVERTISEMENT: {0}")]
    Route(#[from] RouteError),
    /// A DNS_ASSIGN is malformed.
    #[error("malformed DNS_ASSIGN: {0}")]
    Dns(#[from] DnsError),
    /// A UDP payload above 65,527 bytes (RFC 9298 §5).
    #[error("a UDP payload of {0} bytes is longer than UDP allows")]
    UdpPayload(usize),
    /// More address requests in one session than are answered.
    #[error("more than {0} address requests in one session")]
    TooManyRequests(usize),
    /// The link cannot carry IPv6's 1280 bytes, and IPv6 was assigned (RFC 9484 §7.1).
    #[error("the tunnel carries packets of {0} bytes at most; IPv6 needs 1280")]
    LinkTooSmall(usize),
}

impl SessionError {
    /// The HTTP/3 error code to abort the stream with.
    pub const fn code(&self) -> u64 {
        match self {
            Self::Capsule(CapsuleError::TooLong { .. })
            | Self::Address(AddressError::TooMany)
            | Self::Route(RouteError::TooMany)
            | Self::Dns(DnsError::TooMany)
            | Self::TooManyRequests(_) => H3_EXCESSIVE_LOAD,
            Self::UdpPayload(_) => H3_DATAGRAM_ERROR,
            Self::LinkTooSmall(_) => crate::datagram::H3_REQUEST_CANCELLED,
            _ => H3_MESSAGE_ERROR,
        }
    }
}
