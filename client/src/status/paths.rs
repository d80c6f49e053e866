//! What `bauta status` tells of the bond: its paths, and what repair has done.

use std::fmt::{self, Write as _};

use bauta_masque::bond::{PathReport, Report};
use serde::{Deserialize, Serialize};

/// One path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Its number in the bond.
    pub id: u8,
    /// The interface; `routed` where the system's routes decide.
    pub interface: String,
    /// `active`, `standby` or `down`.
    pub state: String,
    /// Smoothed round-trip time, milliseconds.
    pub rtt_ms: f64,
    /// Queueing delay on the way to the gateway, milliseconds.
    pub queue_ms: f64,
    /// Loss on the way to the gateway lately, per cent.
    pub loss_percent: f64,
    /// The rate packets are let out at, Mbit/s.
    pub rate_mbit: f64,
    /// The rate the gateway last received at, Mbit/s.
    pub delivery_mbit: f64,
    /// Numbered datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived here.
    pub received: u64,
}

impl Path {
    /// A path of a bond.
    pub fn new(id: u8, interface: &str, report: &PathReport) -> Path {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        let state = match (report.alive, report.standby) {
            (false, _) => "down",
            (true, true) => "standby",
            (true, false) => "active",
        };
        Path {
            id,
            interface: interface.into(),
            state: state.into(),
            rtt_ms: ms(report.rtt),
            queue_ms: ms(report.queue_delay),
            loss_percent: f64::from(report.loss_ppm) / 1e4,
            rate_mbit: report.rate as f64 / 1e6,
            delivery_mbit: report.delivery_rate as f64 / 1e6,
            sent: report.sent,
            received: report.received,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}: rtt {:.1} ms, queue {:.1} ms, loss {:.2} %, rate {:.1} of {:.1} Mbit/s",
            self.id,
            self.interface,
            self.state,
            self.rtt_ms,
            self.queue_ms,
            self.loss_percent,
            self.delivery_mbit,
            self.rate_mbit
        )
    }
}

/// What repair has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Packets sent with a number; others needed none.
    pub numbered: u64,
    /// Packets sent again.
    pub retransmitted: u64,
    /// Packets sent more than once ahead of any loss.
    pub copies: u64,
    /// Repair symbols sent.
    pub sent: u64,
    /// Packets from the gateway that only repair brought back.
    pub used: u64,
    /// Packets from the gateway given up: the residual loss.
    pub residual: u64,
    /// Packets that wait to be sent, now.
    pub queued: u64,
    /// Packets dropped to signal congestion to their senders.
    pub queue_drops: u64,
}

impl From<&Report> for Repair {
    fn from(report: &Report) -> Repair {
        Repair {
            numbered: report.sources_sent,
            retransmitted: report.retransmissions,
            copies: report.copies,
            sent: report.repair_sent,
            used: report.recovered,
            residual: report.given_up,
            queued: report.queued_packets as u64,
            queue_drops: report.queue_drops,
        }
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{} numbered, {} sent again", self.numbered, self.retransmitted);
        let _ = write!(line, ", {} copies, {} repair sent", self.copies, self.sent);
        let _ = write!(line, "; {} repaired here, {} lost for good", self.used, self.residual);
        f.write_str(&line)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_path_reads_well() {
        let report = PathReport {
            alive: true,
            rtt: Duration::from_micros(20_500),
            loss_ppm: 51_000,
            rate: 93_000_000,
            delivery_rate: 88_200_000,
            ..PathReport::default()
        };
        let text = Path::new(1, "wwan0", &report).to_string();
        assert_eq!(
            text,
            "1 wwan0 active: rtt 20.5 ms, queue 0.0 ms, loss 5.10 %, rate 88.2 of 93.0 Mbit/s"
        );
    }
}
