//! Two namespaces on a veth pair, both ends with addresses: `host` has the XDP program on `veth0`.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bauta_lab::{Namespace, Net};
use bauta_xdp::{Attachment, Datagram, Filter, Ingress, Mode, RxRing, XskRing};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub(crate) const PORT: u16 = 4433;
pub(crate) const HOST: &str = "198.51.100.1";
pub(crate) const PEER: &str = "198.51.100.2";
pub(crate) const HOST_V6: &str = "2001:db8::1";
pub(crate) const PEER_V6: &str = "2001:db8::2";
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) struct Wire {
    pub(crate) host: Namespace,
    pub(crate) peer: Namespace,
    pub(crate) _net: Net,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let net = Net::new().unwrap();
        let host = net.namespace(&format!("xdp-{}", std::process::id())).unwrap();
        let peer = net.namespace(&format!("xdp-peer-{}", std::process::id())).unwrap();
        net.veth((&host, "veth0"), (&peer, "veth1")).unwrap();
        host.address("veth0", &[&format!("{HOST}/24"), &format!("{HOST_V6}/64")]).unwrap();
        peer.address("veth1", &[&format!("{PEER}/24"), &format!("{PEER_V6}/64")]).unwrap();
        // Neighbours are known, so that the first datagram does not wait for them.
        for address in [HOST, HOST_V6] {
            peer.run("ping", &["-c1", "-W2", address]).unwrap();
        }
        Self { host, peer, _net: net }
    }

    pub(crate) fn open(&self) -> bauta_xdp::Opened {
        self.host.enter(|| bauta_xdp::open("veth0", &filter(), &bauta_xdp::FASTEST_FIRST)).unwrap()
    }

    /// The ingress in one mode, whatever `open` would have preferred.
    pub(crate) fn open_in(&self, mode: Mode) -> Ingress {
        let open = || {
            let attachment = Attachment::attach("veth0", &filter(), mode)?;
            let rings = vec![attachment.ring(0)?];
            Ok::<_, bauta_xdp::Error>(Ingress { attachment, rings })
        };
        self.host.enter(open).unwrap().unwrap()
    }

    /// A UDP socket bound in `host`, as the gateway's own; it waits for at most a second.
    pub(crate) fn host_socket(&self, port: u16) -> UdpSocket {
        bind(&self.host, &format!("[::]:{port}"))
    }

    /// A UDP socket in `peer`.
    pub(crate) fn peer_socket(&self) -> UdpSocket {
        bind(&self.peer, "[::]:0")
    }

    /// Whether any XDP program is on `veth0`.
    pub(crate) fn has_program(&self) -> bool {
        let link = self.host.ip("-details link show dev veth0").unwrap();
        link.contains("prog/xdp")
    }
}

fn bind(namespace: &Namespace, address: &str) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket
}

pub(crate) fn filter() -> Filter {
    Filter::listening(&[SocketAddr::new("::".parse().unwrap(), PORT)]).unwrap()
}

/// The host's address of a family, for a dual-stack socket.
pub(crate) fn to(address: &str, port: u16) -> SocketAddr {
    let ip = match address.parse::<Ipv4Addr>() {
        Ok(ip) => ip.to_ipv6_mapped(),
        Err(_) => address.parse().unwrap(),
    };
    SocketAddr::new(ip.into(), port)
}

/// Waits until frames are there, or `within` has passed.
pub(crate) fn readable(ring: &XskRing, within: Duration) -> bool {
    let mut fds = [PollFd::new(ring.fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(within).unwrap()).unwrap() > 0
}

pub(crate) type Received = (SocketAddr, SocketAddr, Vec<u8>);

/// Receives `count` datagrams, or as many as come before half a second of silence.
pub(crate) fn receive(ring: &mut XskRing, count: usize) -> Vec<Received> {
    let interface = ring.interface();
    let mut received = Vec::new();
    while received.len() < count && readable(ring, Duration::from_millis(500)) {
        ring.poll_batch(&mut |frame| {
            let datagram = Datagram::parse(frame, interface).unwrap();
            received.push((datagram.source, datagram.destination, datagram.payload.to_vec()));
        });
    }
    received
}
