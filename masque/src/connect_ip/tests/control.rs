use super::*;
use crate::address::{self, AddressError, encode_assigned, encode_requested};
use crate::capsule::{self, encode};
use crate::datagram::{H3_EXCESSIVE_LOAD, H3_MESSAGE_ERROR};
use crate::dns;
use crate::route::{self, RouteError};
use proptest::prelude::*;

fn wire(kind: u64, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let (mut value, mut out) = (Vec::new(), Vec::new());
    fill(&mut value);
    encode(kind, &value, &mut out);
    out
}

fn request(request_id: u64, wish: &str) -> RequestedAddress {
    RequestedAddress { request_id, prefix: prefix(wish) }
}

/// The lists of every ADDRESS_ASSIGN that waits to be sent.
fn assigned(session: &mut ConnectIp) -> Vec<Vec<AssignedAddress>> {
    let mut lists = Vec::new();
    let mut parser = CapsuleParser::new(KNOWN_IP);
    while let Some(bytes) = session.poll_transmit() {
        parser
            .push(&bytes, &mut |c| lists.push(address::parse_assigned(c.value).unwrap()))
            .unwrap();
    }
    lists
}

#[test]
fn a_client_asks_and_both_ends_know_the_tunnel() {
    let mut proxy = ConnectIp::new(proxy_config());
    let mut client = ConnectIp::new(Config::client());
    client.request_addresses(&[prefix("0.0.0.0/32"), prefix("::/128")]);
    pump(&mut client, &mut proxy);
    let [Event::AddressRequested(asked)] = &events(&mut proxy)[..] else { panic!() };
    assert_eq!(asked[..], [request(1, "0.0.0.0/32"), request(2, "::/128")]);
    let list = [(1, CLIENT4), (2, CLIENT6)]
        .map(|(request_id, a)| AssignedAddress { request_id, prefix: prefix(a) });
    proxy.assign(list.to_vec());
    proxy.advertise(&[IpRange::ALL_V6, IpRange::ALL_V4]).unwrap();
    proxy.assign_dns(vec![DnsConfig::plain(&["9.9.9.9".parse().unwrap()])]);
    pump(&mut proxy, &mut client);
    let got = events(&mut client);
    let routes = vec![IpRange::ALL_V4, IpRange::ALL_V6];
    assert_eq!(
        got[..2],
        [Event::AddressesAssigned(list.to_vec()), Event::RoutesAdvertised(routes)]
    );
    assert!(matches!(&got[2..], [Event::DnsAssigned(_)]));
    assert_eq!(client.assigned_to_us(), proxy.assigned_to_peer());
    assert_eq!(client.routes_from_peer(), proxy.routes_to_peer());
    assert!(proxy.may_send_from(CLIENT4.parse().unwrap()));
}

#[test]
fn rule_53_a_later_list_replaces_the_earlier_and_may_be_empty() {
    let (mut proxy, mut client) = tunnel();
    proxy.assign(vec![]);
    pump(&mut proxy, &mut client);
    assert_eq!(events(&mut client), [Event::AddressesAssigned(vec![])]);
    assert!(client.assigned_to_us().is_empty());
    assert!(!proxy.may_send_from(CLIENT4.parse().unwrap()));
}

#[test]
fn rule_54_an_unasked_address_has_request_id_zero() {
    let (proxy, _) = tunnel();
    assert!(proxy.assigned_to_peer().iter().all(|a| a.request_id == 0));
}

#[test]
fn rule_55_an_empty_request_aborts_the_stream() {
    let mut proxy = ConnectIp::new(proxy_config());
    let error = proxy.handle_stream(start(), &wire(capsule::ADDRESS_REQUEST, |_| ())).unwrap_err();
    assert_eq!(
        (error, error.code()),
        (SessionError::Address(AddressError::Empty), H3_MESSAGE_ERROR)
    );
}

#[test]
fn rule_55_a_request_id_is_never_used_twice_in_a_session() {
    let mut proxy = ConnectIp::new(proxy_config());
    let ask =
        |id| wire(capsule::ADDRESS_REQUEST, |v| encode_requested(&[request(id, "::/128")], v));
    proxy.handle_stream(start(), &ask(7)).unwrap();
    proxy.handle_stream(start(), &ask(3)).unwrap();
    let error = proxy.handle_stream(start(), &ask(7)).unwrap_err();
    assert_eq!(error, SessionError::Address(AddressError::RequestIdReused(7)));
    let zero = ConnectIp::new(proxy_config()).handle_stream(start(), &ask(0)).unwrap_err();
    assert_eq!(zero, SessionError::Address(AddressError::RequestIdZero));
}

#[test]
fn the_requests_of_a_session_are_bounded() {
    let mut proxy = ConnectIp::new(proxy_config());
    let mut outcome = Ok(());
    for id in 1..=MAX_REQUESTS as u64 + 1 {
        assert_eq!(outcome, Ok(()));
        let ask = wire(capsule::ADDRESS_REQUEST, |v| encode_requested(&[request(id, "::/128")], v));
        outcome = proxy.handle_stream(start(), &ask);
    }
    assert_eq!(outcome.unwrap_err().code(), H3_EXCESSIVE_LOAD);
}

