//! Packets from the TUN to the sessions they are for.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use bauta_masque_io::DatagramBuf;
use bauta_masque_io::tcp::road::is_road;

use super::{Message, Worker};
use crate::metrics::Dropped;

/// Batches taken from the TUN in one turn, so that the socket has its own.
const BATCHES: usize = 4;

/// Packets for siblings, gathered over one batch.
pub(super) type Elsewhere = BTreeMap<usize, Vec<Vec<u8>>>;

impl Worker {
    /// Takes a bounded number of batches from the TUN. Each leaves before the next is read, while it
    /// is in the processor's cache.
    pub(super) fn read_tun(&mut self, now: Instant) {
        let Some(mut batch) = self.tun_batch.take() else { return };
        for _ in 0..BATCHES {
            let Some(tun) = &mut self.streams.ctx.tun else { break };
            match tun.try_recv(&mut batch) {
                Ok(_) => {
                    let mut elsewhere = Elsewhere::new();
                    batch.drain().for_each(|packet| self.deliver(packet, &mut elsewhere));
                    self.hand_over(elsewhere);
                    self.endpoint.flush(now, &mut self.streams);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::error!(%error, "the TUN is gone; CONNECT-IP carries nothing");
                    self.streams.ctx.tun = None;
                }
            }
        }
        self.tun_batch = Some(batch);
    }

    /// Takes packets from a sibling's TUN queue.
    pub(super) fn take_over(&mut self, packets: Vec<Vec<u8>>) {
        let mut elsewhere = Elsewhere::new();
        for packet in packets {
            self.deliver(DatagramBuf::copy_of(&packet), &mut elsewhere);
        }
        self.hand_over(elsewhere);
    }

    fn hand_over(&self, elsewhere: Elsewhere) {
        for (worker, packets) in elsewhere {
            self.streams.ctx.counters.strays.add(packets.len() as u64);
            self.streams.ctx.send(worker, Message::Packets(packets));
        }
    }

    /// Gives a packet to its session, here or on a sibling. Who has the lease now decides, not who
    /// had it when the packet was handed over: sessions move, and nothing is lost on the way.
    fn deliver(&mut self, packet: DatagramBuf, elsewhere: &mut Elsewhere) {
        let ctx = &mut self.streams.ctx;
        let pool = ctx.shared.pool.as_ref();
        let slot =
            pool.and_then(|pool| Some((pool, pool.plan.slot(destination(packet.as_ref())?)?)));
        let Some((pool, slot)) = slot else { return ctx.counters.dropped(Dropped::NoSession) };
        match pool.routes.worker(slot) {
            Some(worker) if worker != ctx.id => {
                return elsewhere.entry(worker).or_default().push(packet.as_ref().to_vec());
            }
            _ => {}
        }
        let key = ctx.by_slot.get(&slot).copied();
        if let Some(key) = key
            && is_road(key.0)
            && let Some(road) = self.roads.get_mut(&key.0)
        {
            return self.streams.deliver(road, key.1, packet);
        }
        let Some((key, conn)) = key.and_then(|key| Some((key, self.endpoint.get(key.0)?))) else {
            return ctx.counters.dropped(Dropped::NoSession);
        };
        self.streams.deliver(conn, key.1, packet);
        self.endpoint.touch(key.0);
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
