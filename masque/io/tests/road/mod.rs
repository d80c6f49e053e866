//! The whole way of a packet in one process: two endpoints on loopback, a CONNECT-IP session on each.
#![allow(dead_code, reason = "shared by a test and a bench, which use different parts")]

use bauta_masque::address::AssignedAddress;
use bauta_masque::connect_ip::{Config, ConnectIp, Verdict};
use bauta_masque::datagram::CONTEXT_ID_ZERO;
use bauta_masque::filter::Policy;
use bauta_masque::route::IpRange;
use bauta_masque::shape::{PADDING, Shape};
use bauta_masque_io::tls::TransportConfig;
use bauta_masque_io::tun::TunQueue;
use bauta_masque_io::udp::{BindOptions, UdpSocket};
use bauta_masque_io::{
    App, ConnId, Connection, DatagramBuf, Endpoint, EndpointConfig, Event, Header, NameValue,
    QuicConfig, clock,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// The client's address inside the tunnel, and one of the Internet.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
pub(crate) const WEB: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);

/// One end: what arrives is judged by its session and goes to its TUN, if it has one.
pub(crate) struct End {
    pub(crate) session: ConnectIp,
    pub(crate) tun: Option<TunQueue>,
    pub(crate) arrived: u64,
    pub(crate) bytes: u64,
    pub(crate) refused: u64,
    now: Instant,
    policy: Policy,
    settings: bool,
    /// Whether the request came with padding.
    pub(crate) padded: bool,
    stream: Option<u64>,
    server: bool,
}

impl End {
    fn new(session: ConnectIp, server: bool) -> Self {
        let (policy, now) = (Policy::default(), clock::now());
        let (arrived, bytes, refused) = (0, 0, 0);
        let (settings, padded, stream, tun) = (false, false, None, None);
        Self {
            session,
            tun,
            arrived,
            bytes,
            refused,
            now,
            policy,
            settings,
            padded,
            stream,
            server,
        }
    }

    /// Sends one packet on the session.
    pub(crate) fn send(&mut self, conn: &mut Connection, stream: u64, mut packet: DatagramBuf) {
        let max = conn.max_datagram_payload(stream).unwrap_or(0);
        match self.session.encapsulate(self.now, packet.bytes_mut(), max) {
            Verdict::Forward(_) => conn.send_buf(stream, &CONTEXT_ID_ZERO, packet).unwrap(),
            other => panic!("not forwarded: {other:?}"),
        }
    }
}

impl App for End {
    fn datagram(&mut self, _: &mut Connection, _: u64, mut payload: DatagramBuf) {
        match self.session.handle_datagram(self.now, payload.bytes_mut(), &self.policy) {
            Verdict::Forward(packet) => {
                let len = packet.len();
                (self.arrived, self.bytes) = (self.arrived + 1, self.bytes + len as u64);
                payload.advance(payload.len() - len);
                if let Some(tun) = &mut self.tun {
                    tun.queue(payload);
                }
            }
            _ => self.refused += 1,
        }
    }

    fn event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Settings => self.settings = true,
            Event::Headers { stream, headers, .. } => {
                self.stream = Some(stream);
                if self.server {
                    assert!(headers.iter().any(|h| h.value() == b"CONNECT"));
                    self.padded = headers.iter().any(|h| h.name() == PADDING.as_bytes());
                    conn.respond(stream, vec![Header::new(b":status", b"200")], false);
                }
            }
            _ => {}
        }
    }
}

/// Both ends, connected.
pub(crate) struct Road {
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
    pub(crate) near: End,
    pub(crate) far: End,
    pub(crate) conn: ConnId,
    pub(crate) stream: u64,
}

fn transport(t: &TransportConfig) -> QuicConfig {
    let mut quic = QuicConfig::new(quiche::PROTOCOL_VERSION).unwrap();
    quic.set_application_protos(quiche::h3::APPLICATION_PROTOCOL).unwrap();
    quic.set_max_idle_timeout(30_000);
    quic.set_initial_max_data(t.initial_max_data);
    quic.set_initial_max_stream_data_bidi_local(t.initial_max_stream_data);
    quic.set_initial_max_stream_data_bidi_remote(t.initial_max_stream_data);
    quic.set_initial_max_stream_data_uni(t.initial_max_stream_data);
    quic.set_initial_max_streams_bidi(t.initial_max_streams_bidi);
    quic.set_initial_max_streams_uni(t.initial_max_streams_uni);
    quic.set_active_connection_id_limit(t.active_connection_id_limit);
    quic.enable_dgram(true, t.datagram_recv_queue, t.datagram_send_queue);
    quic.set_max_send_udp_payload_size(t.max_send_udp_payload);
    quic.discover_pmtu(true);
    quic.grease(false);
    quic
}

fn server_config() -> QuicConfig {
    let dir = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["site.test".into()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let mut config = transport(&TransportConfig::server());
    config.load_cert_chain_from_pem_file(cert.to_str().unwrap()).unwrap();
    config.load_priv_key_from_pem_file(key.to_str().unwrap()).unwrap();
    config
}

fn socket() -> UdpSocket {
    let options = BindOptions::default();
    UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &options).unwrap()
}

