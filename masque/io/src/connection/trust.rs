//! What a connection may send before its peer has shown that it is an account holder.

use super::Connection;

/// Bytes in flight that a connection begins with: the initial window (RFC 9002 section 7.2), ten
/// datagrams.
const INITIAL_WINDOW: u64 = 12_000;
/// What a lost byte takes from what acknowledged ones have given: above one in sixteen the window
/// does not grow.
const SHRINK: u64 = 16;
/// Packets let through after a timer has fired: probes (RFC 9002 section 6.2.4).
const PROBES: u8 = 2;

/// Whether a connection's congestion window is out of the way, and may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// An ordinary controller.
    Ordinary,
    /// No window of quiche's, and no tunnel yet: slow start, imposed from outside. So many probes
    /// may pass beside it.
    Unproven(u8),
    /// No window of quiche's: a tunnel's own rate control has taken over.
    Tunnel,
}

impl Connection {
    /// The connection was accepted with its congestion window out of the way.
    pub(crate) fn without_window(&mut self) {
        self.trust = Trust::Unproven(0);
    }

    /// An account holder's tunnel is on this connection: from now on its own rate control governs.
    pub fn trust(&mut self) {
        if self.trust != Trust::Ordinary {
            self.trust = Trust::Tunnel;
        }
    }

    /// Whether quiche's congestion window is out of the way, so that a rate control has to govern.
    pub fn is_without_window(&self) -> bool {
        self.trust != Trust::Ordinary
    }

    /// Which of the peer's `workers` the connection id it has given us leads to (see
    /// [`crate::steer`]).
    pub fn worker(&self, workers: usize) -> usize {
        crate::steer::worker_of(self.quic.destination_id().as_ref(), workers)
    }

    /// A timer of quiche's has fired.
    pub(crate) fn timer_fired(&mut self) {
        self.held = false;
        if let Trust::Unproven(probes) = &mut self.trust {
            *probes = PROBES;
        }
    }

    /// Whether quiche may write another packet.
    pub(crate) fn may_write(&mut self) -> bool {
        if self.held {
            return false;
        }
        let Trust::Unproven(probes) = &mut self.trust else { return true };
        let stats = self.quic.stats();
        let in_flight = stats.sent_bytes.saturating_sub(stats.acked_bytes + stats.lost_bytes);
        let grown = stats.acked_bytes.saturating_sub(SHRINK * stats.lost_bytes);
        if in_flight < INITIAL_WINDOW + grown {
            return true;
        }
        let probe = *probes > 0;
        *probes = probes.saturating_sub(1);
        probe
    }
}
