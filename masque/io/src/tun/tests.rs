use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket as StdUdp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::gather::{Gather, Joining};
use super::split::split;
use super::vnet::{Layout, TCP, UDP, UDP_CHECKSUM, VNET_LEN, Vnet, put, word};
use super::*;
use crate::clock;

/// The far side of the tunnel; what is sent to it comes back with the addresses exchanged, so a
/// connection to a port of the peer reaches that port of our own.
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const OURS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OURS6: &str = "2001:db8::1";

fn config(queues: usize, offload: bool) -> TunConfig {
    TunConfig {
        name: "bautatest".into(),
        mtu: 1400,
        addresses: vec![(OURS.into(), 24), (OURS6.parse().unwrap(), 64)],
        queues,
        offload,
    }
}

/// Runs `test` on a thread with a network namespace of its own, which goes with the thread.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(e) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network namespace ({e}); run as root");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn exchange_addresses(packet: &mut [u8]) {
    let (from, to, len) = if packet[0] >> 4 == 4 { (12, 16, 4) } else { (8, 24, 16) };
    for i in 0..len {
        packet.swap(from + i, to + i);
    }
}

/// Sends everything back until told to stop; returns the packets and the super-packets written.
fn reflect(queue: &mut TunQueue, stop: &AtomicBool, mut look: impl FnMut(&[u8])) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut batch, mut written) = (TunBatch::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            let wait = tokio::time::timeout(Duration::from_millis(20), queue.readable());
            let Ok(ready) = wait.await else { continue };
            ready.unwrap();
            while queue.try_recv(&mut batch).is_ok() {
                batch.for_each(|packet| {
                    look(packet);
                    exchange_addresses(packet);
                    queue.queue_packet(packet);
                });
                written += queue.flush().unwrap();
            }
        }
        written
    })
}

#[test]
fn tcp_flows_through_the_device_whole_with_and_without_offload() {
    for (queues, offload) in [(1, true), (2, true), (1, false)] {
        in_namespace(move || {
            let (rate, size) = tcp_through(queues, offload, 16 << 20);
            eprintln!(
                "queues {queues}, offload {offload}: {rate:.2} Gbit/s, {size:.0} bytes a packet"
            );
        });
    }
}

/// Carries `total` patterned bytes from our own port back to our own port; returns Gbit/s and the
/// mean packet size.
fn tcp_through(queues: usize, offload: bool, total: usize) -> (f64, f64) {
    let mut opened = open(&config(queues, offload)).unwrap();
    assert_eq!(opened.len(), queues);
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = opened
        .drain(..)
        .map(|mut queue| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let (mut bytes, mut packets) = (0, 0);
                reflect(&mut queue, &stop, |p| {
                    assert!(p.len() <= 1400, "a segment above the MTU");
                    (bytes, packets) = (bytes + p.len(), packets + 1);
                });
                assert_eq!(queue.drops().malformed, 0);
                (bytes, packets)
            })
        })
        .collect();
    let listener = TcpListener::bind((OURS, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let start = clock::now();
    let sender = std::thread::spawn({
        // A thread inherits the namespace of its parent.
        move || {
            let mut stream = TcpStream::connect((PEER, port)).unwrap();
            let block: Vec<u8> = (0..251u32 * 256).map(|i| (i % 251) as u8).collect();
            let mut left = total;
            while left > 0 {
                let n = left.min(block.len());
                stream.write_all(&block[..n]).unwrap();
                left -= n;
            }
        }
    });
    let (mut stream, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), PEER);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut got, mut buffer) = (0, vec![0; 1 << 16]);
    while got < total {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "ended early at {got}");
        for (i, byte) in buffer[..n].iter().enumerate() {
            assert_eq!(usize::from(*byte), (got + i) % 251, "a wrong byte");
        }
        got += n;
    }
    let seconds = start.elapsed().as_secs_f64();
    sender.join().unwrap();
    stop.store(true, Ordering::Relaxed);
    let totals = workers.into_iter().map(|w| w.join().unwrap());
    let (bytes, packets) = totals.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    (total as f64 * 8.0 / seconds / 1e9, bytes as f64 / f64::from(packets.max(1)))
}

