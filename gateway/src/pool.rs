//! Addresses for clients: stable leases, remembered across restarts.
//!
//! A lease is a slot number; both its addresses follow from it, each so many places into its pool.
//! Slot 0 is the network itself and slot 1 the gateway.

mod leases;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use bauta_xdp::Steering;

use crate::config::Net;

pub use leases::LeaseFile;

/// Leases at most, whatever the pools' sizes: bounds memory and the lease file.
pub const MAX_SLOTS: u32 = 65_536;

/// The gateway's own slot.
const GATEWAY: u32 = 1;

/// Number of a lease.
pub type Slot = u32;

/// Where a session lives: the worker, its connection and the request stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Number of the worker.
    pub worker: usize,
    /// Connection within the worker.
    pub conn: u64,
    /// Request stream within the connection.
    pub stream: u64,
}

/// The pools' address arithmetic; workers keep a copy.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    v4: Option<Net>,
    v6: Option<Net>,
    slots: u32,
}

impl Plan {
    /// The addresses of two pools. `None` in both leaves no slots.
    pub fn new(v4: Option<Net>, v6: Option<Net>) -> Self {
        let size = |net: &Net| 1u64.checked_shl((net.width() - net.len).into()).unwrap_or(u64::MAX);
        // The last IPv4 address of a network is its broadcast address.
        let v4_size = v4.as_ref().map(|net| size(net) - 1);
        let smallest = v4_size.into_iter().chain(v6.as_ref().map(size)).min().unwrap_or(0);
        Self { v4, v6, slots: smallest.min(MAX_SLOTS.into()) as u32 }
    }

    /// The IPv4 address of a slot.
    pub fn v4(&self, slot: Slot) -> Option<IpAddr> {
        self.v4?.nth(slot)
    }

    /// The IPv6 address of a slot.
    pub fn v6(&self, slot: Slot) -> Option<IpAddr> {
        self.v6?.nth(slot)
    }

    /// The gateway's own addresses, with the prefix length of their pool.
    pub fn gateway(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let own = |net: Option<Net>| net.and_then(|net| Some((net.nth(GATEWAY)?, net.len)));
        own(self.v4).into_iter().chain(own(self.v6))
    }

    /// The pools.
    pub fn nets(&self) -> impl Iterator<Item = Net> {
        self.v4.into_iter().chain(self.v6)
    }

    /// The client slot behind an address.
    #[inline]
    pub fn slot(&self, ip: IpAddr) -> Option<Slot> {
        let net = if ip.is_ipv4() { self.v4 } else { self.v6 };
        net?.offset(ip).filter(|slot| (GATEWAY + 1..self.slots).contains(slot))
    }

    /// One more than the largest slot.
    pub fn slots(&self) -> u32 {
        self.slots
    }
}

/// The kernel's copy of the routes, so that packets come out of the right worker's queues.
#[derive(Debug)]
pub struct Queues {
    /// The table.
    pub steering: Steering,
    /// How many workers there are. Queue `n` is lane `n / workers` of worker `n % workers`.
    pub workers: usize,
    /// How many queues each has.
    pub lanes: usize,
}

/// The lane of a slot. Neighbours in the pool, who may be all there are, have lanes of their own.
fn lane(slot: Slot, lanes: usize) -> usize {
    slot as usize % lanes
}

/// Which worker serves each slot: read for every packet from the TUN, without a lock.
#[derive(Debug)]
pub struct Routes {
    workers: Box<[AtomicU8]>,
    queues: Option<Queues>,
}

impl Routes {
    /// No slot is served.
    pub fn new(slots: u32, queues: Option<Queues>) -> Self {
        Self { workers: (0..slots).map(|_| AtomicU8::new(0)).collect(), queues }
    }

    /// The worker that serves `slot`.
    #[inline]
    pub fn worker(&self, slot: Slot) -> Option<usize> {
        let entry = self.workers.get(slot as usize)?.load(Relaxed);
        usize::from(entry).checked_sub(1)
    }

    fn set(&self, slot: Slot, worker: Option<usize>) {
        if let Some(entry) = self.workers.get(slot as usize) {
            entry.store(worker.map_or(0, |w| w as u8 + 1), Relaxed);
        }
        if let Some(queues) = &self.queues {
            let lane = lane(slot, queues.lanes);
            queues.steering.set(slot, worker.map(|worker| worker + queues.workers * lane));
        }
    }
}

#[derive(Debug)]
struct Lease {
    account: String,
    /// When it was last taken or given back, in seconds since 1970.
    used: u64,
    holder: Option<Holder>,
}

/// A lease granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The lease.
    pub slot: Slot,
    /// The session that held it until now: it may still send, but nothing goes down to it.
    pub displaced: Option<Holder>,
}

/// Why no lease was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The account holds as many as it may.
    Sessions,
    /// Every lease is held.
    Exhausted,
}

/// Free leases by when they were last used, oldest first.
type Free = BTreeSet<(u64, Slot)>;

/// What an account has of the pool.
#[derive(Debug, Default)]
struct Own {
    held: usize,
    free: Free,
}

/// The leases. Control path only; nothing in it takes longer for there being many.
#[derive(Debug)]
pub struct Pool {
    plan: Plan,
    leases: HashMap<Slot, Lease>,
    by_account: HashMap<String, Own>,
    free: Free,
    /// Every slot below was leased once.
    fresh: Slot,
    changed: bool,
}

