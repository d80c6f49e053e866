//! Networks in which QUIC does not get through: the same tunnel over TCP. Needs root.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bauta_e2e::leaks::{assert_no_leaks, restless};
use bauta_e2e::{Client, SOON, Setting, files, play};
use bauta_lab::{Capture, Namespace};

const V4: &str = "203.0.113.2";
/// A hand-over back to QUIC waits for the client's next attempt.
const LATER: Duration = Duration::from_secs(40);

/// Drops every QUIC packet on the gateway's side, both ways, as a network between would.
fn block(ns: &Namespace) -> Result<()> {
    ns.shell(
        "nft add table inet blocked; \
         nft add chain inet blocked in '{ type filter hook prerouting priority -400; }'; \
         nft add chain inet blocked out '{ type filter hook postrouting priority 400; }'; \
         nft add rule inet blocked in udp dport 443 drop; \
         nft add rule inet blocked out udp sport 443 drop",
    )?;
    Ok(())
}

fn open(ns: &Namespace) -> Result<()> {
    ns.shell("nft delete table inet blocked")?;
    Ok(())
}

fn carriage(client: &Client) -> Result<String> {
    let status = client.status()?;
    let carriage = status["carriage"].as_str();
    Ok(carriage.with_context(|| format!("no carriage in {status:#}"))?.to_owned())
}

fn wait_for_carriage(client: &Client, wanted: &str, within: Duration) -> Result<()> {
    let start = now();
    while carriage(client)? != wanted {
        let status = client.status()?;
        ensure!(now() - start < within, "not carried by {wanted}: {status:#}");
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a test waits in real time")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn where_quic_is_blocked_tcp_carries_everything() {
    play(Setting::default(), |scene| {
        let (client, gateway, internet) = scene.cast();
        let files = files(internet, 80, 4 << 20)?;
        block(&gateway.ns)?;
        client.up()?;
        ensure!(carriage(client)? == "HTTP/2 over TCP", "{}", carriage(client)?);
        client.ping(V4, "-c5 -i0.1")?.assert_lossless()?;
        client.ping("2001:db8:2::2", "-c5 -i0.1")?.assert_lossless()?;
        client.ping(V4, "-M do -s 1372 -c3 -i0.1")?.assert_lossless()?;
        for host in [V4, "[2001:db8:2::2]"] {
            let got = client.ns.shell(&format!("curl -sm60 http://{host}/ | sha256sum"))?;
            ensure!(got.starts_with(files.sha256()), "{host}: {got}");
        }
        let before = client.addresses()?;
        open(&gateway.ns)?;
        wait_for_carriage(client, "HTTP/3", LATER)?;
        ensure!(client.addresses()? == before, "other addresses");
        client.ping(V4, "-c5 -i0.1")?.assert_lossless()?;
        Ok(())
    });
}

#[test]
fn a_black_hole_in_mid_session_is_left_behind_and_nothing_leaks() {
    play(Setting::default(), |scene| {
        let (client, gateway, _) = scene.cast();
        client.up()?;
        ensure!(carriage(client)? == "HTTP/3", "{}", carriage(client)?);
        let before = client.addresses()?;
        let capture = Capture::start(&client.ns, "wan", "")?;
        let restless = restless(client)?;
        sleep(Duration::from_secs(1));
        block(&gateway.ns)?;
        let start = now();
        while client.ping(V4, "-c1 -W1")?.received == 0 {
            ensure!(now() - start < Duration::from_secs(20), "{:#}", client.status()?);
        }
        println!(
            "packets flow again {:.1} s after the black hole began",
            (now() - start).as_secs_f64()
        );
        wait_for_carriage(client, "HTTP/2 over TCP", SOON)?;
        ensure!(client.addresses()? == before, "other addresses");
        open(&gateway.ns)?;
        wait_for_carriage(client, "HTTP/3", LATER)?;
        client.ping(V4, "-c5 -i0.1")?.assert_lossless()?;
        ensure!(client.addresses()? == before, "other addresses");
        drop(restless);
        assert_no_leaks(client, capture)
    });
}

#[test]
fn tcp_alone_and_quic_alone_when_told_so() {
    play(Setting::default().client("transport = \"tcp\""), |scene| {
        let (client, gateway, _) = scene.cast();
        client.up()?;
        ensure!(carriage(client)? == "HTTP/2 over TCP", "{}", carriage(client)?);
        client.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
        // A gateway that restarts is found again, with the same addresses.
        let before = client.addresses()?;
        gateway.stop()?;
        gateway.start()?;
        client.wait_reconnected(LATER)?;
        ensure!(client.addresses()? == before, "other addresses");
        client.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
        client.down()
    });
    play(Setting::default().client("transport = \"quic\""), |scene| {
        let (client, gateway, _) = scene.cast();
        block(&gateway.ns)?;
        let refused = client.bauta(&["up"])?;
        ensure!(refused.code() == 5, "{}: {}", refused.code(), refused.output);
        Ok(())
    });
}