#[test]
fn a_udp_train_is_split_with_right_checksums_and_comes_back_joined() {
    in_namespace(|| {
        let mut queues = open(&config(1, true)).unwrap();
        let mut queue = queues.remove(0);
        let stop = Arc::new(AtomicBool::new(false));
        let worker = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut seen = 0;
                reflect(&mut queue, &stop, |packet| {
                    if let Some(layout) = Layout::of(packet).filter(|l| !l.v6) {
                        assert_eq!((layout.protocol, layout.payload), (UDP, 28));
                        assert!(layout.checksum_holds(packet));
                        seen += 1;
                    }
                });
                (seen, queue.drops())
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let exchange = async {
            let socket =
                crate::udp::UdpSocket::bind((OURS, 0).into(), &Default::default()).unwrap();
            let dst = SocketAddr::from((PEER, socket.local_addr().port()));
            let contents: Vec<u8> = (0..40 * 1000 + 7u32).map(|i| (i / 1000) as u8).collect();
            let segment_size = Some(1000);
            let train = crate::udp::Transmit { dst, src: None, segment_size, contents: &contents };
            socket.try_send(&train).unwrap();
            let (mut batch, mut got) = (crate::udp::RecvBatch::new(), 0u8);
            while got < 41 {
                socket.readable().await.unwrap();
                if socket.try_recv(&mut batch).is_err() {
                    continue;
                }
                batch.for_each(|d| {
                    assert_eq!(d.from, dst);
                    assert_eq!(d.payload.len(), if got == 40 { 7 } else { 1000 });
                    assert!(d.payload.iter().all(|b| *b == got), "out of order");
                    got += 1;
                });
            }
        };
        let limit = Duration::from_secs(3);
        runtime.block_on(async { tokio::time::timeout(limit, exchange).await }).expect("lost");
        stop.store(true, Ordering::Relaxed);
        assert_eq!(worker.join().unwrap(), (41, TunDrops::default()));
    });
}

