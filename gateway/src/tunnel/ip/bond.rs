//! A session whose packets go through a [bond](bauta_masque::bond): numbered, paced, repaired, over
//! several connections.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bauta_masque::bond::capsules::{CloseCode, Token};
use bauta_masque::bond::field::{Agreed, Offer};
use bauta_masque::bond::tokens::{TokenError, Tokens};
use bauta_masque::bond::{Bond, Config, Event, PathId, Received, Report, Role};
use bauta_masque::connect_ip::{Icmp, Verdict};
use bauta_masque::datagram::H3_MESSAGE_ERROR;
use bauta_masque_io::bonded::Bonded;
use bauta_masque_io::{Carrier, Endpoint, cid};

use super::IpFlow;
use crate::metrics::{Dropped, Kind};
use crate::tunnel::End;
use crate::worker::{Ctx, Key};

/// A client that may join more paths always holds a token younger than this (they live for 30 s).
const TOKEN_EVERY: Duration = Duration::from_secs(15);

/// What the bonds of a worker have in common.
#[derive(Default)]
pub(crate) struct Bonds {
    /// Sessions whose bond has something to send or to say.
    pub(crate) dirty: Vec<Key>,
    /// Connections that carry a tunnel now.
    pub(crate) trusted: Vec<u64>,
    /// Streams whose bond is gone.
    pub(crate) orphans: Vec<Key>,
    tokens: Tokens<u64, String>,
    sessions: HashMap<u64, Key>,
    next: u64,
}

impl Bonds {
    /// What a client's offer is answered with; `workers` share this port, `rate` is the account's.
    pub(crate) fn answer(offer: &Offer, workers: usize, rate: Option<u64>) -> Offer {
        let workers = u16::try_from(workers).unwrap_or(0);
        let own = Offer { workers, rate, ..Offer::default() };
        own.answer(offer)
    }

    /// The session a token lets its bearer's connection join.
    pub(crate) fn redeem(
        &mut self,
        now: Instant,
        token: &Token,
        account: &str,
    ) -> Result<Key, CloseCode> {
        match self.tokens.redeem(now, token, &account.to_owned()) {
            Ok(bond) => self.sessions.get(&bond).copied().ok_or(CloseCode::Gone),
            Err(TokenError::Unknown | TokenError::Expired | TokenError::Foreign) => {
                Err(CloseCode::BadToken)
            }
        }
    }
}

/// A session's bond.
pub(crate) struct Layer {
    pub(crate) bonded: Bonded,
    id: u64,
    paths: u8,
    token_sent: Option<Instant>,
    dirty: bool,
    armed: Option<Instant>,
    counted: Report,
}

impl IpFlow {
    /// Puts a bond under the session, with the connection the request came by as its first path.
    pub(crate) fn bond(&mut self, max_payload: usize, agreed: Agreed, ctx: &mut Ctx) {
        let mut seed = [0; 8];
        cid::random(&mut seed);
        let config = Config::new(Role::Proxy, agreed, u64::from_ne_bytes(seed));
        let bonded = Bonded::new(Bond::new(config, ctx.now), ctx.now, self.key, max_payload);
        let id = ctx.bonds.next;
        ctx.bonds.next += 1;
        ctx.bonds.sessions.insert(id, self.key);
        self.layer = Some(Box::new(Layer {
            bonded,
            id,
            paths: agreed.paths,
            token_sent: None,
            dirty: false,
            armed: None,
            counted: Report::default(),
        }));
        self.soil(ctx);
    }

    /// The bond has something to do before this turn ends.
    #[inline]
    pub(crate) fn soil(&mut self, ctx: &mut Ctx) {
        if let Some(layer) = &mut self.layer
            && !std::mem::replace(&mut layer.dirty, true)
        {
            ctx.bonds.dirty.push(self.key);
        }
    }

    /// The longest HTTP Datagram Payload of a packet behind Context ID 0.
    #[inline]
    pub(super) fn max_payload(&self, conn: &(impl Carrier + ?Sized)) -> Option<usize> {
        match &self.layer {
            Some(layer) => Some(layer.bonded.bond.max_packet() + 1),
            None => conn.max_datagram_payload(self.key.1),
        }
    }

    /// The same, of paths whose MTU is found; `None` before.
    pub(super) fn known_payload(&mut self, conn: &(impl Carrier + ?Sized)) -> Option<usize> {
        match &mut self.layer {
            Some(layer) => {
                layer.bonded.learn(conn, self.key.1);
                layer.bonded.known_packet().map(|max| max + 1)
            }
            None if conn.path_mtu_settled() => conn.max_datagram_payload(self.key.1),
            None => None,
        }
    }

