//! What runs inside (or beside) the tunnel: TCP with CUBIC (RFC 9438), SACK and HyStart, and
//! constant streams of UDP. Both keep to what a packet-level model needs.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a full data packet, IP header included.
pub const PACKET: usize = 1_400;
const ACK: usize = 120;
/// Packets that fit the receiver's window: half of the 6 MB that Linux grows its buffer to.
const WINDOW: usize = 2_150;
/// Round trips at the begin of a round by which HyStart judges it.
const SAMPLES: u32 = 8;

fn header(flow: u16, len: usize, protocol: u8, reply: bool) -> Vec<u8> {
    let mut p = vec![0; len];
    p[0] = 0x45;
    p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    (p[8], p[9]) = (64, protocol);
    p[12..16].copy_from_slice(&[10, 0, 0, if reply { 2 } else { 1 }]);
    p[16..20].copy_from_slice(&[10, 0, 0, if reply { 1 } else { 2 }]);
    p[20..22].copy_from_slice(&flow.to_be_bytes());
    p
}

/// The flow a packet belongs to.
pub fn flow_of(p: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([p[20], p[21]]))
}

fn put(p: &mut [u8], at: usize, v: u64) {
    p[at..at + 8].copy_from_slice(&v.to_be_bytes());
}

fn get(p: &[u8], at: usize) -> u64 {
    p[at..at + 8].try_into().map_or(0, u64::from_be_bytes)
}

pub enum Flow {
    Tcp(Box<Tcp>),
    Udp(Udp),
}

pub struct Tcp {
    id: u16,
    pub cwnd: f64,
    pub ssthresh: f64,
    next: u64,
    /// Packet -> (transmission, when).
    flight: BTreeMap<u64, (u64, u64)>,
    by_transmission: BTreeMap<u64, u64>,
    lost: BTreeSet<u64>,
    transmission: u64,
    highest_acked: u64,
    recover: u64,
    w_max: f64,
    epoch: Option<f64>,
    k: f64,
    srtt: f64,
    rttvar: f64,
    min_rtt: f64,
    round_end: u64,
    /// The least of the first round trips of a round, and how many it has seen.
    round_min: f64,
    round_seen: u32,
    rto_at: u64,
    backoff: u32,
    /// Window and threshold before a timeout, and the last transmission then (RFC 4015).
    undo: Option<(f64, f64, u64)>,
    // The receiver.
    cumulative: u64,
    beyond: BTreeSet<u64>,
    unacked: Vec<u64>,
    echo: u64,
    ack_at: u64,
    pub delivered: u64,
    pub retransmitted: u64,
    pub timeouts: u64,
    pub undone: u64,
    pub cuts: u64,
    pub limit: Option<u64>,
    pub finished_at: Option<u64>,
}

impl Tcp {
    pub fn new(id: u16, limit: Option<u64>) -> Self {
        Self {
            id,
            cwnd: 10.0,
            ssthresh: f64::INFINITY,
            next: 0,
            flight: BTreeMap::new(),
            by_transmission: BTreeMap::new(),
            lost: BTreeSet::new(),
            transmission: 0,
            highest_acked: 0,
            recover: 0,
            w_max: 0.0,
            epoch: None,
            k: 0.0,
            srtt: 0.0,
            rttvar: 0.0,
            min_rtt: f64::INFINITY,
            round_end: 0,
            round_min: f64::INFINITY,
            round_seen: 0,
            rto_at: u64::MAX,
            backoff: 0,
            undo: None,
            echo: 0,
            cumulative: 0,
            beyond: BTreeSet::new(),
            unacked: Vec::new(),
            ack_at: u64::MAX,
            delivered: 0,
            retransmitted: 0,
            timeouts: 0,
            undone: 0,
            cuts: 0,
            limit,
            finished_at: None,
        }
    }

    pub fn state(&self) -> String {
        format!(
            "cwnd {:.0} flight {} lost {} srtt {:.0} ms",
            self.cwnd,
            self.flight.len(),
            self.lost.len(),
            self.srtt / 1e3
        )
    }

    fn rto(&self) -> f64 {
        let base =
            if self.srtt == 0.0 { 1e6 } else { self.srtt + (4.0 * self.rttvar).max(200_000.0) };
        base * f64::from(1u32 << self.backoff.min(6))
    }

