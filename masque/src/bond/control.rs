//! Capsules, and paths that come and go.

use std::time::Instant;

use super::capsules::{self, BondCapsule, CloseCode, PathState, Token};
use super::path::Path;
use super::{Bond, BondError, Down, Event, MAX_PATHS, PathId, QuicStats, Role};

/// The most events that wait to be polled; more are dropped, the oldest first.
const MAX_EVENTS: usize = 64;
/// The most loss that is believed of a path before anything was sent on it by number.
const MAX_EXPECTED: f64 = 0.25;

impl Bond {
    /// Adds a path whose connection carries HTTP Datagram Payloads of `max_payload` bytes. Ids
    /// above [`MAX_PATHS`] and ids in use are refused with `false`.
    pub fn add_path(&mut self, now: Instant, id: PathId, max_payload: usize) -> bool {
        let now = self.micros(now);
        let room = self.paths.len() < usize::from(self.config.agreed.paths.max(1));
        if usize::from(id) >= MAX_PATHS || !room || self.path(id).is_some() {
            return false;
        }
        let limit = self.limit();
        self.paths.push(Path::new(id, max_payload, limit, now));
        self.number(now);
        if self.paths.len() > 1 {
            self.paths.iter_mut().for_each(|p| p.rate.hurry());
        }
        true
    }

    /// What no path need try to exceed: a declared cap, bytes a second.
    pub(super) fn limit(&self) -> Option<f64> {
        self.config.cap.map(|bits| bits as f64 / 8.0)
    }

    /// Takes a path out for good; what it carried goes over the others. Its id may be used again.
    pub fn remove_path(&mut self, now: Instant, id: PathId) {
        self.micros(now);
        self.store.lose_path(id, 0);
        self.paths.retain(|p| p.id != id);
    }

    /// The operating system or QUIC says that the path carries nothing now.
    pub fn path_down(&mut self, now: Instant, id: PathId) {
        let now = self.micros(now);
        if let Some(path) = self.path(id) {
            path.held_down = true;
        }
        self.lose_path(now, id, Down::Link);
    }

    pub(super) fn lose_path(&mut self, now: u64, id: PathId, why: Down) {
        let last = !self.has_fallback();
        let Some(path) = self.path(id).filter(|p| p.alive) else { return };
        if why == Down::Peer && last {
            // It may have given up the others at the same time.
            return;
        }
        path.give_up(now, why);
        let carried = path.rate.delivery().min(path.rate.rate());
        let heard = path.heard_of();
        self.store.lose_path(id, heard);
        if let Some(at) = self.best(Some(id)) {
            self.paths[at].rate.step_in(carried * 1.5);
        }
        self.push_event(Event::PathDown(id, why));
        if why == Down::Link {
            self.tell_status(id, PathState::Down);
        }
    }

    /// Tells of the paths that have been silent for long enough to be sure.
    pub(super) fn tell_of_the_dead(&mut self, now: u64) {
        while let Some(path) = self.paths.iter_mut().find(|p| p.tell_at.is_some_and(|at| at <= now))
        {
            path.tell_at = None;
            let id = path.id;
            self.tell_status(id, PathState::Down);
        }
    }

    /// What a silent path was in doubt of has arrived after all, and nothing else is overdue.
    pub(super) fn reconsider(&mut self, now: u64, id: PathId) {
        let (interval, clock) = (self.interval(), self.peer_clock);
        let Some(path) = self.path(id) else { return };
        let told = path.tell_at.is_none();
        if path.reconsider(now, interval, clock) {
            self.push_event(Event::PathUp(id));
            if told {
                self.tell_status(id, PathState::Active);
            }
        }
    }

    /// It may carry packets again.
    pub fn path_up(&mut self, now: Instant, id: PathId) {
        let now = self.micros(now);
        if let Some(path) = self.path(id) {
            path.held_down = false;
        }
        self.revive_path(now, id);
    }

    pub(super) fn revive_path(&mut self, now: u64, id: PathId) {
        let Some(path) = self.path(id).filter(|p| !p.alive && !p.held_down) else { return };
        path.alive = true;
        (path.progress_at, path.alive_since) = (now, now);
        let told = path.tell_at.take().is_none();
        self.push_event(Event::PathUp(id));
        if told {
            self.tell_status(id, PathState::Active);
        }
    }

    /// Keeps a path warm only, or lets it carry packets again; the peer is told.
    pub fn set_standby(&mut self, id: PathId, standby: bool) {
        let Some(path) = self.path(id).filter(|p| p.standby != standby) else { return };
        path.standby = standby;
        self.tell_status(id, if standby { PathState::Standby } else { PathState::Active });
    }

