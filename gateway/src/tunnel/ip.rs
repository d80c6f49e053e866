//! CONNECT-IP: a client's IP packets to and from the TUN (RFC 9484).

pub(crate) mod bond;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use bauta_masque::address::{AssignedAddress, Prefix, RequestedAddress};
use bauta_masque::connect_ip::{Config, ConnectIp, DropReason, Event, Verdict};
use bauta_masque::datagram::{CONTEXT_ID_ZERO, H3_INTERNAL_ERROR, H3_REQUEST_CANCELLED};
use bauta_masque::dns::DnsConfig;
use bauta_masque::encode_datagram_capsule;
use bauta_masque::fragment::fragment_v4;
use bauta_masque::route::IpRange;
use bauta_masque_io::connection::HIGH_WATER;
use bauta_masque_io::{Carrier, DatagramBuf, DatagramError, clock};

use super::{End, Owner};
use crate::accounts::unix_seconds;
use crate::metrics::{Dropped, Kind};
use crate::pool::{Holder, Plan, SharedPool, Slot};
use crate::worker::{Ctx, Key, Message};

/// How long a client may take to ask for addresses before it is given some unasked: there are
/// clients that never ask.
const PATIENCE: Duration = Duration::from_millis(50);

/// Longest packet sent in a capsule, to clients that have no QUIC datagrams.
const CAPSULE_PAYLOAD: usize = 1501;

/// What a request limits its tunnel to.
pub(crate) struct Scope {
    /// `target`, resolved; `None`: everything.
    pub(crate) targets: Option<Vec<Prefix>>,
    /// `ipproto`.
    pub(crate) ipproto: Option<u8>,
}

/// One session.
pub(crate) struct IpFlow {
    pub(crate) owner: Owner,
    key: Key,
    session: ConnectIp,
    slot: Option<Slot>,
    assigned: Vec<AssignedAddress>,
    /// When addresses are given unasked.
    pub(crate) due: Option<Instant>,
    without_v6: bool,
    /// The longest payload that was found enough for what is assigned.
    checked: Option<usize>,
    pub(crate) since: Instant,
    /// The resilience layer, where it was negotiated.
    layer: Option<Box<bond::Layer>>,
}

