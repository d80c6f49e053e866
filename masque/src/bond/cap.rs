//! A declared rate that everything sent keeps below, over all paths together.

/// Bytes around an HTTP Datagram Payload, reckoned highly, so that the rate is kept over IPv6 too: IP
/// 40, UDP 8, QUIC header and tag about 28, frame and quarter stream id 4.
const WIRE: u64 = 80;

/// So much may be sent at once after a pause, seconds of the rate, and bytes at least.
const BURST: (f64, f64) = (0.002, 6_000.0);

/// What is used of the rate: QUIC's own acknowledgements of the other direction, which are not seen
/// here, take the rest.
const SHARE: f64 = 0.98;

/// A bucket of tokens.
#[derive(Debug)]
pub(super) struct Cap {
    /// Bytes a second.
    rate: f64,
    tokens: f64,
    at: u64,
}

impl Cap {
    /// `bits` a second on the wire.
    pub(super) fn new(bits: u64) -> Self {
        Self { rate: (bits as f64 / 8.0 * SHARE).max(1.0), tokens: 0.0, at: 0 }
    }

    /// Whether something may be sent now, microseconds.
    pub(super) fn is_open(&mut self, now: u64) -> bool {
        let age = now.saturating_sub(self.at) as f64 / 1e6;
        self.tokens = (self.tokens + self.rate * age).min((self.rate * BURST.0).max(BURST.1));
        self.at = now;
        self.tokens >= 0.0
    }

    /// An HTTP Datagram Payload of `len` bytes goes out.
    pub(super) fn spend(&mut self, len: usize) {
        self.tokens -= (len as u64 + WIRE) as f64;
    }

    /// From when on something may be sent, microseconds.
    pub(super) fn open_at(&self) -> u64 {
        self.at + ((-self.tokens).max(0.0) / self.rate * 1e6).ceil() as u64
    }
}
