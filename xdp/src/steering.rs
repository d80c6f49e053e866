//! Which queue of a TUN device a packet goes to: that of the worker who serves its destination.
#![expect(unsafe_code, reason = "memory shared with the kernel")]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::error::Result;
use crate::load::{load, system};
use crate::program;
use crate::ring::Mapping;
use crate::sys;

/// The most hosts that can be steered: a byte each.
pub const MAX_STEERED: u32 = 1 << 20;

/// A table of queues by host, which a program of the kernel looks into for every packet it sends into
/// a TUN device. Writing it takes no system call and no privilege.
///
/// Without it the kernel goes by the flows it has seen from each queue, so that the first packets of
/// a flow from outside, and all once there are too many flows, reach some worker.
#[derive(Debug)]
pub struct Steering {
    table: Mapping,
    hosts: u32,
}

impl Steering {
    /// Steers the device that `queue` is a queue of. Host `n` has the address `n` after `v4`, and
    /// the address `n` after `v6`, as far as there are
    /// these; one there must be.
    ///
    /// Needs `CAP_BPF`, unless `kernel.unprivileged_bpf_disabled` is 0; Linux 5.5.
    pub fn attach(
        queue: BorrowedFd<'_>,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
        hosts: u32,
    ) -> Result<Self> {
        let hosts = hosts.clamp(1, MAX_STEERED);
        let map = sys::table(hosts).map_err(|e| system("make the table of queues", e))?;
        let table = Mapping::of(map.as_fd(), hosts as usize, 0)
            .map_err(|e| system("map the table of queues", e))?;
        let program = load(sys::STEERING, &program::steering(v4, v6, hosts, map.as_fd()))?;
        sys::set_steering(queue, program.as_fd()).map_err(|e| system("steer the TUN", e))?;
        // The device holds the program, the program the table.
        Ok(Self::of(table, hosts))
    }

    /// The table alone, of at least `hosts` bytes.
    pub(crate) fn of(table: Mapping, hosts: u32) -> Self {
        Self { table, hosts }
    }

    /// Sends what is for `host` to `queue` from now on; `None`, or a queue past 254: to queue 0.
    pub fn set(&self, host: u32, queue: Option<usize>) {
        if host >= self.hosts {
            return;
        }
        let entry = queue.and_then(|queue| u8::try_from(queue + 1).ok()).unwrap_or(0);
        // SAFETY: the byte is inside the mapping, and is only ever used atomically, here and by
        // the kernel's program, which loads single bytes.
        let byte = unsafe { AtomicU8::from_ptr(self.table.base().as_ptr().add(host as usize)) };
        byte.store(entry, Relaxed);
    }
}

// SAFETY: threads share nothing but the atomic bytes behind the mapping.
unsafe impl Sync for Steering {}
