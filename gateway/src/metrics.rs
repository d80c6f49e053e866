//! Counters of the workers, and their sum for Prometheus.
//!
//! Each worker owns one [`Counters`] and is its only writer, so an increment is a plain load and
//! store that any thread may read. Nothing here names an account or an address.

mod bond;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bauta_masque::connect_ip::DropReason;
use bauta_masque::connect_udp::UdpDrop;
use bauta_masque_io::DoorStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// A number one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only ever from the owning thread.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts; only ever from the owning thread.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Sets; only ever from the owning thread.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Count {
    /// Adds from any thread.
    pub fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Subtracts from any thread.
    pub fn sub_shared(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }
}

/// The kinds of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CONNECT-IP.
    Ip,
    /// CONNECT-UDP.
    Udp,
    /// CONNECT.
    Tcp,
}

/// Labels of [`Kind`], in order.
const KINDS: [&str; 3] = ["connect-ip", "connect-udp", "connect-tcp"];

/// Why a packet went no further, beside what the sessions themselves decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Dropped {
    /// For an address nobody holds.
    NoSession,
    /// Beyond the account's rate.
    Rate,
    /// The client's connection is slower than what arrives for it.
    QueueFull,
    /// Larger than the path to the client carries; answered with Packet Too Big where there is one.
    TooLarge,
    /// The TUN or the target's socket took no more.
    Blocked,
    /// A datagram for a stream that is none, or takes none.
    NoStream,
    /// A sibling worker's queue was full.
    HandOver,
}

/// Labels of [`Dropped`], in order.
const DROPS: [&str; 7] =
    ["no_session", "rate", "queue_full", "too_large", "blocked", "no_stream", "hand_over"];

/// What became of the frames that reached a worker's receive rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Frames {
    /// Taken by the worker.
    Received,
    /// Of those, not a datagram to act on.
    Refused,
    /// Dropped for want of memory.
    NoMemory,
    /// Dropped because the worker was too slow.
    RingFull,
    /// Descriptors that made no sense.
    Invalid,
}

impl Frames {
    /// Labels, in order.
    pub const LABELS: [&str; 5] = ["received", "refused", "no_memory", "ring_full", "invalid"];
}

/// Labels of [`DoorStats`], in the order of [`Counters::door`].
const DOOR: [&str; 5] = ["retry", "dropped", "garbage", "timed_out", "filtered"];

/// What one worker counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// QUIC connections, or TCP connections, in being.
    pub connections: Count,
    /// And ever made.
    pub connections_total: Count,
    /// Requests to the website over HTTP/1.1, HTTP/2 and HTTP/3.
    pub requests: [Count; 3],
    /// Tunnels in being, by [`Kind`].
    pub tunnels: [Count; 3],
    /// Tunnels refused to account holders.
    pub refused: Count,
    /// Packets from clients to the Internet, by [`Kind`]; TCP counts none.
    pub up_packets: [Count; 3],
    /// Their bytes.
    pub up_bytes: [Count; 3],
    /// Packets from the Internet to clients.
    pub down_packets: [Count; 3],
    /// Their bytes.
    pub down_bytes: [Count; 3],
    /// Packets dropped, by [`Dropped`].
    pub drops: [Count; DROPS.len()],
    /// Packets CONNECT-IP sessions dropped, by [`DropReason::index`].
    pub ip_drops: [Count; DropReason::COUNT],
    /// Datagrams CONNECT-UDP sessions dropped, by [`UdpDrop::index`].
    pub udp_drops: [Count; UdpDrop::ALL.len()],
    /// Packets the TUN did not take or give, set from its own count.
    pub tun_drops: Count,
    /// UDP datagrams that reached the wrong worker and were handed over.
    pub foreign: Count,
    /// Packets that the TUN gave the wrong worker and were handed over.
    pub strays: Count,
    /// Receive rings in being, set from what there is.
    pub rings: Count,
    /// Their frames, by [`Frames`], set from their own count once a second.
    pub frames: [Count; Frames::LABELS.len()],
    /// What was done to first Initials, set from the endpoint's own count once a second.
    pub door: [Count; DOOR.len()],
    /// 1 while a filter turns most of them away.
    pub filtering: Count,
    /// What the bonds of CONNECT-IP sessions did.
    pub bond: bond::BondCounters,
}

impl Counters {
    /// A packet went up.
    #[inline]
    pub fn up(&self, kind: Kind, bytes: usize) {
        self.up_packets[kind as usize].add(1);
        self.up_bytes[kind as usize].add(bytes as u64);
    }

    /// A packet went down.
    #[inline]
    pub fn down(&self, kind: Kind, bytes: usize) {
        self.down_packets[kind as usize].add(1);
        self.down_bytes[kind as usize].add(bytes as u64);
    }

