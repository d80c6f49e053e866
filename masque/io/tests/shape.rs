//! What a client's packets look like on the wire when they are given a shape.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod road;

use std::time::Duration;

use bauta_masque::shape::Shape;
use bauta_masque_io::DatagramBuf;
use road::{Road, packet};

/// Packets that are sent, one at a time.
const PACKETS: u64 = 40;
/// Bytes of each.
const SIZE: usize = 60;

/// Sends small packets up; bytes a packet on the wire, and fillers that came with them.
async fn send(shape: Shape) -> (f64, u64) {
    let mut road = Road::shaped(shape).await;
    assert_eq!(road.far.padded, shape != Shape::None, "{shape:?}");
    let before = road.client.get(road.conn).unwrap().stats().sent_bytes;
    for sent in 1..=PACKETS {
        let conn = road.client.get(road.conn).unwrap();
        road.near.send(conn, road.stream, DatagramBuf::copy_of(&packet(SIZE)));
        road.client.touch(road.conn);
        for _ in 0..2_000 {
            if road.far.arrived == sent {
                break;
            }
            road.turn(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(road.far.arrived, PACKETS, "{shape:?}");
    assert_eq!(road.far.bytes, PACKETS * SIZE as u64, "the packets themselves are what they were");
    let after = road.client.get(road.conn).unwrap().stats().sent_bytes;
    ((after - before) as f64 / PACKETS as f64, road.far.refused)
}

#[tokio::test]
async fn small_packets_are_filled_up_and_the_peer_drops_what_fills_them() {
    let (plain, none) = send(Shape::None).await;
    assert!(plain < 250.0 && none == 0, "{plain} bytes a packet, {none} fillers");
    let (web, all) = send(Shape::Web).await;
    assert!(web > 450.0 && all >= PACKETS, "{web} bytes a packet, {all} fillers");
    let (start, first) = send(Shape::Start).await;
    assert!(plain < start && start < web, "{start} bytes a packet");
    assert_eq!(first, 16, "fillers at the start");
}
