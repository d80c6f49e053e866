//! The thread of one direction: reads packets here, delivers them there, on time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::unistd::{read, write};

use super::icmp;
use super::model::{DropReason, Fate, Link};
use super::schedule::Schedule;
use super::spec::{Direction, LinkPair, LinkSpec};
use super::stats::Stats;
use crate::clock::now_ns;
use crate::sys;

/// Packets read, and packets delivered, before the other has its turn.
const BATCH: usize = 64;
/// A thread that handled this many packets since it last slept is busy: it sleeps by the clock
/// alone and handles several at each wake-up. One that never slept would be throttled by the
/// kernel, which grants real-time threads 95 % of a second.
const BUSY: usize = 4;
/// How long a busy thread sleeps, in nanoseconds: the grain of its times. At a grain of 0.1 ms four
/// threads took half a processor to wake up.
const TICK: u64 = 250_000;
/// The longest sleep, so that reports stay fresh.
const SLEEP_MAX: u64 = 100_000_000;
/// How often a busy thread reports.
const REPORT_EVERY: u64 = 20_000_000;
/// Above the kernel's own threads of priority 1, far below its watchdogs.
const PRIORITY: i32 = 20;

/// What the thread and its owner share.
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) wake: EventFd,
    /// Counts changes of `spec`.
    generation: AtomicU64,
    spec: Mutex<LinkSpec>,
    report: Mutex<Stats>,
    reset: AtomicBool,
    pub(super) realtime: Mutex<Option<Result<(), String>>>,
}

impl Shared {
    pub(super) fn new(spec: LinkSpec) -> nix::Result<Self> {
        Ok(Self {
            stop: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            generation: AtomicU64::new(0),
            spec: Mutex::new(spec),
            report: Mutex::default(),
            reset: AtomicBool::new(false),
            realtime: Mutex::default(),
        })
    }

    pub(super) fn spec(&self) -> LinkSpec {
        lock(&self.spec).clone()
    }

    pub(super) fn update<T>(&self, change: impl FnOnce(&mut LinkSpec) -> T) -> T {
        let result = change(&mut lock(&self.spec));
        self.generation.fetch_add(1, Ordering::Release);
        let _ = self.wake.write(1);
        result
    }