    /// Takes over what the endpoint counts of those who ask for a connection.
    pub fn at_the_door(&self, stats: DoorStats) {
        let DoorStats { retries, dropped, garbage, timed_out, filtered, filtering } = stats;
        let fates = [retries, dropped, garbage, timed_out, filtered];
        for (count, n) in self.door.iter().zip(fates) {
            count.set(n);
        }
        self.filtering.set(filtering.into());
    }

    /// A packet went no further.
    #[inline]
    pub fn dropped(&self, why: Dropped) {
        self.drops[why as usize].add(1);
    }
}

/// Where the certificate stands; times are seconds since 1970, 0: none.
#[derive(Debug, Default)]
pub struct CertificateGauges {
    /// When it ends.
    pub valid_until: Count,
    /// When the next order is due.
    pub next_order: Count,
    /// Certificates fetched or read anew.
    pub renewals: Count,
    /// Orders and readings that failed.
    pub failures: Count,
}

/// Everybody's counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// One a worker.
    pub workers: Arc<[Arc<Counters>]>,
    /// Of HTTP/1.1 and HTTP/2, where many threads may write.
    pub tcp: Arc<Counters>,
    /// Of the certificate.
    pub certificate: Arc<CertificateGauges>,
}

impl Metrics {
    /// Zeros, for so many workers.
    pub fn new(workers: usize) -> Self {
        let workers = (0..workers).map(|_| Arc::new(Counters::default())).collect();
        Self { workers, tcp: Arc::default(), certificate: Arc::default() }
    }