#[test]
fn one_bad_packet_does_not_end_a_batch() {
    in_namespace(|| {
        let mut queue = open(&config(1, true)).unwrap().remove(0);
        let socket = StdUdp::bind((OURS, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let port = socket.local_addr().unwrap().port();
        let good = udp_packet(PEER, OURS, port, b"good", 1);
        for packet in [&good[..], &[], &[0xff; 60], &[0x45], &good, &[0; MAX_PACKET + 1], &good] {
            queue.queue_packet(packet);
        }
        assert_eq!(queue.flush().unwrap(), 3 + usize::from(queue.drops().refused < 4));
        for _ in 0..3 {
            let mut buffer = [0; 16];
            assert_eq!(socket.recv(&mut buffer).unwrap(), 4);
        }
        assert!(queue.drops().refused >= 3, "{:?}", queue.drops());
    });
}

#[test]
fn each_failure_to_open_names_its_cause() {
    let long = TunConfig { name: "a-name-that-is-too-long".into(), ..config(1, true) };
    assert!(matches!(open(&long), Err(TunError::BadName { .. })));
    in_namespace(|| {
        let first = open(&config(2, true)).unwrap();
        let e = open(&config(2, true)).unwrap_err();
        assert!(matches!(e, TunError::NameInUse { .. }), "{e}");
        assert!(e.to_string().contains("ip link del bautatest"), "{e}");
        drop(first);
        let bad = TunConfig { addresses: vec![(OURS.into(), 77)], ..config(1, true) };
        let e = open(&bad).unwrap_err();
        assert!(e.to_string().contains("198.51.100.1/77"), "{e}");
        let queue = open(&config(1, true)).unwrap().remove(0);
        queue.set_mtu(1300).unwrap();
        let extra = "203.0.113.9".parse().unwrap();
        queue.add_address(extra, 32).unwrap();
        StdUdp::bind((extra, 0)).unwrap();
        queue.remove_address(extra, 32).unwrap();
        StdUdp::bind((extra, 0)).unwrap_err();
        StdUdp::bind((OURS6, 0)).unwrap();
    });
}

#[test]
fn a_deleted_device_is_an_error_not_silence() {
    in_namespace(|| {
        let mut queue = open(&config(1, true)).unwrap().remove(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _ = tokio::time::timeout(Duration::from_millis(10), queue.readable()).await;
            let mut batch = TunBatch::new();
            while queue.try_recv(&mut batch).is_ok() {}
            let deleted =
                std::process::Command::new("ip").args(["link", "del", "bautatest"]).status();
            assert!(deleted.unwrap().success());
            let gone = async {
                loop {
                    queue.readable().await.unwrap();
                    match queue.try_recv(&mut batch) {
                        Err(e) if e.kind() != io::ErrorKind::WouldBlock => return e,
                        _ => {}
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(2), gone).await.expect("no error came");
        });
        queue.queue_packet(&udp_packet(PEER, OURS, 9, b"late", 1));
        queue.flush().unwrap_err();
    });
}

fn udp_packet(from: Ipv4Addr, to: Ipv4Addr, port: u16, payload: &[u8], id: u16) -> Vec<u8> {
    let mut p = vec![0; 28 + payload.len()];
    p[0] = 0x45;
    put(&mut p, 4, id.to_be_bytes());
    (p[8], p[9]) = (64, UDP);
    put(&mut p, 12, from.octets());
    put(&mut p, 16, to.octets());
    vnet::set_ip_length(&mut p, false, 20, 28 + payload.len());
    put(&mut p, 20, port.to_be_bytes());
    put(&mut p, 22, port.to_be_bytes());
    put(&mut p, 24, (8 + payload.len() as u16).to_be_bytes());
    p[28..].copy_from_slice(payload);
    let sum = !tun_rs::checksum(&p[20..], vnet::pseudo_sum(&p[12..20], UDP, 8 + payload.len()));
    put(&mut p, 26, sum.to_be_bytes());
    p
}

fn tcp_packet(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0; 60 + payload.len()];
    p[0] = 0x60;
    put(&mut p, 4, (20 + payload.len() as u16).to_be_bytes());
    (p[6], p[7], p[23], p[39]) = (TCP, 64, 1, 2);
    put(&mut p, 40, [0, 80, 1, 1]);
    put(&mut p, 44, sequence.to_be_bytes());
    (p[52], p[53]) = (0x50, flags);
    p[60..].copy_from_slice(payload);
    let sum = !tun_rs::checksum(&p[40..], vnet::pseudo_sum(&p[8..40], TCP, 20 + payload.len()));
    put(&mut p, 56, sum.to_be_bytes());
    p
}

/// What would be written: the virtio header, the packet, and how many it stands for.
fn written(packets: &[Vec<u8>]) -> Vec<(Vnet, Vec<u8>, usize)> {
    let mut gather = Gather::new(Joining { tcp: true, udp: true });
    packets.iter().for_each(|p| gather.push(DatagramBuf::copy_of(p)));
    let mut out = Vec::new();
    gather.drain(true, |slices, n| {
        let bytes: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
        out.push((
            Vnet::read(bytes[..VNET_LEN].try_into().unwrap()),
            bytes[VNET_LEN..].to_vec(),
            n,
        ));
    });
    assert_eq!(gather.packets(), 0);
    out
}

fn split_again(joined: &[(Vnet, Vec<u8>, usize)]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for (vnet, bytes, _) in joined {
        let mut segments = Vec::new();
        split(&mut bytes.clone(), vnet, &mut segments).unwrap();
        packets.extend(segments.iter().map(|segment| segment.as_ref().to_vec()));
    }
    packets
}

#[test]
fn a_run_is_joined_and_splits_into_exactly_what_it_was_made_of() {
    let tcp: Vec<_> = [(1000, 0x10, 500), (1500, 0x10, 500), (2000, 0x18, 200)]
        .iter()
        .map(|(sequence, flags, len)| tcp_packet(*sequence, *flags, &vec![7; *len]))
        .collect();
    let udp: Vec<_> = (0..5).map(|i| udp_packet(OURS, PEER, 9, &[i as u8; 333], 50 + i)).collect();
    for packets in [tcp, udp] {
        let joined = written(&packets);
        assert_eq!(joined.len(), 1);
        assert_eq!(joined[0].2, packets.len());
        assert_eq!(split_again(&joined), packets);
    }
}

#[test]
fn what_does_not_continue_a_run_is_left_alone_and_in_order() {
    let data = |sequence, len| tcp_packet(sequence, 0x10, &vec![1; len]);
    let mut wrong_sum = data(1500, 500);
    wrong_sum[70] ^= 1;
    let cases = [
        vec![data(1000, 500), data(1600, 500)], // a gap
        vec![data(1000, 500), data(1500, 501)], // longer than the first
        vec![data(1000, 500), wrong_sum],       // must stay wrong
        vec![data(1000, 500), tcp_packet(1500, 0x11, &[1; 500])], // FIN
        vec![tcp_packet(1000, 0x18, &[1; 500]), data(1500, 500)], // pushed
        vec![data(1000, 500), tcp_packet(1500, 0x10, &[])], // no data
        vec![data(1000, 500), tcp_packet(1500, 0x12, &[]), data(1500, 500)],
    ];
    for packets in cases {
        let joined = written(&packets);
        assert!(joined.iter().all(|(vnet, _, n)| *n == 1 && *vnet == Vnet::default()));
        assert_eq!(joined.into_iter().map(|j| j.1).collect::<Vec<_>>(), packets);
    }
}

#[test]
fn interleaved_flows_are_joined_each_for_itself() {
    let flow = |port, i: u16| udp_packet(OURS, PEER, port, &[i as u8; 100], i);
    let packets: Vec<_> = (0..30).map(|i| flow(1 + i % 3, i / 3)).collect();
    let joined = written(&packets);
    assert_eq!(joined.iter().map(|j| j.2).collect::<Vec<_>>(), [10, 10, 10]);
    for (port, (_, bytes, _)) in joined.iter().enumerate() {
        assert_eq!(usize::from(word(bytes, 20)), port + 1);
    }
}

#[test]
fn a_partial_checksum_of_zero_is_written_in_its_other_form_for_udp() {
    let mut packet = udp_packet(OURS, PEER, 9, &[0, 0], 1);
    // Chosen so that the sum of everything is zero once complemented.
    let rest = word(&packet, 20 + UDP_CHECKSUM);
    put(&mut packet, 28, rest.to_be_bytes());
    let partial = vnet::fold(vnet::pseudo_sum(&packet[12..20], UDP, 10));
    put(&mut packet, 26, partial.to_be_bytes());
    let vnet = Vnet { flags: 1, csum_start: 20, csum_offset: 6, ..Vnet::default() };
    let mut out = Vec::new();
    split(&mut packet, &vnet, &mut out).unwrap();
    assert_eq!(word(out[0].as_ref(), 26), 0xffff);
}

#[test]
fn a_header_that_contradicts_its_packet_is_malformed() {
    let packet = udp_packet(OURS, PEER, 9, &[1; 100], 1);
    let good = Vnet {
        flags: 1,
        gso_type: 5,
        header_len: 28,
        gso_size: 50,
        csum_start: 20,
        csum_offset: 6,
    };
    let try_split =
        |vnet: Vnet, len: usize| split(&mut packet[..len].to_vec(), &vnet, &mut Vec::new());
    try_split(good, packet.len()).unwrap();
    for bad in [
        Vnet { gso_size: 0, ..good },
        Vnet { gso_type: 4, ..good },
        Vnet { gso_type: 77, ..good },
        Vnet { csum_start: 10, ..good },
        Vnet { csum_start: 5000, ..good },
        Vnet { gso_type: 0, csum_start: 60_000, ..good },
    ] {
        assert_eq!(try_split(bad, packet.len()), Err(split::Malformed), "{bad:?}");
    }
    assert_eq!(try_split(good, 20), Err(split::Malformed));
    assert_eq!(try_split(good, 0), Err(split::Malformed));
}