    pub(super) fn report(&self) -> Stats {
        lock(&self.report).clone()
    }

    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Release);
        let _ = self.wake.write(1);
    }

    pub(super) fn is_reset(&self) -> bool {
        !self.reset.load(Ordering::Acquire)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One direction.
pub(super) struct Worker {
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    link: Link,
    schedule: Schedule,
    stats: Stats,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    epoch: u64,
    number: u64,
    generation: u64,
    reported: u64,
    /// The device has been deleted: it would be readable, with an error, for ever.
    gone: bool,
}

impl Worker {
    pub(super) fn new(
        from: Arc<OwnedFd>,
        to: Arc<OwnedFd>,
        pair: &LinkPair,
        direction: Direction,
        shared: Arc<Shared>,
        epoch: u64,
    ) -> Self {
        Self {
            from,
            to,
            link: Link::new(shared.spec(), pair.seed, direction),
            schedule: Schedule::new(pair.mtu),
            stats: Stats::default(),
            shared,
            buffer: vec![0; pair.mtu],
            epoch,
            number: 0,
            generation: 0,
            reported: 0,
            gone: false,
        }
    }

    /// Works until told to stop.
    pub(super) fn run(mut self) {
        let realtime = sys::become_realtime(PRIORITY).map_err(|e| e.to_string());
        if realtime.is_err() {
            // Real-time threads have no timer slack to begin with.
            let _ = nix::sys::prctl::set_timerslack(1);
        }
        *lock(&self.shared.realtime) = Some(realtime);
        let mut handled = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.obey();
            let delivered = self.deliver();
            let taken = self.take();
            handled += delivered + taken;
            if taken < BATCH && delivered < BATCH {
                self.wait(handled >= BUSY);
                handled = 0;
            }
        }
        self.report(self.now());
    }

    /// Nanoseconds since the link began.
    fn now(&self) -> u64 {
        now_ns().saturating_sub(self.epoch)
    }

    fn obey(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.generation = generation;
            self.link.set_spec(self.shared.spec());
        }
        if self.shared.reset.load(Ordering::Relaxed) {
            self.stats = Stats::default();
            self.report(self.now());
            self.shared.reset.store(false, Ordering::Release);
        }
    }

    /// Reads and judges up to a batch of packets.
    fn take(&mut self) -> usize {
        for count in 0..BATCH {
            let len = match read(&*self.from, &mut self.buffer) {
                Ok(len) => len,
                Err(Errno::EAGAIN | Errno::EINTR) => return count,
                Err(_) => {
                    self.gone = true;
                    return count;
                }
            };
            let now = self.now();
            self.stats.packets_in += 1;
            self.stats.bytes_in += len as u64;
            let fate = self.link.handle_packet(now, self.number, len);
            self.number += 1;
            self.carry_out(fate, len);
            self.stats.queue_sum += u128::from(self.link.backlog());
            self.stats.queue_max = self.stats.queue_max.max(self.link.backlog());
        }
        BATCH
    }

    fn carry_out(&mut self, fate: Fate, len: usize) {
        let packet = &self.buffer[..len];
        let stats = &mut self.stats;
        match fate {
            Fate::Deliver(at) => stats.failed += u64::from(!self.schedule.push(at, packet)),
            Fate::DeliverTwice(first, second) => {
                stats.duplicated += 1;
                for at in [first, second] {
                    stats.failed += u64::from(!self.schedule.push(at, packet));
                }
            }
            Fate::Drop(DropReason::Loss) => stats.lost += 1,
            Fate::Drop(DropReason::Queue) => stats.queue_dropped += 1,
            Fate::Drop(DropReason::Blackhole) => stats.blackholed += 1,
            Fate::Drop(DropReason::Hole) => stats.too_big += 1,
            Fate::TooBig(mtu) => {
                stats.too_big += 1;
                if let Some(answer) = icmp::too_big(packet, mtu) {
                    let _ = write(&*self.from, &answer);
                }
            }
        }
    }

    /// Delivers up to a batch of packets that are due.
    fn deliver(&mut self) -> usize {
        for count in 0..BATCH {
            let now = self.now();
            let (to, stats) = (&*self.to, &mut self.stats);
            let was_due = self.schedule.pop_due(now, |packet, at| match write(to, packet) {
                Ok(_) => stats.delivered(packet.len(), now - at),
                Err(_) => stats.failed += 1,
            });
            if !was_due {
                return count;
            }
        }
        BATCH
    }

    /// Sleeps until a packet comes, the next one is due, or a change is asked for; when busy, for
    /// a tick at least.
    fn wait(&mut self, busy: bool) {
        let now = self.now();
        if !busy || now.saturating_sub(self.reported) >= REPORT_EVERY {
            self.report(now);
        }
        self.stats.wakeups += 1;
        let left = self.schedule.next_at().map_or(SLEEP_MAX, |at| at.saturating_sub(now));
        let span = if busy { TICK } else { left.min(SLEEP_MAX) };
        let wake = self.shared.wake.as_fd();
        if busy || self.gone {
            sleep([wake], span);
        } else {
            sleep([wake, self.from.as_fd()], span);
        }
        let _ = self.shared.wake.read();
    }

    /// Publishes the counters, unless somebody reads them right now.
    fn report(&mut self, now: u64) {
        if let Ok(mut report) = self.shared.report.try_lock() {
            self.stats.summarise(self.schedule.len());
            report.copy_from(&self.stats);
            self.reported = now;
        }
    }
}

/// Sleeps so long, or until one of the files can be read.
fn sleep<const N: usize>(files: [BorrowedFd<'_>; N], nanos: u64) {
    let mut files = files.map(|file| PollFd::new(file, PollFlags::POLLIN));
    let span = TimeSpec::from_duration(std::time::Duration::from_nanos(nanos));
    let _ = ppoll(&mut files, Some(span), None);
}
