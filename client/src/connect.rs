//! Making a connection to one of several addresses: the next one is tried while the last is still silent
//! (RFC 8305 §5), and the first to answer wins.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bauta_masque_io::bonded::Connections;
use bauta_masque_io::mark::MarkKey;
use bauta_masque_io::{Closed, ConnId, Endpoint, QuicConfig, cid, clock, steer};

use crate::stage::{Failure, Stage};

/// How long an address has for itself before the next is tried beside it.
const STAGGER: Duration = Duration::from_millis(300);
/// How long all of them have together.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The same for one of many attempts: QUIC repeats itself ever more seldom, a fresh attempt is heard at once.
pub const RETRY: Duration = Duration::from_secs(3);
/// How long path MTU discovery may take before a connection is used with what is known.
pub const MTU_PATIENCE: Duration = Duration::from_secs(1);
/// H3_REQUEST_CANCELLED would need a request: H3_NO_ERROR (RFC 9114 §8.1).
const NO_ERROR: u64 = 0x100;

/// An attempt under way.
#[derive(Debug)]
pub struct Connector {
    name: String,
    waiting: VecDeque<SocketAddr>,
    live: Vec<(ConnId, SocketAddr)>,
    next: Instant,
    patience: Duration,
    deadline: Instant,
    failure: Option<Failure>,
    mark: Option<Mark>,
}

/// What tells the gateway that a connection is to carry a tunnel (see [`bauta_masque_io::mark`]).
#[derive(Clone, Debug)]
pub struct Mark {
    /// The token's.
    pub key: MarkKey,
    /// Which of how many workers of the gateway the connection is to reach, where that matters.
    pub worker: Option<(usize, usize)>,
}

impl Mark {
    fn draw(&self) -> [u8; steer::CID_LEN] {
        let suits = |id: &[u8]| self.worker.is_none_or(|(n, of)| steer::worker_of(id, of) == n);
        self.key.draw(clock::unix_time(), suits, cid::random)
    }
}

impl Connector {
    /// Prepares to try `candidates` in order, as `name`, for no longer than `patience`.
    pub fn new(
        now: Instant,
        candidates: &[SocketAddr],
        name: &str,
        patience: Duration,
    ) -> Connector {
        Connector {
            name: name.into(),
            waiting: candidates.iter().copied().collect(),
            live: Vec::new(),
            next: now,
            patience,
            deadline: now + patience,
            failure: None,
            mark: None,
        }
    }

    /// The connections are to carry a tunnel.
    #[must_use]
    pub fn marked(self, mark: Option<Mark>) -> Connector {
        Connector { mark, ..self }
    }

    /// When [`Connector::advance`] is due.
    pub fn timeout(&self) -> Instant {
        if self.waiting.is_empty() { self.deadline } else { self.next.min(self.deadline) }
    }

    /// Begins what is due. An error is the end of it.
    pub fn advance(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        quic: &mut QuicConfig,
    ) -> Result<(), Failure> {
        while now >= self.next
            && let Some(addr) = self.waiting.pop_front()
        {
            let mark = self.mark.as_ref().map(Mark::draw);
            match endpoint.connect_marked(
                addr,
                &self.name,
                quic,
                mark.as_ref().map(<[u8; 8]>::as_slice),
            ) {
                Ok(id) => {
                    self.live.push((id, addr));
                    self.next = now + STAGGER;
                }
                Err(e) => {
                    let failure =
                        Failure::new(Stage::Handshake, e, "is the name in the link right?");
                    self.failure = Some(failure);
                }
            }
        }
        let exhausted = self.live.is_empty() && self.waiting.is_empty();
        if now < self.deadline && !exhausted {
            return Ok(());
        }
        let peers: Vec<String> = self.live.iter().map(|(_, addr)| addr.to_string()).collect();
        self.abandon(endpoint, None);
        Err(self.failure.take().unwrap_or_else(|| Failure::silent(peers.join(", "), self.patience)))
    }

    /// Whether `id` is an attempt of this connector.
    pub fn owns(&self, id: ConnId) -> bool {
        self.live.iter().any(|(live, _)| *live == id)
    }

