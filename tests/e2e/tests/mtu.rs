//! Paths narrower than either side believes. Needs root.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bauta_e2e::{Client, SOON, Setting, echo, files, json, play};
use bauta_lab::{Capture, LinkSpec};
use serde_json::Value;

const V4: &str = "203.0.113.2";
const V6: &str = "2001:db8:2::2";
const MIB: usize = 1 << 20;

/// What a ping of `size` bytes of payload, not to be fragmented, is told.
fn told(client: &Client, target: &str, size: usize) -> Result<String> {
    Ok(client.ping(target, &format!("-M do -s {size} -c3 -i0.2"))?.output)
}

/// The SHA-256 of a download.
fn download(client: &Client, url: &str) -> Result<String> {
    let line = format!("curl -sS -m 60 '{url}' | sha256sum");
    let printed = client.ns.run("bash", &["-o", "pipefail", "-ec", &line])?;
    Ok(printed.split(' ').next().context("no sum")?.to_owned())
}

#[test]
fn every_byte_arrives_over_a_path_of_1280_bytes_in_the_middle() {
    play(Setting::default().topology(|t| t.outer_router(1280)), |scene| {
        let files = files(scene.internet(), 80, 10 * MIB)?;
        let client = &mut scene.clients[0];
        client.up()?;
        let mtu = json(&client.status()?, "mtu");
        ensure!((1100..1280).contains(&mtu), "the tunnel's MTU is {mtu}");
        ensure!(download(client, &format!("http://{V4}/"))? == files.sha256(), "damaged");
        Ok(())
    });
}

#[test]
fn what_is_too_long_for_the_client_is_answered_with_what_fits() {
    play(Setting::default().topology(|t| t.outer_router(1280)), |scene| {
        let _echo = echo(scene.internet(), 7)?;
        let capture = Capture::start(scene.internet(), "inet", "icmp")?;
        let client = &mut scene.clients[0];
        client.up()?;
        let mtu = json(&client.status()?, "mtu");
        // It leaves in fragments; the echo comes whole, with DF, until its sender knows better.
        let tries = client.ns.enter(|| -> std::io::Result<usize> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect((V4, 7))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            for tries in 1..=5 {
                // The first of these is told that it is too long; the next is cut.
                let _ = socket.send(&[7; 1300]);
                if socket.recv(&mut [0; 2000]).is_ok_and(|n| n == 1300) {
                    return Ok(tries);
                }
            }
            Err(std::io::Error::other("no echo"))
        })?;
        let lines = capture.stop()?.lines("")?;
        let tries = tries.with_context(|| format!("ICMP seen: {lines:#?}"))?;
        println!("echoed at try {tries}");
        // Each side finds the path's MTU by itself, and may be a step apart.
        let fits = |line: &String| {
            let said = line.split_once("need to frag (mtu ")?.1.split(')').next()?;
            said.parse().ok().filter(|said| (mtu - 16..=mtu).contains(said))
        };
        ensure!(lines.iter().any(|line| fits(line).is_some()), "not {mtu}: {lines:#?}");
        Ok(())
    });
}

#[test]
fn every_byte_arrives_over_a_path_that_swallows_long_packets_without_a_word() {
    let hole: LinkSpec = "delay 5ms hole 1400".parse().unwrap();
    play(Setting::default().topology(|t| t.access(hole)), |scene| {
        let files = files(scene.internet(), 80, 10 * MIB)?;
        let client = &mut scene.clients[0];
        client.up()?;
        let mtu = json(&client.status()?, "mtu");
        ensure!((1280..1400).contains(&mtu), "the tunnel's MTU is {mtu}");
        for url in [format!("http://{V4}/"), format!("http://[{V6}]/")] {
            ensure!(download(client, &url)? == files.sha256(), "damaged");
        }
        Ok(())
    });
}

