//! UDP sockets that send and receive in batches: GSO on the way out, `recvmmsg` and GRO on the way in.
//!
//! Addresses are given out in their plain form: an IPv4 peer of a dual-stack socket is a
//! [`SocketAddr::V4`], and is mapped back on the way out. No datagram is ever fragmented on its way
//! (DF is set, RFC 9298 §6.1); the path MTU the kernel learns is not used, QUIC discovers its own.

mod batch;
mod train;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::io::Interest;

pub use batch::{BATCH_SIZE, Datagram, RecvBatch};
pub use quinn_udp::EcnCodepoint;
pub use train::Train;

/// The most datagrams in one GSO train; the kernel takes no more (`UDP_MAX_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 64;

/// The most bytes in one GSO train: a UDP payload over IPv4 (65,535 − 20 − 8).
pub const MAX_TRAIN_BYTES: usize = 65_507;

/// Reports on one socket that are taken from the kernel's error queue at once.
const MAX_REPORTS: usize = 64;

/// How a socket is made.
#[derive(Debug, Clone)]
pub struct BindOptions {
    /// Shares the port with sibling sockets of the same user (`SO_REUSEPORT`); see [`crate::steer`].
    pub reuse_port: bool,
    /// An IPv6 socket takes IPv6 alone; otherwise `[::]` takes both families.
    pub only_v6: bool,
    /// Kernel send buffer in bytes; the system may give less.
    pub send_buffer: usize,
    /// Kernel receive buffer in bytes; the system may give less.
    pub recv_buffer: usize,
    /// Firewall mark of everything sent (`SO_MARK`; needs `CAP_NET_ADMIN`).
    pub mark: Option<u32>,
    /// The only interface to use (`SO_BINDTODEVICE`).
    pub device: Option<String>,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            reuse_port: false,
            only_v6: false,
            send_buffer: 4 << 20,
            recv_buffer: 4 << 20,
            mark: None,
            device: None,
        }
    }
}

/// What goes out with one `sendmsg`.
#[derive(Debug, Clone, Copy)]
pub struct Transmit<'a> {
    /// Where to.
    pub dst: SocketAddr,
    /// The local address to send from, where it matters which.
    pub src: Option<IpAddr>,
    /// `contents` is a train of datagrams of this many bytes, the last of which may be shorter. At
    /// most [`UdpSocket::max_segments`] of them and [`MAX_TRAIN_BYTES`].
    pub segment_size: Option<usize>,
    /// One datagram, or a train of them.
    pub contents: &'a [u8],
}

/// A non-blocking UDP socket registered with the runtime it was made in.
#[derive(Debug)]
pub struct UdpSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    /// The socket speaks IPv6, so IPv4 addresses are mapped.
    v6: bool,
}

/// Makes and binds a socket without a runtime, to be handed to the worker that will own it.
///
/// # Errors
/// The address and the cause, with what to do where that is known.
pub fn open(addr: SocketAddr, o: &BindOptions) -> io::Result<std::net::UdpSocket> {
    let attempt = || {
        let socket = prepare(addr, o)?;
        socket.bind(&addr.into())?;
        Ok(socket.into())
    };
    attempt().map_err(|e| explain(&e, addr))
}

