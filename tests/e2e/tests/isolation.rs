//! Clients beside each other, and what none of them may reach. Needs root.

use anyhow::{Result, ensure};
use bauta_e2e::{Client, Pings, SOON, Scene, Setting, Stream, echo, hold, iperf, play};
use bauta_lab::{Capture, Process};

const V4: &str = "203.0.113.2";
const V6: &str = "2001:db8:2::2";

const PROHIBITED: &str = "bauta_connect_ip_dropped_packets_total{why=\"prohibited\"}";

fn both_up(scene: &mut Scene) -> Result<()> {
    scene.clients.iter_mut().try_for_each(Client::up)
}

fn proxies(client: &Client) -> Result<Process> {
    let mut process =
        client.ns.spawn(client.command(&["proxy", "--socks", "1080", "--http", "8080"])?)?;
    process.wait_for_line("HTTP proxy on", SOON)?;
    Ok(process)
}

#[test]
fn two_clients_have_addresses_of_their_own() {
    play(Setting::default().clients(2), |scene| {
        both_up(scene)?;
        let [a, b] = [scene.clients[0].addresses()?, scene.clients[1].addresses()?];
        ensure!(a.0 != b.0 && a.1 != b.1, "{a:?} {b:?}");
        for client in &scene.clients {
            client.ping(V4, "-c5 -i0.1")?.assert_lossless()?;
        }
        Ok(())
    });
}

#[test]
fn one_clients_flood_does_not_stop_anothers_ping() {
    play(Setting::default().clients(2), |scene| {
        both_up(scene)?;
        let _server = iperf(scene.internet())?;
        let [calm, loud] = &scene.clients[..] else { unreachable!() };
        let quiet = calm.ping(V4, "-c100 -i0.02")?;
        for way in ["-u -b0 -l1200 -t6", "-u -b0 -l1200 -t6 -R"] {
            let flood = Stream::start(&loud.ns, V4, way)?;
            std::thread::sleep(std::time::Duration::from_secs(1));
            let pings = calm.ping(V4, "-c200 -i0.02")?;
            let flood = flood.finish()?;
            println!(
                "beside {:.0} Mbit/s ({way}): {} of {} lost, p50 {:.2} ms, p99 {:.2} ms (alone {:.2} and {:.2})",
                flood.rate / 1e6,
                pings.lost(),
                pings.sent,
                pings.percentile(50),
                pings.percentile(99),
                quiet.percentile(50),
                quiet.percentile(99),
            );
            let p99 = pings.percentile(99);
            let (lost, sent) = (pings.lost(), pings.sent);
            ensure!(lost <= sent / 20, "{lost} of {sent} pings lost\n{}", pings.tail());
            ensure!(p99 < 250.0, "p99 {p99:.0} ms\n{}", pings.tail());
        }
        Ok(())
    });
}

#[test]
fn clients_do_not_reach_each_other_unless_they_may() {
    play(Setting::default().clients(2), |scene| {
        both_up(scene)?;
        let before = scene.gateway.metric(PROHIBITED)?;
        let (v4, v6) = scene.clients[1].addresses()?;
        scene.clients[0].ping(&v4.to_string(), "-c3 -i0.2")?.assert_silence()?;
        scene.clients[0].ping(&v6.to_string(), "-c3 -i0.2")?.assert_silence()?;
        let counted = scene.gateway.metric(PROHIBITED)? - before;
        ensure!(counted >= 6, "{counted} drops counted");
        Ok(())
    });
    play(Setting::default().clients(2).tunnel("client_to_client = true"), |scene| {
        both_up(scene)?;
        let (v4, v6) = scene.clients[1].addresses()?;
        scene.clients[0].ping(&v4.to_string(), "-c3 -i0.2")?.assert_lossless()?;
        scene.clients[0].ping(&v6.to_string(), "-c3 -i0.2")?.assert_lossless()
    });
}

