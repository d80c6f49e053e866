//! What arrives where.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::wire::*;
use bauta_xdp::{
    AsyncRing, BATCH, Datagram, FASTEST_FIRST, FRAME_COUNT, Mode, RX_RING_SIZE, RxRing, Stage,
    XskRing,
};
use nix::sys::socket::{setsockopt, sockopt};

const MODES: [Mode; 2] = [Mode::Native, Mode::Skb];

#[test]
fn datagrams_of_both_families_arrive_in_the_ring_in_both_modes() {
    let wire = Wire::new();
    for mode in MODES {
        let mut ingress = wire.open_in(mode);
        let sender = wire.peer_socket();
        let from = sender.local_addr().unwrap().port();
        for (us, them) in [(HOST, PEER), (HOST_V6, PEER_V6)] {
            // From the empty datagram to the longest that Ethernet carries over IPv6.
            for length in [0, 1, 40, 1200, 1452] {
                let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
                sender.send_to(&payload, to(us, PORT)).unwrap();
                let got = receive(&mut ingress.rings[0], 1);
                let source = SocketAddr::new(them.parse().unwrap(), from);
                let destination = SocketAddr::new(us.parse().unwrap(), PORT);
                assert_eq!(got, [(source, destination, payload)], "{mode}, {length} bytes");
            }
        }
        assert_eq!(ingress.rings[0].stats().received, 10, "{mode}");
    }
}

#[test]
fn ping_tcp_other_ports_and_fragments_go_on_by_the_kernel() {
    let wire = Wire::new();
    let ours = wire.host_socket(PORT);
    let other = wire.host_socket(PORT + 1);
    let mut buffer = [0; 8192];
    for mode in MODES {
        let mut ingress = wire.open_in(mode);
        for address in [HOST, HOST_V6] {
            wire.peer.run("ping", &["-c2", "-i0.05", "-W2", address]).unwrap();
            wire.peer.run("ping", &["-c2", "-i0.05", "-W2", "-s4000", address]).unwrap();
        }
        let sender = wire.peer_socket();
        sender.send_to(b"other", to(HOST, PORT + 1)).unwrap();
        assert_eq!(other.recv(&mut buffer).unwrap(), 5, "{mode}");
        sender.send_to(&[7; 4000], to(HOST, PORT)).unwrap();
        assert_eq!(ours.recv(&mut buffer).unwrap(), 4000, "{mode}: fragments");
        assert_eq!(tcp(&wire), 4 << 20, "{mode}");
        assert_eq!(ingress.rings[0].poll_batch(&mut |_| ()), 0, "{mode}: none was for the ring");
    }
}

/// Sends 4 MiB by TCP to our port's number; returns how many arrived.
fn tcp(wire: &Wire) -> usize {
    let listen = || TcpListener::bind((HOST, PORT));
    let listener = wire.host.enter(listen).unwrap().unwrap();
    let connect =
        || TcpStream::connect_timeout(&SocketAddr::new(HOST.parse().unwrap(), PORT), SOON);
    let mut client = wire.peer.enter(connect).unwrap().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    client.set_write_timeout(Some(SOON)).unwrap();
    let sender = std::thread::spawn(move || client.write_all(&vec![1; 4 << 20]).unwrap());
    let mut all = Vec::new();
    server.read_to_end(&mut all).unwrap();
    sender.join().unwrap();
    all.len()
}

#[test]
fn native_mode_comes_first_and_the_steps_say_so() {
    let wire = Wire::new();
    let opened = wire.open();
    let steps: Vec<_> = opened.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "look at the interface: done",
            "attach the XDP program in native mode: done",
            "bind a ring to queue 0 in native mode: done",
        ]
    );
    let ingress = opened.ingress.unwrap();
    assert_eq!(ingress.attachment.mode(), Mode::Native);
    assert!(!ingress.rings[0].is_zero_copy(), "veth has none");
}

