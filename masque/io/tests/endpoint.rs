//! A client's and a server's endpoint on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bauta_masque_io::tls::TransportConfig;
use bauta_masque_io::udp::{BindOptions, Datagram, UdpSocket};
use bauta_masque_io::{
    App, Closed, Connection, DatagramBuf, Endpoint, EndpointConfig, Event, Foreign, Header,
    NameValue, QuicConfig, Source, clock, steer,
};
use bytes::Bytes;

fn quic_config() -> QuicConfig {
    let mut config = QuicConfig::new(quiche::PROTOCOL_VERSION).unwrap();
    config.set_application_protos(quiche::h3::APPLICATION_PROTOCOL).unwrap();
    config.set_max_idle_timeout(5_000);
    config.set_initial_max_data(16 << 20);
    config.set_initial_max_stream_data_bidi_local(1 << 20);
    config.set_initial_max_stream_data_bidi_remote(1 << 20);
    config.set_initial_max_stream_data_uni(1 << 20);
    config.set_initial_max_streams_bidi(100);
    config.set_initial_max_streams_uni(10);
    config.set_active_connection_id_limit(4);
    config.set_max_send_udp_payload_size(1472);
    config.enable_dgram(true, 8192, 8192);
    config.discover_pmtu(true);
    config.grease(false);
    config
}

fn server_config() -> QuicConfig {
    let dir = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["site.test".into()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let mut config = quic_config();
    config.load_cert_chain_from_pem_file(cert.to_str().unwrap()).unwrap();
    config.load_priv_key_from_pem_file(key.to_str().unwrap()).unwrap();
    config
}

fn socket() -> UdpSocket {
    UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &BindOptions::default()).unwrap()
}

/// Answers each request with as many body bytes as its path says and echoes datagrams.
#[derive(Default)]
struct Server {
    left: HashMap<u64, usize>,
    migrated: usize,
    resets: Vec<u64>,
}

impl Server {
    fn feed(&mut self, conn: &mut Connection, stream: u64) {
        let Some(left) = self.left.get_mut(&stream) else { return };
        while *left > 0 {
            let n = (*left).min(16_384);
            *left -= n;
            let queued = conn.send_body(stream, Bytes::from(vec![7; n]), *left == 0);
            if queued > bauta_masque_io::connection::HIGH_WATER {
                return;
            }
        }
    }
}

impl App for Server {
    fn datagram(&mut self, conn: &mut Connection, stream: u64, payload: DatagramBuf) {
        let _ = conn.send_buf(stream, &[], payload);
    }

    fn event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Headers { stream, headers, .. } => {
                let path = headers.iter().find(|h| h.name() == b":path").unwrap();
                let size = std::str::from_utf8(&path.value()[1..]).unwrap().parse().unwrap();
                conn.respond(stream, vec![Header::new(b":status", b"200")], false);
                self.left.insert(stream, size);
                self.feed(conn, stream);
            }
            Event::Writable { stream } => self.feed(conn, stream),
            Event::Stopped { stream, .. } => {
                self.left.remove(&stream);
                self.resets.push(stream);
            }
            Event::Migrated => self.migrated += 1,
            _ => {}
        }
    }
}

#[derive(Default)]
struct Client {
    settings: bool,
    bodies: HashMap<u64, usize>,
    finished: Vec<u64>,
    datagrams: Vec<(u64, usize)>,
    hold: Option<u64>,
    closed: Option<Closed>,
}

impl App for Client {
    fn datagram(&mut self, _: &mut Connection, stream: u64, payload: DatagramBuf) {
        self.datagrams.push((stream, payload.len()));
    }

    fn event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Settings => self.settings = true,
            Event::Data { stream } if self.hold != Some(stream) => {
                let mut buf = [0; 65_536];
                loop {
                    match conn.recv_body(stream, &mut buf) {
                        0 => break,
                        n => *self.bodies.entry(stream).or_default() += n,
                    }
                }
            }
            Event::Finished { stream } => self.finished.push(stream),
            Event::Closed(closed) => self.closed = Some(closed),
            _ => {}
        }
    }
}

struct Pair {
    server: Endpoint,
    client: Endpoint,
    on_server: Server,
    on_client: Client,
    conn: u64,
}

impl Pair {
    async fn connected(server: EndpointConfig) -> Self {
        let server = Endpoint::server(socket(), server_config(), server).unwrap();
        let mut client = Endpoint::client(socket(), EndpointConfig::default()).unwrap();
        let mut config = quic_config();
        config.verify_peer(false);
        // Every client announces a browser's windows, so they have to be its own.
        let browser = TransportConfig::client();
        config.set_initial_max_data(browser.initial_max_data);
        config.set_initial_max_stream_data_bidi_local(browser.initial_max_stream_data);
        config.set_initial_max_stream_data_bidi_remote(browser.initial_max_stream_data);
        config.set_initial_max_stream_data_uni(browser.initial_max_stream_data);
        let conn = client.connect(server.local_addr(), "site.test", &mut config).unwrap();
        let mut pair = Self {
            server,
            client,
            on_server: Server::default(),
            on_client: Client::default(),
            conn,
        };
        pair.until(|p| p.on_client.settings).await;
        pair
    }