    /// Tells by another path that lives, if there is one.
    fn tell_status(&mut self, path: PathId, state: PathState) {
        let serial = &mut self.statuses[usize::from(path) % MAX_PATHS].0;
        *serial += 1;
        let status = BondCapsule::Status { serial: *serial, path, state };
        let by = self.paths.iter().find(|p| p.alive && p.id != path).map_or(path, |p| p.id);
        self.push_capsule(by, &status);
    }

    /// The longest HTTP Datagram Payload of the path's connection has changed.
    pub fn set_max_payload(&mut self, id: PathId, max_payload: usize) {
        if let Some(path) = self.path(id) {
            path.max_payload = max_payload;
        }
    }

    /// Whether the path's connection takes no datagrams for now (its queue is full).
    pub fn set_blocked(&mut self, id: PathId, blocked: bool) {
        if let Some(path) = self.path(id) {
            path.blocked = blocked;
        }
    }

    /// What QUIC counted on a path.
    pub fn handle_path_stats(&mut self, now: Instant, id: PathId, stats: QuicStats) {
        let now = self.micros(now);
        let Some(path) = self.path(id) else { return };
        let before = path.note_quic(stats);
        if before.sent == 0 && stats.lost > 0 {
            let share = (stats.lost as f64 / stats.sent.max(1) as f64).min(MAX_EXPECTED);
            path.rate.expect_loss(share);
            self.expect_losses(now, share);
        }
        self.watch_plain(now, &before, &stats);
        self.watch_deafness(now, id, &before);
        self.consider_plain(now);
    }

    /// A capsule of one of [`capsules::TYPES`] that came on the path's request stream.
    pub fn handle_capsule(
        &mut self,
        now: Instant,
        _path: PathId,
        kind: u64,
        value: &[u8],
    ) -> Result<(), BondError> {
        let now = self.micros(now);
        let capsule = capsules::parse(kind, value)?;
        let at_client = self.config.role == Role::Client;
        let context = self.config.agreed.context;
        match capsule {
            BondCapsule::Assign(id) if !at_client && id == context => {
                self.push_capsule(0, &BondCapsule::Ack(id));
                self.begin(now);
            }
            BondCapsule::Ack(id) if at_client && id == context => self.begin(now),
            BondCapsule::Close(code) => self.end(code),
            BondCapsule::Token(token) if at_client => self.push_event(Event::Token(token)),
            BondCapsule::Status { serial, path, state } => self.status(now, serial, path, state),
            _ => return Err(BondError::Unexpected(kind)),
        }
        Ok(())
    }

    fn begin(&mut self, now: u64) {
        if !self.ready && !self.closed {
            (self.ready, self.listening) = (true, true);
            self.push_event(Event::Ready);
            self.number(now);
        }
    }

    fn status(&mut self, now: u64, serial: u64, id: PathId, state: PathState) {
        let seen = &mut self.statuses[usize::from(id) % MAX_PATHS].1;
        if serial <= *seen || self.path(id).is_none() {
            return;
        }
        self.statuses[usize::from(id) % MAX_PATHS].1 = serial;
        match state {
            PathState::Down => self.lose_path(now, id, Down::Peer),
            PathState::Active | PathState::Standby => {
                if let Some(path) = self.path(id) {
                    path.standby = state == PathState::Standby;
                }
                self.push_event(Event::Joined(id));
            }
        }
    }

    /// Gateway: a path joined; the client learns that it may use it.
    pub fn confirm_path(&mut self, id: PathId) {
        let serial = &mut self.statuses[usize::from(id) % MAX_PATHS].0;
        *serial += 1;
        let status = BondCapsule::Status { serial: *serial, path: id, state: PathState::Active };
        self.push_capsule(id, &status);
    }

    /// The next capsule, whole, for the request stream of a path.
    pub fn poll_capsule(&mut self) -> Option<(PathId, bytes::Bytes)> {
        self.capsules.pop_front()
    }

    /// Gateway: sends the client a token, made by [`issue`](super::tokens::Tokens::issue), with
    /// which a further connection may join.
    pub fn send_token(&mut self, token: Token) {
        self.push_capsule(0, &BondCapsule::Token(token));
    }

    /// Closes the bond; the tunnel itself goes on with Context ID 0.
    pub fn close(&mut self, code: CloseCode) {
        if !self.closed {
            self.push_capsule(0, &BondCapsule::Close(code));
            self.end(code);
        }
    }

    /// Nothing is sent or taken by number any more; what waits for others waits no longer.
    fn end(&mut self, code: CloseCode) {
        if !self.closed {
            (self.closed, self.ready, self.listening, self.numbered) = (true, false, false, false);
            self.reorder.flush(&mut self.pool);
            self.store.settle(u64::MAX, &mut self.pool);
            self.push_event(Event::Closed(code));
        }
    }

    pub(super) fn push_event(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(super) fn push_capsule(&mut self, path: PathId, capsule: &BondCapsule) {
        let mut out = Vec::new();
        capsules::encode(capsule, &mut out);
        self.capsules.push_back((path, out.into()));
    }
}
