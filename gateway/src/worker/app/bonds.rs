//! Connections that join a bond, and bonds that have something to send.

use bauta_masque::bond::capsules::{self, BondCapsule, CloseCode};
use bauta_masque::capsule::{CapsuleParser, KNOWN_BONDED_IP};
use bauta_masque_io::{Carrier, Endpoint};
use bytes::Bytes;

use super::{Flow, Streams};
use crate::metrics::Dropped;
use crate::tunnel::ip::bond::MALFORMED;
use crate::tunnel::{End, Owner};
use crate::worker::Key;

/// A stream that is to join a bond, or has.
pub(in crate::worker) struct Joined {
    pub(super) owner: Owner,
    parser: CapsuleParser,
    /// The session, and the path this is of it.
    to: Option<(Key, u8)>,
}

impl Joined {
    pub(super) fn new(owner: Owner) -> Self {
        Self { owner, parser: CapsuleParser::new(KNOWN_BONDED_IP), to: None }
    }
}

impl Streams {
    /// A datagram on a stream that has joined.
    pub(super) fn joined_datagram(&mut self, conn: u64, stream: u64, payload: &mut [u8]) {
        let peer = self.peers.get(&conn);
        let to = match peer.and_then(|peer| peer.streams.get(&stream)) {
            Some(Flow::Joined(joined)) => joined.to,
            _ => None,
        };
        let Some((key, _)) = to else { return self.ctx.counters.dropped(Dropped::NoStream) };
        let peer = self.peers.get_mut(&key.0);
        if let Some(Flow::Ip(flow)) = peer.and_then(|peer| peer.streams.get_mut(&key.1)) {
            flow.joined_datagram(conn, stream, payload, &mut self.ctx);
        }
    }

    /// Capsules on such a stream.
    pub(super) fn joined_data(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        stream: u64,
    ) -> Result<(), End> {
        loop {
            let n = conn.recv_body(stream, &mut self.ctx.scratch);
            if n == 0 {
                return Ok(());
            }
            let peer = self.peers.get_mut(&conn.id());
            let Some(Flow::Joined(joined)) = peer.and_then(|peer| peer.streams.get_mut(&stream))
            else {
                return Ok(());
            };
            let mut found = Vec::new();
            let mut each = |capsule: bauta_masque::capsule::Capsule<'_>| {
                if capsules::TYPES.contains(&capsule.kind) {
                    found.push((capsule.kind, Bytes::copy_from_slice(capsule.value)));
                }
            };
            joined.parser.push(&self.ctx.scratch[..n], &mut each).map_err(|_| MALFORMED)?;
            for (kind, value) in found {
                self.joined_capsule(conn, stream, kind, &value)?;
            }
        }
    }

    fn joined_capsule(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        stream: u64,
        kind: u64,
        value: &[u8],
    ) -> Result<(), End> {
        let Some(Flow::Joined(joined)) = self.flow(conn, stream) else { return Ok(()) };
        if let Some((key, path)) = joined.to {
            let peer = self.peers.get_mut(&key.0);
            return match peer.and_then(|peer| peer.streams.get_mut(&key.1)) {
                Some(Flow::Ip(flow)) => flow.bond_capsule(path, kind, value, &mut self.ctx),
                _ => Ok(()),
            };
        }
        let account = joined.owner.grant.account.name.clone();
        let capsule = capsules::parse(kind, value).map_err(|_| MALFORMED)?;
        let BondCapsule::Join { token, path } = capsule else { return Err(MALFORMED) };
        let now = self.ctx.now;
        let found = self.ctx.bonds.redeem(now, &token, &account).and_then(|key| {
            let peer = self.peers.get_mut(&key.0);
            match peer.and_then(|peer| peer.streams.get_mut(&key.1)) {
                Some(Flow::Ip(flow)) => {
                    let max = conn.max_datagram_payload(stream).unwrap_or(0);
                    flow.join((conn.id(), stream), path, max, &mut self.ctx)
                }
                .map(|()| key),
                _ => Err(CloseCode::Gone),
            }
        });
        match found {
            Ok(key) => {
                self.ctx.bonds.trusted.push(conn.id());
                if let Some(Flow::Joined(joined)) = self.flow(conn, stream) {
                    joined.to = Some((key, path));
                }
                Ok(())
            }
            Err(code) => {
                tracing::debug!(?code, "a connection may not join");
                self.ctx.counters.bond.refused_joins.add(1);
                let mut out = Vec::new();
                capsules::encode(&BondCapsule::Close(code), &mut out);
                conn.send_body(stream, out.into(), false);
                Err(End::Fin)
            }
        }
    }

    /// A stream that had joined is over.
    pub(super) fn parted(&mut self, conn: u64, stream: u64, joined: &Joined) {
        let Some((key, _)) = joined.to else { return };
        let peer = self.peers.get_mut(&key.0);
        if let Some(Flow::Ip(flow)) = peer.and_then(|peer| peer.streams.get_mut(&key.1)) {
            flow.parted(conn, stream, &mut self.ctx);
        }
    }

    /// Lets a session whose stream is over go on with another of its connections; given back where
    /// there is none.
    pub(super) fn moved_on(&mut self, flow: Flow) -> Option<Flow> {
        let Flow::Ip(mut ip) = flow else { return Some(flow) };
        let Some(key) = ip.moves_on(&mut self.ctx) else { return Some(Flow::Ip(ip)) };
        tracing::debug!(conn = key.0, "a session goes on with another of its connections");
        for (conn, stream) in ip.joined() {
            let peer = self.peers.get_mut(&conn);
            if let Some(Flow::Joined(joined)) = peer.and_then(|p| p.streams.get_mut(&stream))
                && let Some((to, _)) = &mut joined.to
            {
                *to = key;
            }
        }
        self.peers.entry(key.0).or_default().streams.insert(key.1, Flow::Ip(ip));
        None
    }

    /// Lets every bond that has something to do do it.
    pub(in crate::worker) fn pump(&mut self, endpoint: &mut Endpoint) {
        for conn in std::mem::take(&mut self.ctx.bonds.trusted) {
            if let Some(conn) = endpoint.get(conn) {
                conn.trust();
            }
        }
        while let Some(key) = self.ctx.bonds.dirty.pop() {
            let peer = self.peers.get_mut(&key.0);
            let Some(Flow::Ip(flow)) = peer.and_then(|peer| peer.streams.get_mut(&key.1)) else {
                continue;
            };
            if let Err(end) = flow.pump(endpoint, &mut self.ctx)
                && let Some(conn) = endpoint.get(key.0)
            {
                self.end(conn, key.1, end);
            }
        }
        for key in std::mem::take(&mut self.ctx.bonds.orphans) {
            if let Some(conn) = endpoint.get(key.0) {
                self.end(conn, key.1, End::Fin);
                endpoint.touch(key.0);
            }
        }
    }
}
