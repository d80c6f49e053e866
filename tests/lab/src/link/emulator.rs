//! Real packets over the modelled link: two TUN devices, a thread for each direction.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;

use super::parse::ParseError;
use super::spec::{Direction, LinkPair, LinkSpec};
use super::stats::Stats;
use super::worker::{Shared, Worker, lock};
use crate::clock::{now_ns, poll_until};
use crate::error::{Context, LabError, Result};
use crate::netns::Netns;
use crate::{names, sys};

/// The MTUs a device may have.
const MTU_RANGE: std::ops::RangeInclusive<usize> = 68..=65_535;
/// Packets the kernel may hold for the emulator's thread before it drops them.
const TUN_QUEUE: usize = 10_000;
/// How long the threads may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// One end of an emulated link: a TUN device in a namespace.
#[derive(Debug, Clone)]
pub struct End {
    netns: Netns,
    device: String,
    addresses: Vec<String>,
}

impl End {
    /// A device of this name in this namespace, without addresses.
    #[must_use]
    pub fn new(netns: &Netns, device: &str) -> Self {
        Self { netns: netns.clone(), device: device.into(), addresses: Vec::new() }
    }

    /// Adds an address in iproute2's words: `10.1.0.1/24`, `10.1.0.1 peer 10.1.0.2`.
    #[must_use]
    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(address.into());
        self
    }

    fn open(&self, mtu: usize) -> Result<Arc<OwnedFd>> {
        let Self { netns, device, addresses } = self;
        names::check_device(device)?;
        let tun = netns.enter(|| sys::open_tun(device))?.attempting(|| {
            format!("make TUN device {device} in {} (needs /dev/net/tun and root)", netns.name())
        })?;
        // Without a link-local address the device sends nothing of its own accord, and packet
        // numbers are those of the test's traffic. A kernel without IPv6 refuses, rightly.
        let _ = netns.ip(&format!("link set dev {device} addrgenmode none"));
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            netns.ip(&format!("address add {address} dev {device}{nodad}"))?;
        }
        netns.ip(&format!("link set dev {device} mtu {mtu} txqueuelen {TUN_QUEUE} up"))?;
        Ok(Arc::new(tun))
    }

    /// Packets the kernel dropped because the emulator's thread was too slow to take them.
    fn missed(&self) -> u64 {
        let line = self.netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
        let Ok(Ok(table)) = line else { return 0 };
        let row = table.lines().find_map(|line| {
            let (name, counters) = line.split_once(':')?;
            (name.trim() == self.device).then_some(counters)
        });
        // Eight receive counters, then bytes, packets, errors and drops of transmission.
        row.and_then(|row| row.split_whitespace().nth(11)?.parse().ok()).unwrap_or(0)
    }
}

/// A running link. Dropping it removes both devices.
#[derive(Debug)]
pub struct Emulator {
    ends: [End; 2],
    /// What each end's kernel had dropped when the counters began.
    missed_before: Mutex<[u64; 2]>,
    up: Side,
    down: Side,
}

struct Side {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Side({})", self.shared.spec())
    }
}

/// The counters of both directions.
#[derive(Debug, Clone, Serialize)]
pub struct EmulatorStats {
    /// From A to B.
    pub up: Stats,
    /// From B to A.
    pub down: Stats,
    /// Whether both threads run with real-time priority. If not, `realtime_error` says why, and
    /// lateness is at the mercy of other programs.
    pub realtime: bool,
    /// Why not.
    pub realtime_error: Option<String>,
}

impl EmulatorStats {
    /// Whether a measurement over this link may be believed, see [`Stats::is_sound`].
    #[must_use]
    pub fn is_sound(&self, p99_ns: u64) -> bool {
        self.up.is_sound(p99_ns) && self.down.is_sound(p99_ns)
    }
}