impl Road {
    /// Connects, opens the tunnel and waits until the path MTU is known.
    pub(crate) async fn open() -> Self {
        Self::shaped(Shape::None).await
    }

    /// The same with a shape for what the client sends.
    pub(crate) async fn shaped(shape: Shape) -> Self {
        let server =
            Endpoint::server(socket(), server_config(), EndpointConfig::default()).unwrap();
        let client =
            Endpoint::client(socket(), EndpointConfig { shape, ..EndpointConfig::default() })
                .unwrap();
        let (near, far) = sessions();
        let (near, far) = (End::new(near, false), End::new(far, true));
        let mut road = Self { client, server, near, far, conn: 0, stream: 0 };
        (road.conn, road.stream) = road.join().await;
        road
    }

    /// Another tunnel from the same client.
    pub(crate) async fn join(&mut self) -> (ConnId, u64) {
        let mut config = transport(&TransportConfig::client());
        config.verify_peer(false);
        let to = self.server.local_addr();
        let conn = self.client.connect(to, "site.test", &mut config).unwrap();
        self.near.settings = false;
        self.until(|road| road.near.settings).await;
        let head = [
            Header::new(b":method", b"CONNECT"),
            Header::new(b":protocol", b"connect-ip"),
            Header::new(b":scheme", b"https"),
            Header::new(b":authority", b"site.test"),
            Header::new(b":path", b"/.well-known/masque/ip/*/*/"),
            Header::new(b"capsule-protocol", b"?1"),
        ];
        let opening = self.client.get(conn).unwrap();
        opening.end_reserve();
        let stream = opening.request(&head, false).unwrap();
        self.client.touch(conn);
        self.near.stream = None;
        self.until(|road| road.near.stream.is_some()).await;
        self.until(|road| road.client.get(conn).unwrap().path_mtu_settled()).await;
        (conn, stream)
    }

    /// Sends copies of `packet` up the tunnel, `train` a turn, until `count` have arrived.
    pub(crate) async fn up(&mut self, packet: &[u8], train: usize, count: u64) {
        let before = self.far.arrived;
        let deadline = clock::now() + Duration::from_secs(60);
        while self.far.arrived - before < count {
            assert!(clock::now() < deadline, "packets do not arrive");
            let conn = self.client.get(self.conn).unwrap();
            if conn.datagrams_queued() < train {
                for _ in 0..train {
                    self.near.send(conn, self.stream, DatagramBuf::copy_of(packet));
                }
                self.client.touch(self.conn);
            }
            self.turn(Duration::from_millis(1)).await;
        }
    }

    /// One turn of both loops.
    pub(crate) async fn turn(&mut self, patience: Duration) {
        let now = clock::now();
        (self.near.now, self.far.now) = (now, now);
        self.client.flush(now, &mut self.near);
        self.server.flush(now, &mut self.far);
        tokio::select! {
            biased;
            _ = self.server.readable() => self.server.handle_readable(now, &mut self.far),
            _ = self.client.readable() => self.client.handle_readable(now, &mut self.near),
            () = tokio::time::sleep(patience) => {}
        }
        if let Some(tun) = &mut self.far.tun {
            tun.flush().unwrap();
        }
        self.client.handle_timeout(now, &mut self.near);
        self.server.handle_timeout(now, &mut self.far);
    }

    async fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = clock::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(clock::now() < deadline, "not within twenty seconds");
            self.turn(Duration::from_millis(10)).await;
        }
    }
}

/// What a server and a client are configured with.
pub(crate) fn configs() -> (QuicConfig, QuicConfig) {
    (server_config(), transport(&TransportConfig::client()))
}

/// A client's and a proxy's session, addresses assigned and routes advertised.
pub(crate) fn sessions() -> (ConnectIp, ConnectIp) {
    let router = "10.7.0.1".parse().unwrap();
    let mut far = ConnectIp::new(Config::proxy(router, "2001:db8::1".parse().unwrap()));
    let mut near = ConnectIp::new(Config::client());
    let address = bauta_masque::address::Prefix::host(CLIENT.into());
    far.assign(vec![AssignedAddress::unsolicited(address)]);
    far.advertise(&[IpRange::ALL_V4]).unwrap();
    let now = clock::now();
    while let Some(capsules) = far.poll_transmit() {
        near.handle_stream(now, &capsules).unwrap();
    }
    while near.poll_event().is_some() {}
    (near, far)
}

/// A UDP packet of `len` bytes from the client to the Internet, without a UDP checksum.
pub(crate) fn packet(len: usize) -> Vec<u8> {
    let mut p = vec![0; len];
    p[0] = 0x45;
    p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    (p[8], p[9]) = (64, 17);
    p[12..16].copy_from_slice(&CLIENT.octets());
    p[16..20].copy_from_slice(&WEB.octets());
    let sum = bauta_masque::checksum::checksum(&p[..20]);
    p[10..12].copy_from_slice(&sum.to_be_bytes());
    p[20..24].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
    p[24..26].copy_from_slice(&(len as u16 - 20).to_be_bytes());
    p
}