#[test]
fn a_spoofed_source_goes_nowhere_and_is_counted() {
    play(Setting::default(), |scene| {
        let (client, gateway, internet) = scene.cast();
        client.up()?;
        let capture = Capture::start(internet, "inet", "icmp or icmp6")?;
        client.ns.ip("address add 10.77.200.200/32 dev lo")?;
        client.ns.ip("-6 address add fd62:6175:7461::bad/128 dev lo nodad")?;
        let dropped = |client: &Client| -> Result<u64> {
            let own = client.status()?["traffic"]["up_dropped"].as_u64().unwrap_or(0);
            let label = "bauta_connect_ip_dropped_packets_total{why=\"spoofed_source\"}";
            Ok(own + gateway.metric(label)?)
        };
        let before = dropped(client)?;
        client.ping(V4, "-I 10.77.200.200 -c5 -i0.1")?.assert_silence()?;
        client.ping(V6, "-I fd62:6175:7461::bad -c5 -i0.1")?.assert_silence()?;
        let counted = dropped(client)? - before;
        ensure!(counted >= 10, "{counted} drops counted");
        let seen = capture.stop()?.lines("icmp[icmptype] == icmp-echo or icmp6[0] == 128")?;
        ensure!(seen.is_empty(), "{seen:#?}");
        client.ping(V4, "-c3 -i0.1")?.assert_lossless()
    });
}

#[test]
fn the_gateway_its_neighbours_and_metadata_are_out_of_reach_by_ip() {
    play(Setting::default(), |scene| {
        // Somebody is there to answer, were he reached.
        scene.topology.gateway.address("lo", &["192.168.7.1/32", "169.254.169.254/32"])?;
        scene.clients[0].up()?;
        let (client, gateway, _) = scene.cast();
        let before = gateway.metric(PROHIBITED)?;
        let targets = [
            "203.0.113.1",
            "192.168.7.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "2001:db8:2::1",
            "fd00:ec2::254",
            "fd00::1",
        ];
        let pings: Result<Vec<_>> =
            targets.iter().map(|t| Pings::start(&client.ns, t, "-c2 -i0.2")).collect();
        for (ping, target) in pings?.into_iter().zip(targets) {
            let pings = ping.finish()?;
            pings.assert_silence()?;
            // One learns why: an ICMP error, not a timeout. Link-local packets get none.
            let answered = pings.output.contains("From ") || target.starts_with("169.254.");
            ensure!(answered, "{target} is silent:\n{}", pings.tail());
        }
        let counted = gateway.metric(PROHIBITED)? - before;
        let stopped = client.status()?["traffic"]["up_dropped"].as_u64().unwrap_or(0);
        // What is link-local does not even leave the client.
        ensure!(counted >= 2 * (targets.len() as u64 - 1), "{counted} drops counted");
        ensure!(stopped >= 2, "the client counts {stopped} drops");
        Ok(())
    });
}

#[test]
fn the_gateways_address_in_the_tunnel_answers_a_ping_and_nothing_else() {
    play(Setting::default().tables("[log]\nlevel = \"debug\""), |scene| {
        let (client, gateway, _) = scene.cast();
        client.up()?;
        let _listener = hold(&gateway.ns, "0.0.0.0", 9000)?;
        for own in ["10.77.0.1", "fd62:6175:7461::1"] {
            client.ping(own, "-c3 -i0.1")?.assert_lossless()?;
        }
        for url in ["http://10.77.0.1:443", "https://10.77.0.1", "http://10.77.0.1:9000"] {
            let answer = client.curl(&["-m", "3", url]);
            ensure!(answer.is_err(), "{url}: {answer:?}");
        }
        Ok(())
    });
}

#[test]
fn the_gateways_own_services_are_out_of_reach_by_proxy() {
    play(Setting::default(), |scene| {
        let (client, gateway, internet) = scene.cast();
        let _proxies = proxies(client)?;
        let _echo = echo(internet, 7)?;
        let refused_before = gateway.admin("/metrics")?.len();
        ensure!(refused_before > 0, "the admin address is there");
        let hosts = [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "203.0.113.1",
            "[2001:db8:2::1]",
            "[::ffff:127.0.0.1]",
            "10.77.0.1",
            "198.51.100.1",
            "0.0.0.0",
            "169.254.169.254",
        ];
        for host in hosts {
            for proxy in ["http://127.0.0.1:8080", "socks5h://127.0.0.1:1080"] {
                let url = format!("http://{host}:9464/metrics");
                let words = ["-o", "-", "-w", "%{http_code}", "-p", "-x", proxy, &url];
                let answer = client.curl(&words);
                ensure!(answer.is_err(), "{url} by {proxy}: {answer:?}");
            }
        }
        Ok(())
    });
}