    /// The next data packet, if the window has room.
    pub fn poll(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.flight.len() as f64 >= self.cwnd.floor() || self.flight.len() >= WINDOW {
            return None;
        }
        let number = match self.lost.pop_first() {
            Some(number) => {
                self.retransmitted += 1;
                number
            }
            None if self.limit.is_some_and(|limit| self.next >= limit) => return None,
            None => {
                self.next += 1;
                self.next - 1
            }
        };
        if self.flight.is_empty() {
            self.rto_at = now + self.rto() as u64;
        }
        self.transmission += 1;
        self.flight.insert(number, (self.transmission, now));
        self.by_transmission.insert(self.transmission, number);
        let mut p = header(self.id, PACKET, 6, false);
        put(&mut p, 40, number);
        put(&mut p, 48, self.transmission);
        Some(p)
    }

    pub fn deadline(&self) -> u64 {
        let rto = if self.flight.is_empty() { u64::MAX } else { self.rto_at };
        rto.min(self.ack_at)
    }

    /// A timer: an acknowledgement that waited, or a timeout.
    pub fn on_timer(&mut self, now: u64) -> Option<Vec<u8>> {
        if !self.flight.is_empty() && now >= self.rto_at {
            self.timeouts += 1;
            self.undo.get_or_insert((self.cwnd, self.ssthresh, self.transmission));
            self.ssthresh = (self.flight.len() as f64 * 0.7).max(2.0);
            self.w_max = self.cwnd;
            (self.cwnd, self.epoch) = (1.0, None);
            self.lost.extend(self.flight.keys());
            self.flight.clear();
            self.by_transmission.clear();
            self.backoff += 1;
            self.recover = self.transmission;
            self.rto_at = now + self.rto() as u64;
        }
        (now >= self.ack_at).then(|| self.ack())
    }

    fn ack(&mut self) -> Vec<u8> {
        self.ack_at = u64::MAX;
        let mut p = header(self.id, ACK, 6, true);
        put(&mut p, 40, self.cumulative);
        p[48] = self.unacked.len() as u8;
        put(&mut p, 112, self.echo);
        for (i, number) in self.unacked.drain(..).enumerate() {
            put(&mut p, 49 + 8 * i, number);
        }
        p
    }

    /// At the receiver.
    pub fn on_data(&mut self, now: u64, p: &[u8]) -> Option<Vec<u8>> {
        let number = get(p, 40);
        let known = number < self.cumulative || !self.beyond.insert(number);
        self.delivered += if known { 0 } else { p.len() as u64 };
        let before = self.cumulative;
        while self.beyond.remove(&self.cumulative) {
            self.cumulative += 1;
        }
        if self.limit.is_some_and(|limit| self.cumulative >= limit) {
            self.finished_at.get_or_insert(now);
        }
        self.unacked.push(number);
        self.echo = get(p, 48);
        if self.ack_at == u64::MAX {
            self.ack_at = now + 40_000;
        }
        let odd = self.cumulative == before || !self.beyond.is_empty();
        (self.unacked.len() >= 2 || odd).then(|| self.ack())
    }

    /// At the sender.
    pub fn on_ack(&mut self, now: u64, p: &[u8]) {
        let cumulative = get(p, 40);
        let mut acked = 0u32;

        let mut rtt = None;
        let listed = (0..usize::from(p[48])).map(|i| get(p, 49 + 8 * i));
        let below: Vec<u64> = self.flight.range(..cumulative).map(|(n, _)| *n).collect();
        for number in listed.chain(below) {
            self.lost.remove(&number);
            if let Some((transmission, at)) = self.flight.remove(&number) {
                self.by_transmission.remove(&transmission);
                self.highest_acked = self.highest_acked.max(transmission);
                rtt = Some((now - at) as f64);
                acked += 1;
            }
        }
        let stale: Vec<u64> = self.lost.range(..cumulative).copied().collect();
        for number in stale {
            self.lost.remove(&number);
        }
        if acked == 0 {
            return;
        }
        self.backoff = 0;
        if let Some((cwnd, ssthresh, last)) = self.undo.take()
            && get(p, 112) <= last
        {
            (self.cwnd, self.ssthresh) = (cwnd, ssthresh);
            self.undone += 1;
        }
        if let Some(rtt) = rtt {
            if self.srtt == 0.0 {
                (self.srtt, self.rttvar) = (rtt, rtt / 2.0);
            }
            self.rttvar += ((rtt - self.srtt).abs() - self.rttvar) / 4.0;
            self.srtt += (rtt - self.srtt) / 8.0;
            self.min_rtt = self.min_rtt.min(rtt);
            self.round_seen += 1;
            if self.round_seen <= SAMPLES {
                self.round_min = self.round_min.min(rtt);
            }
        }
        self.rto_at = now + self.rto() as u64;
        let mut lost = false;
        while let Some((&transmission, &number)) = self.by_transmission.first_key_value() {
            if transmission + 3 > self.highest_acked {
                break;
            }
            self.by_transmission.remove(&transmission);
            self.flight.remove(&number);
            self.lost.insert(number);
            lost |= transmission > self.recover;
        }
        if lost {
            self.cuts += 1;
            self.recover = self.transmission;
            self.w_max = if self.cwnd < self.w_max { self.cwnd * 0.85 } else { self.cwnd };
            self.cwnd = (self.cwnd * 0.7).max(2.0);
            (self.ssthresh, self.epoch) = (self.cwnd, None);
        } else if self.highest_acked > self.recover
            && self.flight.len() as f64 + 3.0 + f64::from(acked) >= self.cwnd * 0.8
        {
            self.grow(now as f64 / 1e6, acked);
        }
    }

