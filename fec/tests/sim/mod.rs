//! A sender, a lossy path and a receiver in virtual time: codec, loss meter and controller at work.

#![allow(dead_code, unreachable_pub, reason = "shared by a test and an example")]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bauta_fec::control::{Class, Controller, Settings, Traffic};
use bauta_fec::{Codec, Decoder, Encoder, Header};

/// Splitmix64.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What a path does to packets: Gilbert–Elliott with mean burst `burst`, independent at 1.
#[derive(Clone)]
pub struct Channel {
    pub loss: f64,
    pub burst: f64,
    random: Random,
    bad: bool,
}

impl Channel {
    pub fn new(loss: f64, burst: f64, seed: u64) -> Self {
        Self { loss, burst, random: Random(seed), bad: false }
    }

    pub fn loses(&mut self) -> bool {
        let flip = self.random.unit();
        self.bad = if self.burst <= 1.0 {
            flip < self.loss
        } else if self.bad {
            flip >= 1.0 / self.burst
        } else {
            flip < self.loss / (1.0 - self.loss) / self.burst
        };
        self.bad
    }
}

/// One experiment.
#[derive(Clone)]
pub struct Scenario {
    pub rtt: Duration,
    /// Source packets a second.
    pub packets: f64,
    pub seconds: f64,
    /// Other packets a second on the same path, whose fates are known too.
    pub background: f64,
    pub settings: Settings,
    pub channel: Channel,
    /// Loss from a moment on, in seconds; the channel's own before.
    pub switches: Vec<(f64, f64)>,
}

/// What came of it, without the first second, in which the controller learns.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Share that the path lost.
    pub loss: f64,
    /// Share that never came out.
    pub residual: f64,
    /// Packets of repair, copies and retransmissions per source packet.
    pub overhead: f64,
    /// Added delay in order of sending, in milliseconds: median, 99 %, 99.9 %, worst.
    pub delay: [f64; 4],
}

enum Sent {
    Source(u64),
    Repair(Header, Vec<u8>),
}

struct Report {
    /// Fates of the packets from `from` on.
    from: u64,
    fates: Vec<bool>,
    /// What to retransmit, and how much more repair is asked for.
    missing: Vec<u64>,
    stalled: Option<(u64, usize)>,
}

/// How long a receiver waits for a packet before it goes on without it.
const PATIENCE: Duration = Duration::from_millis(1500);

