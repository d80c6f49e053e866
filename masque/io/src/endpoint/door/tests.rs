use super::*;

fn from(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 4433))
}

fn door(limits: DoorLimits) -> (Door, Instant) {
    let now = crate::clock::now();
    (Door::new(limits, now), now)
}

const OURS: [u8; 8] = [1; 8];

#[test]
fn a_token_is_good_for_one_address_one_connection_and_a_while() {
    let (door, now) = door(DoorLimits::default());
    let token = door.token(now, from(1), &OURS, b"original").unwrap();
    let read = |now, addr, chosen: &[u8], token: &[u8]| door.check(now, addr, chosen, token);
    assert_eq!(read(now, from(1), &OURS, &token).unwrap().as_slice(), b"original");
    let later = now + TOKEN_LIFE;
    assert!(read(later, from(1), &OURS, &token).is_some());
    assert!(read(later + Duration::from_secs(1), from(1), &OURS, &token).is_none());
    assert!(read(now, from(2), &OURS, &token).is_none());
    let mut port = from(1);
    port.set_port(4434);
    assert!(read(now, port, &OURS, &token).is_none());
    assert!(read(now, from(1), &[2; 8], &token).is_none());
    assert!(read(now, from(1), &[], &token).is_none());
    for at in 0..token.len() {
        let mut spoilt = token.clone();
        spoilt[at] ^= 1;
        assert!(read(now, from(1), &OURS, &spoilt).is_none(), "byte {at}");
        assert!(read(now, from(1), &OURS, &token[..at]).is_none(), "cut at {at}");
    }
    assert!(read(now, from(1), &OURS, &[7; 300]).is_none());
    let (other, _) = self::door(DoorLimits::default());
    assert!(other.check(now, from(1), &OURS, &token).is_none(), "another key");
}

#[test]
fn beyond_the_free_handshakes_addresses_are_proven_and_beyond_the_answers_nothing_is_said() {
    let limits =
        DoorLimits { free_handshakes: 10, answers_per_second: 20, ..DoorLimits::default() };
    let (mut door, now) = door(limits);
    let mut seen = [0; 3];
    for n in 0..50_000u32 {
        let at = now + Duration::from_micros(20) * n;
        seen[door.knock(at, from(n as u8), false) as usize] += 1;
    }
    // A second at the rate, after a burst of as much.
    let [accepted, retried, dropped] = seen;
    assert!((19..=21).contains(&accepted), "{seen:?}");
    assert!((38..=42).contains(&retried), "{seen:?}");
    assert_eq!(accepted + retried + dropped, 50_000);
    assert_eq!(door.stats.dropped, dropped);
    let at = now + Duration::from_secs(1);
    assert_eq!(door.knock(at, from(1), true), Entry::Accept, "whoever proves it comes in");
}

#[test]
fn one_source_does_not_take_the_place_of_others() {
    let limits =
        DoorLimits { source_per_second: 5, source_connections: 8, ..DoorLimits::default() };
    let (mut door, now) = door(limits);
    let enter = |door: &mut Door, at, last| {
        let entry = door.knock(at, from(last), true);
        if entry == Entry::Accept {
            door.entered(at, 0, Subnet::of(from(last)));
        }
        entry == Entry::Accept
    };
    assert_eq!((0..100).filter(|_| enter(&mut door, now, 1)).count(), 5);
    // Two sources share a bucket by chance, once in some thousand times; not many do.
    assert!((2..9).any(|last| enter(&mut door, now, last)), "other sources");
    let later = now + Duration::from_secs(60);
    assert_eq!((0..100).filter(|_| enter(&mut door, later, 1)).count(), 3, "no more than 8 held");
    door.left(Subnet::of(from(1)));
    assert!(enter(&mut door, later + Duration::from_secs(60), 1));
    let v6 = |text: &str| Subnet::of(format!("[{text}]:1").parse().unwrap());
    assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:2"));
    assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
    assert_eq!(v6("::ffff:192.0.2.1"), Subnet::of(from(1)));
}

#[test]
fn handshakes_under_way_are_bounded_and_have_an_end() {
    let limits = DoorLimits { retry_above: 2, max_handshakes: 4, ..DoorLimits::default() };
    let (mut door, now) = door(limits);
    for id in 0..2 {
        assert_eq!(door.knock(now, from(1), false), Entry::Accept);
        door.entered(now, id, Subnet::of(from(1)));
    }
    assert_eq!(door.knock(now, from(1), false), Entry::Retry);
    for id in 2..4 {
        assert_eq!(door.knock(now, from(1), true), Entry::Accept);
        door.entered(now, id, Subnet::of(from(1)));
    }
    assert_eq!(door.knock(now, from(1), true), Entry::Drop);
    door.settled();
    assert_eq!(door.knock(now, from(1), true), Entry::Accept);
    assert_eq!(door.timeout(), Some(now + Duration::from_secs(10)));
    assert_eq!(door.overdue(now), None);
    let late = now + Duration::from_secs(10);
    assert_eq!([(); 5].map(|()| door.overdue(late)), [Some(0), Some(1), Some(2), Some(3), None]);
}