impl Pool {
    /// A pool without leases.
    pub fn new(plan: Plan) -> Self {
        let (leases, by_account, free) = (HashMap::new(), HashMap::new(), Free::new());
        Self { plan, leases, by_account, free, fresh: GATEWAY + 1, changed: false }
    }

    /// Leases a slot to `account` for the session at `holder`: the preferred one if it is the
    /// account's (whoever holds it) or nobody's; else the account's most recently used free one;
    /// else a fresh one; else the oldest free one of anybody. `limit` bounds the account's sessions;
    /// taking over one's own lease adds none.
    pub fn acquire(
        &mut self,
        account: &str,
        preferred: Option<Slot>,
        holder: Holder,
        limit: usize,
        now: u64,
    ) -> Result<Granted, Refused> {
        let in_range = |slot: &Slot| (GATEWAY + 1..self.plan.slots).contains(slot);
        let preferred = preferred.filter(in_range).filter(|slot| match self.leases.get(slot) {
            Some(lease) => lease.account == account,
            None => true,
        });
        let held = preferred.and_then(|slot| self.leases.get(&slot)?.holder);
        if held.is_none() && self.held_by(account) >= limit {
            return Err(Refused::Sessions);
        }
        let slot = match preferred.or_else(|| self.recent(account)) {
            Some(slot) => slot,
            None => self.unused().or_else(|| self.oldest_free()).ok_or(Refused::Exhausted)?,
        };
        let old = self.take(slot);
        self.put(slot, Lease { account: account.to_owned(), used: now, holder: Some(holder) });
        self.changed = true;
        Ok(Granted { slot, displaced: old.and_then(|old| old.holder).filter(|old| *old != holder) })
    }

    /// Gives a lease back, if `holder` still has it; it stays remembered for its account.
    pub fn release(&mut self, slot: Slot, holder: Holder, now: u64) -> bool {
        if self.leases.get(&slot).is_none_or(|lease| lease.holder != Some(holder)) {
            return false;
        }
        if let Some(lease) = self.take(slot) {
            self.put(slot, Lease { used: now, holder: None, ..lease });
        }
        self.changed = true;
        true
    }

    /// Hands a lease on within one session, from one of its streams to another.
    pub fn rehold(&mut self, slot: Slot, from: Holder, to: Holder) {
        if let Some(lease) = self.leases.get_mut(&slot).filter(|l| l.holder == Some(from)) {
            lease.holder = Some(to);
        }
    }

    /// Leases held now.
    pub fn held(&self) -> usize {
        self.leases.len() - self.free.len()
    }

    /// Leases `account` holds now.
    pub fn held_by(&self, account: &str) -> usize {
        self.by_account.get(account).map_or(0, |own| own.held)
    }

    fn recent(&self, account: &str) -> Option<Slot> {
        self.by_account.get(account)?.free.last().map(|(_, slot)| *slot)
    }

    fn unused(&mut self) -> Option<Slot> {
        while self.fresh < self.plan.slots {
            let slot = self.fresh;
            self.fresh += 1;
            if !self.leases.contains_key(&slot) {
                return Some(slot);
            }
        }
        None
    }

    fn oldest_free(&self) -> Option<Slot> {
        self.free.first().map(|(_, slot)| *slot)
    }

    /// Enters a lease of a slot that has none.
    fn put(&mut self, slot: Slot, lease: Lease) {
        let own = self.by_account.entry(lease.account.clone()).or_default();
        if lease.holder.is_some() {
            own.held += 1;
        } else {
            own.free.insert((lease.used, slot));
            self.free.insert((lease.used, slot));
        }
        self.leases.insert(slot, lease);
    }

    /// Strikes a slot's lease out.
    fn take(&mut self, slot: Slot) -> Option<Lease> {
        let lease = self.leases.remove(&slot)?;
        let free = (lease.used, slot);
        self.free.remove(&free);
        if let Some(own) = self.by_account.get_mut(&lease.account) {
            if lease.holder.is_some() {
                own.held -= 1;
            } else {
                own.free.remove(&free);
            }
            if own.held == 0 && own.free.is_empty() {
                self.by_account.remove(&lease.account);
            }
        }
        Some(lease)
    }
}

/// What the workers share of the pool: the leases behind a lock, the routes without one.
#[derive(Debug)]
pub struct SharedPool {
    /// Address arithmetic.
    pub plan: Plan,
    /// Slot to worker.
    pub routes: Routes,
    pool: std::sync::Mutex<Pool>,
}

impl SharedPool {
    /// Shares a pool. The TUN's `queues` follow it.
    pub fn new(pool: Pool, queues: Option<Queues>) -> Self {
        let plan = pool.plan;
        Self { plan, routes: Routes::new(plan.slots, queues), pool: pool.into() }
    }

    /// The leases.
    pub fn lock(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// [`Pool::acquire`], and the route to the new holder's worker.
    pub fn acquire(
        &self,
        account: &str,
        preferred: Option<Slot>,
        holder: Holder,
        limit: usize,
        now: u64,
    ) -> Result<Granted, Refused> {
        let mut pool = self.lock();
        let granted = pool.acquire(account, preferred, holder, limit, now)?;
        self.routes.set(granted.slot, Some(holder.worker));
        Ok(granted)
    }

    /// [`Pool::release`], and the end of the route.
    pub fn release(&self, slot: Slot, holder: Holder, now: u64) {
        let mut pool = self.lock();
        if pool.release(slot, holder, now) {
            self.routes.set(slot, None);
        }
    }
}

#[cfg(test)]
mod tests;