pub fn run(scenario: &Scenario, epoch: Instant) -> Outcome {
    let settings = scenario.settings;
    let (mut controller, mut channel) = (Controller::new(settings), scenario.channel.clone());
    let (mut encoder, mut decoder): (Box<dyn Encoder>, Box<dyn Decoder>) =
        (Codec::Slc.encoder(), Codec::Slc.decoder());
    let step = Duration::from_secs_f64(1.0 / scenario.packets);
    let one_way = scenario.rtt / 2;
    let report_every = (scenario.rtt / 8).max(Duration::from_millis(5));
    let count = (scenario.seconds * scenario.packets) as u64;
    let traffic = Traffic {
        rtt: scenario.rtt,
        packets: scenario.packets,
        waiting: Duration::ZERO,
        worst: 0.0,
    };

    let mut now = epoch;
    let mut wire: VecDeque<(Instant, Sent)> = VecDeque::new();
    let mut timed: Vec<(Instant, u64)> = Vec::new();
    let mut reports: VecDeque<(Instant, Report)> = VecDeque::new();
    let mut arrived = vec![false; count as usize];
    let mut out: Vec<Option<Instant>> = vec![None; count as usize];
    let (mut reported, mut next_report, mut highest) = (0u64, epoch, 0u64);
    let mut resent: BTreeMap<u64, Instant> = BTreeMap::new();
    let (mut extra, mut lost, mut measured_extra) = (0usize, 0usize, 0usize);
    let warm = (scenario.packets as u64).min(count / 2);
    let mut ask_again = epoch;

    let total = scenario.packets + scenario.background;
    let tick_length = Duration::from_secs_f64(1.0 / total);
    let (mut tick, mut background) = (0u64, Vec::new());
    let end = epoch + Duration::from_secs_f64(scenario.seconds + 2.0);
    while now < end {
        now += tick_length;
        if let Some(switch) =
            scenario.switches.iter().rev().find(|s| s.0 <= (now - epoch).as_secs_f64())
        {
            channel.loss = switch.1;
        }
        let transmit = |sent: Sent, wire: &mut VecDeque<_>, channel: &mut Channel| {
            let gone = channel.loses();
            if !gone {
                wire.push_back((now + one_way, sent));
            }
            gone
        };
        // The sender hears of what was lost.
        while reports.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, report)) = reports.pop_front() else { break };
            report.fates.iter().for_each(|arrived| controller.record(now, !arrived));
            let _ = report.from;
            let plan = controller.update(now, traffic);
            if let Some(plan) = plan {
                encoder.set_cover(plan.cover);
                let stalled = report.stalled.filter(|_| settings.class != Class::Bulk);
                if let Some((seq, deficit)) = stalled {
                    for _ in 0..deficit {
                        if let Some((header, symbol)) = encoder.top_up(seq) {
                            let sent = Sent::Repair(header, symbol.to_vec());
                            transmit(sent, &mut wire, &mut channel);
                            extra += 1;
                        }
                    }
                }
            }
            if settings.class == Class::Bulk || plan.is_some_and(|plan| plan.retransmit) {
                for seq in report.missing {
                    let due =
                        resent.get(&seq).is_none_or(|at| now - *at > scenario.rtt + report_every);
                    if due {
                        let twice = resent.insert(seq, now).is_some();
                        for _ in 0..1 + usize::from(twice) {
                            transmit(Sent::Source(seq), &mut wire, &mut channel);
                            extra += 1;
                        }
                    }
                }
            }
        }
        // It sends a packet, and the repair that is due.
        if tick < count && now >= epoch + step * (tick as u32 + 1) {
            let _ = encoder.push(tick, &tick.to_be_bytes());
            let gone = transmit(Sent::Source(tick), &mut wire, &mut channel);
            let seq = tick;
            tick += 1;
            if seq == warm {
                measured_extra = extra;
            }
            lost += usize::from(gone && seq >= warm);
            if let Some(plan) = controller.plan().filter(|plan| plan.copies > 0) {
                timed.extend((1..=plan.copies as u32).map(|i| (now + plan.spacing * i, seq)));
            }
            for _ in 0..controller.on_source() {
                if let Some((header, symbol)) = encoder.repair() {
                    transmit(Sent::Repair(header, symbol.to_vec()), &mut wire, &mut channel);
                    extra += 1;
                }
            }
        } else if scenario.background > 0.0 {
            background.push(!channel.loses());
        }
        for at in (0..timed.len()).rev() {
            if timed[at].0 <= now {
                let (_, seq) = timed.swap_remove(at);
                transmit(Sent::Source(seq), &mut wire, &mut channel);
                extra += 1;
            }
        }
        // The receiver takes what arrives.
        while wire.front().is_some_and(|(at, _)| *at <= now) {
            match wire.pop_front() {
                Some((at, Sent::Source(seq))) => {
                    highest = highest.max(seq + 1);
                    let late = out[seq as usize].is_some();
                    arrived[seq as usize] |= !late;
                    out[seq as usize].get_or_insert(at);
                    let _ = decoder.source(seq, &seq.to_be_bytes());
                }
                Some((at, Sent::Repair(header, symbol))) => {
                    // Late packets' fates are known when repair that covers them comes.
                    highest = highest.max(header.base + u64::from(header.cover));
                    let _ = decoder.repair(&header, &symbol);
                    while let Some((seq, packet)) = decoder.poll() {
                        assert_eq!(packet, seq.to_be_bytes());
                        out[seq as usize].get_or_insert(at);
                    }
                }
                None => break,
            }
            while let Some((seq, _)) = decoder.poll() {
                out[seq as usize].get_or_insert(now);
            }
        }
        if now >= next_report {
            next_report = now + report_every;
            let from = reported;
            let mut fates: Vec<bool> = (from..highest).map(|seq| arrived[seq as usize]).collect();
            fates.append(&mut background);
            reported = highest;
            let horizon = (PATIENCE.as_secs_f64() * scenario.packets) as u64;
            let missing: Vec<u64> = (highest.saturating_sub(horizon)..highest)
                .filter(|seq| out[*seq as usize].is_none())
                .collect();
            let wanted = missing.iter().copied().filter(|seq| decoder.wants(*seq)).collect();
            let sent_at = |seq: u64| epoch + step * (seq as u32 + 1) + one_way;
            let after = settings.budget.mul_f64(0.6);
            let stalled = missing
                .iter()
                .find(|seq| now - sent_at(**seq) < PATIENCE / 4)
                .filter(|seq| now > sent_at(**seq) + after && now >= ask_again)
                .map(|seq| (*seq, decoder.deficit().max(1)));
            if stalled.is_some() {
                ask_again = now + scenario.rtt;
            }
            reports.push_back((now + one_way, Report { from, fates, missing: wanted, stalled }));
        }
    }
    outcome(&out, warm, step, epoch + one_way, lost, extra - measured_extra)
}

fn outcome(
    out: &[Option<Instant>],
    warm: u64,
    step: Duration,
    first: Instant,
    lost: usize,
    extra: usize,
) -> Outcome {
    // A receiver cannot miss what nothing follows: a lost tail is not counted.
    let tail = out.iter().rev().take_while(|at| at.is_none()).count();
    let out = &out[..out.len() - tail];
    let measured = out.len() - warm as usize;
    let mut delays = Vec::with_capacity(measured);
    let (mut released, mut never) = (first, 0usize);
    for (seq, at) in out.iter().enumerate() {
        let expected = first + step * (seq as u32 + 1);
        match at {
            Some(at) => {
                released = released.max(*at);
                if seq >= warm as usize {
                    let late = released.saturating_duration_since(expected);
                    delays.push(late.as_secs_f64() * 1e3);
                }
            }
            None => never += usize::from(seq >= warm as usize),
        }
    }
    delays.sort_by(f64::total_cmp);
    let quantile = |q: f64| delays[((delays.len() as f64 * q) as usize).min(delays.len() - 1)];
    Outcome {
        loss: lost as f64 / measured as f64,
        residual: never as f64 / measured as f64,
        overhead: extra as f64 / measured as f64,
        delay: [0.5, 0.99, 0.999, 1.0].map(quantile),
    }
}