    /// Gives a packet to the bond; `false` where it may go by itself.
    #[inline]
    pub(super) fn give_bond(&mut self, conn: u64, packet: &[u8], ctx: &mut Ctx) -> bool {
        use bauta_masque::bond::Queued;
        let Some(layer) = &mut self.layer else { return false };
        if layer.bonded.is_bypassed(conn, self.key.1) {
            if layer.bonded.is_due(ctx.now) {
                self.soil(ctx);
            }
            return false;
        }
        match layer.bonded.bond.handle_packet(ctx.now, packet) {
            Queued::Taken => ctx.counters.down(Kind::Ip, packet.len()),
            Queued::TooLong => ctx.counters.dropped(Dropped::TooLarge),
            Queued::Full | Queued::NoPath => ctx.counters.dropped(Dropped::QueueFull),
        }
        self.soil(ctx);
        true
    }

    /// Takes a datagram that came by one of the bond's streams; a packet that may be looked at at
    /// once is given back, a Context ID in front of it.
    #[inline]
    pub(super) fn take_bonded<'a>(
        &mut self,
        conn: u64,
        stream: u64,
        payload: &'a mut [u8],
        ctx: &mut Ctx,
    ) -> Option<&'a mut [u8]> {
        let layer = self.layer.as_mut()?;
        let path = layer.bonded.path_of(conn, stream)?;
        let received = layer.bonded.bond.handle_datagram(ctx.now, path, payload);
        self.soil(ctx);
        match received {
            Received::Packet(packet) => Some(packet),
            Received::Taken => None,
            Received::Dropped(_) => {
                ctx.counters.bond.refused.add(1);
                None
            }
        }
    }

    /// A datagram by a connection that has joined.
    pub(crate) fn joined_datagram(
        &mut self,
        conn: u64,
        stream: u64,
        payload: &mut [u8],
        ctx: &mut Ctx,
    ) {
        if !self.owner.grant.account.usage.up.admit(ctx.now, payload.len()) {
            return ctx.counters.dropped(Dropped::Rate);
        }
        if let Some(packet) = self.take_bonded(conn, stream, payload, ctx)
            && let Some(icmp) = self.inside(packet, ctx)
        {
            self.give_bond(conn, &icmp.packet, ctx);
        }
    }

    /// A packet from the client, a Context ID in front of it; an answer goes back to the client.
    fn inside(&mut self, payload: &mut [u8], ctx: &mut Ctx) -> Option<Icmp> {
        match self.session.handle_datagram(ctx.now, payload, &ctx.policy) {
            Verdict::Forward(packet) => {
                ctx.counters.up(Kind::Ip, packet.len());
                if let Some(tun) = &mut ctx.tun {
                    tun.queue_packet(packet);
                }
            }
            Verdict::Reply(icmp) => {
                ctx.counters.ip_drops[icmp.reason.index()].add(1);
                return Some(icmp);
            }
            Verdict::Drop(why) => ctx.counters.ip_drops[why.index()].add(1),
        }
        None
    }

    /// A capsule of the extension's, by one of the bond's streams.
    pub(crate) fn bond_capsule(
        &mut self,
        path: PathId,
        kind: u64,
        value: &[u8],
        ctx: &mut Ctx,
    ) -> Result<(), End> {
        let Some(layer) = &mut self.layer else { return Ok(()) };
        let taken = layer.bonded.bond.handle_capsule(ctx.now, path, kind, value);
        self.soil(ctx);
        taken.map_err(|error| {
            tracing::debug!(%error, "the client breaks the bond's protocol");
            End::Abort(error.code())
        })
    }

    /// A connection joins as `path`.
    pub(crate) fn join(
        &mut self,
        key: Key,
        path: PathId,
        max_payload: usize,
        ctx: &mut Ctx,
    ) -> Result<(), CloseCode> {
        let Some(layer) = &mut self.layer else { return Err(CloseCode::Gone) };
        let full = layer.bonded.members().len() >= usize::from(layer.paths);
        if full || !layer.bonded.join(ctx.now, path, key, max_payload) {
            return Err(CloseCode::NoRoom);
        }
        layer.bonded.bond.confirm_path(path);
        layer.token_sent = None;
        ctx.counters.bond.joined.add(1);
        self.soil(ctx);
        Ok(())
    }

    /// A stream that had joined is gone.
    pub(crate) fn parted(&mut self, conn: u64, stream: u64, ctx: &mut Ctx) {
        if let Some(layer) = &mut self.layer {
            layer.bonded.leave(ctx.now, conn, stream);
            self.soil(ctx);
        }
    }

    /// The connection the session lives on is gone; another of the bond's takes its place.
    pub(crate) fn moves_on(&mut self, ctx: &mut Ctx) -> Option<Key> {
        if self.session.is_retired() {
            return None;
        }
        let layer = self.layer.as_mut()?;
        let old = self.key;
        layer.bonded.leave(ctx.now, old.0, old.1);
        let member = layer.bonded.members().first()?;
        self.key = (member.conn, member.stream);
        ctx.bonds.sessions.insert(layer.id, self.key);
        (layer.armed, layer.dirty) = (None, false);
        self.rehold(old, ctx);
        self.soil(ctx);
        Some(self.key)
    }

    /// The streams of the session's other connections.
    pub(crate) fn joined(&self) -> Vec<Key> {
        self.layer.iter().flat_map(|layer| layer.joined(self.key)).collect()
    }

    /// Hands over all that the bond lets out and takes in all it has put in order.
    pub(crate) fn pump(&mut self, endpoint: &mut Endpoint, ctx: &mut Ctx) -> Result<(), End> {
        let Some(mut layer) = self.layer.take() else { return Ok(()) };
        layer.dirty = false;
        let now = ctx.now;
        let mut replies = Vec::new();
        while let Some(payload) = layer.bonded.bond.poll_deliver(now) {
            replies.extend(self.inside(payload, ctx));
        }
        for icmp in replies {
            layer.bonded.bond.handle_packet(now, &icmp.packet);
        }
        layer.offer_token(now, &self.owner.grant.account.name, &mut ctx.bonds);
        let due = layer.bonded.transmit(now, endpoint);
        let mut closed = false;
        while let Some(event) = layer.bonded.bond.poll_event() {
            Bonded::log(&event);
            closed |= matches!(event, Event::Closed(_));
        }
        layer.count(ctx);
        if closed {
            ctx.bonds.sessions.remove(&layer.id);
            ctx.bonds.orphans.extend(layer.joined(self.key));
            return Ok(());
        }
        if let Some(due) = due
            && layer.armed.is_none_or(|armed| due < armed || armed <= now)
        {
            layer.armed = Some(due);
            ctx.call_back(due, self.key);
        }
        self.layer = Some(layer);
        Ok(())
    }

    /// The tunnel ends, and its bond with it.
    pub(super) fn unbond(&mut self, ctx: &mut Ctx) {
        if let Some(layer) = self.layer.take() {
            ctx.bonds.sessions.remove(&layer.id);
            ctx.bonds.orphans.extend(layer.joined(self.key));
        }
    }
}