#[test]
fn an_interface_without_native_xdp_falls_to_skb_mode_and_says_why() {
    let wire = Wire::new();
    let opened = wire.host.enter(|| bauta_xdp::open("lo", &filter(), &FASTEST_FIRST)).unwrap();
    let native = &opened.steps[1];
    assert_eq!(native.stage, Stage::Attach(Mode::Native));
    assert!(native.outcome.is_err(), "{native}");
    let mut ingress = opened.ingress.expect("SKB mode works everywhere");
    assert_eq!(ingress.attachment.mode(), Mode::Skb);
    wire.host_socket(0).send_to(b"hello", to("127.0.0.1", PORT)).unwrap();
    assert!(readable(&ingress.rings[0], SOON));
    assert_eq!(ingress.rings[0].poll_batch(&mut |_| ()), 1);
}

#[test]
fn where_another_program_sits_nothing_is_had_and_its_traffic_is_left_alone() {
    let wire = Wire::new();
    let mut first = wire.open().ingress.unwrap();
    let second = wire.open();
    assert!(second.ingress.is_none());
    for step in &second.steps[1..] {
        assert!(step.to_string().contains("another XDP program"), "{step}");
    }
    wire.peer_socket().send_to(b"still", to(HOST, PORT)).unwrap();
    assert_eq!(receive(&mut first.rings[0], 1).len(), 1);
}

#[test]
fn dropping_a_ring_and_then_the_program_gives_everything_back_to_the_kernel() {
    let wire = Wire::new();
    let (socket, sender) = (wire.host_socket(PORT), wire.peer_socket());
    let mut ingress = wire.open().ingress.unwrap();
    sender.send_to(b"1", to(HOST, PORT)).unwrap();
    assert_eq!(receive(&mut ingress.rings[0], 1).len(), 1);
    ingress.rings.clear();
    sender.send_to(b"two", to(HOST, PORT)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 3, "without the ring");
    assert!(wire.has_program());
    drop(ingress);
    assert!(!wire.has_program());
    sender.send_to(b"four", to(HOST, PORT)).unwrap();
    assert_eq!(socket.recv(&mut buffer).unwrap(), 4, "without the program");
}

#[test]
fn a_ring_can_be_bound_again_right_after_it_was_closed() {
    let wire = Wire::new();
    for mode in MODES {
        for _ in 0..5 {
            drop(wire.open_in(mode));
        }
    }
}

#[test]
fn every_frame_is_used_again_and_order_is_kept() {
    let wire = Wire::new();
    let mut ingress = wire.open().ingress.unwrap();
    let sender = wire.peer_socket();
    let mut next = 0u32;
    for burst in 0..3 * FRAME_COUNT as u32 / 512 {
        for n in 0..512 {
            sender.send_to(&(burst * 512 + n).to_be_bytes(), to(HOST, PORT)).unwrap();
        }
        for (_, _, payload) in receive(&mut ingress.rings[0], 512) {
            assert_eq!(payload, next.to_be_bytes());
            next += 1;
        }
    }
    assert_eq!(next as usize, 3 * FRAME_COUNT);
}

#[test]
fn a_worker_that_is_too_slow_loses_the_newest_frames_and_they_are_counted() {
    let wire = Wire::new();
    let mut ingress = wire.open().ingress.unwrap();
    let ring = &mut ingress.rings[0];
    let sender = wire.peer_socket();
    let sent = 2 * RX_RING_SIZE as u64;
    for _ in 0..sent {
        sender.send_to(b"burst", to(HOST, PORT)).unwrap();
    }
    assert!(readable(ring, SOON));
    let mut taken = 0;
    while let n @ 1.. = ring.poll_batch(&mut |_| ()) {
        assert!(n <= BATCH);
        taken += n;
    }
    assert_eq!(taken, RX_RING_SIZE);
    let stats = ring.stats();
    assert_eq!((stats.received, stats.invalid), (RX_RING_SIZE as u64, 0));
    assert_eq!(stats.ring_full + stats.dropped, sent - stats.received, "{stats:?}");
    sender.send_to(b"after", to(HOST, PORT)).unwrap();
    assert_eq!(receive(ring, 1).len(), 1, "it goes on");
}

