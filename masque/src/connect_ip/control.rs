//! The control side: capsules in and out.

use std::time::Instant;

use bytes::Bytes;

use super::{ConnectIp, Event, MAX_EVENTS, MAX_REQUESTS, Routes, SessionError};
use crate::address::{
    self, AddressError, AssignedAddress, MAX_ADDRESSES, Prefix, RequestedAddress,
};
use crate::capsule::{self, Capsule, CapsuleParser};
use crate::dns::{self, DnsConfig};
use crate::route::{self, IpRange, RouteError, RouteTable};

impl ConnectIp {
    /// Takes bytes of the peer's side of the stream. After an error the session is over: abort the
    /// stream with the error's code.
    pub fn handle_stream(&mut self, _now: Instant, data: &[u8]) -> Result<(), SessionError> {
        if self.failed {
            return Ok(());
        }
        // The parser is set aside so that each capsule may change the rest of the session.
        let mut parser = std::mem::replace(&mut self.parser, CapsuleParser::new(&[]));
        let mut outcome = Ok(());
        let pushed = parser.push(data, &mut |capsule| {
            if outcome.is_ok() {
                outcome = self.handle_capsule(capsule);
            }
        });
        self.parser = parser;
        let outcome = outcome.and(pushed.map_err(SessionError::from));
        self.failed = outcome.is_err();
        outcome
    }

    /// The peer's side of the stream has ended: in order, or inside a capsule.
    pub fn handle_fin(&mut self) -> Result<(), SessionError> {
        if self.failed { Ok(()) } else { Ok(self.parser.finish()?) }
    }

    fn handle_capsule(&mut self, capsule: Capsule<'_>) -> Result<(), SessionError> {
        let value = capsule.value;
        match capsule.kind {
            capsule::DATAGRAM if self.queued_datagrams == MAX_EVENTS => self.overflow += 1,
            capsule::DATAGRAM => {
                self.queued_datagrams += 1;
                self.events.push_back(Event::DatagramCapsule(Bytes::copy_from_slice(value)));
            }
            capsule::ADDRESS_ASSIGN => {
                let list = address::parse_assigned(value)?;
                self.to_us.list = list.iter().filter(|a| !a.is_refusal()).copied().collect();
                self.to_us.set = self.to_us.list.iter().map(|a| a.prefix).collect();
                self.supersede(Event::AddressesAssigned(list));
            }
            capsule::ADDRESS_REQUEST => {
                let list = address::parse_requested(value)?;
                for request in &list {
                    if !self.seen_requests.insert(request.request_id) {
                        Err(AddressError::RequestIdReused(request.request_id))?;
                    }
                }
                if self.seen_requests.len() > MAX_REQUESTS {
                    return Err(SessionError::TooManyRequests(MAX_REQUESTS));
                }
                self.events.push_back(Event::AddressRequested(list));
            }
            capsule::ROUTE_ADVERTISEMENT => {
                let list = route::parse(value)?;
                self.routes_from_peer = routes(list.clone());
                self.supersede(Event::RoutesAdvertised(list));
            }
            dns::DNS_ASSIGN => self.supersede(Event::DnsAssigned(dns::parse(value)?)),
            _ if self.queued_datagrams == MAX_EVENTS => self.overflow += 1,
            kind => {
                self.queued_datagrams += 1;
                self.events.push_back(Event::Bond { kind, value: Bytes::copy_from_slice(value) });
            }
        }
        Ok(())
    }

    /// Queues an event that makes an earlier one of its kind void, so that a flood of them waits
    /// as one.
    fn supersede(&mut self, event: Event) {
        let kind = std::mem::discriminant(&event);
        self.events.retain(|e| std::mem::discriminant(e) != kind);
        self.events.push_back(event);
    }

    fn send(&mut self, kind: u64, value: &[u8]) {
        let mut out = Vec::new();
        capsule::encode(kind, value, &mut out);
        self.transmit.push_back(out.into());
    }

    /// Asks the peer for addresses, one for each prefix wished for; an all-zero address means any.
    /// Each request gets an id of its own. Nothing is sent for an empty list.
    pub fn request_addresses(&mut self, want: &[Prefix]) {
        for want in want.chunks(MAX_ADDRESSES) {
            let first = self.next_request;
            self.next_request += want.len() as u64;
            let list: Vec<_> = (first..)
                .zip(want)
                .map(|(request_id, prefix)| RequestedAddress { request_id, prefix: *prefix })
                .collect();
            let mut value = Vec::new();
            address::encode_requested(&list, &mut value);
            self.send(capsule::ADDRESS_REQUEST, &value);
        }
    }

