use std::collections::HashMap;
use std::time::Duration;

use super::*;

fn any4() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

async fn receive(socket: &UdpSocket, batch: &mut RecvBatch) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut got = Vec::new();
    let wait = async {
        while got.is_empty() {
            socket.readable().await.unwrap();
            match socket.try_recv(batch) {
                Ok(_) => batch.for_each(|d| got.push((d.payload.to_vec(), d.from))),
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{e}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(2), wait).await.expect("nothing arrived");
    got
}

async fn error_of(socket: &UdpSocket, batch: &mut RecvBatch) -> io::Error {
    let wait = async {
        loop {
            socket.readable().await.unwrap();
            match socket.try_recv(batch) {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return e,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(2), wait).await.expect("no error came")
}

#[tokio::test]
async fn a_train_arrives_as_the_datagrams_it_was_made_of() {
    let to = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let from = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let contents: Vec<u8> = (0..10_500u32).map(|i| (i / 1000) as u8).collect();
    let t =
        Transmit { dst: to.local_addr(), src: None, segment_size: Some(1000), contents: &contents };
    from.try_send(&t).unwrap();
    let got = receive(&to, &mut RecvBatch::new()).await;
    assert_eq!(got.len(), 11);
    for (i, (payload, sender)) in got.iter().enumerate() {
        assert_eq!(payload.len(), if i == 10 { 500 } else { 1000 });
        assert!(payload.iter().all(|b| *b == i as u8));
        assert_eq!(*sender, from.local_addr());
    }
}

#[tokio::test]
async fn without_segmentation_offload_a_train_leaves_one_by_one() {
    let to = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let from = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let message = quinn_udp::Transmit {
        destination: to.local_addr(),
        ecn: None,
        contents: &[7; 2500],
        segment_size: None,
        src_ip: None,
    };
    from.send_singly(&message, 1000).unwrap();
    let mut got = 0;
    let mut batch = RecvBatch::new();
    while got < 3 {
        got += receive(&to, &mut batch).await.len();
    }
    assert_eq!(got, 3);
}

#[tokio::test]
async fn an_ipv4_peer_of_a_dual_stack_socket_looks_like_ipv4_and_can_be_answered() {
    let dual = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0).into(), &BindOptions::default()).unwrap();
    let peer = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let dst = (Ipv4Addr::LOCALHOST, dual.local_addr().port()).into();
    peer.try_send(&Transmit { dst, src: None, segment_size: None, contents: b"hello" }).unwrap();
    let mut batch = RecvBatch::new();
    dual.readable().await.unwrap();
    assert_eq!(dual.try_recv(&mut batch).unwrap(), 1);
    let mut origin = None;
    batch.for_each(|d| origin = Some((d.from, d.to)));
    let (from, to) = origin.unwrap();
    assert_eq!(from, peer.local_addr());
    assert_eq!(to, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    dual.try_send(&Transmit { dst: from, src: to, segment_size: None, contents: b"back" }).unwrap();
    assert_eq!(receive(&peer, &mut batch).await, vec![(b"back".to_vec(), dst)]);
}

#[tokio::test]
async fn a_socket_for_ipv6_alone_leaves_the_ipv4_port_free() {
    let only = BindOptions { only_v6: true, ..BindOptions::default() };
    let six = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0).into(), &only).unwrap();
    let four = (Ipv4Addr::UNSPECIFIED, six.local_addr().port()).into();
    UdpSocket::bind(four, &BindOptions::default()).unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let first = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let e = UdpSocket::bind(first.local_addr(), &BindOptions::default()).unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::AddrInUse);
    assert!(e.to_string().contains(&first.local_addr().to_string()), "{e}");
    assert!(e.to_string().contains("another port"), "{e}");
}

#[tokio::test]
async fn a_refused_port_surfaces_on_the_connected_socket_which_lives_on() {
    let target = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let addr = target.local_addr();
    drop(target);
    let socket = UdpSocket::connected(addr, &BindOptions::default()).unwrap();
    socket.try_send_connected(b"anybody?", None).unwrap();
    let mut batch = RecvBatch::new();
    let e = error_of(&socket, &mut batch).await;
    assert!(is_unreachable(&e) && !is_too_big(&e), "{e}");
    let target = UdpSocket::bind(addr, &BindOptions::default()).unwrap();
    socket.writable().await.unwrap();
    socket.try_send_connected(b"now", None).unwrap();
    assert_eq!(receive(&target, &mut batch).await[0].0, b"now");
}

#[tokio::test]
async fn a_datagram_beyond_any_mtu_is_too_big_and_nothing_else_happens() {
    let to = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let socket = UdpSocket::connected(to.local_addr(), &BindOptions::default()).unwrap();
    let e = socket.try_send_connected(&[0; 65_535], None).unwrap_err();
    assert!(is_too_big(&e), "{e}");
    socket.try_send_connected(b"small", None).unwrap();
    assert_eq!(receive(&to, &mut RecvBatch::new()).await[0].0, b"small");
}

#[tokio::test]
async fn runs_of_any_sizes_arrive_in_order_through_trains() {
    let to = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let socket = UdpSocket::connected(to.local_addr(), &BindOptions::default()).unwrap();
    let sizes = [1200, 1200, 1200, 300, 300, 1400, 0, 0, 5, 1400, 1400, 1];
    let mut train = Train::new();
    for (i, size) in sizes.iter().enumerate() {
        let datagram = vec![i as u8; *size];
        if !train.push(&datagram) {
            train.send(&socket).unwrap();
            assert!(train.push(&datagram));
        }
    }
    train.send(&socket).unwrap();
    let (mut got, mut batch) = (Vec::new(), RecvBatch::new());
    while got.len() < sizes.len() {
        got.extend(receive(&to, &mut batch).await);
    }
    for (i, ((payload, _), size)) in got.iter().zip(sizes).enumerate() {
        assert_eq!(*payload, vec![i as u8; size]);
    }
}

#[tokio::test]
async fn readiness_comes_back_after_a_batch_that_was_not_full() {
    let to = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let socket = UdpSocket::connected(to.local_addr(), &BindOptions::default()).unwrap();
    let mut batch = RecvBatch::new();
    for round in 0..200u8 {
        socket.try_send_connected(&[round], None).unwrap();
        assert_eq!(receive(&to, &mut batch).await[0].0, [round]);
        assert_eq!(to.try_recv(&mut batch).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

/// Not an assertion, a figure: `cargo test -p bauta-masque-io loopback_rate -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn loopback_rate() {
    let to = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let from = UdpSocket::bind(any4(), &BindOptions::default()).unwrap();
    let mut batch = RecvBatch::new();
    let mut rates = HashMap::new();
    for segments in [1usize, 44] {
        let contents = vec![0; 1200 * segments];
        let t = Transmit {
            dst: to.local_addr(),
            src: None,
            segment_size: Some(1200),
            contents: &contents,
        };
        let start = crate::clock::now();
        let (mut sent, mut got) = (0usize, 0usize);
        while start.elapsed() < Duration::from_secs(1) {
            for _ in 0..16 {
                if from.try_send(&t).is_ok() {
                    sent += segments;
                }
            }
            to.readable().await.unwrap();
            while let Ok(n) = to.try_recv(&mut batch) {
                batch.for_each(|d| got += usize::from(d.payload.len() == 1200));
                assert!(n > 0);
            }
        }
        rates.insert(segments, (sent, got));
    }
    println!("datagrams of 1200 bytes a second, sender and receiver on one thread: {rates:?}");
}
