use super::*;

fn plan(v4: &str) -> Plan {
    Plan::new(Some(v4.parse().unwrap()), Some("fd00::/64".parse().unwrap()))
}

fn holder(conn: u64) -> Holder {
    Holder { worker: 0, conn, stream: 0 }
}

#[test]
fn both_addresses_follow_from_the_slot() {
    let plan = plan("10.77.0.0/16");
    assert_eq!(plan.slots(), 65_535);
    assert_eq!(plan.v4(258).unwrap().to_string(), "10.77.1.2");
    assert_eq!(plan.v6(258).unwrap().to_string(), "fd00::102");
    assert_eq!(plan.slot("fd00::102".parse().unwrap()), Some(258));
    for not_a_client in
        ["10.77.0.0", "10.77.0.1", "10.77.255.255", "10.78.0.2", "fd00::1", "fd00::1:0:0"]
    {
        assert_eq!(plan.slot(not_a_client.parse().unwrap()), None, "{not_a_client}");
    }
    let own: Vec<_> = plan.gateway().map(|(ip, len)| format!("{ip}/{len}")).collect();
    assert_eq!(own, ["10.77.0.1/16", "fd00::1/64"]);
}

#[test]
fn a_returning_account_gets_its_address_back() {
    let mut pool = Pool::new(plan("10.0.0.0/24"));
    let first = pool.acquire("alice", None, holder(1), 4, 10).unwrap();
    let other = pool.acquire("bob", None, holder(2), 4, 10).unwrap();
    assert_ne!(first.slot, other.slot);
    assert!(pool.release(first.slot, holder(1), 20));
    let again = pool.acquire("alice", None, holder(3), 4, 30).unwrap();
    assert_eq!(again, Granted { slot: first.slot, displaced: None });
}

#[test]
fn a_newer_session_takes_its_own_lease_over_and_the_older_cannot_give_it_back() {
    let mut pool = Pool::new(plan("10.0.0.0/24"));
    let slot = pool.acquire("alice", None, holder(1), 1, 10).unwrap().slot;
    assert_eq!(pool.acquire("alice", None, holder(2), 1, 11), Err(Refused::Sessions));
    let granted = pool.acquire("alice", Some(slot), holder(2), 1, 12).unwrap();
    assert_eq!(granted, Granted { slot, displaced: Some(holder(1)) });
    assert!(!pool.release(slot, holder(1), 13));
    assert_eq!(pool.held_by("alice"), 1);
    assert!(pool.release(slot, holder(2), 14));
    assert_eq!(pool.held(), 0);
}

#[test]
fn another_accounts_lease_is_never_given_on_request() {
    let mut pool = Pool::new(plan("10.0.0.0/24"));
    let slot = pool.acquire("alice", Some(77), holder(1), 4, 10).unwrap().slot;
    assert_eq!(slot, 77, "an address nobody had is granted");
    assert_ne!(pool.acquire("bob", Some(77), holder(2), 4, 11).unwrap().slot, 77);
    pool.release(77, holder(1), 12);
    assert_ne!(pool.acquire("bob", Some(77), holder(3), 4, 13).unwrap().slot, 77, "even if free");
    assert_ne!(pool.acquire("bob", Some(1), holder(4), 4, 13).unwrap().slot, 1, "the gateway's");
}

#[test]
fn a_full_pool_recycles_the_oldest_free_lease_and_then_refuses() {
    let mut pool = Pool::new(plan("10.0.0.0/29"));
    let slots: Vec<_> = (0..5)
        .map(|i| pool.acquire(&format!("user{i}"), None, holder(i), 4, i).unwrap().slot)
        .collect();
    assert_eq!(slots, [2, 3, 4, 5, 6]);
    assert_eq!(pool.acquire("late", None, holder(9), 4, 9), Err(Refused::Exhausted));
    pool.release(4, holder(2), 20);
    pool.release(3, holder(1), 30);
    assert_eq!(pool.acquire("late", None, holder(9), 4, 40).unwrap().slot, 4);
    assert_eq!(pool.acquire("user2", Some(4), holder(10), 4, 41).unwrap().slot, 3);
}

#[test]
fn leases_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = LeaseFile::new(dir.path());
    let (mut pool, none) = file.load(plan("10.0.0.0/24"));
    assert!(none.is_none() && pool.snapshot().is_none());
    pool.acquire("alice", Some(9), holder(1), 4, 10).unwrap();
    file.store(&pool.snapshot().unwrap()).unwrap();
    assert!(pool.snapshot().is_none());
    let (mut pool, none) = file.load(plan("10.0.0.0/24"));
    assert!(none.is_none());
    assert_eq!(pool.acquire("alice", None, holder(1), 4, 20).unwrap().slot, 9);
    assert_eq!(pool.acquire("bob", None, holder(2), 4, 20).unwrap().slot, 2);
    std::fs::write(dir.path().join("leases.json"), "{").unwrap();
    let (pool, trouble) = file.load(plan("10.0.0.0/24"));
    assert!(trouble.unwrap().contains("leases start anew") && pool.held() == 0);
}

#[test]
fn routes_follow_leases_between_workers() {
    let shared = SharedPool::new(Pool::new(plan("10.0.0.0/24")), None);
    let here = holder(1);
    let there = Holder { worker: 3, conn: 1, stream: 0 };
    let slot = shared.acquire("alice", None, here, 4, 1).unwrap().slot;
    assert_eq!(shared.routes.worker(slot), Some(0));
    shared.acquire("alice", Some(slot), there, 4, 2).unwrap();
    shared.release(slot, here, 3);
    assert_eq!(shared.routes.worker(slot), Some(3));
    shared.release(slot, there, 4);
    assert_eq!(shared.routes.worker(slot), None);
    assert_eq!(shared.routes.worker(1 << 20), None);
}

#[test]
fn neighbours_have_queues_of_their_own() {
    let lanes: Vec<usize> = (2..6).map(|slot| lane(slot, 4)).collect();
    assert_eq!(lanes, [2, 3, 0, 1]);
    assert!((0..9).all(|slot| lane(slot, 1) == 0));
}

/// The books agree with the leases after a long random life.
#[test]
fn what_is_counted_is_what_is_there() {
    let mut pool = Pool::new(plan("10.0.0.0/26"));
    let mut state = 1u64;
    let mut random = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut held: Vec<(Slot, Holder)> = Vec::new();
    for step in 0..20_000 {
        let account = format!("user{}", random(30));
        if random(2) == 0 && !held.is_empty() {
            let (slot, holder) = held.swap_remove(random(held.len() as u64) as usize);
            assert!(pool.release(slot, holder, step));
        } else {
            let preferred = (random(3) == 0).then(|| random(70) as Slot);
            if let Ok(granted) = pool.acquire(&account, preferred, holder(step), 4, step) {
                held.retain(|(slot, _)| *slot != granted.slot);
                held.push((granted.slot, holder(step)));
            }
        }
        assert_eq!(pool.held(), held.len());
    }
    for user in 0..30 {
        let name = format!("user{user}");
        let of = |held: bool| {
            let leases = pool.leases.values();
            leases.filter(|l| l.account == name && l.holder.is_some() == held).count()
        };
        assert_eq!(pool.held_by(&name), of(true));
        assert_eq!(pool.by_account.get(&name).map_or(0, |own| own.free.len()), of(false));
    }
}