    /// Tells the peer the full list of addresses it may send from (at most [`MAX_ADDRESSES`]; what
    /// is beyond is left out). A request the owner has seen and that the list does not answer is
    /// refused, once.
    pub fn assign(&mut self, mut list: Vec<AssignedAddress>) {
        list.truncate(MAX_ADDRESSES);
        let answered = |r: &RequestedAddress| list.iter().any(|a| a.request_id == r.request_id);
        let refusals: Vec<_> = std::mem::take(&mut self.pending)
            .iter()
            .filter(|r| !answered(r))
            .map(AssignedAddress::refusal)
            .collect();
        // Refusals beyond what one capsule holds go ahead in capsules that keep the old list.
        let room = MAX_ADDRESSES - list.len();
        let (early, last) = refusals.split_at(refusals.len().saturating_sub(room));
        for early in early.chunks(MAX_ADDRESSES - self.to_peer.list.len().min(MAX_ADDRESSES - 1)) {
            let keep = self.to_peer.list.iter().take(MAX_ADDRESSES - 1);
            let value = encoded(keep.chain(early).copied());
            self.send(capsule::ADDRESS_ASSIGN, &value);
        }
        let value = encoded(list.iter().chain(last).copied());
        self.send(capsule::ADDRESS_ASSIGN, &value);
        list.retain(|a| !a.is_refusal());
        list.shrink_to_fit();
        self.to_peer.set = list.iter().map(|a| a.prefix).collect();
        self.to_peer.list = list;
        self.accept_sources();
    }

    /// A newer session takes this one's addresses over. What the peer may send from now stays
    /// accepted here until the session ends, whatever [`assign`](Self::assign) says later: packets
    /// of the old path are still on their way.
    pub fn retire(&mut self) {
        self.retired = Some(self.accepted.clone());
    }

    /// Whether [`retire`](Self::retire) was called.
    pub const fn is_retired(&self) -> bool {
        self.retired.is_some()
    }

    fn accept_sources(&mut self) {
        self.accepted = self.to_peer.set.clone();
        if let Some(retired) = &self.retired {
            self.accepted.extend(retired);
        }
    }

    /// Tells the peer the full list of where we route to. The list is sorted, joined and narrowed
    /// to the request's scope first. An error means that it cannot be told, and nothing changes.
    pub fn advertise(&mut self, ranges: &[IpRange]) -> Result<(), RouteError> {
        let protocol = self.config.ipproto.filter(|p| *p != 0);
        let scoped: Vec<IpRange> = match &self.config.target[..] {
            [] => ranges.iter().filter_map(|r| r.within(None, protocol)).collect(),
            targets => {
                let within = |t: &Prefix| {
                    ranges.iter().filter_map(|r| r.within(Some(*t), protocol)).collect::<Vec<_>>()
                };
                targets.iter().flat_map(within).collect()
            }
        };
        let list = route::normalise(&scoped);
        route::validate(&list)?;
        let mut value = Vec::new();
        route::encode(&list, &mut value);
        self.send(capsule::ROUTE_ADVERTISEMENT, &value);
        self.routes_to_peer = routes(list);
        if let Some(dns) = self.held_dns.take() {
            self.assign_dns(dns);
        }
        Ok(())
    }

    /// Tells the peer which resolvers to use, superseding what it was told. It goes out after the
    /// first advertisement of routes, so that no query leaves outside the tunnel.
    pub fn assign_dns(&mut self, list: Vec<DnsConfig>) {
        if !self.routes_to_peer.told {
            self.held_dns = Some(list);
            return;
        }
        let mut value = Vec::new();
        dns::encode(&list, &mut value);
        self.send(dns::DNS_ASSIGN, &value);
    }
}

fn encoded(list: impl Iterator<Item = AssignedAddress>) -> Vec<u8> {
    let mut value = Vec::new();
    address::encode_assigned(&list.collect::<Vec<_>>(), &mut value);
    value
}

fn routes(list: Vec<IpRange>) -> Routes {
    Routes { table: RouteTable::new(&list), list, told: true }
}