fn prepare(addr: SocketAddr, o: &BindOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(o.only_v6)?;
    }
    if o.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if let Some(mark) = o.mark {
        socket.set_mark(mark)?;
    }
    if let Some(device) = &o.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    // A privileged process may pass the system's maximum; anybody else gets as much as is allowed.
    if setsockopt(&socket, sockopt::RcvBufForce, &o.recv_buffer).is_err() {
        socket.set_recv_buffer_size(o.recv_buffer)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &o.send_buffer).is_err() {
        socket.set_send_buffer_size(o.send_buffer)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn explain(e: &io::Error, addr: SocketAddr) -> io::Error {
    let hint = match e.kind() {
        io::ErrorKind::AddrInUse => {
            ": the port is in use by another program; stop it (`ss -ulpn` names it) or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => ": no interface has this address",
        io::ErrorKind::PermissionDenied => {
            ": not permitted; ports below 1024 need CAP_NET_BIND_SERVICE, a firewall mark or a device needs CAP_NET_ADMIN"
        }
        _ => "",
    };
    io::Error::new(e.kind(), format!("UDP socket {addr}{hint} ({e})"))
}

impl UdpSocket {
    /// Binds a socket and registers it with the current runtime.
    ///
    /// # Errors
    /// As [`open`].
    pub fn bind(addr: SocketAddr, o: &BindOptions) -> io::Result<Self> {
        Self::from_std(open(addr, o)?)
    }

    /// Registers a socket made by [`open`] with the current runtime.
    ///
    /// # Errors
    /// When the kernel refuses an option or the runtime the descriptor.
    pub fn from_std(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        let bound = socket.local_addr()?;
        let io = tokio::net::UdpSocket::from_std(socket)?;
        Ok(Self { io, state, local: plain(bound), peer: None, v6: bound.is_ipv6() })
    }

    /// A socket for one target: only its datagrams come in, and that it is unreachable comes out of
    /// [`try_recv`](Self::try_recv) or [`try_send`](Self::try_send) as an error
    /// (see [`is_unreachable`]).
    ///
    /// # Errors
    /// No route to the target, no free port, or no descriptor left.
    pub fn connected(target: SocketAddr, o: &BindOptions) -> io::Result<Self> {
        let target = plain(target);
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = prepare(any, o)?;
        socket.connect(&target.into())?;
        let mut connected = Self::from_std(socket.into())?;
        connected.peer = Some(target);
        // Without the error queue Linux reports refused ports only, not unreachable hosts.
        connected.state.enable_transport_errors((&connected.io).into())?;
        Ok(connected)
    }

    /// The address bound to, as it was when the socket was made.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The target of a [`connected`](Self::connected) socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Datagrams one train may hold: 1 where the system has no segmentation offload.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments().min(MAX_SEGMENTS)
    }

    /// Waits until there may be something to receive.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        match self.peer {
            // What the network says about a target is an error condition, not data.
            Some(_) => self.io.ready(Interest::READABLE | Interest::ERROR).await.map(|_| ()),
            None => self.io.readable().await,
        }
    }

    /// Waits until there may be room to send.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn writable(&self) -> io::Result<()> {
        self.io.writable().await
    }

    /// Fills `batch` with one `recvmmsg` and returns the number of datagrams in it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is nothing; on a connected socket what the network
    /// said about the target: [`is_too_big`] and [`is_unreachable`] tell which.
    pub fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.clear();
        let mut outcome = self.read(Interest::READABLE, batch);
        if batch.is_empty() && self.peer.is_some() && would_block(&outcome) {
            outcome = self.read(Interest::ERROR, batch);
        }
        if batch.is_empty() { self.drop_reports_of(outcome).map(|()| 0) } else { Ok(batch.len()) }
    }

    /// One `recvmmsg`, if the socket was reported ready. A batch that is not full has emptied the
    /// socket: saying WouldBlock then clears the readiness without a second system call; a later
    /// arrival raises it again.
    fn read(&self, interest: Interest, batch: &mut RecvBatch) -> io::Result<()> {
        self.io.try_io(interest, || {
            if batch.fill(&self.state, (&self.io).into())? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        })
    }

    /// Sends one datagram or one train.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the kernel has no room: nothing was sent, wait for
    /// [`writable`](Self::writable). An error that [`is_too_big`] means that a datagram exceeds the
    /// MTU of the interface.
    pub fn try_send(&self, t: &Transmit<'_>) -> io::Result<()> {
        let message = quinn_udp::Transmit {
            destination: if self.v6 { mapped(t.dst) } else { t.dst },
            ecn: None,
            contents: t.contents,
            segment_size: t.segment_size,
            src_ip: t.src,
        };
        match message.segment_size {
            Some(size) if size < t.contents.len() && self.state.max_gso_segments() == 1 => {
                self.send_singly(&message, size)
            }
            _ => self.send_message(&message),
        }
    }

    /// Whether something can be read; the task that polled last is woken when it can.
    pub fn poll_readable(
        &self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        self.io.poll_recv_ready(cx)
    }

    /// Whether something can be written, likewise.
    pub fn poll_writable(
        &self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        self.io.poll_send_ready(cx)
    }

    /// Sends one datagram, or a train, to the target of a connected socket.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send), and those of [`try_recv`](Self::try_recv);
    /// [`io::ErrorKind::NotConnected`] on a socket without a target.
    pub fn try_send_connected(
        &self,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let dst = self.peer.ok_or(io::ErrorKind::NotConnected)?;
        let sent = match segment_size {
            Some(size) if size < contents.len() => {
                self.try_send(&Transmit { dst, src: None, segment_size, contents })
            }
            // `send` uses the route cached in the socket; `sendmsg` with an address looks it up.
            _ => self.write(|| SockRef::from(&self.io).send(contents).map(|_| ())),
        };
        self.drop_reports_of(sent)
    }

    fn send_message(&self, message: &quinn_udp::Transmit<'_>) -> io::Result<()> {
        self.write(|| self.state.try_send((&self.io).into(), message))
    }

    /// Tries first and asks the runtime only when there is no room: a fresh socket has not been
    /// reported writable yet, and must still be able to send.
    fn write(&self, send: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let sent = send();
        if would_block(&sent) { self.io.try_io(Interest::WRITABLE, send) } else { sent }
    }

    /// Lets only pass what a classic BPF program returns more than 0 for; it sees each datagram from
    /// its UDP header on. `None`: everything.
    ///
    /// # Errors
    /// When the kernel refuses the program.
    pub(crate) fn filter(&self, program: Option<&[SockFilter]>) -> io::Result<()> {
        let socket = SockRef::from(&self.io);
        match program {
            Some(program) => socket.attach_filter(program),
            None => socket.detach_filter(),
        }
    }

    /// Datagrams, or trains of them, that the kernel did not keep for this socket, because of its
    /// filter or for want of room in its buffer; modulo 2^32.
    pub(crate) fn drops(&self) -> io::Result<u32> {
        let mut info = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
        let mut size = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the descriptor is open while borrowed; the kernel writes at most `size` bytes to
        // `info`, which is of that size, and then the number of bytes to `size`.
        let result = unsafe {
            libc::getsockopt(
                self.io.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(info[libc::SK_MEMINFO_DROPS as usize])
    }

    /// The road for systems, or interfaces, that do not segment. What does not fit into the send
    /// buffer after the first datagram is lost, as it would be on any queue.
    fn send_singly(&self, message: &quinn_udp::Transmit<'_>, size: usize) -> io::Result<()> {
        for (n, contents) in message.contents.chunks(size.max(1)).enumerate() {
            let single = quinn_udp::Transmit { contents, segment_size: None, ..message.clone() };
            match self.send_message(&single) {
                Err(e) if n > 0 && e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                other => other?,
            }
        }
        Ok(())
    }

    /// After an error of a connected socket, empties its error queue, which is charged to the
    /// receive buffer and only repeats what the error said.
    fn drop_reports_of(&self, outcome: io::Result<()>) -> io::Result<()> {
        if self.peer.is_some() && outcome.is_err() && !would_block(&outcome) {
            for _ in 0..MAX_REPORTS {
                match self.state.recv_transport_error((&self.io).into()) {
                    Ok(Some(_)) => {}
                    _ => break,
                }
            }
        }
        outcome
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

/// A datagram was larger than the interface, or the path, takes (`EMSGSIZE`). The socket lives on.
pub fn is_too_big(e: &io::Error) -> bool {
    quinn_udp::is_msg_size_err(e)
}

/// The target, or the network towards it, said that it cannot be reached.
pub fn is_unreachable(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied};
    // Linux turns "administratively prohibited" into EACCES or EHOSTUNREACH, "unknown protocol" into
    // ENOPROTOOPT, "unknown host" into EHOSTDOWN.
    matches!(e.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | PermissionDenied)
        || matches!(e.raw_os_error(), Some(libc::EHOSTDOWN | libc::ENOPROTOOPT))
}

fn would_block(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// IPv4-mapped addresses as IPv4; everything else as it is, with its scope.
fn plain(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => (v4, addr.port()).into(),
        IpAddr::V6(_) => addr,
    }
}

/// IPv4 addresses as IPv4-mapped, for an IPv6 socket.
fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        SocketAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests;
