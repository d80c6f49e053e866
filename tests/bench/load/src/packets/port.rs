//! A UDP socket that sends trains and takes batches.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};

use super::flow::TRAIN;
use super::wire::{MAX_SIZE, Message};

/// Socket buffers asked for, bytes; the kernel grants root as much.
const BUFFER: usize = 8 << 20;
/// A received train is 64 KiB at most.
const SLOT: usize = 1 << 16;

/// The socket and its memory.
#[derive(Debug)]
pub struct Port {
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    out: Vec<u8>,
    slots: Vec<Vec<u8>>,
}

impl Port {
    /// Binds `address`.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        let state = UdpSocketState::new((&socket).into())?;
        enlarge(&socket)?;
        socket.set_nonblocking(true)?;
        let slots = (0..BATCH_SIZE).map(|_| vec![0; SLOT]).collect();
        Ok(Self { socket, state, out: vec![0; TRAIN as usize * MAX_SIZE], slots })
    }

    /// The address bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sends one message, unpadded. What the kernel has no room for is lost.
    pub fn say(&mut self, to: SocketAddr, message: Message) {
        let length = message.write(&mut self.out);
        let _ = self.socket.send_to(&self.out[..length], to);
    }

    /// Sends `count` packets numbered from `first`, of `size` bytes each: as one train, or, with `single`, by themselves. Returns how
    /// many the kernel took; 0 when it has no room now.
    ///
    /// # Errors
    /// What the system says.
    pub fn send(
        &mut self,
        to: SocketAddr,
        (first, count): (u64, u64),
        size: usize,
        single: bool,
    ) -> io::Result<u64> {
        let train = &mut self.out[..count as usize * size];
        for (number, packet) in (first..).zip(train.chunks_mut(size)) {
            Message::Data { number }.write(packet);
        }
        let taken = if single {
            send_each(&self.socket, to, train, size)
        } else {
            let train = Transmit {
                destination: to,
                ecn: None,
                contents: train,
                segment_size: Some(size),
                src_ip: None,
            };
            self.state.try_send((&self.socket).into(), &train).map(|()| count)
        };
        match taken {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            // A queue on the way is full: as lost as anywhere else.
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(count),
            // The other end of a local port is not there yet.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(0),
            other => other,
        }
    }

    /// Takes what has arrived, at most one batch, and returns the number of trains: each with its sender and the size of its
    /// packets. A train for which `each` returns `true` goes back to its sender.
    ///
    /// # Errors
    /// What the system says.
    pub fn recv(
        &mut self,
        mut each: impl FnMut(SocketAddr, std::slice::Chunks<'_, u8>) -> bool,
    ) -> io::Result<usize> {
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let received = {
            let mut slots = self.slots.iter_mut().map(|slot| IoSliceMut::new(slot));
            let mut slots: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| slots.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            self.state.recv((&self.socket).into(), &mut slots, &mut meta)
        };
        let received = match received {
            Ok(received) => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(0),
            Err(e) => return Err(e),
        };
        for (meta, slot) in meta[..received].iter().zip(&self.slots) {
            let train = &slot[..meta.len];
            if each(meta.addr, train.chunks(meta.stride.max(1))) {
                let back = Transmit {
                    destination: meta.addr,
                    ecn: None,
                    contents: train,
                    segment_size: Some(meta.stride),
                    src_ip: None,
                };
                let _ = self.state.try_send((&self.socket).into(), &back);
            }
        }
        Ok(received)
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of the ports has something to read, or for `patience`.
///
/// # Errors
/// What the system says.
pub(super) fn wait(ports: &[&Port], patience: Duration) -> io::Result<()> {
    let mut fds: Vec<_> = ports.iter().map(|p| PollFd::new(p.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// As much as the kernel's limit allows where it is not root who asks.
fn enlarge(socket: &std::net::UdpSocket) -> nix::Result<()> {
    setsockopt(socket, sockopt::SndBufForce, &BUFFER)
        .or_else(|_| setsockopt(socket, sockopt::SndBuf, &BUFFER))?;
    setsockopt(socket, sockopt::RcvBufForce, &BUFFER)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &BUFFER))
}

fn send_each(
    socket: &std::net::UdpSocket,
    to: SocketAddr,
    train: &[u8],
    size: usize,
) -> io::Result<u64> {
    let packets: Vec<[IoSlice<'_>; 1]> = train.chunks(size).map(|p| [IoSlice::new(p)]).collect();
    let addresses = vec![Some(SockaddrStorage::from(to)); packets.len()];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(packets.len(), None);
    let sent = sendmmsg(
        socket.as_raw_fd(),
        &mut headers,
        &packets,
        &addresses,
        [],
        MsgFlags::MSG_DONTWAIT,
    )?;
    Ok(sent.count() as u64)
}