#[test]
fn rule_56_what_is_not_assigned_is_refused_once() {
    let mut proxy = ConnectIp::new(proxy_config());
    let asked = [request(1, "0.0.0.0/32"), request(2, "2001:db8::/64")];
    let ask = wire(capsule::ADDRESS_REQUEST, |v| encode_requested(&asked, v));
    proxy.handle_stream(start(), &ask).unwrap();
    // Not seen by the owner yet: nothing to refuse.
    proxy.assign(vec![]);
    assert_eq!(assigned(&mut proxy), [vec![]]);
    events(&mut proxy);
    let list = vec![AssignedAddress { request_id: 1, prefix: prefix(CLIENT4) }];
    proxy.assign(list.clone());
    let refused = AssignedAddress { request_id: 2, prefix: prefix("::/128") };
    assert_eq!(assigned(&mut proxy), [vec![list[0], refused]]);
    assert_eq!(proxy.assigned_to_peer(), list);
    proxy.assign(list.clone());
    assert_eq!(assigned(&mut proxy), [list]);
}

#[test]
fn rule_56_every_one_of_many_requests_is_answered() {
    let mut proxy = ConnectIp::new(proxy_config());
    for chunk in (1..=200u64).collect::<Vec<_>>().chunks(50) {
        let asked: Vec<_> = chunk.iter().map(|id| request(*id, "::/128")).collect();
        let ask = wire(capsule::ADDRESS_REQUEST, |v| encode_requested(&asked, v));
        proxy.handle_stream(start(), &ask).unwrap();
    }
    events(&mut proxy);
    proxy.assign(vec![AssignedAddress { request_id: 5, prefix: prefix(CLIENT6) }]);
    let lists = assigned(&mut proxy);
    let mut ids: Vec<_> = lists.concat().iter().map(|a| a.request_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=200).collect::<Vec<_>>());
    assert_eq!(lists.last().unwrap()[0].prefix, prefix(CLIENT6));
}

#[test]
fn rule_56_a_refusal_is_no_address_at_the_client() {
    let mut client = ConnectIp::new(Config::client());
    let refusal = AssignedAddress::refusal(&request(1, "0.0.0.0/32"));
    let bytes = wire(capsule::ADDRESS_ASSIGN, |v| encode_assigned(&[refusal], v));
    client.handle_stream(start(), &bytes).unwrap();
    assert_eq!(events(&mut client), [Event::AddressesAssigned(vec![refusal])]);
    assert!(client.assigned_to_us().is_empty());
}

#[test]
fn rule_58_a_client_may_assign_and_advertise_to_the_proxy() {
    let (mut proxy, mut client) = tunnel();
    client.assign(vec![AssignedAddress::unsolicited(prefix("192.168.9.9"))]);
    let site = IpRange::from_prefix(prefix("192.168.0.0/16"), 0);
    client.advertise(&[site]).unwrap();
    pump(&mut client, &mut proxy);
    assert_eq!(events(&mut proxy).len(), 2);
    assert_eq!(proxy.assigned_to_us()[0].prefix, prefix("192.168.9.9"));
    assert_eq!(proxy.routes_from_peer(), [site]);
}

#[test]
fn rule_59_a_later_advertisement_replaces_the_earlier() {
    let (mut proxy, mut client) = tunnel();
    proxy.advertise(&[]).unwrap();
    pump(&mut proxy, &mut client);
    assert!(client.routes_from_peer().is_empty());
    assert_eq!(
        reason(outward(&mut client, &v4(CLIENT4, WEB4, 17, b""))),
        Some(DropReason::NoRoute)
    );
}

#[test]
fn rule_60_routes_out_of_order_abort_the_stream() {
    let mut client = ConnectIp::new(Config::client());
    let list = [IpRange::ALL_V6, IpRange::ALL_V4];
    let bytes = wire(capsule::ROUTE_ADVERTISEMENT, |v| route::encode(&list, v));
    let error = client.handle_stream(start(), &bytes).unwrap_err();
    assert_eq!(
        (error, error.code()),
        (SessionError::Route(RouteError::Order(1)), H3_MESSAGE_ERROR)
    );
    // What comes after is not looked at.
    assert_eq!(client.handle_stream(start(), &bytes), Ok(()));
    assert_eq!(client.poll_event(), None);
}

#[test]
fn rule_61_routes_that_overlap_across_protocols_are_not_sent() {
    let mut proxy = ConnectIp::new(proxy_config());
    let tcp = IpRange { protocol: 6, ..IpRange::ALL_V4 };
    let error = proxy.advertise(&[IpRange::ALL_V4, tcp]).unwrap_err();
    assert_eq!(error, RouteError::ProtocolOverlap(1));
    assert_eq!((proxy.poll_transmit(), proxy.routes_to_peer()), (None, &[][..]));
}