impl Layer {
    fn joined(&self, main: Key) -> impl Iterator<Item = Key> + '_ {
        self.bonded.members().iter().map(|m| (m.conn, m.stream)).filter(move |key| *key != main)
    }

    fn offer_token(&mut self, now: Instant, account: &str, bonds: &mut Bonds) {
        let fresh = self.token_sent.is_some_and(|at| now < at + TOKEN_EVERY);
        if fresh || self.bonded.members().len() >= usize::from(self.paths) {
            return;
        }
        let mut random = [0; 16];
        cid::random(&mut random);
        let token = bonds.tokens.issue(now, random, self.id, account.to_owned());
        self.bonded.bond.send_token(token);
        self.token_sent = Some(now);
    }

    /// Adds to the worker's counters what the bond has counted since the last time.
    fn count(&mut self, ctx: &Ctx) {
        let (now, old) = (self.bonded.bond.report(), self.counted);
        if now == old {
            return;
        }
        self.counted = now;
        let counters = &ctx.counters.bond;
        counters.numbered.add(now.sources_sent - old.sources_sent);
        counters.retransmitted.add(now.retransmissions - old.retransmissions);
        counters.copies.add(now.copies - old.copies);
        counters.repair.add(now.repair_sent - old.repair_sent);
        counters.repair_bytes.add(now.repair_bytes - old.repair_bytes);
        counters.recovered.add(now.recovered - old.recovered);
        counters.duplicates.add(now.duplicates - old.duplicates);
        counters.lost.add(now.given_up - old.given_up);
        counters.queue_drops.add(now.queue_drops - old.queue_drops);
    }
}

/// What ends a stream that was to join and breaks a rule.
pub(crate) const MALFORMED: End = End::Abort(H3_MESSAGE_ERROR);