    /// `id` has won: the others are given up. Returns its address.
    pub fn won(&mut self, id: ConnId, endpoint: &mut impl Connections) -> Option<SocketAddr> {
        self.abandon(endpoint, Some(id));
        self.waiting.clear();
        self.live.iter().find(|(live, _)| *live == id).map(|(_, addr)| *addr)
    }

    /// An attempt has ended; the next address is tried at once.
    pub fn closed(&mut self, id: ConnId, closed: &Closed, now: Instant) {
        let Some(at) = self.live.iter().position(|(live, _)| *live == id) else { return };
        let (_, addr) = self.live.remove(at);
        self.next = now;
        let failure = explain(closed, addr, &self.name);
        // A refused certificate says more than the silence of another address.
        if self.failure.as_ref().is_none_or(|f| f.stage != Stage::Certificate) {
            self.failure = Some(failure);
        }
    }

    /// Gives up all attempts but one.
    pub fn abandon(&self, endpoint: &mut impl Connections, but: Option<ConnId>) {
        for &(id, _) in self.live.iter().filter(|(id, _)| Some(*id) != but) {
            if let Some(conn) = endpoint.get(id) {
                conn.close(NO_ERROR, b"");
                endpoint.touch(id);
            }
        }
    }
}

/// What the end of a connection means to a person.
pub fn explain(closed: &Closed, peer: SocketAddr, name: &str) -> Failure {
    /// CRYPTO_ERROR (RFC 9001 §4.8): 0x100 and the TLS alert.
    const CRYPTO: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;
    let alert = (!closed.app && CRYPTO.contains(&closed.code)).then_some(closed.code & 0xff);
    match alert {
        _ if closed.timed_out => Failure::silent(peer, PATIENCE),
        // Ours about the gateway's certificate (RFC 8446 §6.2).
        Some(alert @ (42..=46 | 48 | 49 | 51)) if !closed.by_peer => {
            let why = match alert {
                44 => "it is revoked",
                45 => "it is expired or not yet valid",
                48 | 51 => "its authority is not trusted here",
                _ => "the name, the dates or the authority are wrong",
            };
            Failure::certificate(name, why)
        }
        Some(120) => Failure::new(
            Stage::Handshake,
            format_args!("{peer} does not speak HTTP/3"),
            "is the port in the link the gateway's?",
        ),
        Some(112) => Failure::new(
            Stage::Handshake,
            format_args!("{peer} does not know the name {name}"),
            "is `sni` in the link right?",
        ),
        Some(alert) => Failure::new(
            Stage::Handshake,
            format_args!("TLS with {peer} failed with alert {alert}"),
            "is it a Bauta gateway, and is the clock of this machine right?",
        ),
        None => Failure::new(
            Stage::Handshake,
            format_args!(
                "{} closed the connection with code {:#x}{}{}",
                if closed.by_peer { "the gateway" } else { "this client" },
                closed.code,
                if closed.reason.is_empty() { "" } else { ": " },
                closed.reason
            ),
            "the gateway may be restarting; its log says more",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u64, by_peer: bool) -> Closed {
        Closed { code, by_peer, ..Closed::default() }
    }

    fn stage(closed: &Closed) -> Stage {
        explain(closed, "192.0.2.1:443".parse().unwrap(), "vpn.example").stage
    }

    #[test]
    fn a_refused_certificate_is_told_from_other_failures() {
        assert_eq!(stage(&closed(0x100 + 48, false)), Stage::Certificate);
        assert_eq!(stage(&closed(0x100 + 48, true)), Stage::Handshake);
        assert_eq!(stage(&closed(0x100 + 120, true)), Stage::Handshake);
        assert_eq!(stage(&Closed { timed_out: true, ..Closed::default() }), Stage::Handshake);
    }

    #[test]
    fn a_refused_certificate_is_not_hidden_by_a_silent_address() {
        let now = clock::now();
        let mut connector = Connector::new(now, &[], "vpn.example", PATIENCE);
        connector.live =
            vec![(1, "192.0.2.1:443".parse().unwrap()), (2, "192.0.2.2:443".parse().unwrap())];
        connector.closed(1, &closed(0x100 + 45, false), now);
        connector.closed(2, &Closed { timed_out: true, ..Closed::default() }, now);
        assert_eq!(connector.failure.unwrap().stage, Stage::Certificate);
    }
}
