//! Other addresses and other keys under a running tunnel. Needs root.
#![expect(clippy::print_stdout, reason = "measurements are shown with --nocapture")]

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use bauta_e2e::{Client, Gateway, Pings, SOON, Setting, Stream, iperf, json, play};
use bauta_lab::Access;

const V4: &str = "203.0.113.2";
const MADE: &str = "bauta_connections_made_total{transport=\"quic\"}";

/// A client that knows the gateway by one family only.
fn by(client: &mut Client, v4: bool) {
    let other = if v4 { "&addr=2001:db8:1::1" } else { "&addr=198.51.100.1" };
    client.link = client.link.replace(other, "");
}

/// Plays a change of the network under a running ping: little is lost, and it is the same connection.
fn moves(client: &Client, gateway: &Gateway, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let (made, before) = (gateway.metric(MADE)?, client.addresses()?);
    let ping = Pings::start(&client.ns, V4, "-i0.05")?;
    sleep(Duration::from_secs(2));
    change()?;
    sleep(Duration::from_secs(4));
    let pings = ping.stop()?;
    let status = client.status()?;
    println!("{} of {} pings lost in the move", pings.lost(), pings.sent);
    ensure!(pings.sent > 80 && pings.lost() <= 40, "{}\n{status:#}", pings.tail());
    // Packets of every size pass on the new path.
    for size in [56, 500, 1000, usize::try_from(json(&status, "mtu"))? - 28] {
        client.ping(V4, &format!("-M do -s {size} -c3 -i0.1"))?.assert_lossless()?;
    }
    ensure!(json(&status, "migrations") >= 1, "{status:#}");
    ensure!(json(&status, "reconnects") == 0 && json(&status, "handovers") == 0, "{status:#}");
    ensure!(gateway.metric(MADE)? == made, "another connection was made");
    ensure!(client.addresses()? == before, "other addresses");
    Ok(())
}

#[test]
fn the_tunnel_goes_on_when_the_ipv4_address_changes() {
    play(Setting::default(), |scene| {
        by(&mut scene.clients[0], true);
        let (client, gateway, _) = scene.cast();
        client.up()?;
        moves(client, gateway, || {
            gateway.ns.route("198.51.100.77 dev access0")?;
            client.ns.sysctl("ipv4/conf/wan/promote_secondaries", 1)?;
            client.ns.ip("address add 198.51.100.77 peer 198.51.100.1 dev wan")?;
            client.ns.ip("address del 198.51.100.2 peer 198.51.100.1 dev wan")?;
            client.ns.ip("route replace default via 198.51.100.1 dev wan onlink")?;
            Ok(())
        })
    });
}

#[test]
fn the_tunnel_goes_on_when_the_ipv6_address_changes() {
    play(Setting::default(), |scene| {
        by(&mut scene.clients[0], false);
        let (client, gateway, _) = scene.cast();
        client.up()?;
        moves(client, gateway, || {
            gateway.ns.route("2001:db8:1::77 dev access0")?;
            client.ns.ip("-6 address add 2001:db8:1::77 peer 2001:db8:1::1 dev wan nodad")?;
            client.ns.ip("-6 address del 2001:db8:1::2 peer 2001:db8:1::1 dev wan")?;
            client.ns.ip("-6 route replace default via 2001:db8:1::1 dev wan onlink")?;
            Ok(())
        })
    });
}

#[test]
fn the_tunnel_moves_to_another_interface_when_its_own_goes() {
    play(Setting::default().topology(|t| t.paths([Access::Veth, Access::Veth])), |scene| {
        by(&mut scene.clients[0], true);
        let (client, gateway, _) = scene.cast();
        client.up()?;
        moves(client, gateway, || {
            client.ns.ip("link set dev wan down")?;
            client.ns.ip("route add default via 198.51.100.1 dev wan1 onlink")?;
            Ok(())
        })
    });
}

#[test]
fn the_tunnel_comes_back_when_there_was_no_network_for_a_while() {
    play(Setting::default(), |scene| {
        by(&mut scene.clients[0], true);
        let (client, _, _) = scene.cast();
        client.up()?;
        let before = client.addresses()?;
        client.ns.ip("link set dev wan down")?;
        sleep(Duration::from_secs(4));
        client.ns.ip("link set dev wan up")?;
        client.ns.ip("route replace default via 198.51.100.1 dev wan onlink")?;
        let pings = client.ping(V4, "-i0.1 -w8")?;
        println!("{} of {} pings lost after it came back", pings.lost(), pings.sent);
        ensure!(pings.lost() <= 30, "{}", pings.tail());
        client.wait_reconnected(SOON)?;
        ensure!(client.addresses()? == before, "other addresses");
        Ok(())
    });
}

/// Everything anybody counts as lost.
fn drops(client: &Client, gateway: &Gateway) -> Result<String> {
    let metrics = gateway.admin("/metrics")?;
    let counted = |line: &&str| line.contains("dropped") && !line.ends_with(" 0");
    let mut said: Vec<&str> =
        metrics.lines().filter(|l| !l.starts_with('#')).filter(counted).collect();
    let own = format!("client: {}", client.status()?["traffic"]);
    let (up, down) = (client.ns.ip("-s link show bauta0")?, gateway.ns.ip("-s link show bautag0")?);
    said.extend([own.as_str(), &up, &down]);
    Ok(said.join("\n"))
}

/// Carries traffic across several keys and counts what a steady ping loses.
fn keys_change(way: &str) {
    let limit = "packet_limit = 20000";
    play(Setting::default().gateway(limit).client(limit), |scene| {
        let (client, gateway, internet) = scene.cast();
        let _server = iperf(internet)?;
        client.up()?;
        let before = client.addresses()?;
        let ping = Pings::start(&client.ns, V4, "-i0.01")?;
        let stream =
            Stream::start(&client.ns, V4, &format!("-u -b20M -l1200 -t25 {way}"))?.finish()?;
        let pings = ping.stop()?;
        let status = client.status()?;
        let handovers = json(&status, "handovers");
        let drops = drops(client, gateway)?;
        println!(
            "{handovers} hand-overs; {} of {} pings lost; {stream:?}",
            pings.lost(),
            pings.sent
        );
        ensure!(pings.sent > 1000, "{}", pings.tail());
        ensure!(handovers >= 2 && json(&status, "reconnects") == 0, "{status:#}");
        ensure!(pings.lost() == 0, "pings were lost:\n{}\n{drops}", pings.tail());
        ensure!(stream.lost < 0.01, "{stream:?}\n{drops}");
        ensure!(client.addresses()? == before, "other addresses");
        let held =
            gateway.wait_for_metric("bauta_tunnels{kind=\"connect-ip\"}", SOON, |n| n == 1)?;
        ensure!(held == 1, "{held} sessions are held");
        Ok(())
    });
}

#[test]
fn fresh_keys_cost_no_packet_on_the_way_up() {
    keys_change("");
}

#[test]
fn fresh_keys_cost_no_packet_on_the_way_down() {
    keys_change("-R");
}
