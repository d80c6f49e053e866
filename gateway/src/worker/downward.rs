//! Packets from the TUN to the sessions they are for.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::{Message, Worker};
use crate::metrics::Dropped;

/// Packets for siblings, gathered over one batch.
pub(super) type Elsewhere = BTreeMap<usize, Vec<Vec<u8>>>;

impl Worker {
    /// Takes one batch from the TUN.
    pub(super) fn read_tun(&mut self) {
        let Some(tun) = &mut self.streams.ctx.tun else { return };
        let Some(mut batch) = self.tun_batch.take() else { return };
        match tun.try_recv(&mut batch) {
            Ok(_) => {
                let mut elsewhere = Elsewhere::new();
                batch.for_each(|packet| self.deliver(packet, Some(&mut elsewhere)));
                for (worker, packets) in elsewhere {
                    self.streams.ctx.send(worker, Message::Packets(packets));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::error!(%error, "the TUN is gone; CONNECT-IP carries nothing");
                self.streams.ctx.tun = None;
            }
        }
        self.tun_batch = Some(batch);
    }

    /// Gives a packet to its session here, or, from a TUN queue of our own, to a sibling's.
    pub(super) fn deliver(&mut self, packet: &mut [u8], elsewhere: Option<&mut Elsewhere>) {
        let ctx = &mut self.streams.ctx;
        let pool = ctx.shared.pool.as_ref();
        let slot = pool.and_then(|pool| Some((pool, pool.plan.slot(destination(packet)?)?)));
        let Some((pool, slot)) = slot else { return ctx.counters.dropped(Dropped::NoSession) };
        if let Some(key) = ctx.by_slot.get(&slot).copied() {
            if let Some(conn) = self.endpoint.get(key.0) {
                self.streams.deliver(conn, key.1, packet);
                self.endpoint.touch(key.0);
            }
            return;
        }
        match (pool.routes.worker(slot), elsewhere) {
            (Some(worker), Some(elsewhere)) if worker != ctx.id => {
                elsewhere.entry(worker).or_default().push(packet.to_vec());
            }
            _ => ctx.counters.dropped(Dropped::NoSession),
        }
    }
}

/// Where a packet goes to; whether it is whole, the session finds out.
#[inline]
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?)),
        6 => Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?)),
        _ => None,
    }
}
