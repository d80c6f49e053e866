use super::*;

const PAYLOAD: &[u8] = b"quic";

fn udp() -> Vec<u8> {
    let mut udp = vec![0x30, 0x39, 0x01, 0xbb, 0, 12, 0, 0]; // 12345 to 443, no checksum
    udp.extend(PAYLOAD);
    udp
}

fn v4() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 7, 203, 0, 113, 1]);
    frame.extend(udp());
    frame
}

fn v6(source: Ipv6Addr) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0, 0, 12, 17, 64]);
    frame.extend(source.octets());
    frame.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    frame.extend(udp());
    frame
}

fn refused(mut frame: Vec<u8>) -> Refused {
    Datagram::parse(&mut frame, 3).unwrap_err()
}

#[test]
fn an_ipv4_datagram_comes_out_with_both_addresses() {
    let mut frame = v4();
    let datagram = Datagram::parse(&mut frame, 3).unwrap();
    assert_eq!(datagram.source, "198.51.100.7:12345".parse().unwrap());
    assert_eq!(datagram.destination, "203.0.113.1:443".parse().unwrap());
    assert_eq!(datagram.payload, PAYLOAD);
}

#[test]
fn an_ipv6_datagram_comes_out_with_both_addresses() {
    let mut frame = v6("2001:db8::7".parse().unwrap());
    let datagram = Datagram::parse(&mut frame, 3).unwrap();
    assert_eq!(datagram.source, "[2001:db8::7]:12345".parse().unwrap());
    assert_eq!(datagram.destination, "[2001:db8::1]:443".parse().unwrap());
    assert_eq!(datagram.payload, PAYLOAD);
}

#[test]
fn a_link_local_source_carries_the_interface_it_can_be_answered_by() {
    let mut frame = v6("fe80::7".parse().unwrap());
    let datagram = Datagram::parse(&mut frame, 3).unwrap();
    assert_eq!(datagram.source, "[fe80::7%3]:12345".parse().unwrap());
}

#[test]
fn the_payload_is_decrypted_in_the_frame_itself() {
    let mut frame = v4();
    Datagram::parse(&mut frame, 3).unwrap().payload.fill(b'x');
    assert!(frame.ends_with(b"xxxx"));
}

#[test]
fn ethernet_padding_is_not_payload() {
    for mut frame in [v4(), v6("2001:db8::7".parse().unwrap())] {
        frame.resize(frame.len() + 20, 0xee);
        assert_eq!(Datagram::parse(&mut frame, 3).unwrap().payload, PAYLOAD);
    }
}

#[test]
fn every_cut_is_refused() {
    for whole in [v4(), v6("2001:db8::7".parse().unwrap())] {
        for len in 0..whole.len() {
            assert_eq!(refused(whole[..len].to_vec()), Refused::Length, "{len} bytes");
        }
    }
}

#[test]
fn every_lying_length_is_refused() {
    for (at, lie) in [(17, 27), (17, 33), (39, 7), (39, 13)] {
        let mut frame = v4();
        frame[at] = lie;
        assert_eq!(refused(frame), Refused::Length, "{lie} at {at}");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    // Every byte of the headers at its extremes, alone and with its neighbour.
    for whole in [v4(), v6("2001:db8::7".parse().unwrap())] {
        for at in 0..whole.len() - 1 {
            for value in [0, 1, 0x0f, 0x7f, 0x80, 0xff] {
                let mut frame = whole.clone();
                frame[at] = value;
                let _ = Datagram::parse(&mut frame.clone(), 3);
                frame[at + 1] = value;
                let _ = Datagram::parse(&mut frame, 3);
            }
        }
    }
}

#[test]
fn what_is_not_a_whole_datagram_is_refused() {
    // ethertype, options, more fragments, an offset, TCP
    for (at, value) in [(13, 0x06), (14, 0x46), (20, 0x20), (21, 1), (23, 6)] {
        let mut frame = v4();
        frame[at] = value;
        assert_eq!(refused(frame), Refused::NotUdp, "{value} at {at}");
    }
    let mut frame = v6("2001:db8::7".parse().unwrap());
    frame[20] = 44; // a fragment header
    assert_eq!(refused(frame), Refused::NotUdp);
}

#[test]
fn a_source_nobody_may_answer_is_refused() {
    let sources = [[127, 0, 0, 1], [0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255]];
    for source in sources {
        let mut frame = v4();
        frame[26..30].copy_from_slice(&source);
        assert_eq!(refused(frame), Refused::Martian, "{source:?}");
    }
    for source in ["::1", "::", "ff02::1", "::ffff:127.0.0.1"] {
        assert_eq!(refused(v6(source.parse().unwrap())), Refused::Martian, "{source}");
    }
}

#[test]
fn a_datagram_from_its_own_destination_is_refused() {
    let mut frame = v4();
    frame.copy_within(30..34, 26);
    assert!(Datagram::parse(&mut frame, 3).is_ok(), "the same host, another port");
    frame.copy_within(36..38, 34);
    assert_eq!(refused(frame), Refused::Martian);
}