    async fn turn(&mut self) {
        self.client.flush(clock::now(), &mut self.on_client);
        self.server.flush(clock::now(), &mut self.on_server);
        let next = self.client.timeout().into_iter().chain(self.server.timeout()).min();
        let wait = next.map_or(Duration::from_millis(50), |t| {
            t.saturating_duration_since(clock::now()).min(Duration::from_millis(50))
        });
        tokio::select! {
            _ = self.client.readable() => self.client.handle_readable(clock::now(), &mut self.on_client),
            _ = self.server.readable() => self.server.handle_readable(clock::now(), &mut self.on_server),
            _ = self.client.writable() => {}
            _ = self.server.writable() => {}
            () = tokio::time::sleep(wait) => {}
        }
        self.client.handle_timeout(clock::now(), &mut self.on_client);
        self.server.handle_timeout(clock::now(), &mut self.on_server);
    }

    async fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = clock::now() + Duration::from_secs(10);
        while !done(self) {
            assert!(clock::now() < deadline, "not within ten seconds");
            self.turn().await;
        }
    }

    fn get(&mut self, path: &str) -> u64 {
        let headers = [
            Header::new(b":method", b"GET"),
            Header::new(b":scheme", b"https"),
            Header::new(b":authority", b"site.test"),
            Header::new(b":path", path.as_bytes()),
        ];
        self.client.touch(self.conn);
        self.client.get(self.conn).unwrap().request(&headers, true).unwrap()
    }
}

#[tokio::test]
async fn bodies_arrive_whole_beside_a_stream_that_nobody_reads() {
    let mut pair = Pair::connected(EndpointConfig::default()).await;
    let stalled = pair.get("/8000000");
    pair.on_client.hold = Some(stalled);
    let big = pair.get("/3000000");
    let small = pair.get("/10");
    pair.until(|p| p.on_client.finished.len() == 2).await;
    assert_eq!(pair.on_client.bodies[&big], 3_000_000);
    assert_eq!(pair.on_client.bodies[&small], 10);
    assert!(pair.on_server.left[&stalled] > 0, "flow control holds the unread one back");
}

#[tokio::test]
async fn datagrams_are_echoed_and_too_large_ones_are_named() {
    let mut pair = Pair::connected(EndpointConfig::default()).await;
    let stream = pair.get("/100000000");
    pair.on_client.hold = Some(stream);
    pair.until(|p| p.client.get(p.conn).unwrap().path_mtu_settled()).await;
    let conn = pair.client.get(pair.conn).unwrap();
    let max = conn.max_datagram_payload(stream).unwrap();
    assert!(max > 1400, "{max}");
    let error = conn.send_datagram(stream, &[0], &vec![0; max]).unwrap_err();
    assert_eq!(error, bauta_masque_io::DatagramError::TooLarge { max });
    for _ in 0..200 {
        conn.send_datagram(stream, &[0], &vec![0; max - 1]).unwrap();
    }
    pair.client.touch(pair.conn);
    pair.until(|p| p.on_client.datagrams.len() == 200).await;
    assert!(pair.on_client.datagrams.iter().all(|d| *d == (stream, max)));
}

#[tokio::test]
async fn a_rebound_client_migrates_and_its_streams_go_on() {
    let mut pair = Pair::connected(EndpointConfig::default()).await;
    let big = pair.get("/20000000");
    pair.until(|p| p.on_client.bodies.get(&big).is_some_and(|n| *n > 100_000)).await;
    pair.client.rebind(socket());
    pair.until(|p| !p.on_client.finished.is_empty()).await;
    assert_eq!(pair.on_client.bodies[&big], 20_000_000);
    assert!(pair.on_server.migrated > 0);
}

#[tokio::test]
async fn a_key_is_not_used_beyond_its_packet_limit() {
    let limit = 500;
    let config = EndpointConfig { packet_limit: limit, ..EndpointConfig::default() };
    let mut pair = Pair::connected(config).await;
    pair.get("/20000000");
    pair.until(|p| p.on_client.closed.is_some()).await;
    let closed = pair.on_client.closed.clone().unwrap();
    assert!(closed.by_peer && !closed.app, "{closed:?}");
    assert_eq!(closed.code, bauta_masque_io::connection::AEAD_LIMIT_REACHED);
}

#[tokio::test]
async fn a_restarted_server_ends_old_connections_at_once() {
    let config = EndpointConfig { reset_key: Some([9; 32]), ..EndpointConfig::default() };
    let mut pair = Pair::connected(config.clone()).await;
    let address = pair.server.local_addr();
    pair.until(|p| p.client.get(p.conn).unwrap().path_mtu_settled()).await;
    pair.server = {
        drop(pair.server);
        let socket = UdpSocket::bind(address, &BindOptions::default()).unwrap();
        Endpoint::server(socket, server_config(), config).unwrap()
    };
    let begun = clock::now();
    pair.client.get(pair.conn).unwrap().ping();
    pair.get("/1");
    pair.until(|p| p.on_client.closed.is_some()).await;
    assert!(clock::now() - begun < Duration::from_secs(2));
    assert!(!pair.on_client.closed.as_ref().unwrap().timed_out);
}

