//! Nanoseconds a packet, stage by stage, each alone on one thread, and beside it what the stage cannot
//! be cheaper than. Prints tab-separated rows: stage, ns a packet, bound, what the bound is.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench says what it found")]

mod bond;
#[path = "../../tests/road/mod.rs"]
mod road;

use std::time::Duration;

use bauta_masque::connect_ip::Verdict;
use bauta_masque::filter::Policy;
use bauta_masque_io::tun::{TunBatch, TunConfig, TunQueue};
use bauta_masque_io::udp::{BindOptions, RecvBatch, Transmit, UdpSocket};
use bauta_masque_io::{DatagramBuf, clock};
use boring::symm::{Cipher, Crypter, Mode};
use road::{CLIENT, Road, WEB};

/// The inner packet, the QUIC packet around it, and how many make a train.
const INNER: usize = 1_400;
const OUTER: usize = 1_440;
const TRAIN: usize = 44;
const ROUNDS: u32 = 4_000;

/// The least of several mean times of `f`, which deals with `packets`, in ns a packet: whatever else
/// the machine does only adds.
fn measure(packets: usize, rounds: u32, mut f: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..8 {
        let start = clock::now();
        (0..rounds / 8).for_each(|_| f());
        let each = start.elapsed().as_nanos() as f64 / f64::from(rounds / 8);
        best = best.min(each / packets as f64);
    }
    best
}

fn row(stage: &str, ns: f64, bound: Option<(f64, &str)>) {
    match bound {
        Some((bound, what)) => println!("{stage}\t{ns:.0}\t{bound:.0}\t{what}"),
        None => println!("{stage}\t{ns:.0}\t–\t–"),
    }
}

fn main() {
    // A namespace of its own, for the TUN; it goes with the process.
    let alone = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
    if alone.is_ok() {
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.is_ok_and(|status| status.success()), "ip(8) is needed");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let aead = crypto();
    runtime.block_on(async {
        udp().await;
        quic(aead);
        session();
        bond::measure();
        match alone {
            Ok(()) => tun().await,
            Err(error) => println!("TUN\tnot measured: no network namespace ({error})\t–\t–"),
        }
        whole(aead).await;
    });
}

/// AES-128-GCM over one packet.
fn crypto() -> f64 {
    let (key, iv, mut out) = ([1; 16], [2; 12], vec![0; INNER + 32]);
    let mut crypter = Crypter::new(Cipher::aes_128_gcm(), Mode::Encrypt, &key, Some(&iv)).unwrap();
    let input = vec![3; INNER];
    measure(1, 80_000, || {
        crypter.update(&input, &mut out).unwrap();
    })
}

async fn udp() {
    let local = || UdpSocket::bind(([127, 0, 0, 1], 0).into(), &BindOptions::default()).unwrap();
    let (from, to) = (local(), local());
    let contents = vec![7; OUTER * TRAIN];
    let transmit = |segment_size, contents| Transmit {
        dst: to.local_addr(),
        src: None,
        segment_size,
        contents,
    };
    let mut batch = RecvBatch::new();
    let (mut send, mut recv, mut single) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let start = clock::now();
        from.try_send(&transmit(Some(OUTER), &contents)).unwrap();
        let sent = clock::now();
        to.readable().await.unwrap();
        let ready = clock::now();
        let n = to.try_recv(&mut batch).unwrap();
        let mut sum = 0;
        batch.for_each(|d| sum += usize::from(d.payload[0]));
        assert!(n == TRAIN && sum > 0);
        recv = recv.min(ready.elapsed().as_nanos() as f64 / TRAIN as f64);
        send = send.min((sent - start).as_nanos() as f64 / TRAIN as f64);
        let start = clock::now();
        from.try_send(&transmit(None, &contents[..OUTER])).unwrap();
        single = single.min(start.elapsed().as_nanos() as f64);
        to.readable().await.unwrap();
        to.try_recv(&mut batch).unwrap();
    }
    let copy = measure(TRAIN, ROUNDS, || {
        std::hint::black_box(contents.clone());
    });
    row("UDP receive, GRO", recv, Some((copy, "a copy in memory")));
    row("UDP send, GSO, into the receiver's socket", send, Some((copy, "a copy in memory")));
    row("UDP send, one datagram a call", single, None);
}

/// quiche alone, in memory, with datagrams of the size that carries one inner packet.
fn quic(aead: f64) {
    let (mut client, mut server) = pair();
    let (from, to) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
    let up = quiche::RecvInfo { from, to };
    let down = quiche::RecvInfo { from: to, to: from };
    let payload = vec![9; INNER];
    let mut wire: Vec<_> = (0..2 * TRAIN).map(|_| vec![0; 2_048]).collect();
    let mut inbox = vec![0; 2_048];
    let (mut send, mut recv) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let start = clock::now();
        for _ in 0..TRAIN {
            client.dgram_send(&payload).unwrap();
        }
        let mut sizes = Vec::new();
        while let Ok((n, _)) = client.send(&mut wire[sizes.len()]) {
            sizes.push(n);
        }
        let sent = clock::now();
        for (packet, n) in wire.iter_mut().zip(&sizes) {
            server.recv(&mut packet[..*n], up).unwrap();
        }
        let mut got = 0;
        while server.dgram_recv(&mut inbox).is_ok() {
            got += 1;
        }
        let received = clock::now();
        if got == TRAIN {
            send = send.min((sent - start).as_nanos() as f64 / TRAIN as f64);
            recv = recv.min((received - sent).as_nanos() as f64 / TRAIN as f64);
        }
        exchange(&mut server, &mut client, down);
    }
    row("QUIC send", send, Some((aead, "AES-128-GCM alone")));
    row("QUIC receive", recv, Some((aead, "AES-128-GCM alone")));
}

