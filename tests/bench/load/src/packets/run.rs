//! The near end: one measurement.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bauta_masque_io::clock;
use serde_json::json;

use super::flow::{Incoming, Outgoing};
use super::port::{Port, wait};
use super::wire::{Message, Plan};

/// How long the far end has for its first word.
const PATIENCE: Duration = Duration::from_secs(10);
/// Silence after which a greeting is repeated.
const AGAIN: Duration = Duration::from_millis(200);
/// What is not counted of a measurement: its beginning.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long to wait when there is nothing to do.
const IDLE: Duration = Duration::from_millis(5);

/// Which way the load goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From here to the far end.
    Up,
    /// From the far end to here.
    Down,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Packets that arrived after the warm-up.
    pub packets: u64,
    /// Seconds in which they did.
    pub seconds: f64,
    /// UDP payload of each, bytes.
    pub size: usize,
    /// Share of all packets sent that never arrived.
    pub lost: f64,
    /// Packets that arrived, the warm-up's included.
    pub total: u64,
}

impl Report {
    /// One line.
    pub fn to_json(self) -> serde_json::Value {
        let per_second = self.packets as f64 / self.seconds;
        json!({
            "packets": self.packets,
            "seconds": self.seconds,
            "packets_per_second": per_second,
            "mbit_per_second": per_second * self.size as f64 * 8.0 / 1e6,
            "lost": self.lost,
            "total": self.total,
        })
    }
}

/// A flow of either direction at this end.
struct Flow {
    port: Port,
    out: Option<Outgoing>,
    incoming: Incoming,
}

impl Flow {
    /// (highest number and one, packets arrived)
    fn counts(&self) -> (u64, u64) {
        match &self.out {
            Some(out) => {
                let (sent, received, _) = out.counts();
                (sent, received)
            }
            None => (self.incoming.next, self.incoming.received),
        }
    }

    /// Takes one batch; whether there was one.
    fn take(&mut self, target: SocketAddr, now: Instant) -> Result<bool> {
        let Self { port, out, incoming } = self;
        let before = incoming.received;
        let trains = port.recv(|_, train| {
            for packet in train {
                match (Message::parse(packet), &mut *out) {
                    (Some(Message::Data { number }), None) => incoming.data(number),
                    (Some(Message::Ack { next, received }), Some(out)) => {
                        out.acknowledged(next, received, now);
                    }
                    _ => {}
                }
            }
            false
        })?;
        if incoming.received > before {
            let Incoming { next, received } = *incoming;
            port.say(target, Message::Ack { next, received });
        }
        Ok(trains > 0)
    }

    /// Sends a train if it may; whether it did.
    fn give(&mut self, target: SocketAddr, now: Instant) -> Result<bool> {
        let Some(out) = &mut self.out else { return Ok(false) };
        let Some((first, count)) = out.train(now) else { return Ok(false) };
        let plan = out.plan();
        let sent = self.port.send(target, (first, count), plan.size, plan.single)?;
        out.sent(sent);
        Ok(sent > 0)
    }
}

/// Sends `flows` flows to, or has them sent by, the far end at `target`, and counts.
///
/// # Errors
/// A far end that does not answer, or what the sockets say.
pub fn run(target: SocketAddr, direction: Direction, plan: Plan, flows: usize) -> Result<Report> {
    let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let mut flows = (0..flows.max(1))
        .map(|_| greet(Port::bind(any).context("a UDP socket")?, target, direction, plan))
        .collect::<Result<Vec<_>>>()?;
    let start = clock::now();
    for flow in &mut flows {
        flow.out = flow.out.take().map(|out| Outgoing::new(out.plan(), start));
    }
    let length = Duration::from_millis(plan.millis);
    let total = |flows: &[Flow]| -> u64 { flows.iter().map(|f| f.counts().1).sum() };
    let (mut since, mut before) = (start, 0);
    let mut warm = false;
    loop {
        let now = clock::now();
        if now >= start + length {
            break;
        }
        if !warm && now >= start + WARM_UP.min(length / 2) {
            (warm, since, before) = (true, now, total(&flows));
        }
        let mut busy = false;
        for flow in &mut flows {
            busy |= flow.take(target, now)?;
            busy |= flow.give(target, now)?;
        }
        if !busy {
            let ports: Vec<&Port> = flows.iter().map(|f| &f.port).collect();
            wait(&ports, IDLE)?;
        }
    }
    let (sent, arrived) =
        flows.iter().map(Flow::counts).fold((0, 0), |a, f| (a.0 + f.0, a.1 + f.1));
    // What is under way now is not lost.
    let under_way = if direction == Direction::Up { plan.window * flows.len() as u64 } else { 0 };
    let lost = sent.saturating_sub(arrived + under_way) as f64 / sent.max(1) as f64;
    let seconds = (clock::now() - since).as_secs_f64();
    Ok(Report { packets: arrived - before, seconds, size: plan.size, lost, total: arrived })
}

/// Says what is wanted until the far end answers.
fn greet(mut port: Port, target: SocketAddr, direction: Direction, plan: Plan) -> Result<Flow> {
    let start = clock::now();
    let hello = match direction {
        Direction::Up => Message::Hello(Plan { millis: 0, ..plan }),
        Direction::Down => Message::Hello(plan),
    };
    while clock::now() < start + PATIENCE {
        port.say(target, hello);
        wait(&[&port], AGAIN)?;
        let mut incoming = Incoming::default();
        let mut heard = false;
        port.recv(|_, train| {
            for packet in train {
                heard |= true;
                if let Some(Message::Data { number }) = Message::parse(packet) {
                    incoming.data(number);
                }
            }
            false
        })?;
        if heard {
            let out = (direction == Direction::Up).then(|| Outgoing::new(plan, start));
            return Ok(Flow { port, out, incoming });
        }
    }
    bail!("{target} does not answer: does `bauta-packets serve` run there, and is the way open?")
}