#[tokio::test]
async fn rule_7_a_datagram_for_a_stream_beyond_the_limit_ends_the_connection() {
    let mut pair = Pair::connected(EndpointConfig::default()).await;
    pair.until(|p| p.client.get(p.conn).unwrap().path_mtu_settled()).await;
    let beyond = 4 * bauta_masque_io::tls::MAX_REQUESTS;
    pair.client.get(pair.conn).unwrap().send_datagram(beyond, &[0], b"x").unwrap();
    pair.client.touch(pair.conn);
    pair.until(|p| p.on_client.closed.is_some()).await;
    let closed = pair.on_client.closed.clone().unwrap();
    assert_eq!((closed.by_peer, closed.code), (true, bauta_masque::datagram::H3_ID_ERROR));
}

#[tokio::test]
async fn a_qlog_of_each_connection_is_left_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let qlog_dir = Some(dir.path().to_owned());
    let config = EndpointConfig { qlog_dir, ..EndpointConfig::default() };
    let mut pair = Pair::connected(config).await;
    let stream = pair.get("/1000");
    pair.until(|p| p.on_client.finished.contains(&stream)).await;
    drop(pair);
    let logs: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    let log = std::fs::read_to_string(&logs[0]).unwrap();
    assert!(log.contains("qlog:file") && log.contains("packet_sent"), "{log:.200}");
}

/// Datagrams as a ring hands them over: copies of what a socket received.
struct Copies(Vec<(Vec<u8>, SocketAddr)>);

impl Source for Copies {
    fn poll_batch(&mut self, each: &mut dyn FnMut(Datagram<'_>)) -> usize {
        let batch = self.0.len().min(2);
        for (mut payload, from) in self.0.drain(..batch) {
            let to = Some([127, 0, 0, 1].into());
            each(Datagram { payload: &mut payload, from, to, ecn: None });
        }
        batch
    }
}

#[tokio::test]
async fn a_first_packet_from_a_source_is_accepted_or_handed_over_as_told() {
    let mut client = Endpoint::client(socket(), EndpointConfig::default()).unwrap();
    let mut config = quic_config();
    let inbox = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    inbox.set_nonblocking(true).unwrap();
    for accepts_anywhere in [false, true] {
        let config_of = |worker| EndpointConfig {
            worker,
            workers: 2,
            accepts_anywhere,
            ..EndpointConfig::default()
        };
        let mut servers: Vec<_> = (0..2)
            .map(|n| Endpoint::server(socket(), server_config(), config_of(n)).unwrap())
            .collect();
        let mut app = Server::default();
        for _ in 0..16 {
            client.connect(inbox.local_addr().unwrap(), "site.test", &mut config).unwrap();
        }
        client.flush(clock::now(), &mut Client::default());
        let mut first = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok((n, from)) = inbox.recv_from(&mut buffer) {
            first.push((buffer[..n].to_vec(), from));
        }
        let mut source = Copies(first);
        while !source.0.is_empty() {
            servers[0].handle_source(&mut source, &mut app);
        }
        for foreign in servers[0].take_foreign() {
            assert_eq!(foreign.worker, 1);
            servers[1].handle_foreign(foreign, &mut app);
        }
        // A hello may come in two packets; they are of one connection.
        let (ours, theirs) = (servers[0].len(), servers[1].len());
        assert_eq!(ours + theirs, 16, "{ours} and {theirs}");
        assert_eq!(theirs == 0, accepts_anywhere, "{ours} and {theirs}");
    }
}

#[tokio::test]
async fn a_sibling_answers_what_it_does_not_know_with_as_many_resets_as_the_socket_would() {
    let config = EndpointConfig {
        worker: 1,
        workers: 2,
        reset_key: Some([9; 32]),
        ..EndpointConfig::default()
    };
    let mut server = Endpoint::server(socket(), server_config(), config).unwrap();
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let heard = |server: &mut Endpoint| {
        let mut byte = 0u8;
        for _ in 0..100 {
            let cid = steer::pick_cid(1, 2, &mut |out| {
                byte = byte.wrapping_add(1);
                out.fill(byte);
            });
            let mut payload = [&[0x40][..], &cid].concat();
            payload.resize(80, 0);
            let (from, to) = (stranger.local_addr().unwrap(), server.local_addr());
            let foreign = Foreign { worker: 1, from, to, payload };
            server.handle_foreign(foreign, &mut Server::default());
        }
        std::iter::from_fn(|| stranger.recv(&mut [0; 100]).ok()).collect::<Vec<_>>()
    };
    let first = heard(&mut server);
    assert!(!first.is_empty() && first.len() < 20, "{first:?}");
    assert!(first.iter().all(|&n| n < 80), "{first:?}");
    assert!(heard(&mut server).is_empty(), "in the same turn");
    server.handle_readable(clock::now(), &mut Server::default());
    assert_eq!(heard(&mut server).len(), first.len());
}
