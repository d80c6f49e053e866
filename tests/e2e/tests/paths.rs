//! One tunnel over several interfaces at once. Needs root.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use bauta_e2e::{Client, Gateway, Pings, SOON, Setting, Stream, iperf, json, play};
use bauta_lab::link::{LinkPair, LinkSpec};
use serde_json::Value;

const V4: &str = "203.0.113.2";
const SESSIONS: &str = "bauta_tunnels{kind=\"connect-ip\"}";
const JOINED: &str = "bauta_bond_joins_total{as=\"joined\"}";
const BOTH: &str = "paths = [\"wan\", \"wan1\"]";

/// A client with two emulated links, and what they are made of.
fn two(first: &str, second: &str, settings: &str) -> Result<Setting> {
    let pair = |words: &str, seed| -> Result<LinkPair> {
        Ok(LinkPair::symmetric(words.parse::<LinkSpec>()?).seed(seed))
    };
    let links = [pair(first, 1)?, pair(second, 2)?];
    // The topology has one IPv4 gateway address for both; that is enough.
    Ok(Setting::default().topology(|t| t.paths(links)).client(settings))
}

/// How many paths of a status are in a state.
fn paths(status: &Value, state: &str) -> usize {
    let list = status["paths"].as_array().cloned().unwrap_or_default();
    list.iter().filter(|path| path["state"] == state).count()
}

fn both_up(client: &mut Client, gateway: &Gateway) -> Result<()> {
    client.up()?;
    client.wait_for_status("on two paths", SOON * 2, |s| {
        s["paths"].as_array().is_some_and(|p| p.len() == 2)
    })?;
    gateway.wait_for_metric(JOINED, SOON, |n| n >= 1)?;
    // A bond is one session, whatever it is made of.
    gateway.wait_for_metric(SESSIONS, SOON, |n| n == 1)?;
    ensure!(gateway.sessions()?.len() == 1, "more than one session");
    Ok(())
}

#[test]
fn two_paths_carry_more_than_the_better_one() -> Result<()> {
    let settings = format!("{BOTH}\npolicy = \"aggregate\"");
    play(two("rate 20mbit delay 10ms", "rate 20mbit delay 15ms", &settings)?, |scene| {
        let (client, gateway, internet) = scene.cast();
        let _server = iperf(internet)?;
        both_up(client, gateway)?;
        for way in ["-u -b32M -l1200 -t6", "-u -b32M -l1200 -t6 -R"] {
            let stream = client.iperf(V4, way)?;
            println!(
                "{way} over 20 + 20 Mbit/s: {:.1} Mbit/s, {:.2} % lost",
                stream.rate / 1e6,
                stream.lost
            );
            ensure!(stream.rate > 21e6, "{way}: {stream:?}\n{:#}", client.status()?);
        }
        let status = client.status()?;
        println!("{:#}", status["paths"]);
        Ok(())
    });
    Ok(())
}

#[test]
fn a_path_that_dies_in_a_transfer_loses_nothing() -> Result<()> {
    play(two("rate 20mbit delay 10ms", "rate 20mbit delay 10ms", BOTH)?, |scene| {
        let _server = iperf(scene.internet())?;
        let topology = &scene.topology;
        let client = &mut scene.clients[0];
        both_up(client, &scene.gateway)?;
        let ping = Pings::start(&client.ns, V4, "-i0.02")?;
        let stream = Stream::start(&client.ns, V4, "-t8 -C cubic -R")?;
        sleep(Duration::from_secs(3));
        // The first path, which the session lives on, goes silent; nobody is told.
        if let Some(link) = &topology.links[0][0] {
            link.blackhole(true);
        }
        let stream = stream.finish()?;
        let pings = ping.stop()?;
        let status = client.status()?;
        println!("{} of {} pings lost; {stream:?}", pings.lost(), pings.sent);
        ensure!(stream.bytes > 2_000_000, "{stream:?}\n{status:#}");
        ensure!(pings.sent > 200 && pings.lost() <= 5, "{}\n{status:#}", pings.tail());
        ensure!(json(&status, "reconnects") == 0, "{status:#}");
        client.ping(V4, "-c20 -i0.05")?.assert_lossless()?;
        Ok(())
    });
    Ok(())
}

#[test]
fn interfaces_are_found_as_they_come_and_go() -> Result<()> {
    play(two("rate 50mbit delay 5ms", "rate 50mbit delay 5ms", "paths = [\"auto\"]")?, |scene| {
        let (client, gateway, _) = scene.cast();
        both_up(client, gateway)?;
        let ping = Pings::start(&client.ns, V4, "-i0.05")?;
        client.ns.ip("link set dev wan1 down")?;
        client.wait_for_status("on one path", SOON, |s| paths(s, "active") == 1)?;
        client.ns.ip("link set dev wan1 up")?;
        for (family, own, served) in
            [("", "10.81.1.2", "198.51.100.1"), ("-6 ", "2001:db8:1:1::2", "2001:db8:1::1")]
        {
            let _ = family;
            let _ = client.ns.ip(&format!("address add {own} peer {served} dev wan1"));
        }
        client.wait_for_status("on two paths", SOON * 2, |s| paths(s, "active") == 2)?;
        let pings = ping.stop()?;
        println!("{} of {} pings lost", pings.lost(), pings.sent);
        ensure!(pings.lost() <= 5, "{}", pings.tail());
        Ok(())
    });
    Ok(())
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    play(Setting::default().client("paths = [\"none7\"]"), |scene| {
        let finished = scene.clients[0].bauta(&["up"])?;
        ensure!(finished.code() != 0 && finished.output.contains("none7"), "{finished:?}");
        Ok(())
    });
}
