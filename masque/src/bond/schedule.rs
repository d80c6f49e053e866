//! Which path a datagram takes.

use super::path::Path;
use super::{Bond, PathId, Policy};

/// A path this much slower one way than the best is not used to add capacity by itself,
/// microseconds: what it would add is lost to waiting in order.
const MAX_SPREAD: f64 = 150_000.0;

/// Paths that differ by less one way are equally fast, microseconds.
const NEAR: f64 = 2_000.0;

impl Bond {
    /// The path for a datagram behind `backlog` bytes that wait, if one may take it now: the one
    /// by which it arrives first, the wait for its turn included.
    pub(super) fn choose(&mut self, now: u64, backlog: usize) -> Option<usize> {
        if let [path] = &mut self.paths[..] {
            return (!path.blocked && path.is_ready(now)).then_some(0);
        }
        let best = self.level(self.best(None)?);
        if self.paths[best].is_ready(now) && !self.paths[best].blocked {
            return Some(best);
        }
        if matches!(self.config.policy, Policy::Failover | Policy::Redundant) {
            return None;
        }
        let fastest = self.paths[best].delay();
        let rate = self.paths[best].rate.rate().max(1.0);
        let wait =
            self.paths[best].ready_at(now).saturating_sub(now) as f64 + backlog as f64 / rate * 1e6;
        let aggregate = self.config.policy == Policy::Aggregate;
        // What a packet spares the others by not taking the best path, by flow, microseconds.
        let spared = self.paths[best].packet_time() * self.queue.flows().max(1) as f64;
        let reach = if self.repairs() { self.outgoing.reach() } else { 0.0 };
        let missed = |path: &Path| path.rate.loss() * path.srtt;
        let anyway = missed(&self.paths[best]);
        let mut chosen: Option<(usize, f64)> = None;
        for (at, path) in self.paths.iter_mut().enumerate() {
            if at == best || !is_usable(path) || path.standby || !path.is_measured() {
                continue;
            }
            let extra = path.delay() - fastest;
            // Beyond the reach of repair what is lost is sent again, and its flow waits for it.
            let waited = if extra < reach { 0.0 } else { missed(path) - anyway };
            let worth = aggregate || extra <= wait && extra < MAX_SPREAD && waited < spared;
            if worth && path.is_ready(now) && chosen.is_none_or(|(_, least)| extra < least) {
                chosen = Some((at, extra));
            }
        }
        chosen.map(|(at, _)| at)
    }

    /// Of the paths about as fast as the `best` and not known yet, the one with the least on its way:
    /// a flow that grows is to fill all of them at once, not one after the other.
    fn level(&self, best: usize) -> usize {
        let fastest = self.paths[best].delay();
        if self.config.policy != Policy::Auto || !self.paths[best].rate.is_starting() {
            return best;
        }
        let near =
            |p: &Path| is_usable(p) && !p.standby && p.is_measured() && p.delay() - fastest < NEAR;
        let paths = self.paths.iter().enumerate().filter(|(_, p)| near(p) && p.rate.is_starting());
        paths.min_by_key(|(_, p)| p.outstanding()).map_or(best, |(at, _)| at)
    }

    /// The path with the least delay, of those that carry packets; a standby one if none does.
    /// `but` is left out.
    pub(super) fn best(&self, but: Option<PathId>) -> Option<usize> {
        let usable = |p: &Path| p.alive && Some(p.id) != but;
        let key = |p: &Path| {
            let delay = if p.is_measured() { p.delay() } else { f64::MAX };
            (p.standby, delay)
        };
        self.paths
            .iter()
            .enumerate()
            .filter(|(_, p)| usable(p))
            .min_by(|(_, a), (_, b)| {
                let (a, b) = (key(a), key(b));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
            })
            .map(|(at, _)| at)
    }

    /// By how much the delays of the paths in use differ, microseconds, as far as it is worth
    /// waiting for.
    pub(super) fn spread(&self) -> f64 {
        let usable = |p: &&Path| p.alive && !p.standby && p.is_measured();
        let delays = || self.paths.iter().filter(usable).map(Path::delay);
        let least = delays().fold(f64::INFINITY, f64::min);
        delays().map(|d| d - least).filter(|d| *d < MAX_SPREAD).fold(0.0, f64::max)
    }
}

fn is_usable(path: &Path) -> bool {
    path.alive && !path.blocked
}
