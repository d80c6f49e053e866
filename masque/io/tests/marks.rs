//! A visitor's connection keeps an ordinary controller, a tunnel's window is out of the way: over a
//! relay that loses one packet in twenty.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket as Plain};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bauta_masque_io::mark::{MarkKey, Marks};
use bauta_masque_io::tls::TransportConfig;
use bauta_masque_io::udp::{BindOptions, UdpSocket};
use bauta_masque_io::{
    App, Connection, DatagramBuf, Endpoint, EndpointConfig, Event, Header, QuicConfig, cid, clock,
    tls,
};
use bytes::Bytes;

const BODY: usize = 1 << 20;
/// What a controller that heeds loss does not reach here, bytes.
const LARGE: u64 = 4 << 20;

fn server_configs() -> (QuicConfig, QuicConfig) {
    let certified = rcgen::generate_simple_self_signed(vec!["site.test".into()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let certified = tls::Certified::load(&cert, &key).unwrap();
    let tickets = tls::TicketKey::random().unwrap();
    let make = |t: TransportConfig| tls::quic_server_config(&certified, &tickets, &t).unwrap();
    (make(TransportConfig::server()), make(TransportConfig::server().tunnel()))
}

fn client_config() -> QuicConfig {
    let mut config = QuicConfig::new(quiche::PROTOCOL_VERSION).unwrap();
    config.set_application_protos(quiche::h3::APPLICATION_PROTOCOL).unwrap();
    config.set_max_idle_timeout(10_000);
    config.set_initial_max_data(16 << 20);
    config.set_initial_max_stream_data_bidi_local(8 << 20);
    config.set_initial_max_stream_data_uni(1 << 20);
    config.set_initial_max_streams_uni(10);
    config.verify_peer(false);
    config
}

/// Answers each request with [`BODY`] bytes, and trusts those who ask for it.
#[derive(Default)]
struct Server {
    left: HashMap<(u64, u64), usize>,
    windows: Vec<u64>,
    governed: Vec<bool>,
}

impl Server {
    fn feed(&mut self, conn: &mut Connection, stream: u64) {
        let Some(left) = self.left.get_mut(&(conn.id(), stream)) else { return };
        while *left > 0 {
            let n = (*left).min(16_384);
            *left -= n;
            let queued = conn.send_body(stream, Bytes::from(vec![7; n]), *left == 0);
            if queued > bauta_masque_io::connection::HIGH_WATER {
                return;
            }
        }
        self.windows.push(conn.bond_stats().cwnd);
        self.governed.push(!conn.is_without_window());
    }
}

impl App for Server {
    fn datagram(&mut self, _: &mut Connection, _: u64, _: DatagramBuf) {}

    fn event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Headers { stream, headers, .. } => {
                if headers.contains(&Header::new(b"trust", b"me")) {
                    conn.trust();
                }
                conn.respond(stream, vec![Header::new(b":status", b"200")], false);
                self.left.insert((conn.id(), stream), BODY);
                self.feed(conn, stream);
            }
            Event::Writable { stream } => self.feed(conn, stream),
            _ => {}
        }
    }
}

#[derive(Default)]
struct Client {
    ready: bool,
    got: usize,
    buf: Vec<u8>,
}

impl App for Client {
    fn datagram(&mut self, _: &mut Connection, _: u64, _: DatagramBuf) {}

    fn event(&mut self, conn: &mut Connection, event: Event) {
        self.buf.resize(65_536, 0);
        match event {
            Event::Settings => self.ready = true,
            Event::Data { stream } => loop {
                match conn.recv_body(stream, &mut self.buf) {
                    0 => break,
                    n => self.got += n,
                }
            },
            _ => {}
        }
    }
}