    /// A sum over everybody.
    pub fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.workers.iter().map(|counters| of(counters)).sum::<u64>() + of(&self.tcp)
    }

    /// The text Prometheus reads (OpenMetrics).
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("bauta");
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        counter: bool,
        label: &'static str,
        rows: &[(&'static str, u64)],
    ) -> fmt::Result {
        let kind = if counter {
            ConstCounter::new(0u64).metric_type()
        } else {
            ConstGauge::new(0i64).metric_type()
        };
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (value, n) in rows {
            let labels = [(label, *value)];
            let row = family.encode_family(&labels)?;
            if counter {
                ConstCounter::new(*n).encode(row)?;
            } else {
                ConstGauge::new(*n as i64).encode(row)?;
            }
        }
        Ok(())
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        let quic = |of: fn(&Counters) -> u64| self.workers.iter().map(|c| of(c)).sum::<u64>();
        let by_kind = |of: fn(&Counters) -> &[Count; 3]| {
            let sum = |i: usize| self.sum(|counters| of(counters)[i].get());
            [(KINDS[0], sum(0)), (KINDS[1], sum(1)), (KINDS[2], sum(2))]
        };
        let transport = |of: fn(&Counters) -> u64| [("quic", quic(of)), ("tcp", of(&self.tcp))];
        let rows = transport(|c| c.connections.get());
        self.family(e, ("connections", "Connections in being"), false, "transport", &rows)?;
        let rows = transport(|c| c.connections_total.get());
        self.family(e, ("connections_made", "Connections made"), true, "transport", &rows)?;
        let sum = |i: usize| self.sum(|c| c.requests[i].get());
        let rows = [("1.1", sum(0)), ("2", sum(1)), ("3", sum(2))];
        self.family(e, ("requests", "Requests to the website"), true, "http", &rows)?;
        let rows = by_kind(|c| &c.tunnels);
        self.family(e, ("tunnels", "Tunnels in being"), false, "kind", &rows)?;
        let rows = [("account", self.sum(|c| c.refused.get()))];
        self.family(e, ("tunnels_refused", "Tunnels refused to accounts"), true, "to", &rows)?;
        let rows = by_kind(|c| &c.up_packets);
        self.family(e, ("up_packets", "Packets from clients"), true, "kind", &rows)?;
        let rows = by_kind(|c| &c.up_bytes);
        self.family(e, ("up_bytes", "Bytes from clients"), true, "kind", &rows)?;
        let rows = by_kind(|c| &c.down_packets);
        self.family(e, ("down_packets", "Packets to clients"), true, "kind", &rows)?;
        let rows = by_kind(|c| &c.down_bytes);
        self.family(e, ("down_bytes", "Bytes to clients"), true, "kind", &rows)?;
        let dropped = |i: usize| self.sum(|c| c.drops[i].get());
        let rows: Vec<_> = DROPS.iter().enumerate().map(|(i, why)| (*why, dropped(i))).collect();
        self.family(e, ("dropped_packets", "Packets that went no further"), true, "why", &rows)?;
        let dropped = |why: &DropReason| self.sum(|c| c.ip_drops[why.index()].get());
        let rows: Vec<_> = DropReason::ALL.iter().map(|w| (w.as_str(), dropped(w))).collect();
        let about = ("connect_ip_dropped_packets", "Packets CONNECT-IP sessions dropped");
        self.family(e, about, true, "why", &rows)?;
        let dropped = |why: &UdpDrop| self.sum(|c| c.udp_drops[why.index()].get());
        let rows: Vec<_> = UdpDrop::ALL.iter().map(|w| (w.as_str(), dropped(w))).collect();
        let about = ("connect_udp_dropped_packets", "Datagrams CONNECT-UDP sessions dropped");
        self.family(e, about, true, "why", &rows)?;
        let rows = [("tun", self.sum(|c| c.tun_drops.get()))];
        self.family(e, ("tun_dropped_packets", "Packets the TUN lost"), true, "by", &rows)?;
        let certificate = &self.certificate;
        let rows = [
            ("valid_until", certificate.valid_until.get()),
            ("next_order", certificate.next_order.get()),
        ];
        let about = ("certificate_seconds", "Times of the certificate, since 1970; 0 is none");
        self.family(e, about, false, "of", &rows)?;
        let rows = [("done", certificate.renewals.get()), ("failed", certificate.failures.get())];
        let about = ("certificate_renewals", "Certificates fetched or read, and failures");
        self.family(e, about, true, "what", &rows)?;
        let rows = [("cid", self.sum(|c| c.foreign.get())), ("tun", self.sum(|c| c.strays.get()))];
        let about = ("handed_over", "Datagrams and packets for sibling workers");
        self.family(e, about, true, "by", &rows)?;
        let rows = [("xdp", self.sum(|c| c.rings.get()))];
        self.family(e, ("rings", "Receive rings in being"), false, "by", &rows)?;
        let frames = |i: usize| self.sum(|c| c.frames[i].get());
        let rows: Vec<_> =
            Frames::LABELS.iter().enumerate().map(|(i, fate)| (*fate, frames(i))).collect();
        self.family(e, ("xdp_frames", "Frames in receive rings"), true, "fate", &rows)?;
        let door = |i: usize| self.sum(|c| c.door[i].get());
        let rows: Vec<_> = DOOR.iter().enumerate().map(|(i, fate)| (*fate, door(i))).collect();
        let about = ("door", "First Initials that began no connection, or none that lasted");
        self.family(e, about, true, "fate", &rows)?;
        let rows = [("socket", self.sum(|c| c.filtering.get()))];
        let about =
            ("door_filters", "Filters in place, because more Initials come than are answered");
        self.family(e, about, false, "on", &rows)?;
        self.bonds(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_reads_the_sum_of_all_workers() {
        let metrics = Metrics::new(2);
        metrics.workers[0].up(Kind::Ip, 100);
        metrics.workers[1].up(Kind::Ip, 50);
        metrics.workers[1].dropped(Dropped::HandOver);
        metrics.tcp.requests[1].add_shared(3);
        metrics.workers[0].connections.add(2);
        let (retries, dropped, garbage, timed_out) = (5, 6, 7, 8);
        let (filtered, filtering) = (9, true);
        let stats = DoorStats { retries, dropped, garbage, timed_out, filtered, filtering };
        metrics.workers[0].at_the_door(stats);
        metrics.workers[1].at_the_door(stats);
        let text = metrics.encode().unwrap();
        for line in [
            "bauta_up_packets_total{kind=\"connect-ip\"} 2\n",
            "bauta_up_bytes_total{kind=\"connect-ip\"} 150\n",
            "bauta_dropped_packets_total{why=\"hand_over\"} 1\n",
            "bauta_requests_total{http=\"2\"} 3\n",
            "bauta_door_total{fate=\"retry\"} 10\n",
            "bauta_door_total{fate=\"timed_out\"} 16\n",
            "bauta_door_total{fate=\"filtered\"} 18\n",
            "bauta_door_filters{on=\"socket\"} 2\n",
            "bauta_connections{transport=\"quic\"} 2\n",
            "# EOF\n",
        ] {
            assert!(text.contains(line), "{line} is missing from\n{text}");
        }
    }

    #[test]
    fn every_reason_has_its_own_label() {
        assert_eq!(DROPS[Dropped::HandOver as usize], "hand_over");
        assert_eq!(DROPS[Dropped::NoSession as usize], "no_session");
        assert_eq!(DROPS[Dropped::Blocked as usize], "blocked");
        assert_eq!(KINDS[Kind::Tcp as usize], "connect-tcp");
        assert_eq!(Frames::LABELS[Frames::NoMemory as usize], "no_memory");
        assert_eq!(Frames::LABELS[Frames::Invalid as usize], "invalid");
    }
}