    fn grow(&mut self, now: f64, acked: u32) {
        if self.cwnd < self.ssthresh {
            self.cwnd += f64::from(acked);
            // As Linux has it.
            let late = self.min_rtt + (self.min_rtt / 8.0).clamp(4_000.0, 16_000.0);
            if self.cwnd > 16.0 && self.round_seen >= SAMPLES && self.round_min > late {
                self.ssthresh = self.cwnd;
            }
            if self.highest_acked >= self.round_end {
                (self.round_min, self.round_seen) = (f64::INFINITY, 0);
                self.round_end = self.transmission;
            }
            return;
        }
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.k = ((self.w_max - self.cwnd).max(0.0) / 0.4).cbrt();
            self.w_max = self.w_max.max(self.cwnd);
            now
        });
        let t = now - epoch + self.min_rtt / 1e6;
        let target = self.w_max + 0.4 * (t - self.k).powi(3);
        let reno = self.w_max * 0.7 + 0.529 * (now - epoch) / (self.srtt / 1e6);
        let target = target.max(reno).clamp(self.cwnd, 1.5 * self.cwnd);
        self.cwnd += ((target - self.cwnd) / self.cwnd * f64::from(acked))
            .max(0.01 * f64::from(acked) / self.cwnd);
    }
}

pub struct Udp {
    id: u16,
    len: usize,
    /// Microseconds between packets.
    gap: f64,
    due: f64,
    pub sent: u64,
    pub received: u64,
    pub bytes: u64,
    last: Option<u64>,
    pub disordered: u64,
    /// Delays, microseconds.
    pub delays: Vec<u64>,
    /// The longest silence between two packets, and its end, microseconds.
    pub longest_gap: (u64, u64),
    last_at: Option<u64>,
    seen: BTreeSet<u64>,
    pub doubles: u64,
}

impl Udp {
    /// `rate` in packets a second.
    pub fn new(id: u16, len: usize, rate: f64) -> Self {
        Self {
            id,
            len,
            gap: 1e6 / rate,
            due: 0.0,
            sent: 0,
            received: 0,
            bytes: 0,
            last: None,
            disordered: 0,
            delays: Vec::new(),
            longest_gap: (0, 0),
            last_at: None,
            seen: BTreeSet::new(),
            doubles: 0,
        }
    }

    pub fn deadline(&self) -> u64 {
        self.due as u64
    }

    pub fn poll(&mut self, now: u64) -> Option<Vec<u8>> {
        if now < self.due as u64 {
            return None;
        }
        self.due = (self.due + self.gap).max(now as f64 - 2_000.0);
        let mut p = header(self.id, self.len, 17, false);
        put(&mut p, 40, self.sent);
        put(&mut p, 48, now);
        self.sent += 1;
        Some(p)
    }

    pub fn on_data(&mut self, now: u64, p: &[u8]) {
        let number = get(p, 40);
        if !self.seen.insert(number) {
            self.doubles += 1;
            return;
        }
        self.received += 1;
        self.bytes += p.len() as u64;
        self.disordered += u64::from(self.last.is_some_and(|last| number < last));
        self.last = self.last.max(Some(number));
        self.delays.push(now.saturating_sub(get(p, 48)));
        if let Some(last) = self.last_at.replace(now)
            && now - last > self.longest_gap.0
        {
            self.longest_gap = (now - last, now);
        }
    }

    /// The `share` quantile of the delays above `base`, ms, of what was received after the first
    /// `skip` packets.
    pub fn added(&self, share: f64, base: f64, skip: usize) -> f64 {
        let mut delays: Vec<u64> = self.delays.iter().skip(skip).copied().collect();
        delays.sort_unstable();
        let at = ((delays.len() as f64 * share) as usize).min(delays.len().saturating_sub(1));
        delays.get(at).map_or(0.0, |d| *d as f64 / 1e3 - base)
    }
}