impl Emulator {
    /// Lays a link between `a` and `b`; both devices are up when it returns.
    pub fn between(a: End, b: End, link: impl Into<LinkPair>) -> Result<Self> {
        let pair = link.into();
        if !MTU_RANGE.contains(&pair.mtu) {
            let (min, max) = (MTU_RANGE.start(), MTU_RANGE.end());
            return Err(LabError::Invalid(format!("MTU {}: {min} to {max}", pair.mtu)));
        }
        let (at_a, at_b) = (a.open(pair.mtu)?, b.open(pair.mtu)?);
        let epoch = now_ns();
        let start = |from: &Arc<OwnedFd>, to: &Arc<OwnedFd>, direction| -> Result<Side> {
            let spec = match direction {
                Direction::Up => &pair.up,
                Direction::Down => &pair.down,
            };
            let shared = Arc::new(Shared::new(spec.clone()).attempting(|| "make an eventfd")?);
            let worker =
                Worker::new(from.clone(), to.clone(), &pair, direction, shared.clone(), epoch);
            let thread = thread::Builder::new()
                .name(format!("link-{direction:?}").to_lowercase())
                .spawn(move || worker.run())
                .attempting(|| "start the link's thread")?;
            Ok(Side { shared, thread: Some(thread) })
        };
        let up = start(&at_a, &at_b, Direction::Up)?;
        let down = start(&at_b, &at_a, Direction::Down)?;
        Ok(Self { ends: [a, b], missed_before: Mutex::default(), up, down })
    }

    fn sides(&self, direction: impl Into<Option<Direction>>) -> impl Iterator<Item = &Side> {
        let (up, down) = match direction.into() {
            Some(Direction::Up) => (true, false),
            Some(Direction::Down) => (false, true),
            None => (true, true),
        };
        [(up, &self.up), (down, &self.down)].into_iter().filter_map(|(on, side)| on.then_some(side))
    }

    /// What a direction does now.
    #[must_use]
    pub fn spec(&self, direction: Direction) -> LinkSpec {
        match direction {
            Direction::Up => self.up.shared.spec(),
            Direction::Down => self.down.shared.spec(),
        }
    }

    /// Replaces what a direction (`None`: both) does, for packets from now on.
    pub fn set(&self, direction: impl Into<Option<Direction>>, spec: &LinkSpec) {
        for side in self.sides(direction) {
            side.shared.update(|current| *current = spec.clone());
        }
    }

    /// Changes what the words name, in a direction or (`None`) both: `loss 5% burst 3`.
    pub fn apply(
        &self,
        direction: impl Into<Option<Direction>>,
        words: &str,
    ) -> Result<(), ParseError> {
        self.sides(direction).try_for_each(|side| side.shared.update(|spec| spec.apply(words)))
    }

    /// Drops everything from now on in both directions, or no longer.
    pub fn blackhole(&self, on: bool) {
        for side in self.sides(None) {
            side.shared.update(|spec| spec.blackhole = on);
        }
    }

    /// The counters, at most a tenth of a second old; exact once traffic has ended.
    #[must_use]
    pub fn stats(&self) -> EmulatorStats {
        let mut up = self.up.shared.report();
        let mut down = self.down.shared.report();
        let before = lock(&self.missed_before);
        up.failed += self.ends[0].missed().saturating_sub(before[0]);
        down.failed += self.ends[1].missed().saturating_sub(before[1]);
        let realtime_error = self.sides(None).find_map(|side| {
            let told = lock(&side.shared.realtime);
            match told.as_ref() {
                Some(Ok(())) => None,
                Some(Err(e)) => Some(e.clone()),
                None => Some("the thread has not begun".into()),
            }
        });
        EmulatorStats { up, down, realtime: realtime_error.is_none(), realtime_error }
    }

    /// Begins the counters anew; returns when both threads have. Packet numbers go on.
    pub fn reset_stats(&self) {
        *lock(&self.missed_before) = [self.ends[0].missed(), self.ends[1].missed()];
        self.sides(None).for_each(|side| side.shared.reset());
        poll_until(PATIENCE, || self.sides(None).all(|s| s.shared.is_reset()).then_some(()));
    }

    /// Ends the link and returns its final counters.
    #[must_use]
    pub fn stop(mut self) -> EmulatorStats {
        self.up.stop();
        self.down.stop();
        self.stats()
    }
}

impl Side {
    fn stop(&mut self) {
        self.shared.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.stop();
    }
}
