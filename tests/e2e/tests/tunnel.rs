//! A machine behind the tunnel: everything goes through it, and comes back. Needs root.

use anyhow::{Context, Result, ensure};
use bauta_e2e::{Finished, SOON, Scene, Setting, dns, echo, files, iperf, play};

const V4: &str = "203.0.113.2";
const V6: &str = "2001:db8:2::2";

fn up(test: impl FnOnce(&mut Scene) -> Result<()>) {
    play(Setting::default(), |scene| {
        scene.clients[0].up()?;
        test(scene)
    });
}

#[test]
fn ping_reaches_the_internet_in_both_families() {
    up(|scene| {
        let (client, gateway, _) = scene.cast();
        client.ping(V4, "-c10 -i0.05")?.assert_lossless()?;
        client.ping(V6, "-c10 -i0.05")?.assert_lossless()?;
        let carried = gateway.metric("bauta_up_packets_total{kind=\"connect-ip\"}")?;
        ensure!(carried >= 20, "the gateway counted {carried} packets");
        Ok(())
    });
}

#[test]
fn tcp_flows_both_ways_in_both_families() {
    up(|scene| {
        let _server = iperf(scene.internet())?;
        for target in [V4, V6] {
            for way in ["-t2 -C cubic", "-t2 -C cubic -R"] {
                let stream = scene.clients[0].iperf(target, way)?;
                println!("TCP {target} {way}: {:.0} Mbit/s", stream.rate / 1e6);
                ensure!(stream.rate > 20e6, "{target} {way}: {stream:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn udp_flows_both_ways_without_loss_at_a_modest_rate() {
    up(|scene| {
        let _server = iperf(scene.internet())?;
        for target in [V4, V6] {
            for way in ["-u -b20M -l1200 -t2", "-u -b20M -l1200 -t2 -R"] {
                let stream = scene.clients[0].iperf(target, way)?;
                println!("UDP {target} {way}: {stream:?}");
                ensure!(stream.lost < 1.0 && stream.rate > 15e6, "{target} {way}: {stream:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn names_are_asked_through_the_tunnel_and_resolv_conf_says_so() {
    up(|scene| {
        let mut names = dns(scene.internet())?;
        let client = &scene.clients[0];
        let resolv = client.ns.run("cat", &["/etc/resolv.conf"])?;
        ensure!(resolv.contains("nameserver 203.0.113.2"), "{resolv}");
        ensure!(!resolv.contains("198.51.100.53"), "the old server is still there: {resolv}");
        let found = client.ns.run("getent", &["ahostsv4", "a.internet.test"])?;
        ensure!(found.starts_with(V4), "{found}");
        let found = client.ns.run("getent", &["ahostsv6", "b.internet.test"])?;
        ensure!(found.starts_with(V6), "{found}");
        let asker = names.asker("a.internet.test")?;
        ensure!(asker.to_string() == "203.0.113.1", "the query came from {asker}");
        Ok(())
    });
}

#[test]
fn traceroute_shows_the_gateway_as_the_first_hop() {
    up(|scene| {
        let client = &scene.clients[0];
        for (family, hop, target) in [("-4", "10.77.0.", V4), ("-6", "fd62:6175:7461::", V6)] {
            let words = [family, "-n", "-q1", "-w2", "-m4", target];
            let hops = client.ns.run("traceroute", &words)?;
            let lines: Vec<&str> = hops.lines().skip(1).map(str::trim).collect();
            let first = lines.first().context("no hop")?;
            let last = lines.last().context("no hop")?;
            ensure!(first.contains(&format!("1  {hop}")), "{hops}");
            ensure!(last.contains(target) && lines.len() == 2, "{hops}");
        }
        Ok(())
    });
}

#[test]
fn the_internet_sees_the_gateway_and_knows_no_way_to_the_client() {
    up(|scene| {
        let echo = echo(scene.internet(), 7)?;
        let files = files(scene.internet(), 80, 1000)?;
        let client = &scene.clients[0];
        for url in ["http://203.0.113.2/", "http://[2001:db8:2::2]/"] {
            client.curl(&[url, "-o", "/dev/null"])?;
        }
        for target in [V4, V6] {
            let line =
                format!("exec 3<>/dev/udp/{target}/7; echo hello >&3; timeout 3 head -n1 <&3");
            let answer = client.ns.run("bash", &["-c", &line])?;
            ensure!(answer.trim() == "hello", "{target}: {answer:?}");
        }
        let peers: Vec<_> = echo.peers().into_iter().chain(files.peers()).collect();
        ensure!(peers.len() == 4, "{peers:?}");
        let own = ["203.0.113.1", "2001:db8:2::1"];
        ensure!(peers.iter().all(|p| own.contains(&p.ip().to_string().as_str())), "{peers:?}");
        let (v4, v6) = client.addresses()?;
        for inner in [v4, v6] {
            let route = scene.internet().run("ip", &["route", "get", &inner.to_string()]);
            ensure!(route.is_err(), "the internet has a route to {inner}: {route:?}");
        }
        Ok(())
    });
}

#[test]
fn a_link_in_the_environment_or_a_file_is_enough_and_up_may_go_to_the_background() {
    play(Setting::default(), |scene| {
        let client = &scene.clients[0];
        let said = client.bauta(&["up", "--detach"])?.success()?;
        ensure!(said.contains("The tunnel is up"), "{said}");
        client.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
        let status = client.bauta(&["status"])?.success()?;
        ensure!(status.contains("bauta0: up") && status.contains("kill switch   on"), "{status}");
        client.bauta(&["down"])?.success()?;

        let file = client.ns.folder().join("link");
        std::fs::write(&file, &client.link)?;
        let mut command = client.command(&["up", "--detach", "--link-file"])?;
        command.arg(&file).env_remove("BAUTA_LINK");
        Finished::of(client.ns.spawn(command)?, SOON)?.success()?;
        client.ping(V6, "-c3 -i0.1")?.assert_lossless()?;
        client.bauta(&["down"])?.success()?;

        // On the command line too, though it does not stay there.
        let mut command = client.command(&["up", &client.link])?;
        command.env_remove("BAUTA_LINK");
        let mut up = client.ns.spawn(command)?;
        up.wait_for_line("The tunnel is up", SOON)?;
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", up.pid()))?;
        ensure!(line.contains("bauta") && !line.contains("bauta://"), "{line:?}");
        Ok(())
    });
}
