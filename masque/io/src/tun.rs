//! TUN devices with several queues, read and written in batches.
//!
//! With offload the kernel hands over super-packets of up to 64 KiB, which are split here, and takes
//! runs of packets of one flow as one, which are joined here. Neither direction blocks or allocates.

mod address;
mod batch;
mod gather;
mod lanes;
mod split;
mod thin;
mod vnet;

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::task::{Context, Poll};

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::buffers::DatagramBuf;
pub use batch::TunBatch;
use gather::{Gather, Joining};
pub use lanes::TunLanes;

/// The largest IP packet, in bytes.
pub const MAX_PACKET: usize = 65_535;

/// The longest name of an interface (`IFNAMSIZ` less its final zero).
const MAX_NAME: usize = 15;

/// Read system calls in one [`TunQueue::try_recv`], each for a packet or a super-packet.
const MAX_READS: usize = 64;

/// What a TUN device shall be.
#[derive(Debug, Clone)]
pub struct TunConfig {
    /// Name of the interface, 1 to 15 bytes.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u16,
    /// Addresses of the interface with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Queues; each has a reader of its own, or one reads [several](TunLanes).
    pub queues: usize,
    /// Super-packets in both directions (`IFF_VNET_HDR`).
    pub offload: bool,
}

/// Why there is no TUN device, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunError {
    /// The kernel has no TUN driver, or the container no device node.
    #[error(
        "/dev/net/tun is missing: load the driver (`modprobe tun`), or pass the device into the container (`--device /dev/net/tun`)"
    )]
    NoDriver,
    /// The process lacks `CAP_NET_ADMIN`.
    #[error(
        "no permission to create the TUN device {name}: run as root or grant CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN, container: --cap-add NET_ADMIN)"
    )]
    NotPermitted {
        /// Name asked for.
        name: String,
    },
    /// There is an interface of that name already.
    #[error(
        "an interface named {name} exists already: stop the program that owns it, delete it (`ip link del {name}`), or configure another name"
    )]
    NameInUse {
        /// Name asked for.
        name: String,
    },
    /// The name cannot be one of an interface.
    #[error(
        "{name:?} cannot name an interface: use 1 to 15 letters, digits, '-', '_' or '.', and not '.' or '..'"
    )]
    BadName {
        /// Name asked for.
        name: String,
    },
    /// An address could not be given to the interface.
    #[error("cannot give {address}/{prefix} to {name}{}: {source}", hint(*address, source))]
    Address {
        /// Name of the interface.
        name: String,
        /// The address refused.
        address: IpAddr,
        /// Its prefix length.
        prefix: u8,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused something else.
    #[error("cannot set up the TUN device {name}: {source}")]
    Setup {
        /// Name asked for.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn hint(address: IpAddr, source: &io::Error) -> &'static str {
    match (address, source.raw_os_error()) {
        (IpAddr::V6(_), Some(libc::EACCES | libc::EOPNOTSUPP)) => {
            " (IPv6 is switched off; see `sysctl net.ipv6.conf.all.disable_ipv6`)"
        }
        (_, Some(libc::EINVAL)) => " (is the prefix length right?)",
        _ => "",
    }
}

/// Makes the device and returns its queues, in order. Each registers with the runtime it is first
/// waited on in. The device disappears with its last queue.
///
/// # Errors
/// [`TunError`] names the cause and the way out.
pub fn open(cfg: &TunConfig) -> Result<Vec<TunQueue>, TunError> {
    let name = || cfg.name.clone();
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !(1..=MAX_NAME).contains(&cfg.name.len())
        || !cfg.name.chars().all(named)
        || matches!(&*cfg.name, "." | "..")
    {
        return Err(TunError::BadName { name: name() });
    }
    // With several queues the kernel would let us join another program's device.
    if nix::net::if_::if_nametoindex(&*cfg.name).is_ok() {
        return Err(TunError::NameInUse { name: name() });
    }
    let setup = |source: io::Error| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
        Some(libc::EPERM | libc::EACCES) => TunError::NotPermitted { name: name() },
        Some(libc::EBUSY) => TunError::NameInUse { name: name() },
        _ => TunError::Setup { name: name(), source },
    };
    let queues = cfg.queues.max(1);
    let first = DeviceBuilder::new()
        .name(&cfg.name)
        .mtu(cfg.mtu)
        .offload(cfg.offload)
        .multi_queue(queues > 1)
        .build_sync()
        .map_err(setup)?;
    let mut devices = vec![first];
    for _ in 1..queues {
        devices.push(devices[0].try_clone().map_err(setup)?);
    }
    for &(address, prefix) in &cfg.addresses {
        address::add(&cfg.name, address, prefix).map_err(|source| TunError::Address {
            name: name(),
            address,
            prefix,
            source,
        })?;
    }
    let queue = |(index, device)| TunQueue::new(cfg, index, device);
    devices.into_iter().enumerate().map(queue).collect::<io::Result<_>>().map_err(setup)
}

/// Packets that did not make it through a queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TunDrops {
    /// Read, but their virtio header contradicts them.
    pub malformed: u64,
    /// Written while the kernel had no room.
    pub full: u64,
    /// Written and refused: not an IP packet, or the interface is down.
    pub refused: u64,
}

