//! What the streams of a worker have in common.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bauta_masque::filter::Policy;
use bauta_masque_io::QuicConfig;
use bauta_masque_io::clock;
use bauta_masque_io::tls::{self, AskingNames, Certified, TicketKey, TlsError, TransportConfig};
use bauta_masque_io::tun::TunLanes;
use bauta_masque_io::udp::RecvBatch;
use bauta_web::Site;
use foldhash::fast::RandomState;
use tokio::sync::mpsc;

use super::pipe::PIECE;
use super::upward::Upward;
use super::{Key, Message, What};
use crate::config::Config;
use crate::metrics::{Counters, Dropped};
use crate::pool::Slot;
use crate::shared::Everything;
use crate::tunnel::ip::bond::Bonds;

/// How tasks reach their worker.
#[derive(Clone)]
pub(crate) struct Told {
    /// News of a stream. Bounded by the tasks: one piece each, and a handful of other things.
    pub(crate) what: mpsc::UnboundedSender<(Key, What)>,
    /// Streams whose task has read something and takes more.
    pub(crate) hungry: mpsc::UnboundedSender<Key>,
}

impl Told {
    /// Both channels.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<(Key, What)>, mpsc::UnboundedReceiver<Key>)
    {
        let (what, what_receiver) = mpsc::unbounded_channel();
        let (hungry, hungry_receiver) = mpsc::unbounded_channel();
        (Self { what, hungry }, what_receiver, hungry_receiver)
    }
}

/// What the streams of a worker have in common.
pub(crate) struct Ctx {
    /// The worker's number.
    pub(crate) id: usize,
    pub(crate) shared: Everything,
    pub(crate) counters: Arc<Counters>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) site: Site,
    pub(crate) tun: Option<TunLanes>,
    pub(crate) told: Told,
    /// Which session has which lease.
    pub(crate) by_slot: HashMap<Slot, Key, RandomState>,
    /// Datagrams on their way to UDP targets.
    pub(crate) up: Upward,
    /// Bonds of CONNECT-IP sessions.
    pub(crate) bonds: Bonds,
    /// The time of this turn.
    pub(crate) now: Instant,
    /// Bytes of a request stream pass through here.
    pub(crate) scratch: Box<[u8]>,
    /// Datagrams of UDP targets pass through here; taken while in use.
    pub(crate) udp_batch: Option<RecvBatch>,
    due: BTreeSet<(Instant, Key)>,
}

impl Ctx {
    pub(super) fn new(
        id: usize,
        shared: Everything,
        site: Site,
        tun: Option<TunLanes>,
        told: Told,
    ) -> Self {
        Self {
            id,
            counters: shared.metrics.workers[id].clone(),
            policy: shared.dialer.policy(),
            shared,
            site,
            tun,
            told,
            by_slot: HashMap::default(),
            up: Upward::default(),
            bonds: Bonds::default(),
            now: clock::now(),
            scratch: vec![0; PIECE].into_boxed_slice(),
            udp_batch: Some(RecvBatch::new()),
            due: BTreeSet::new(),
        }
    }

    /// Tells a worker something, this one included; what finds no room is dropped and counted.
    pub(crate) fn send(&self, worker: usize, message: Message) {
        let mailbox = self.shared.workers.get(worker);
        if mailbox.is_none_or(|mailbox| mailbox.try_send(message).is_err()) {
            self.counters.dropped(Dropped::HandOver);
        }
    }

    /// The lease is no longer this session's.
    pub(crate) fn forget(&mut self, slot: Slot, key: Key) {
        if self.by_slot.get(&slot) == Some(&key) {
            self.by_slot.remove(&slot);
        }
    }

    /// Calls the stream back at `at`.
    pub(crate) fn call_back(&mut self, at: Instant, key: Key) {
        self.due.insert((at, key));
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn take_due(&mut self) -> Option<Key> {
        let (at, key) = *self.due.first()?;
        (at <= self.now).then(|| self.due.pop_first())?;
        Some(key)
    }

    pub(super) fn flush_tun(&mut self) {
        let Some(tun) = &mut self.tun else { return };
        if tun.queued() > 0
            && let Err(error) = tun.flush()
        {
            tracing::error!(%error, "the TUN is gone; CONNECT-IP carries nothing until a restart");
            self.tun = None;
            return;
        }
        let drops = tun.drops();
        self.counters.tun_drops.set(drops.malformed + drops.full + drops.refused);
    }
}

/// What new QUIC connections are accepted with: visitors', and those that are to carry tunnels.
pub(super) fn quic_configs(
    certificate: &Certified,
    tickets: &TicketKey,
    gateway: &Config,
) -> Result<(QuicConfig, Option<QuicConfig>), TlsError> {
    let names = AskingNames::new(&gateway.accounts.certificate_names);
    let config = |transport| tls::quic_asking_config(certificate, tickets, &transport, &names);
    let visitors = config(TransportConfig::server())?;
    let tunnels = gateway
        .tunnel
        .resilience
        .then(|| config(TransportConfig::server().tunnel()))
        .transpose()?;
    Ok((visitors, tunnels))
}