fn exchange(from: &mut quiche::Connection, to: &mut quiche::Connection, info: quiche::RecvInfo) {
    let mut packet = [0; 2_048];
    while let Ok((n, _)) = from.send(&mut packet) {
        let _ = to.recv(&mut packet[..n], info);
    }
}

fn pair() -> (quiche::Connection, quiche::Connection) {
    let (mut server, mut client) = road::configs();
    client.verify_peer(false);
    for config in [&mut server, &mut client] {
        config.discover_pmtu(false);
        config.set_initial_congestion_window_packets(10_000);
    }
    let (a, b) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
    let cid = quiche::ConnectionId::from_ref;
    let mut near = quiche::connect(Some("site.test"), &cid(&[1; 8]), a, b, &mut client).unwrap();
    let mut far = quiche::accept(&cid(&[2; 8]), None, b, a, &mut server).unwrap();
    for _ in 0..20 {
        exchange(&mut near, &mut far, quiche::RecvInfo { from: a, to: b });
        exchange(&mut far, &mut near, quiche::RecvInfo { from: b, to: a });
    }
    assert!(near.is_established() && far.is_established());
    (near, far)
}

fn session() {
    let (mut near, mut far) = road::sessions();
    let (now, policy) = (clock::now(), Policy::default());
    let mut packet = road::packet(INNER);
    let encapsulate = measure(1, 400_000, || {
        packet[8] = 64;
        let verdict = near.encapsulate(now, &mut packet, 2_000);
        assert!(matches!(verdict, Verdict::Forward(_)));
    });
    let mut payload = [&[0], &road::packet(INNER)[..]].concat();
    let judge = measure(1, 400_000, || {
        let verdict = far.handle_datagram(now, &mut payload, &policy);
        assert!(matches!(verdict, Verdict::Forward(_)));
    });
    let take = measure(1, 400_000, || drop(std::hint::black_box(DatagramBuf::take())));
    row("session, towards QUIC", encapsulate, None);
    row("session, towards the TUN", judge, None);
    row("a packet buffer taken and given back", take, None);
}

async fn tun() {
    let config = TunConfig {
        name: "bautabench".into(),
        mtu: 1_420,
        addresses: vec![(CLIENT.into(), 24)],
        queues: 1,
        offload: true,
    };
    let mut queue: TunQueue = bauta_masque_io::tun::open(&config).unwrap().remove(0);
    let to = std::process::Command::new("ip")
        .args(["route", "add", &WEB.to_string(), "dev", "bautabench"])
        .status();
    assert!(to.is_ok_and(|status| status.success()), "ip(8) is needed");
    let socket = UdpSocket::bind((CLIENT, 0).into(), &BindOptions::default()).unwrap();
    let contents = vec![5; 1_200 * TRAIN];
    let mut batch = TunBatch::new();
    let (mut read, mut write) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let (dst, segment_size) = ((WEB, 9).into(), Some(1_200));
        let train = Transmit { dst, src: None, segment_size, contents: &contents };
        socket.try_send(&train).unwrap();
        queue.readable().await.unwrap();
        let start = clock::now();
        let n = queue.try_recv(&mut batch).unwrap_or(0);
        if n >= TRAIN {
            read = read.min(start.elapsed().as_nanos() as f64 / n as f64);
        }
        // What was read goes back to nobody: the kernel looks at it and drops it.
        let start = clock::now();
        batch.drain().for_each(|packet| queue.queue(packet));
        queue.flush().unwrap();
        if n >= TRAIN {
            write = write.min(start.elapsed().as_nanos() as f64 / n as f64);
        }
    }
    row("TUN read, a super-packet split", read, None);
    row("TUN write, joined to a super-packet", write, None);
}

/// Both ends, both sockets and the kernel between them, in one thread.
async fn whole(aead: f64) {
    let mut road = Road::open().await;
    for size in [INNER.min(1_380), 64] {
        let packet = road::packet(size);
        road.up(&packet, TRAIN, 20_000).await;
        let mut best = f64::MAX;
        for _ in 0..8 {
            let (start, before) = (clock::now(), road.far.arrived);
            road.up(&packet, TRAIN, 10_000).await;
            best = best.min(start.elapsed().as_nanos() as f64 / (road.far.arrived - before) as f64);
        }
        let what = "AES-128-GCM at both ends";
        row(&format!("both ends and the kernel, {size} B"), best, Some((2.0 * aead, what)));
    }
    road.turn(Duration::from_millis(1)).await;
}