/// One queue of a TUN device; it belongs to one worker.
pub struct TunQueue {
    /// Declared before the device, so that it is deregistered before the descriptor closes.
    io: OnceLock<AsyncFd<RawFd>>,
    device: SyncDevice,
    name: String,
    index: usize,
    offload: bool,
    gather: Gather,
    written: usize,
    failed: Option<io::Error>,
    drops: TunDrops,
}

impl TunQueue {
    fn new(cfg: &TunConfig, index: usize, device: SyncDevice) -> io::Result<Self> {
        device.set_nonblocking(true)?;
        let joining = Joining { tcp: cfg.offload, udp: cfg.offload && device.udp_gso() };
        Ok(Self {
            io: OnceLock::new(),
            device,
            name: cfg.name.clone(),
            index,
            offload: cfg.offload,
            gather: Gather::new(joining),
            written: 0,
            failed: None,
            drops: TunDrops::default(),
        })
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of this queue, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Packets lost so far.
    pub fn drops(&self) -> TunDrops {
        self.drops
    }

    /// Waits until there may be packets to read.
    ///
    /// # Errors
    /// When the runtime is shutting down, or outside of one.
    pub async fn readable(&self) -> io::Result<()> {
        // A deleted interface is an error condition, which the next read reports.
        self.io()?.ready(Interest::READABLE | Interest::ERROR).await.map(|_| ())
    }

    /// Whether there may be packets to read; wakes the task when there are. One task may wait.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_read_ready(cx).map_ok(drop)
    }

    fn io(&self) -> io::Result<&AsyncFd<RawFd>> {
        if let Some(io) = self.io.get() {
            return Ok(io);
        }
        let interest = Interest::READABLE | Interest::ERROR;
        // SAFETY: the device owns the descriptor, is never replaced, and is dropped after `io`.
        let io = unsafe { AsyncFd::register_with_interest(self.device.as_raw_fd(), interest) }?;
        Ok(self.io.get_or_init(|| io))
    }

    /// Fills `batch` with what waits, up to 64 packets or one super-packet, and returns the number
    /// of packets. Malformed ones are counted and left out.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing waits; anything else means that the device is
    /// gone.
    pub fn try_recv(&mut self, batch: &mut TunBatch) -> io::Result<usize> {
        batch.clear();
        for _ in 0..MAX_READS {
            let Some(room) = batch.room(self.offload) else { break };
            let read = match self.read(room) {
                Err(e) if batch.is_empty() => return Err(e),
                Err(_) => break,
                Ok(n) => n,
            };
            if !batch.take(read, self.offload) {
                self.drops.malformed += 1;
            }
        }
        Ok(batch.len())
    }

    fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        let io = self.io()?;
        let read = io.try_io(Interest::READABLE, |_| self.device.recv(room));
        match read {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                io.try_io(Interest::ERROR, |_| self.device.recv(room))
            }
            other => other,
        }
    }

    /// Takes a copy of a packet; otherwise as [`queue`](Self::queue).
    pub fn queue_packet(&mut self, packet: &[u8]) {
        self.queue(DatagramBuf::copy_of(packet));
    }

    /// Takes a packet to be written with the next [`flush`](Self::flush), or sooner when many wait.
    /// Longer than [`MAX_PACKET`] or empty is refused.
    #[inline]
    pub fn queue(&mut self, packet: DatagramBuf) {
        if packet.is_empty() || packet.len() > MAX_PACKET {
            self.drops.refused += 1;
            return;
        }
        if !self.gather.has_room() {
            self.write();
        }
        self.gather.push(packet);
    }

    /// Packets that wait for [`flush`](Self::flush).
    pub fn queued(&self) -> usize {
        self.gather.packets()
    }

    /// Writes what was queued and returns the number of packets the kernel took since the last
    /// flush. What it does not take is counted in [`drops`](Self::drops) and gone.
    ///
    /// # Errors
    /// The device is gone.
    pub fn flush(&mut self) -> io::Result<usize> {
        self.write();
        let written = std::mem::take(&mut self.written);
        self.failed.take().map_or(Ok(written), Err)
    }

    fn write(&mut self) {
        let Self { device, gather, written, failed, drops, .. } = self;
        gather.drain(self.offload, |slices, packets| match send(device, slices) {
            Ok(_) => *written += packets,
            Err(e) => match e.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => drops.full += packets as u64,
                Some(libc::EBADFD | libc::ENODEV) => *failed = Some(e),
                _ => drops.refused += packets as u64,
            },
        });
    }

    /// Changes the MTU of the device.
    ///
    /// # Errors
    /// What the kernel says; IPv6 addresses go when the MTU falls below 1280.
    pub fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        self.device.set_mtu(mtu)
    }

    /// Gives the interface another address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_address(&self, address: IpAddr, prefix: u8) -> io::Result<()> {
        address::add(&self.name, address, prefix)
    }

    /// Takes an address from the interface.
    ///
    /// # Errors
    /// What the kernel says, also when the interface does not have it.
    pub fn remove_address(&self, address: IpAddr, prefix: u8) -> io::Result<()> {
        address::remove(&self.name, address, prefix)
    }
}

fn send(device: &SyncDevice, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match device.send_vectored(slices) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl std::fmt::Debug for TunQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("TunQueue");
        out.field("name", &self.name).field("index", &self.index).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