impl IpFlow {
    /// Begins with routes and resolvers; addresses follow. `pool` as in [`Ctx`].
    /// `bonded`: a bond was negotiated, and [`IpFlow::bond`] follows.
    pub(crate) fn new(
        key: Key,
        owner: Owner,
        scope: Scope,
        pool: &SharedPool,
        bonded: bool,
        ctx: &Ctx,
    ) -> Self {
        let (mut v4, mut v6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        for (ip, _) in pool.plan.gateway() {
            match ip {
                IpAddr::V4(ip) => v4 = ip,
                IpAddr::V6(ip) => v6 = ip,
            }
        }
        let session = ConnectIp::new(Config {
            target: scope.targets.unwrap_or_default(),
            ipproto: scope.ipproto,
            // The kernel routes into the TUN, and has taken the hop off.
            decrement_ttl: false,
            bond: bonded,
            seed: key.0 ^ key.1,
            ..Config::proxy(v4, v6)
        });
        let (slot, assigned) = (None, Vec::new());
        let (due, since) = (Some(ctx.now + PATIENCE), ctx.now);
        let (without_v6, checked, layer) = (false, None, None);
        let mut flow =
            Self { owner, key, session, slot, assigned, due, without_v6, checked, since, layer };
        flow.advertise(&pool.plan);
        let dns = &ctx.shared.config.tunnel.dns;
        if !dns.is_empty() {
            flow.session.assign_dns(vec![DnsConfig::plain(dns)]);
        }
        flow
    }

    fn advertise(&mut self, plan: &Plan) {
        let mut routes = Vec::new();
        if plan.nets().any(|net| net.addr.is_ipv4()) {
            routes.push(IpRange::ALL_V4);
        }
        if !self.without_v6 && plan.nets().any(|net| net.addr.is_ipv6()) {
            routes.push(IpRange::ALL_V6);
        }
        if let Err(error) = self.session.advertise(&routes) {
            tracing::warn!(%error, "routes could not be advertised");
        }
    }

    /// A packet from the client.
    #[inline]
    pub(crate) fn datagram(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        mut payload: DatagramBuf,
        ctx: &mut Ctx,
    ) {
        if !self.owner.grant.account.usage.up.admit(ctx.now, payload.len()) {
            return ctx.counters.dropped(Dropped::Rate);
        }
        if self.layer.is_some() {
            let whole = payload.len();
            let stream = self.key.1;
            match self.take_bonded(conn.id(), stream, payload.bytes_mut(), ctx).map(|p| p.len()) {
                Some(kept) => payload.advance(whole - kept),
                None => return,
            }
        }
        match self.session.handle_datagram(ctx.now, payload.bytes_mut(), &ctx.policy) {
            Verdict::Forward(packet) => {
                let len = packet.len();
                ctx.counters.up(Kind::Ip, len);
                if let Some(tun) = &mut ctx.tun {
                    payload.advance(payload.len() - len);
                    tun.queue(payload);
                }
            }
            Verdict::Reply(icmp) => {
                ctx.counters.ip_drops[icmp.reason.index()].add(1);
                self.send(conn, DatagramBuf::copy_of(&icmp.packet), ctx);
            }
            Verdict::Drop(why) => ctx.counters.ip_drops[why.index()].add(1),
        }
    }

    /// A packet for the client.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        packet: DatagramBuf,
        ctx: &mut Ctx,
    ) {
        if !self.owner.grant.account.usage.down.admit(ctx.now, packet.len()) {
            return ctx.counters.dropped(Dropped::Rate);
        }
        self.encapsulate(conn, packet, ctx);
    }

    fn encapsulate(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        mut packet: DatagramBuf,
        ctx: &mut Ctx,
    ) {
        let max = self.max_payload(conn).unwrap_or(CAPSULE_PAYLOAD);
        match self.session.encapsulate(ctx.now, packet.bytes_mut(), max) {
            Verdict::Forward(_) => self.send(conn, packet, ctx),
            Verdict::Reply(icmp) => {
                ctx.counters.ip_drops[icmp.reason.index()].add(1);
                if let Some(tun) = &mut ctx.tun {
                    tun.queue_packet(&icmp.packet);
                }
            }
            Verdict::Drop(DropReason::NeedsFragmentation) => {
                fragment_v4(packet.as_ref(), max.saturating_sub(1), |piece| {
                    self.encapsulate(conn, DatagramBuf::copy_of(piece), ctx);
                });
            }
            Verdict::Drop(why) => ctx.counters.ip_drops[why.index()].add(1),
        }
    }

    #[inline]
    fn send(&mut self, conn: &mut (impl Carrier + ?Sized), packet: DatagramBuf, ctx: &mut Ctx) {
        if self.give_bond(conn.id(), packet.as_ref(), ctx) {
            return;
        }
        let (stream, len) = (self.key.1, packet.len());
        let counters = &ctx.counters;
        if conn.max_datagram_payload(stream).is_none() && conn.queued(stream) < HIGH_WATER {
            let capsule = encode_datagram_capsule(&CONTEXT_ID_ZERO, packet.as_ref());
            conn.send_body(stream, capsule, false);
            return counters.down(Kind::Ip, len);
        }
        match conn.send_buf(stream, &CONTEXT_ID_ZERO, packet) {
            Ok(()) => counters.down(Kind::Ip, len),
            Err(DatagramError::TooLarge { .. }) => counters.dropped(Dropped::TooLarge),
            Err(_) => counters.dropped(Dropped::QueueFull),
        }
    }

    /// Bytes of the request stream: capsules.
    pub(crate) fn stream(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        ctx: &mut Ctx,
    ) -> Result<(), End> {
        loop {
            let n = conn.recv_body(self.key.1, &mut ctx.scratch);
            if n == 0 {
                return Ok(());
            }
            self.session.handle_stream(ctx.now, &ctx.scratch[..n])?;
            self.settle(conn, ctx)?;
        }
    }

