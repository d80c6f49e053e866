//! What the bonds of CONNECT-IP sessions count, in the direction of the clients.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{Count, Metrics};

/// What the bonds of one worker did.
#[derive(Debug, Default)]
pub struct BondCounters {
    /// Packets sent with a number.
    pub numbered: Count,
    /// Packets sent again.
    pub retransmitted: Count,
    /// Packets sent more than once ahead of any loss.
    pub copies: Count,
    /// Repair symbols sent.
    pub repair: Count,
    /// Bytes of all these.
    pub repair_bytes: Count,
    /// Packets from clients that only repair brought back.
    pub recovered: Count,
    /// Packets from clients that were there already.
    pub duplicates: Count,
    /// Packets from clients given up: the residual loss.
    pub lost: Count,
    /// Packets dropped to signal congestion, before they were numbered.
    pub queue_drops: Count,
    /// Datagrams refused: malformed, forged or too late.
    pub refused: Count,
    /// Connections that joined a bond.
    pub joined: Count,
    /// And those that could not.
    pub refused_joins: Count,
}

impl Metrics {
    /// The families of the bonds.
    pub(super) fn bonds(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sum = |of: fn(&BondCounters) -> &Count| self.sum(|c| of(&c.bond).get());
        let rows = [
            ("numbered", sum(|b| &b.numbered)),
            ("retransmitted", sum(|b| &b.retransmitted)),
            ("copy", sum(|b| &b.copies)),
            ("repair", sum(|b| &b.repair)),
        ];
        let about = ("bond_sent", "Datagrams bonds sent to clients");
        self.family(e, about, true, "kind", &rows)?;
        let rows = [("extra", sum(|b| &b.repair_bytes))];
        let about = ("bond_repair_bytes", "Bytes of copies, retransmissions and repair");
        self.family(e, about, true, "kind", &rows)?;
        let rows = [
            ("recovered", sum(|b| &b.recovered)),
            ("duplicate", sum(|b| &b.duplicates)),
            ("lost", sum(|b| &b.lost)),
            ("refused", sum(|b| &b.refused)),
        ];
        let about = ("bond_received", "What became of clients' datagrams in bonds");
        self.family(e, about, true, "as", &rows)?;
        let rows = [("signal", sum(|b| &b.queue_drops))];
        let about = ("bond_queue_drops", "Packets dropped to signal congestion");
        self.family(e, about, true, "why", &rows)?;
        let rows = [("joined", sum(|b| &b.joined)), ("refused", sum(|b| &b.refused_joins))];
        self.family(e, ("bond_joins", "Connections that asked to join a bond"), true, "as", &rows)
    }
}