/// Takes what is in the ring: veth delivers before the sender's system call returns, or its
/// softirq runs a moment later.
fn receive_all(ring: &mut XskRing) -> usize {
    let mut taken = 0;
    while readable(ring, Duration::from_millis(20)) {
        taken += ring.poll_batch(&mut |frame| {
            let interface = 0;
            assert_eq!(Datagram::parse(frame, interface).unwrap().payload.len(), 1200);
        });
    }
    taken
}

/// Sends super-frames of `segments` times 1,200 bytes; returns what arrived in the ring, and at
/// the socket.
fn gso(wire: &Wire, mode: Mode, trains: usize, segments: usize) -> (usize, usize) {
    let mut ingress = wire.open_in(mode);
    let (socket, sender) = (wire.host_socket(PORT), wire.peer_socket());
    setsockopt(&sender, sockopt::UdpGsoSegment, &1200).unwrap();
    socket.set_nonblocking(true).unwrap();
    let (mut by_ring, mut by_socket) = (0, 0);
    for _ in 0..trains {
        sender.send_to(&vec![1; 1200 * segments], to(HOST, PORT)).unwrap();
        by_ring += receive_all(&mut ingress.rings[0]);
        let mut buffer = [0; 2048];
        while let Ok(length) = socket.recv(&mut buffer) {
            assert_eq!(length, 1200);
            by_socket += 1;
        }
    }
    (by_ring, by_socket)
}

#[test]
fn a_sender_with_segmentation_offload_loses_nothing() {
    let wire = Wire::new();
    // Native XDP makes the sender's end of the veth segment before the program sees anything.
    assert_eq!(gso(&wire, Mode::Native, 20, 16), (320, 0));
    // SKB mode sees the super-frame, which is too long for a ring, so the socket gets it.
    assert_eq!(gso(&wire, Mode::Skb, 20, 16), (0, 320));
}

#[test]
fn every_queue_has_a_ring() {
    let wire = Wire::new();
    wire.peer.run("ethtool", &["-L", "veth1", "tx", "2"]).unwrap();
    wire.host.run("ethtool", &["-L", "veth0", "rx", "2"]).unwrap();
    let mut ingress = wire.open().ingress.unwrap();
    let queues: Vec<_> = ingress.rings.iter().map(XskRing::queue).collect();
    assert_eq!(queues, [0, 1]);
    for _ in 0..32 {
        wire.peer_socket().send_to(b"spread", to(HOST, PORT)).unwrap();
    }
    let got = ingress.rings.iter_mut().map(|ring| receive(ring, 32).len()).sum::<usize>();
    assert_eq!(got, 32);
    assert!(ingress.attachment.ring(2).is_err(), "there is no third queue");
}

#[test]
fn tokio_waits_for_a_ring_beside_a_socket() {
    let wire = Wire::new();
    let ring = wire.open().ingress.unwrap();
    let (attachment, ring) = (ring.attachment, ring.rings.into_iter().next().unwrap());
    let socket = wire.host_socket(PORT + 1);
    socket.set_nonblocking(true).unwrap();
    let sender = wire.peer_socket();
    const RING: usize = 3500;
    const SOCKET: usize = RING / 7;
    let sending = std::thread::spawn(move || {
        for n in 0..RING {
            sender.send_to(b"ring", to(HOST, PORT)).unwrap();
            if n % 7 == 0 {
                sender.send_to(b"socket", to(HOST, PORT + 1)).unwrap();
                // Time for the worker to find nothing and go to sleep.
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (by_ring, by_socket) = runtime.block_on(async {
        let mut ring = AsyncRing::new(ring).unwrap();
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        let (mut by_ring, mut by_socket) = (0, 0);
        let mut buffer = [0; 2048];
        while by_ring < RING || by_socket < SOCKET {
            tokio::select! {
                Ok(()) = ring.readable() => by_ring += ring.poll_batch(&mut |_| ()),
                Ok(_) = socket.recv(&mut buffer) => by_socket += 1,
                () = tokio::time::sleep(SOON) => break,
            }
        }
        (by_ring, by_socket)
    });
    sending.join().unwrap();
    drop(attachment);
    assert_eq!((by_ring, by_socket), (RING, SOCKET));
}
