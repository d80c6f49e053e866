use super::*;
use crate::packet::PacketView;

#[test]
fn rule_68_an_echo_of_1280_bytes_proves_the_link() {
    let (mut proxy, mut client) = tunnel();
    proxy.probe_link(start());
    let probe = proxy.poll_packet().unwrap();
    assert_eq!(probe.len(), MIN_IPV6_MTU);
    // The client answers from its own address (rule 67), and the proxy takes the answer.
    let Err((DropReason::Answered, Some(reply))) = inward(&mut client, &probe) else { panic!() };
    assert_eq!(PacketView::parse(&reply).unwrap().source().to_string(), CLIENT6);
    assert_eq!(reason(inward(&mut proxy, &reply)), Some(DropReason::Answered));
    assert_eq!((events(&mut proxy), proxy.poll_timeout()), (vec![Event::LinkProven], None));
}

#[test]
fn rule_68_a_link_that_never_answers_is_reported() {
    let (mut proxy, _) = tunnel();
    proxy.probe_link(start());
    let mut sent = 0;
    while let Some(due) = proxy.poll_timeout() {
        sent += std::iter::from_fn(|| proxy.poll_packet()).count();
        proxy.handle_timeout(due - std::time::Duration::from_millis(1));
        assert_eq!(proxy.poll_packet(), None);
        proxy.handle_timeout(due);
    }
    assert_eq!((sent, events(&mut proxy)), (PROBE_ATTEMPTS.into(), vec![Event::LinkUnproven]));
}

#[test]
fn a_client_proves_the_link_too() {
    let (mut proxy, mut client) = tunnel();
    client.probe_link(start());
    let probe = client.poll_packet().unwrap();
    let Err((_, Some(reply))) = inward(&mut proxy, &probe) else { panic!() };
    assert_eq!(PacketView::parse(&reply).unwrap().source().to_string(), ROUTER6);
    assert_eq!(reason(inward(&mut client, &reply)), Some(DropReason::Answered));
    assert_eq!(events(&mut client), [Event::LinkProven]);
}

#[test]
fn an_answer_to_another_echo_is_passed_on() {
    let (mut proxy, mut client) = tunnel();
    client.probe_link(start());
    let other = v6(WEB6, CLIENT6, 58, &[129, 0, 0, 0, 9, 9, 0, 0]);
    let sent = outward(&mut proxy, &other).unwrap();
    assert!(inward(&mut client, &sent).is_ok());
    assert!(client.poll_timeout().is_some());
}

#[test]
fn rule_68_ipv6_over_too_small_a_connection_aborts_the_stream() {
    let (proxy, client) = tunnel();
    for session in [&proxy, &client] {
        assert_eq!(session.check_mtu(1_281), Ok(()));
        assert_eq!(session.check_mtu(1_280), Err(SessionError::LinkTooSmall(1_279)));
    }
    assert_eq!(ConnectIp::new(proxy_config()).check_mtu(600), Ok(()));
}

#[test]
fn the_proxys_own_address_answers_an_echo() {
    let (mut proxy, _) = tunnel();
    let echo = v4(CLIENT4, ROUTER4, 1, &[8, 0, 0, 0, 0, 1, 0, 1, 42]);
    assert_eq!(told(inward(&mut proxy, &echo)), Some((DropReason::Answered, 0, 0)));
    let spoofed = v4("10.7.0.3", ROUTER4, 1, &[8, 0, 0, 0, 0, 1, 0, 1, 42]);
    assert_eq!(told(inward(&mut proxy, &spoofed)), Some((DropReason::SpoofedSource, 3, 13)));
}
