//! What strangers can make a server's endpoint do, on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket as Plain};
use std::time::Duration;

use bauta_masque_io::DatagramBuf;
use bauta_masque_io::tls::{
    Certified, ClientTls, Roots, TicketKey, TransportConfig, quic_client_config, quic_server_config,
};
use bauta_masque_io::udp::{BindOptions, UdpSocket};
use bauta_masque_io::{
    App, Closed, Connection, DoorLimits, Endpoint, EndpointConfig, Event, clock,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Seen {
    established: usize,
    closed: Vec<Closed>,
}

impl App for Seen {
    fn datagram(&mut self, _: &mut Connection, _: u64, _: DatagramBuf) {}

    fn event(&mut self, _: &mut Connection, event: Event) {
        match event {
            Event::Established => self.established += 1,
            Event::Closed(closed) => self.closed.push(closed),
            _ => {}
        }
    }
}

struct Side {
    endpoint: Endpoint,
    seen: Seen,
}

impl Side {
    async fn turn(&mut self) {
        self.endpoint.flush(clock::now(), &mut self.seen);
        let due = clock::now() + Duration::from_millis(5);
        tokio::select! {
            _ = self.endpoint.readable() => {
                self.endpoint.handle_readable(clock::now(), &mut self.seen);
            }
            () = tokio::time::sleep_until(due.into()) => {}
        }
        self.endpoint.handle_timeout(clock::now(), &mut self.seen);
        self.endpoint.flush(clock::now(), &mut self.seen);
    }
}

fn loopback() -> UdpSocket {
    UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &BindOptions::default()).unwrap()
}

/// A server, and the pin of its key.
fn server(door: DoorLimits) -> (Side, [u8; 32]) {
    let made = rcgen::generate_simple_self_signed(vec!["site.test".into()]).unwrap();
    let key = made.signing_key.serialize_pem().into_bytes();
    let certified = Certified::from_pem(made.cert.pem().into_bytes(), key).unwrap();
    let tickets = TicketKey::random().unwrap();
    let quic = quic_server_config(&certified, &tickets, &TransportConfig::server()).unwrap();
    let config = EndpointConfig { door, ..EndpointConfig::default() };
    let endpoint = Endpoint::server(loopback(), quic, config).unwrap();
    (Side { endpoint, seen: Seen::default() }, certified.spki_sha256().unwrap())
}

fn client(pin: [u8; 32], to: SocketAddr, times: usize) -> Side {
    client_at(loopback(), pin, to, times)
}

fn client_at(socket: UdpSocket, pin: [u8; 32], to: SocketAddr, times: usize) -> Side {
    let tls = ClientTls { roots: Roots::PinnedSpki(pin), transport: TransportConfig::client() };
    let mut quic = quic_client_config(&tls).unwrap();
    let mut endpoint = Endpoint::client(socket, EndpointConfig::default()).unwrap();
    for _ in 0..times {
        endpoint.connect(to, "site.test", &mut quic).unwrap();
    }
    Side { endpoint, seen: Seen::default() }
}

/// Runs both until `done`.
async fn play(server: &mut Side, client: &mut Side, done: impl Fn(&Side, &Side) -> bool) {
    let end = clock::now() + PATIENCE;
    while !done(server, client) {
        assert!(clock::now() < end, "waited in vain");
        tokio::join!(server.turn(), client.turn());
    }
}

/// An Initial as one looks from outside, with nothing inside.
fn garbage(n: u64) -> Vec<u8> {
    let mut packet = vec![0xc3, 0, 0, 0, 1, 8];
    packet.extend(n.to_be_bytes());
    packet.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0x44, 0x96]);
    packet.resize(1200, 0x5a);
    packet
}

#[tokio::test]
async fn under_load_an_address_is_proven_first_and_the_handshake_goes_on() {
    let (mut server, pin) = server(DoorLimits { free_handshakes: 0, ..DoorLimits::default() });
    let mut client = client(pin, server.endpoint.local_addr(), 20);
    play(&mut server, &mut client, |s, c| s.seen.established == 20 && c.seen.established == 20)
        .await;
    let stats = server.endpoint.door_stats();
    assert!(stats.retries >= 20, "{stats:?}");
    assert_eq!(stats.garbage, 0, "{stats:?}");
}