#[test]
fn the_scope_of_the_request_narrows_what_is_advertised() {
    let config =
        Config { target: vec![prefix("93.184.215.0/24")], ipproto: Some(17), ..proxy_config() };
    let (proxy, client) = tunnel_with(config);
    let scoped = [IpRange::from_prefix(prefix("93.184.215.0/24"), 17)];
    assert_eq!(proxy.routes_to_peer(), scoped);
    assert_eq!(client.routes_from_peer(), scoped);
}

#[test]
fn resolvers_are_told_after_the_routes() {
    let mut proxy = ConnectIp::new(proxy_config());
    proxy.assign_dns(vec![DnsConfig::plain(&["9.9.9.9".parse().unwrap()])]);
    assert_eq!(proxy.poll_transmit(), None);
    proxy.advertise(&[IpRange::ALL_V4]).unwrap();
    let kinds: Vec<u64> = std::iter::from_fn(|| proxy.poll_transmit())
        .map(|b| crate::varint::decode(&b).unwrap().0)
        .collect();
    assert_eq!(kinds, [capsule::ROUTE_ADVERTISEMENT, dns::DNS_ASSIGN]);
}

#[test]
fn rule_12_unknown_capsules_and_rule_13_grease_do_no_harm() {
    let (_, mut client) = tunnel();
    for kind in [capsule::grease(3), 0x274c_0fbc, 0x1fff_ffff] {
        let bytes = wire(kind, |v| v.extend([1, 2, 3]));
        client.handle_stream(start(), &bytes).unwrap();
    }
    assert_eq!((client.poll_event(), client.handle_fin()), (None, Ok(())));
}

#[test]
fn rule_17_a_fin_inside_a_capsule_aborts_the_stream() {
    let (_, mut client) = tunnel();
    client.handle_stream(start(), &[1, 9]).unwrap();
    assert_eq!(client.handle_fin().unwrap_err().code(), H3_MESSAGE_ERROR);
}

#[test]
fn rule_19_a_datagram_capsule_carries_a_packet() {
    let (mut proxy, _) = tunnel();
    let packet = v4(CLIENT4, WEB4, 17, b"12345678");
    let bytes = capsule::encode_datagram_capsule(&crate::datagram::CONTEXT_ID_ZERO, &packet);
    proxy.handle_stream(start(), &bytes).unwrap();
    let Some(Event::DatagramCapsule(payload)) = proxy.poll_event() else { panic!() };
    let mut payload = payload.to_vec();
    assert_eq!(short(proxy.handle_datagram(start(), &mut payload, &policy())), Ok(packet));
}

#[test]
fn a_flood_of_capsules_waits_in_bounded_memory() {
    let (_, mut client) = tunnel();
    let assign = wire(capsule::ADDRESS_ASSIGN, |_| ());
    let datagram = wire(capsule::DATAGRAM, |v| v.push(0));
    client.handle_stream(start(), &assign.repeat(5000)).unwrap();
    client.handle_stream(start(), &datagram.repeat(5000)).unwrap();
    assert_eq!(events(&mut client).len(), 1 + MAX_EVENTS);
    assert_eq!(client.dropped_capsules(), 5000 - MAX_EVENTS as u64);
    client.handle_stream(start(), &datagram).unwrap();
    assert_eq!(events(&mut client).len(), 1);
}

#[test]
fn every_reason_has_a_place_and_a_name_of_its_own() {
    let names: BTreeSet<_> = DropReason::ALL.iter().map(|r| r.as_str()).collect();
    assert_eq!(names.len(), DropReason::COUNT);
    for (i, reason) in DropReason::ALL.iter().enumerate() {
        assert_eq!(reason.index(), i);
    }
}

proptest! {
    #[test]
    fn any_stream_never_panics(data: Vec<u8>, step in 1usize..40) {
        for config in [proxy_config(), Config::client()] {
            let mut session = ConnectIp::new(config);
            for piece in data.chunks(step) {
                let _ = session.handle_stream(start(), piece);
            }
            let _ = session.handle_fin();
            events(&mut session);
            session.assign(vec![]);
        }
    }
}

#[test]
fn bond_capsules_are_events_only_where_a_bond_was_negotiated() {
    let mut bytes = Vec::new();
    encode(crate::bond::capsules::BOND_ASSIGN, &[2], &mut bytes);
    let mut plain = ConnectIp::new(Config::client());
    plain.handle_stream(start(), &bytes).unwrap();
    assert_eq!(plain.poll_event(), None);
    let mut bonded = ConnectIp::new(Config { bond: true, ..Config::client() });
    bonded.handle_stream(start(), &bytes).unwrap();
    let kind = crate::bond::capsules::BOND_ASSIGN;
    assert_eq!(bonded.poll_event(), Some(Event::Bond { kind, value: vec![2].into() }));
    assert_eq!(bonded.poll_event(), None);
}