#[test]
fn a_path_that_takes_its_time_to_show_its_size_gets_ipv6_when_it_has() {
    // A round trip longer than the client waits for the path's MTU: up comes IPv4 alone.
    let far: LinkSpec = "delay 600ms".parse().unwrap();
    play(Setting::default().topology(|t| t.access(far)), |scene| {
        let client = &mut scene.clients[0];
        client.up()?;
        let both = |status: &Value| status["addresses"].as_array().is_some_and(|a| a.len() == 2);
        client.wait_for_status("of both families", SOON, both)?;
        client.ping(V4, "-c2 -i0.2 -W5")?.assert_lossless()?;
        client.ping(V6, "-c2 -i0.2 -W5")?.assert_lossless()?;
        let mtu = json(&client.status()?, "mtu");
        ensure!((1280..=1500).contains(&mtu), "the tunnel's MTU is {mtu}");
        Ok(())
    });
}

#[test]
fn a_gateway_that_learns_the_paths_size_after_the_tunnel_is_up_keeps_ipv6() {
    play(Setting::default(), |scene| {
        let client = &mut scene.clients[0];
        // The gateway's first probe is lost, so that it knows when its tries have been repeated.
        let rules = "table inet lossy { chain input { type filter hook input priority -10; \
            udp sport 443 meta length 1480-2000 quota until 2001 bytes counter drop; }; }";
        client.ns.run("nft", &[rules])?;
        client.up()?;
        for _ in 0..3 {
            client.ping(V6, "-c5 -i0.2 -s1300")?.assert_lossless()?;
        }
        let counted = client.ns.run("nft", &["list", "table", "inet", "lossy"])?;
        ensure!(counted.contains("packets 1 "), "no probe was lost: {counted}");
        Ok(())
    });
}

#[test]
fn a_narrow_path_behind_the_gateway_answers_with_its_mtu_in_both_families() {
    play(Setting::default().topology(|t| t.inner_router(1300)), |scene| {
        let client = &mut scene.clients[0];
        client.up()?;
        // 20 + 8 and 40 + 8 bytes of headers.
        client.ping(V4, "-M do -s 1272 -c2 -i0.2")?.assert_lossless()?;
        client.ping(V6, "-M do -s 1252 -c2 -i0.2")?.assert_lossless()?;
        let v4 = told(client, V4, 1273)?;
        ensure!(v4.contains("From 203.0.113.254") && v4.contains("mtu = 1300"), "{v4}");
        let v6 = told(client, V6, 1253)?;
        ensure!(v6.contains("From 2001:db8:2::fe") && v6.contains("mtu=1300"), "{v6}");
        let hops = client.ns.run("traceroute", &["-n", "-q1", "-w2", "-m5", "--mtu", V4])?;
        ensure!(hops.contains("F=1300"), "{hops}");
        Ok(())
    });
}

#[test]
fn every_byte_arrives_over_a_narrow_path_behind_the_gateway() {
    play(Setting::default().topology(|t| t.inner_router(1300)), |scene| {
        let files = files(scene.internet(), 80, 10 * MIB)?;
        let client = &mut scene.clients[0];
        client.up()?;
        for url in [format!("http://{V4}/"), format!("http://[{V6}]/")] {
            ensure!(download(client, &url)? == files.sha256(), "damaged");
        }
        Ok(())
    });
}

#[test]
fn what_the_tunnel_cannot_carry_is_answered_with_what_it_can() {
    play(Setting::default(), |scene| {
        let client = &mut scene.clients[0];
        client.up()?;
        let mtu = usize::try_from(json(&client.status()?, "mtu"))?;
        ensure!((1280..=1500).contains(&mtu), "the tunnel's MTU is {mtu}");
        for (target, headers) in [(V4, 28), (V6, 48)] {
            client
                .ping(target, &format!("-M do -s {} -c2 -i0.2", mtu - headers))?
                .assert_lossless()?;
            let told = told(client, target, mtu - headers + 1)?;
            let right =
                ["mtu=", "mtu: "].iter().any(|word| told.contains(&format!("{word}{mtu}\n")));
            ensure!(right, "{told}");
        }
        Ok(())
    });
}

#[test]
fn what_may_be_fragmented_is_and_comes_whole() {
    play(Setting::default().topology(|t| t.outer_router(1300)), |scene| {
        let _echo = echo(scene.internet(), 7)?;
        let client = &mut scene.clients[0];
        client.up()?;
        for size in [1300, 1500, 4000, 9000] {
            client.ping(V4, &format!("-M dont -s {size} -c3 -i0.2"))?.assert_lossless()?;
        }
        Ok(())
    });
}
