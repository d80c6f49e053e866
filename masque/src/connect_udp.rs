//! A CONNECT-UDP session (RFC 9298), the same at both ends but for who allocates context ids.
//!
//! No extension registers contexts here, so only Context ID 0 has a meaning.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::capsule::{Capsule, CapsuleParser, DATAGRAM, KNOWN_UDP};
pub use crate::session::{Role, SessionError};
use crate::varint;

/// The longest UDP payload (RFC 9298 §5), in bytes.
pub const MAX_UDP_PAYLOAD: usize = 65_527;

/// The most DATAGRAM capsules that wait to be polled; more are dropped and counted.
pub const MAX_EVENTS: usize = 1_024;

/// What the session tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An HTTP Datagram that came as a capsule: hand it to [`ConnectUdp::handle_datagram`].
    DatagramCapsule(Bytes),
}

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpVerdict<'a> {
    /// Send this UDP payload to the target (or hand it to the local application).
    Forward(&'a [u8]),
    /// Drop it.
    Drop(UdpDrop),
}

/// Why a datagram was dropped; each is a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UdpDrop {
    /// It ended inside its Context ID.
    NoContext,
    /// Its Context ID is not registered (RFC 9298 §4).
    UnknownContext,
    /// It does not fit the connection (RFC 9298 §6.1); the tunnel stays open.
    TooBig,
}

impl UdpDrop {
    /// All of them, in the order of [`UdpDrop::index`].
    pub const ALL: &[Self] = &[Self::NoContext, Self::UnknownContext, Self::TooBig];

    /// The metric's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoContext => "no_context",
            Self::UnknownContext => "unknown_context",
            Self::TooBig => "too_big",
        }
    }

    /// The position in an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The session's state.
#[derive(Debug)]
pub struct ConnectUdp {
    role: Role,
    parser: CapsuleParser,
    events: VecDeque<Event>,
    overflow: u64,
}

impl ConnectUdp {
    /// A session on a stream that has just been accepted.
    pub fn new(role: Role) -> Self {
        let parser = CapsuleParser::new(KNOWN_UDP);
        Self { role, parser, events: VecDeque::new(), overflow: 0 }
    }