#[tokio::test]
async fn garbage_leaves_nothing_behind_and_does_not_lock_others_out() {
    let limits =
        DoorLimits { free_handshakes: 50, answers_per_second: 100, ..DoorLimits::default() };
    let (mut server, pin) = server(limits);
    let to = server.endpoint.local_addr();
    let flood = Plain::bind("127.0.0.1:0").unwrap();
    let begun = clock::now();
    for n in 0..4000 {
        flood.send_to(&garbage(n), to).unwrap();
        if n % 100 == 0 {
            server.turn().await;
            assert_eq!(server.endpoint.len(), 0, "garbage holds a connection");
        }
    }
    while server.endpoint.door_stats().dropped < 1000 {
        assert!(clock::now() < begun + PATIENCE, "{:?}", server.endpoint.door_stats());
        server.turn().await;
    }
    let stats = server.endpoint.door_stats();
    let seconds = begun.elapsed().as_secs() + 1;
    assert!(stats.garbage <= 50 * (seconds + 1), "{stats:?} in {seconds} s");
    assert!(stats.retries <= 100 * (seconds + 1), "{stats:?} in {seconds} s");
    let mut client = client(pin, to, 1);
    play(&mut server, &mut client, |s, _| s.seen.established == 1).await;
}

#[tokio::test]
async fn an_unproven_address_is_sent_three_times_what_it_sent_and_its_handshake_ends() {
    let timeout = Duration::from_millis(1500);
    let limits = DoorLimits { handshake_timeout: timeout, ..DoorLimits::default() };
    let (mut server, pin) = server(limits);
    // A client that speaks once and listens only: its first flight, sent from a socket of ours.
    let ear = Plain::bind("127.0.0.1:0").unwrap();
    let silent = Plain::bind("127.0.0.1:0").unwrap();
    ear.set_nonblocking(true).unwrap();
    silent.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut first = client(pin, silent.local_addr().unwrap(), 1);
    first.endpoint.flush(clock::now(), &mut first.seen);
    let mut packet = [0; 2000];
    let mut said = 0;
    while let Ok((n, _)) = silent.recv_from(&mut packet) {
        ear.send_to(&packet[..n], server.endpoint.local_addr()).unwrap();
        said += n;
    }
    let end = clock::now() + PATIENCE;
    let mut heard = 0;
    while server.endpoint.door_stats().timed_out == 0 {
        assert!(clock::now() < end, "the handshake does not end");
        server.turn().await;
        while let Ok((n, _)) = ear.recv_from(&mut packet) {
            heard += n;
        }
    }
    assert!(heard > said && heard <= 3 * said, "{heard} bytes for {said}");
    assert_eq!(server.endpoint.len(), 0);
    assert_eq!(server.seen.established, 0);
}

#[tokio::test]
async fn one_source_holds_so_many_connections_and_no_more() {
    let limits = DoorLimits { source_connections: 5, ..DoorLimits::default() };
    let (mut server, pin) = server(limits);
    let mut client = client(pin, server.endpoint.local_addr(), 8);
    play(&mut server, &mut client, |s, _| s.seen.established == 5).await;
    for _ in 0..20 {
        tokio::join!(server.turn(), client.turn());
    }
    assert_eq!((server.seen.established, server.endpoint.len()), (5, 5));
}

#[tokio::test]
async fn a_flood_is_dropped_in_the_kernel_while_others_come_in_and_ends() {
    let limits =
        DoorLimits { answers_per_second: 200, handshakes_per_second: 100, ..DoorLimits::default() };
    let (mut server, pin) = server(limits);
    let to = server.endpoint.local_addr();
    let flood: Vec<_> =
        (1..=100).map(|d| Plain::bind((Ipv4Addr::new(127, 0, 7, d), 0)).unwrap()).collect();
    let mut sent = 0;
    let mut pour = || {
        for _ in 0..200 {
            flood[sent as usize % flood.len()].send_to(&garbage(sent), to).unwrap();
            sent += 1;
        }
    };
    let end = clock::now() + PATIENCE;
    while server.endpoint.door_stats().filtered < 5000 {
        assert!(clock::now() < end, "{:?}", server.endpoint.door_stats());
        pour();
        server.turn().await;
    }
    assert!(server.endpoint.door_stats().filtering);
    // Newcomers whose addresses are none of the flood's; one or the other may share a bucket with it.
    let retries = server.endpoint.door_stats().retries;
    let mut clients: Vec<_> = (1..=8)
        .map(|d| {
            let ip = Ipv4Addr::new(127, 0, 8, d);
            let socket = UdpSocket::bind((ip, 0).into(), &BindOptions::default()).unwrap();
            client_at(socket, pin, to, 1)
        })
        .collect();
    while server.seen.established < 4 {
        assert!(clock::now() < end, "{:?}", server.endpoint.door_stats());
        pour();
        server.turn().await;
        for client in &mut clients {
            client.turn().await;
        }
    }
    assert!(server.endpoint.door_stats().retries > retries, "let in without proof");
    let end = clock::now() + PATIENCE;
    while server.endpoint.door_stats().filtering {
        assert!(clock::now() < end, "the filter stays");
        server.turn().await;
    }
}