/// Carries packets both ways and loses every twentieth that comes from the server, but none of the
/// handshake's; ends with the flag.
fn relay(server: SocketAddr, stop: &Arc<AtomicBool>) -> SocketAddr {
    let front = Plain::bind("127.0.0.1:0").unwrap();
    let back = Plain::bind("127.0.0.1:0").unwrap();
    let addr = front.local_addr().unwrap();
    for socket in [&front, &back] {
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    }
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut buf = [0; 2048];
        let (mut n, mut client) = (0u64, None);
        front.set_nonblocking(true).unwrap();
        back.set_nonblocking(true).unwrap();
        while !stop.load(Ordering::Relaxed) {
            let mut idle = true;
            while let Ok((len, from)) = front.recv_from(&mut buf) {
                client = Some(from);
                back.send_to(&buf[..len], server).unwrap();
                idle = false;
            }
            while let Ok((len, _)) = back.recv_from(&mut buf) {
                n += 1;
                idle = false;
                if n < 20 || n % 20 > 0 {
                    front.send_to(&buf[..len], client.unwrap()).unwrap();
                }
            }
            if idle {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    addr
}

/// Downloads the body and returns the server's last window and whether quiche's controller governs.
async fn download(dcid: Option<[u8; 8]>, trust: bool) -> (u64, bool) {
    let (visitors, tunnels) = server_configs();
    let bind = || UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &BindOptions::default());
    let config = EndpointConfig::default();
    let mut server = Endpoint::server(bind().unwrap(), visitors, config.clone()).unwrap();
    let mut marks = Marks::default();
    let keys = [MarkKey::of_token(b"token")];
    server.set_tunnel_config(tunnels, move |id| marks.admit(id, &keys, clock::unix_time()));
    let stop = Arc::new(AtomicBool::new(false));
    let through = relay(server.local_addr(), &stop);
    let mut client = Endpoint::client(bind().unwrap(), config).unwrap();
    let mut quic = client_config();
    let dcid = dcid.as_ref().map(<[u8; 8]>::as_slice);
    let id = client.connect_marked(through, "site.test", &mut quic, dcid).unwrap();
    let (mut s, mut c) = (Server::default(), Client::default());
    let mut asked = false;
    let end = clock::now() + Duration::from_secs(60);
    while c.got < BODY {
        let now = clock::now();
        assert!(now < end, "{} of {BODY} bytes came", c.got);
        server.handle_readable(now, &mut s);
        server.handle_timeout(now, &mut s);
        server.flush(now, &mut s);
        client.handle_readable(now, &mut c);
        client.handle_timeout(now, &mut c);
        if c.ready && !asked {
            asked = true;
            let path = [(":method", "GET"), (":scheme", "https"), (":path", "/")];
            let mut head: Vec<_> =
                path.iter().map(|(n, v)| Header::new(n.as_bytes(), v.as_bytes())).collect();
            head.push(Header::new(b":authority", b"site.test"));
            if trust {
                head.push(Header::new(b"trust", b"me"));
            }
            client.get(id).unwrap().request(&head, true).unwrap();
            client.touch(id);
        }
        client.flush(now, &mut c);
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    stop.store(true, Ordering::Relaxed);
    (*s.windows.last().unwrap(), *s.governed.last().unwrap())
}

fn mark(token: &[u8]) -> Option<[u8; 8]> {
    Some(MarkKey::of_token(token).draw(clock::unix_time(), |_| true, cid::random))
}

#[tokio::test]
async fn a_visitor_keeps_a_controller_that_heeds_loss() {
    for dcid in [None, mark(b"another token")] {
        let (window, governed) = download(dcid, false).await;
        assert!(governed && window < LARGE, "{window}");
    }
}

#[tokio::test]
async fn a_tunnels_window_does_not_bind_whatever_is_lost() {
    let (window, governed) = download(mark(b"token"), true).await;
    assert!(!governed && window > LARGE, "{window}");
}

#[tokio::test]
async fn a_mark_without_a_tunnel_behind_it_sends_no_faster_than_slow_start() {
    let (_, governed) = download(mark(b"token"), false).await;
    assert!(!governed);
}
