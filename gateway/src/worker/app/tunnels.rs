//! What the worker does with its tunnels beside their own streams.

use std::time::Instant;

use bauta_masque_io::{Carrier, Connection, DatagramBuf, clock};

use super::{Flow, Streams, close};
use crate::tunnel::{End, Owner};
use crate::worker::{Key, SessionInfo};

impl Streams {
    /// A packet from the TUN for one of the sessions.
    #[inline]
    pub(in crate::worker) fn deliver(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        stream: u64,
        packet: DatagramBuf,
    ) {
        let peer = self.peers.get_mut(&conn.id());
        if let Some(Flow::Ip(flow)) = peer.and_then(|peer| peer.streams.get_mut(&stream)) {
            flow.deliver(conn, packet, &mut self.ctx);
        }
    }

    /// A time a session asked for has come.
    pub(in crate::worker) fn due(&mut self, conn: &mut (impl Carrier + ?Sized), stream: u64) {
        let peer = self.peers.get_mut(&conn.id());
        if let Some(Flow::Ip(flow)) = peer.and_then(|peer| peer.streams.get_mut(&stream))
            && let Err(end) = flow.called_back(conn, &mut self.ctx)
        {
            self.end(conn, stream, end);
        }
    }

    /// See [`IpFlow::check_path`]; whether there is something to be sent now.
    pub(in crate::worker) fn check_path(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        stream: u64,
    ) -> bool {
        let peer = self.peers.get_mut(&conn.id());
        let Some(Flow::Ip(flow)) = peer.and_then(|peer| peer.streams.get_mut(&stream)) else {
            return false;
        };
        match flow.check_path(conn, &mut self.ctx) {
            Ok(spoke) => spoke,
            Err(end) => {
                self.end(conn, stream, end);
                true
            }
        }
    }

    /// The same for each session on a connection.
    pub(super) fn check_paths_of(&mut self, conn: &mut Connection) {
        let streams = self.peers.get(&conn.id()).map(|peer| &peer.streams);
        let ip = |(stream, flow): (&u64, &Flow)| matches!(flow, Flow::Ip(_)).then_some(*stream);
        let streams: Vec<u64> = streams.into_iter().flatten().filter_map(ip).collect();
        for stream in streams {
            self.check_path(conn, stream);
        }
    }

    /// A newer session has this one's addresses.
    pub(in crate::worker) fn retire(&mut self, key: Key) {
        let peer = self.peers.get_mut(&key.0);
        if let Some(Flow::Ip(flow)) = peer.and_then(|peer| peer.streams.get_mut(&key.1)) {
            flow.retire(&mut self.ctx);
        }
    }

    /// Ends a tunnel in order.
    pub(in crate::worker) fn withdraw(&mut self, conn: &mut (impl Carrier + ?Sized), stream: u64) {
        if self.flow(conn, stream).is_some() {
            self.end(conn, stream, End::Fin);
        }
    }

    fn each(&self) -> impl Iterator<Item = (Key, &Flow)> {
        self.peers.iter().flat_map(|(conn, peer)| {
            peer.streams.iter().map(|(stream, flow)| ((*conn, *stream), flow))
        })
    }

    /// Tunnels that were silent too long, or whose account is gone.
    pub(in crate::worker) fn ended(&self, now: Instant) -> Vec<Key> {
        let (shared, wall) = (&self.ctx.shared, clock::unix_time());
        let idle = shared.config.tunnel.udp_idle.0;
        let over = |flow: &Flow| {
            let silent = matches!(flow, Flow::Udp(flow) if flow.is_idle(now, idle));
            let stands = |owner: &Owner| shared.accounts.stands(&owner.grant, wall);
            silent || !flow.owner().is_none_or(stands)
        };
        self.each().filter(|(_, flow)| over(flow)).map(|(key, _)| key).collect()
    }

    /// The CONNECT-IP sessions whose path is to be looked at.
    pub(in crate::worker) fn unchecked(&self) -> Vec<Key> {
        let unchecked = |flow: &Flow| matches!(flow, Flow::Ip(flow) if flow.is_unchecked());
        self.each().filter(|(_, flow)| unchecked(flow)).map(|(key, _)| key).collect()
    }

    /// Gives every lease back, so that it is remembered.
    pub(in crate::worker) fn close_all(&mut self) {
        for (_, peer) in std::mem::take(&mut self.peers) {
            for flow in peer.streams.into_values() {
                close(flow, &mut self.ctx);
            }
        }
    }

    /// The tunnels, for `/sessions`.
    pub(in crate::worker) fn sessions(&self) -> Vec<SessionInfo> {
        let info = |(_, flow): (Key, &Flow)| {
            let (kind, addresses, age) = match flow {
                Flow::Ip(flow) => {
                    let age = self.ctx.now.saturating_duration_since(flow.since).as_secs();
                    ("connect-ip", flow.addresses().collect(), Some(age))
                }
                Flow::Udp(_) => ("connect-udp", Vec::new(), None),
                Flow::Tcp(..) => ("connect-tcp", Vec::new(), None),
                Flow::Site(_) | Flow::Opening(_) | Flow::Joined(_) => return None,
            };
            let account = flow.owner()?.grant.account.name.clone();
            Some(SessionInfo { account, kind, worker: self.ctx.id, addresses, age })
        };
        self.each().filter_map(info).collect()
    }
}