    /// Does what the session asks for.
    pub(crate) fn settle(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        ctx: &mut Ctx,
    ) -> Result<(), End> {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::AddressRequested(requests) => self.lease(&requests, ctx),
                Event::DatagramCapsule(payload) => {
                    self.datagram(conn, DatagramBuf::copy_of(&payload), ctx);
                }
                // A site behind the client would be routed here; not offered yet.
                Event::AddressesAssigned(_) | Event::RoutesAdvertised(_) => {}
                Event::DnsAssigned(_) | Event::LinkProven => {}
                Event::Bond { kind, value } => self.bond_capsule(0, kind, &value, ctx)?,
                Event::LinkUnproven => return Err(End::Abort(H3_REQUEST_CANCELLED)),
            }
        }
        while let Some(capsules) = self.session.poll_transmit() {
            conn.send_body(self.key.1, capsules, false);
        }
        while let Some(packet) = self.session.poll_packet() {
            self.send(conn, DatagramBuf::copy_of(&packet), ctx);
        }
        Ok(())
    }

    /// A time that was asked for has come.
    pub(crate) fn called_back(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        ctx: &mut Ctx,
    ) -> Result<(), End> {
        self.soil(ctx);
        match self.due {
            Some(due) if due <= ctx.now => self.assign_unasked(conn, ctx),
            _ => Ok(()),
        }
    }

    /// The client did not ask in time.
    fn assign_unasked(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        ctx: &mut Ctx,
    ) -> Result<(), End> {
        if self.due.take().is_some() && self.slot.is_none() {
            self.lease(&[], ctx);
        }
        self.settle(conn, ctx)
    }

    /// Answers address requests; none at all means both families, unasked.
    fn lease(&mut self, requests: &[RequestedAddress], ctx: &mut Ctx) {
        (self.due, self.checked) = (None, None);
        let shared = ctx.shared.clone();
        let Some(pool) = &shared.pool else { return };
        let plan = &pool.plan;
        let preferred = requests.iter().find_map(|r| plan.slot(r.prefix.addr));
        let moves = preferred.is_some() && preferred != self.slot;
        if self.slot.is_none() || (moves && !self.session.is_retired()) {
            self.acquire(pool, preferred, ctx);
        }
        let Some(slot) = self.slot else {
            tracing::debug!(account = self.owner.grant.account.name, "no address left");
            ctx.counters.refused.add(1);
            return self.session.assign(Vec::new());
        };
        let address = |v6: bool| {
            let ip = if v6 { plan.v6(slot) } else { plan.v4(slot) };
            ip.filter(|_| !(v6 && self.without_v6)).map(Prefix::host)
        };
        let mut list = std::mem::take(&mut self.assigned);
        if requests.is_empty() {
            list = [address(false), address(true)]
                .into_iter()
                .flatten()
                .map(AssignedAddress::unsolicited)
                .collect();
        }
        // One address of a family: the first request for it in this capsule is answered, what was
        // asked before keeps its answer only if it is not asked again.
        for v6 in [false, true] {
            let request = requests.iter().find(|r| r.prefix.addr.is_ipv6() == v6);
            let old = list.iter().position(|a| a.prefix.addr.is_ipv6() == v6);
            let old = old.map(|at| list.remove(at));
            let request_id = request.map(|r| r.request_id).or(old.map(|a| a.request_id));
            if let (Some(request_id), Some(prefix)) = (request_id, address(v6)) {
                list.push(AssignedAddress { request_id, prefix });
            }
        }
        self.assigned.clone_from(&list);
        self.session.assign(list);
    }

    fn acquire(&mut self, pool: &SharedPool, preferred: Option<Slot>, ctx: &mut Ctx) {
        let account = &self.owner.grant.account;
        let now = unix_seconds(clock::unix_time());
        let current = ctx.shared.accounts.refresh(&self.owner.grant);
        let own = current.as_ref().map_or(account.sessions, |account| account.sessions);
        let limit = own.unwrap_or(ctx.shared.config.tunnel.sessions);
        let holder = Holder { worker: ctx.id, conn: self.key.0, stream: self.key.1 };
        // Moving to another lease gives this one back.
        let limit = limit + usize::from(self.slot.is_some());
        let Ok(granted) = pool.acquire(&account.name, preferred, holder, limit, now) else {
            return;
        };
        if let Some(displaced) = granted.displaced {
            ctx.send(displaced.worker, Message::Retire(displaced));
        }
        if let Some(old) = self.slot.replace(granted.slot)
            && old != granted.slot
        {
            ctx.forget(old, self.key);
            pool.release(old, holder, now);
        }
        ctx.by_slot.insert(granted.slot, self.key);
    }

    /// A newer session has the addresses now: packets still on their way here are let through.
    pub(crate) fn retire(&mut self, ctx: &mut Ctx) {
        self.session.retire();
        if let Some(slot) = self.slot {
            ctx.forget(slot, self.key);
        }
    }

    /// Whether [`IpFlow::check_path`] has something to find out: a path whose size was not known
    /// yet, or a bond whose packets have another size now. A connection tells of other changes.
    pub(crate) fn is_unchecked(&self) -> bool {
        let changed =
            |layer: &bond::Layer| layer.bonded.known_packet().map(|max| max + 1) != self.checked;
        let changed = || self.layer.as_deref().is_some_and(changed);
        !self.without_v6 && (self.checked.is_none() || changed())
    }

    /// Once the path's size is known and IPv6's least does not fit, IPv6 is taken back: a link that
    /// carries it must carry 1280 bytes (RFC 9484 §7.1). Says whether it was.
    pub(crate) fn check_path(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        ctx: &mut Ctx,
    ) -> Result<bool, End> {
        let Some(max) = self.known_payload(conn).filter(|_| !self.without_v6) else {
            return Ok(false);
        };
        self.checked = Some(max);
        let Err(error) = self.session.check_mtu(max) else { return Ok(false) };
        let shared = ctx.shared.clone();
        let Some(pool) = &shared.pool else { return Ok(false) };
        if pool.plan.nets().all(|net| net.addr.is_ipv6()) {
            return Err(error.into());
        }
        self.without_v6 = true;
        self.assigned.retain(|a| a.prefix.addr.is_ipv4());
        self.session.assign(self.assigned.clone());
        self.advertise(&pool.plan);
        self.settle(conn, ctx).map(|()| true)
    }

    /// The client is done.
    pub(crate) fn finish(&mut self) -> End {
        self.session.handle_fin().map_or_else(End::from, |()| End::Fin)
    }

    /// The lease follows the session to another of its streams.
    fn rehold(&self, from: Key, ctx: &mut Ctx) {
        let (Some(slot), Some(pool)) = (self.slot, &ctx.shared.pool) else { return };
        let holder = |key: Key| Holder { worker: ctx.id, conn: key.0, stream: key.1 };
        pool.lock().rehold(slot, holder(from), holder(self.key));
        ctx.forget(slot, from);
        ctx.by_slot.insert(slot, self.key);
    }

    /// Gives the lease back.
    pub(crate) fn close(&mut self, ctx: &mut Ctx) {
        self.unbond(ctx);
        let Some(slot) = self.slot.take() else { return };
        ctx.forget(slot, self.key);
        if let Some(pool) = &ctx.shared.pool {
            let holder = Holder { worker: ctx.id, conn: self.key.0, stream: self.key.1 };
            pool.release(slot, holder, unix_seconds(clock::unix_time()));
        }
    }

    /// The client's addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.assigned.iter().map(|a| a.prefix.addr)
    }
}

/// What ends a session for which there is no pool: a configuration that contradicts itself.
pub(crate) const NO_POOL: End = End::Abort(H3_INTERNAL_ERROR);
