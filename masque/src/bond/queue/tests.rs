use super::*;

fn packet(flow: u16, len: usize) -> Vec<u8> {
    let mut p = vec![0; len];
    (p[0], p[9]) = (0x45, 17);
    p[20..22].copy_from_slice(&flow.to_be_bytes());
    p
}

fn flow_of(p: &[u8]) -> u16 {
    u16::from_be_bytes([p[20], p[21]])
}

#[test]
fn packets_of_a_flow_leave_in_order_and_flows_take_turns() {
    let (mut q, mut pool) = (Queue::new(1, 1 << 20), Pool::default());
    for i in 0..30 {
        for flow in [1, 2, 3] {
            let mut p = packet(flow, 1_400);
            p[30] = i;
            assert!(q.push(0, &p, &mut pool));
        }
    }
    let mut seen = [0u8; 4];
    while let Some(got) = q.pop(0, 5_000, 100_000, &mut pool) {
        let flow = usize::from(flow_of(&got.packet));
        assert_eq!(got.packet[30], seen[flow]);
        seen[flow] += 1;
        let (least, most) = (seen[1..].iter().min().unwrap(), seen[1..].iter().max().unwrap());
        assert!(most - least <= 3, "{seen:?}");
    }
    assert_eq!((seen, q.bytes, q.packets), ([0, 30, 30, 30], 0, 0));
}

#[test]
fn a_sparse_flow_goes_ahead_of_a_standing_queue() {
    let (mut q, mut pool) = (Queue::new(1, 1 << 20), Pool::default());
    (0..100).for_each(|_| assert!(q.push(0, &packet(1, 1_400), &mut pool)));
    (0..10).for_each(|_| assert!(q.pop(0, 5_000, 100_000, &mut pool).is_some()));
    q.push(0, &packet(2, 100), &mut pool);
    let next: Vec<_> = (0..2)
        .map(|_| q.pop(0, 5_000, 100_000, &mut pool).unwrap())
        .map(|p| (flow_of(&p.packet), p.sparse))
        .collect();
    assert!(next.contains(&(2, true)), "{next:?}");
}

#[test]
fn a_full_queue_sheds_from_the_longest_flow() {
    let (mut q, mut pool) = (Queue::new(1, 100_000), Pool::default());
    q.push(0, &packet(2, 1_000), &mut pool);
    (0..1_000).for_each(|_| assert!(q.push(0, &packet(1, 1_000), &mut pool)));
    assert!(q.bytes <= 100_000 && q.drops >= 900);
    let mut flows = Vec::new();
    while let Some(got) = q.pop(0, 5_000, 100_000, &mut pool) {
        flows.push(flow_of(&got.packet));
    }
    assert!(flows.contains(&2));
    assert!(!q.push(0, &packet(1, 100_001), &mut pool));
}

#[test]
fn small_packets_are_bounded_in_number() {
    let (mut q, mut pool) = (Queue::new(1, 1 << 20), Pool::default());
    q.push(0, &packet(2, 1_000), &mut pool);
    (0..10_000).for_each(|_| assert!(q.push(0, &packet(1, 64), &mut pool)));
    assert!(q.packets <= MAX_PACKETS && q.drops >= 10_000 - MAX_PACKETS as u64);
    let first = (0..2).filter_map(|_| q.pop(0, 5_000, 100_000, &mut pool));
    assert!(first.map(|p| flow_of(&p.packet)).any(|flow| flow == 2));
}

#[test]
fn a_standing_queue_is_signalled_ever_faster() {
    let (mut q, mut pool) = (Queue::new(1, 1 << 24), Pool::default());
    let mut now = 0;
    for _ in 0..2_000 {
        q.push(now, &packet(1, 1_000), &mut pool);
        q.push(now, &packet(1, 1_000), &mut pool);
        now += 1_000;
        q.pop(now, 5_000, 100_000, &mut pool);
    }
    assert!((20..1_000).contains(&q.drops), "{}", q.drops);
}