    /// Which end this is.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Takes bytes of the peer's side of the stream.
    pub fn handle_stream(&mut self, data: &[u8]) -> Result<(), SessionError> {
        let Self { parser, events, overflow, .. } = self;
        parser.push(data, &mut |capsule: Capsule<'_>| {
            if capsule.kind != DATAGRAM {
            } else if events.len() < MAX_EVENTS {
                events.push_back(Event::DatagramCapsule(Bytes::copy_from_slice(capsule.value)));
            } else {
                *overflow += 1;
            }
        })?;
        Ok(())
    }

    /// The peer's side of the stream has ended.
    pub fn handle_fin(&mut self) -> Result<(), SessionError> {
        Ok(self.parser.finish()?)
    }

    /// The next event, if any.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// DATAGRAM capsules that were dropped: too long, or more at once than [`MAX_EVENTS`].
    pub fn dropped_capsules(&self) -> u64 {
        self.overflow + self.parser.oversize_datagrams()
    }

    /// Reads an HTTP Datagram Payload, Context ID onward.
    pub fn handle_datagram<'a>(&self, payload: &'a [u8]) -> Result<UdpVerdict<'a>, SessionError> {
        match varint::decode(payload) {
            None => Ok(UdpVerdict::Drop(UdpDrop::NoContext)),
            Some((0, n)) if payload.len() - n > MAX_UDP_PAYLOAD => {
                Err(SessionError::UdpPayload(payload.len() - n))
            }
            Some((0, n)) => Ok(UdpVerdict::Forward(&payload[n..])),
            Some(_) => Ok(UdpVerdict::Drop(UdpDrop::UnknownContext)),
        }
    }

    /// Whether a UDP payload may be sent, preceded by
    /// [`CONTEXT_ID_ZERO`](crate::datagram::CONTEXT_ID_ZERO), when an HTTP Datagram Payload of at
    /// most `max_payload` bytes can be.
    pub fn encapsulate<'a>(&self, payload: &'a [u8], max_payload: usize) -> UdpVerdict<'a> {
        if payload.len() < max_payload && payload.len() <= MAX_UDP_PAYLOAD {
            UdpVerdict::Forward(payload)
        } else {
            UdpVerdict::Drop(UdpDrop::TooBig)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capsule;
    use crate::datagram::{H3_DATAGRAM_ERROR, H3_MESSAGE_ERROR};

    #[test]
    fn rule_36_context_zero_is_the_udp_payload() {
        let session = ConnectUdp::new(Role::Proxy);
        assert_eq!(session.handle_datagram(b"\0dns"), Ok(UdpVerdict::Forward(b"dns")));
        assert_eq!(session.handle_datagram(b"\0"), Ok(UdpVerdict::Forward(b"")));
        assert_eq!(session.handle_datagram(b"\x40\0dns"), Ok(UdpVerdict::Forward(b"dns")));
    }

    #[test]
    fn rule_37_an_unknown_context_is_dropped() {
        let session = ConnectUdp::new(Role::Proxy);
        let drop = |why| Ok(UdpVerdict::Drop(why));
        assert_eq!(session.handle_datagram(b"\x02dns"), drop(UdpDrop::UnknownContext));
        assert_eq!(session.handle_datagram(b""), drop(UdpDrop::NoContext));
        assert_eq!(session.handle_datagram(b"\x80\0"), drop(UdpDrop::NoContext));
    }

    #[test]
    fn rule_38_a_payload_longer_than_udp_allows_aborts_the_stream() {
        let session = ConnectUdp::new(Role::Proxy);
        let mut payload = vec![0; 1 + MAX_UDP_PAYLOAD];
        assert!(session.handle_datagram(&payload).is_ok());
        payload.push(0);
        let error = session.handle_datagram(&payload).unwrap_err();
        assert_eq!((error, error.code()), (SessionError::UdpPayload(65_528), H3_DATAGRAM_ERROR));
    }

    #[test]
    fn rule_19_a_datagram_capsule_is_a_datagram() {
        let mut session = ConnectUdp::new(Role::Client);
        let wire = capsule::encode_datagram_capsule(&[0], b"answer");
        for byte in wire.chunks(1) {
            session.handle_stream(byte).unwrap();
        }
        let Some(Event::DatagramCapsule(payload)) = session.poll_event() else { panic!() };
        assert_eq!(session.handle_datagram(&payload), Ok(UdpVerdict::Forward(b"answer")));
        assert_eq!((session.poll_event(), session.handle_fin()), (None, Ok(())));
    }

    #[test]
    fn rule_17_a_truncated_capsule_aborts_the_stream() {
        let mut session = ConnectUdp::new(Role::Proxy);
        session.handle_stream(&[0, 5, 0]).unwrap();
        assert_eq!(session.handle_fin().unwrap_err().code(), H3_MESSAGE_ERROR);
    }

    #[test]
    fn rule_42_too_big_a_payload_is_dropped_and_the_tunnel_stays() {
        let session = ConnectUdp::new(Role::Proxy);
        assert_eq!(session.encapsulate(&[0; 1199], 1200), UdpVerdict::Forward(&[0; 1199]));
        assert_eq!(session.encapsulate(&[0; 1200], 1200), UdpVerdict::Drop(UdpDrop::TooBig));
        assert_eq!(session.encapsulate(&[], 0), UdpVerdict::Drop(UdpDrop::TooBig));
    }

    #[test]
    fn a_flood_of_capsules_is_bounded() {
        let mut session = ConnectUdp::new(Role::Proxy);
        session.handle_stream(&[0, 1, 0].repeat(MAX_EVENTS + 10)).unwrap();
        assert_eq!(std::iter::from_fn(|| session.poll_event()).count(), MAX_EVENTS);
        assert_eq!(session.dropped_capsules(), 10);
    }

    #[test]
    fn every_reason_has_a_place_and_a_name() {
        for (i, reason) in UdpDrop::ALL.iter().enumerate() {
            assert_eq!(reason.index(), i);
            assert!(!reason.as_str().is_empty());
        }
    }
}
