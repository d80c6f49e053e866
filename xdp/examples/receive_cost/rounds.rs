//! One turn of one contender: two namespaces, a sender on one core, a receiver on the other.

use std::hint::black_box;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bauta_lab::{Namespace, Net};
use bauta_xdp::{Attachment, Datagram, Filter, Mode, RxRing, XskRing};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::Outcome;
use crate::kernel::KernelSocket;

const SIZE: usize = 1200;
/// Datagrams of one turn, about, for each of the two receivers ("take" and "read").
const DATAGRAMS: usize = 40_000;
/// Segments of one super-frame.
const TRAIN: usize = 32;
const ADDRESS: &str = "198.51.100.1:4433";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Recvmmsg,
    Gro,
    Ring(Mode),
    SegmentedForRing,
}

impl Contender {
    pub(crate) const ALL: [Self; 5] = [
        Self::Recvmmsg,
        Self::Gro,
        Self::Ring(Mode::Native),
        Self::SegmentedForRing,
        Self::Ring(Mode::Skb),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Recvmmsg => "recvmmsg",
            Self::Gro => "recvmmsg, GRO (sender: GSO)",
            Self::Ring(Mode::Native) => "ring, native",
            Self::SegmentedForRing => "ring, native (sender: GSO)",
            Self::Ring(Mode::Skb) => "ring, SKB",
        }
    }
}

/// Nanoseconds a datagram, and how many were lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) take: u64,
    pub(crate) read: u64,
    pub(crate) whole: u64,
    pub(crate) lost: u64,
}

enum Ingress {
    Kernel(KernelSocket),
    Ring { _attachment: Attachment, ring: XskRing },
}

pub(crate) fn run(contender: Contender, burst: usize) -> Outcome<Figures> {
    let net = Net::new()?;
    let (host, peer) = (net.namespace("cost-host")?, net.namespace("cost-peer")?);
    net.veth((&host, "veth0"), (&peer, "veth1"))?;
    host.address("veth0", &["198.51.100.1/24"])?;
    peer.address("veth1", &["198.51.100.2/24"])?;
    peer.run("ping", &["-c1", "-W2", "198.51.100.1"])?;
    let gso = matches!(contender, Contender::Gro | Contender::SegmentedForRing);
    let sender = open_sender(&peer, gso)?;
    let bursts = DATAGRAMS / burst;

    let (order, orders) = sync_channel::<()>(0);
    let (sent, is_sent) = sync_channel::<()>(0);
    let sending = thread::spawn(move || send(&sender, gso, burst, &orders, &sent));
    // The sender ends when the channels do.
    let received = host.enter(move || receive(contender, burst, bursts, &order, &is_sent))?;
    let sending = sending.join().map_err(|_| "the sender panicked")??;
    let ([take, read], lost) = received?;
    let count = (bursts * burst) as u64;
    Ok(Figures {
        take: take / count,
        read: read / count,
        whole: sending / (2 * count) + take / count,
        lost,
    })
}

fn open_sender(peer: &Namespace, gso: bool) -> Outcome<UdpSocket> {
    let socket = peer.enter(|| UdpSocket::bind("198.51.100.2:0"))??;
    socket.connect(ADDRESS)?;
    setsockopt(&socket, sockopt::SndBufForce, &(4 << 20))?;
    if gso {
        setsockopt(&socket, sockopt::UdpGsoSegment, &(SIZE as i32))?;
    }
    Ok(socket)
}

/// Sends a burst whenever it is told to; returns the CPU time it took.
fn send(
    socket: &UdpSocket,
    gso: bool,
    burst: usize,
    orders: &Receiver<()>,
    sent: &SyncSender<()>,
) -> Outcome<u64> {
    pin(0)?;
    let train = if gso { TRAIN.min(burst) } else { 1 };
    let payload = vec![0xa5; train * SIZE];
    let mut spent = 0;
    while orders.recv().is_ok() {
        let start = cpu()?;
        for _ in 0..burst / train {
            socket.send(&payload)?;
        }
        spent += cpu()? - start;
        sent.send(())?;
    }
    Ok(spent)
}

/// Takes bursts, first only looking at headers, then reading everything; returns the CPU time of
/// each, and how many datagrams did not arrive.
fn receive(
    contender: Contender,
    burst: usize,
    bursts: usize,
    order: &SyncSender<()>,
    is_sent: &Receiver<()>,
) -> Outcome<([u64; 2], u64)> {
    pin(1)?;
    let mut ingress = Ingress::open(contender)?;
    let mut spent = [0; 2];
    let mut lost = 0;
    for (spent, reading) in spent.iter_mut().zip([false, true]) {
        for _ in 0..bursts {
            order.send(())?;
            is_sent.recv()?;
            let start = cpu()?;
            let taken = ingress.take(burst, reading)?;
            *spent += cpu()? - start;
            lost += burst.saturating_sub(taken) as u64;
        }
    }
    Ok((spent, lost))
}

impl Ingress {
    fn open(contender: Contender) -> Outcome<Self> {
        let mode = match contender {
            Contender::Recvmmsg => return Ok(Self::Kernel(KernelSocket::bind(ADDRESS, false)?)),
            Contender::Gro => return Ok(Self::Kernel(KernelSocket::bind(ADDRESS, true)?)),
            Contender::Ring(mode) => mode,
            Contender::SegmentedForRing => Mode::Native,
        };
        let filter = Filter::listening(&[ADDRESS.parse()?])?;
        let attachment = Attachment::attach("veth0", &filter, mode)?;
        let ring = attachment.ring(0)?;
        Ok(Self::Ring { _attachment: attachment, ring })
    }

    fn poll_batch(&mut self, each: &mut dyn FnMut(&[u8])) -> Outcome<usize> {
        match self {
            Self::Kernel(socket) => Ok(socket.poll_batch(each)?),
            Self::Ring { ring, .. } => {
                let interface = ring.interface();
                Ok(ring.poll_batch(&mut |frame| {
                    if let Ok(datagram) = Datagram::parse(frame, interface) {
                        each(datagram.payload);
                    }
                }))
            }
        }
    }

    /// Waits, as an event loop would, and takes until `burst` datagrams have come or none comes.
    fn take(&mut self, burst: usize, reading: bool) -> Outcome<usize> {
        let mut taken = 0;
        let mut each = |payload: &[u8]| {
            taken += 1;
            black_box(if reading { read(payload) } else { payload.len() as u64 });
        };
        let mut left = burst;
        while left > 0 && readable(self)? {
            while let got @ 1.. = self.poll_batch(&mut each)? {
                left = left.saturating_sub(got);
                if left == 0 {
                    break;
                }
            }
        }
        Ok(taken)
    }
}

impl AsFd for Ingress {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Kernel(socket) => socket.as_fd(),
            Self::Ring { ring, .. } => ring.fd(),
        }
    }
}

fn readable(what: &impl AsFd) -> Outcome<bool> {
    let silence = PollTimeout::from(50u8);
    Ok(poll(&mut [PollFd::new(what.as_fd(), PollFlags::POLLIN)], silence)? > 0)
}

fn read(payload: &[u8]) -> u64 {
    payload.as_chunks().0.iter().fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word))
}

fn pin(core: usize) -> Outcome<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
}

/// CPU nanoseconds of the calling thread.
fn cpu() -> Outcome<u64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs())
}
