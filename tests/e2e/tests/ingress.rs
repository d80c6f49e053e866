//! Datagrams by rings: beside everything else on the interface, after a kill, from a sender with
//! segmentation offload, with more workers than queues. Needs root.

use std::time::Duration;

use anyhow::{Result, ensure};
use bauta_e2e::{Client, Gateway, SOON, Scene, Setting, iperf, play};
use bauta_lab::clock::poll_until;

const V4: &str = "203.0.113.2";
const V6: &str = "2001:db8:2::2";
const RECEIVED: &str = "bauta_xdp_frames_total{fate=\"received\"}";

/// A scene whose gateway has rings in one mode, whatever the run was told.
fn with_rings(mode: &str) -> Setting {
    Setting::default()
        .gateway("workers = 2")
        .tables(&format!("[xdp]\nmode = \"{mode}\"\ninterfaces = [\"access0\"]"))
}

fn in_both_modes(test: impl Fn(&mut Scene, &str) -> Result<()>) {
    for mode in ["native", "skb"] {
        play(with_rings(mode), |scene| test(scene, mode));
    }
}

/// Whether an XDP program is on the gateway's interface towards the client.
fn has_program(gateway: &Gateway) -> Result<bool> {
    Ok(gateway.ns.ip("-details link show dev access0")?.contains("prog/xdp"))
}

/// Waits for an answer in either family; what the client's kernel knew if there was none at once.
fn answered(client: &Client) -> Result<String> {
    let mut known = String::new();
    for address in [V4, V6] {
        let answer = || client.ns.run("ping", &["-c1", "-W1", address]);
        if let Err(error) = answer() {
            for words in
                ["rule", "-6 rule", "route show table all", "-6 route show table all", "link"]
            {
                known += &format!("{error:#}\n{}", client.ns.ip(words)?);
            }
            let soon = poll_until(SOON, || answer().ok());
            let said = client.process.as_ref().map(|p| p.output()).unwrap_or_default();
            ensure!(soon.is_some(), "{address} does not answer: {said}\n{known}");
        }
    }
    Ok(known)
}

#[test]
fn tunnel_ping_and_website_go_on_beside_a_ring_in_both_modes() {
    in_both_modes(|scene, mode| {
        let (client, gateway, internet) = scene.cast();
        ensure!(has_program(gateway)?, "{mode}: no program");
        for address in ["198.51.100.1", "2001:db8:1::1"] {
            client.ns.run("ping", &["-c3", "-i0.05", "-W2", address])?;
            client.ns.run("ping", &["-c2", "-i0.05", "-W2", "-s4000", address])?;
        }
        let ca = gateway.authority.file().display().to_string();
        let page = client.curl(&["--cacert", &ca, "https://site.test/"])?;
        ensure!(page.contains("<html"), "{page}");
        client.up()?;
        println!("{mode}: {}", answered(client)?);
        client.ping(V4, "-c20 -i0.05")?.assert_lossless()?;
        client.ping(V6, "-c20 -i0.05")?.assert_lossless()?;
        // The site by TCP, beside a transfer through the tunnel whose datagrams leave by GSO.
        let _server = iperf(internet)?;
        for way in ["-t2 -C cubic", "-t2 -C cubic -R"] {
            let stream = client.iperf(V4, way)?;
            println!("{mode}, TCP {way}: {:.0} Mbit/s", stream.rate / 1e6);
            ensure!(stream.rate > 20e6, "{mode}, {way}: {stream:?}");
        }
        let frames = gateway.wait_for_metric(RECEIVED, SOON, |n| n > 1000)?;
        println!("{mode}: {frames} frames");
        let refused = gateway.metric("bauta_xdp_frames_total{fate=\"refused\"}")?;
        let invalid = gateway.metric("bauta_xdp_frames_total{fate=\"invalid\"}")?;
        ensure!((refused, invalid) == (0, 0), "{mode}: {refused} refused, {invalid} invalid");
        ensure!(gateway.metric("bauta_rings{by=\"xdp\"}")? == 1, "{mode}");
        client.down()
    });
}

#[test]
fn killed_or_stopped_the_program_is_gone_and_the_next_gateway_attaches_at_once() {
    in_both_modes(|scene, mode| {
        let (client, gateway, _) = scene.cast();
        client.up()?;
        for round in 0..3 {
            ensure!(has_program(gateway)?, "{mode}, round {round}: no program");
            if round == 1 {
                gateway.stop()?;
            } else {
                gateway.kill();
            }
            let gone = || has_program(gateway).is_ok_and(|there| !there).then_some(());
            ensure!(poll_until(SOON, gone).is_some(), "{mode}, round {round}: it outlived it");
            gateway.start()?;
            gateway.wait_for_metric("bauta_rings{by=\"xdp\"}", SOON, |rings| rings == 1)?;
            // The client comes back by itself.
            let back = || client.ping(V4, "-c1 -W1").is_ok_and(|p| p.received > 0).then_some(());
            ensure!(poll_until(Duration::from_secs(60), back).is_some(), "{mode}: not back");
        }
        client.down()
    });
}

#[test]
fn what_cannot_be_had_is_said_and_done_without() {
    let tables = "[xdp]\nmode = \"auto\"\ninterfaces = [\"nowhere\", \"lo\"]";
    play(Setting::default().tables(tables), |scene| {
        let (client, gateway, _) = scene.cast();
        let said = gateway.process.as_ref().map(|p| p.output()).unwrap_or_default();
        for words in ["interface `nowhere`", "in native mode", "bind a ring to queue 0 in SKB mode"]
        {
            ensure!(said.contains(words), "{words} is missing from\n{said}");
        }
        client.up()?;
        client.ping(V4, "-c5 -i0.05")?.assert_lossless()?;
        client.down()
    });
}
