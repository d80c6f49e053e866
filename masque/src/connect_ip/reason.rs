//! Why packets are dropped.

/// Why a packet was not forwarded; each is a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The datagram ended inside its Context ID.
    NoContext,
    /// Its Context ID is not registered (RFC 9484 §6).
    UnknownContext,
    /// It held no whole IP packet.
    Malformed,
    /// It carried a source route (RFC 5095, RFC 7126).
    SourceRouted,
    /// It must stay on its link (RFC 9484 §7.1).
    LinkLocal,
    /// Its source is not one the sender may use (BCP 38).
    SpoofedSource,
    /// Its destination is not ours.
    NotOurs,
    /// Its destination or protocol is not routed through this tunnel.
    NoRoute,
    /// Its destination is refused by policy.
    Prohibited,
    /// The request's scope does not cover it.
    OutOfScope,
    /// It is an ICMP error about a packet that was not this peer's (RFC 9484 §11).
    ForeignQuote,
    /// Its TTL or hop limit was used up.
    TimeExceeded,
    /// It does not fit the tunnel, and its sender was to be told the MTU.
    TooBig,
    /// It does not fit the tunnel but may be fragmented: see
    /// [`fragment_v4`](crate::fragment::fragment_v4), each piece of which is encapsulated anew.
    NeedsFragmentation,
    /// It does not fit, and the tunnel's MTU is below what its IP version guarantees.
    MtuBelowMinimum,
    /// It was for this endpoint and has been answered here.
    Answered,
}

impl DropReason {
    /// All of them, in the order of [`DropReason::index`].
    pub const ALL: &[Self] = &[
        Self::NoContext,
        Self::UnknownContext,
        Self::Malformed,
        Self::SourceRouted,
        Self::LinkLocal,
        Self::SpoofedSource,
        Self::NotOurs,
        Self::NoRoute,
        Self::Prohibited,
        Self::OutOfScope,
        Self::ForeignQuote,
        Self::TimeExceeded,
        Self::TooBig,
        Self::NeedsFragmentation,
        Self::MtuBelowMinimum,
        Self::Answered,
    ];

    /// How many there are: the length of an array of counters.
    pub const COUNT: usize = Self::ALL.len();

    /// The metric's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoContext => "no_context",
            Self::UnknownContext => "unknown_context",
            Self::Malformed => "malformed",
            Self::SourceRouted => "source_routed",
            Self::LinkLocal => "link_local",
            Self::SpoofedSource => "spoofed_source",
            Self::NotOurs => "not_ours",
            Self::NoRoute => "no_route",
            Self::Prohibited => "prohibited",
            Self::OutOfScope => "out_of_scope",
            Self::ForeignQuote => "foreign_quote",
            Self::TimeExceeded => "time_exceeded",
            Self::TooBig => "too_big",
            Self::NeedsFragmentation => "needs_fragmentation",
            Self::MtuBelowMinimum => "mtu_below_minimum",
            Self::Answered => "answered",
        }
    }

    /// The position in an array of counters.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}
