//! Networks in which QUIC does not get through: the same tunnel over TCP. Needs root.

use std::net::UdpSocket;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bauta_e2e::leaks::{assert_no_leaks, restless};
use bauta_e2e::{Client, SOON, Setting, echo, files, play};
use bauta_lab::{Capture, Namespace, Process};

const V4: &str = "203.0.113.2";
/// A hand-over back to QUIC waits for the client's next attempt.
const LATER: Duration = Duration::from_secs(40);

/// The same for single flows, which try ever more seldom.
const COMEBACK: Duration = Duration::from_secs(200);

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

/// `bauta WORDS`, once it has printed `ready`.
fn started(client: &Client, words: &[&str], ready: &str) -> Result<Process> {
    let mut process = client.ns.spawn(client.command(words)?)?;
    process.wait_for_line(ready, SOON)?;
    Ok(process)
}

/// Datagrams of these sizes come back through the local port.
fn echoes(client: &Client, port: u16, sizes: &[usize]) -> Result<()> {
    client.ns.enter(|| -> Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut buffer = vec![0; 65_535];
        for (n, &size) in sizes.iter().enumerate() {
            let payload = vec![n as u8; size];
            let start = now();
            // The way may still be sought, and what UDP loses is sent again.
            loop {
                socket.send(&payload)?;
                if socket.recv(&mut buffer).is_ok_and(|len| buffer[..len] == payload) {
                    break;
                }
                ensure!(now() - start < SOON, "no echo of {size} bytes");
            }
        }
        Ok(())
    })?
}

fn single_flows(settings: &str) {
    play(Setting::default().client(settings), |scene| {
        let (client, gateway, internet) = scene.cast();
        let files = files(internet, 80, 1 << 20)?;
        let _echo = echo(internet, 7)?;
        block(&gateway.ns)?;

        let check = client.bauta(&["check"])?.success()?;
        ensure!(check.contains("over TCP"), "{check}");
        let _tcp = started(client, &["forward", "tcp", "8001", "203.0.113.2:80"], "tcp 127")?;
        let _udp = started(client, &["forward", "udp", "5353", "203.0.113.2:7"], "udp 127")?;
        let _proxies =
            started(client, &["proxy", "--socks", "1080", "--http", "8080"], "HTTP proxy on")?;
        echoes(client, 5353, &[1, 1200, 1400])?;
        let socks = "-x socks5h://127.0.0.1:1080 http://203.0.113.2/";
        for words in [
            "http://127.0.0.1:8001/",
            socks,
            "-p -x http://127.0.0.1:8080 'http://[2001:db8:2::2]/'",
        ] {
            let got = client.ns.shell(&format!("curl -sSm60 {words} | sha256sum"))?;
            ensure!(got.starts_with(files.sha256()), "{words}: {got}");
        }
        // Many at once, and one that the gateway refuses to make.
        let many =
            format!("for n in 1 2 3 4 5 6 7 8; do curl -sS -m 60 {socks} | sha256sum & done; wait");
        let sums = client.ns.shell(&many)?;
        ensure!(sums.matches(files.sha256()).count() == 8, "{sums}");
        let refused = client.curl(&["-p", "-x", "http://127.0.0.1:8080", "http://192.168.1.1/"]);
        ensure!(refused.is_err(), "a forbidden target was reached");
        let sessions = gateway.metric("bauta_tunnels{kind=\"connect-udp\"}")?;
        ensure!(sessions == 1, "{sessions} CONNECT-UDP tunnels");

        // New flows go back to QUIC, those that are open stay.
        if settings.is_empty() {
            open(&gateway.ns)?;
            let start = now();
            while gateway.metric("bauta_connections{transport=\"quic\"}")? == 0 {
                ensure!(now() - start < COMEBACK, "QUIC is not taken again");
                client.ns.shell(&format!("curl -sSm60 {socks} >/dev/null"))?;
            }
            echoes(client, 5353, &[1300])?;
        }
        Ok(())
    });
}

#[test]
fn where_quic_is_blocked_flows_and_checks_go_over_tcp() {
    single_flows("");
}

#[test]
fn flows_go_over_tcp_alone_when_told_so() {
    single_flows("transport = \"tcp\"");
}

#[test]
fn a_key_of_ones_own_opens_tunnels_and_flows_over_tcp_too() {
    play(Setting::default(), |scene| {
        let (client, gateway, internet) = scene.cast();
        let files = files(internet, 80, 1 << 20)?;
        let file = gateway.folder().with_file_name("client.key");
        client.configure(&format!("key_file = {file:?}\ntransport = \"tcp\"\n"))?;
        client.link = gateway.complete("bauta://site.test:443");
        let printed = client.bauta(&["key"])?.success()?;
        let key = printed.lines().last().context("no key was printed")?.trim();
        gateway.add_user(&format!("keyed --key {key}"))?;
        // A running gateway looks for new accounts every second.
        sleep(Duration::from_secs(3));
        client.up()?;
        ensure!(carriage(client)? == "HTTP/2 over TCP", "{}", carriage(client)?);
        client.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
        client.down()?;

        let _tcp = started(client, &["forward", "tcp", "8001", "203.0.113.2:80"], "tcp 127")?;
        let fetch = "curl -sSm60 http://127.0.0.1:8001/ | sha256sum";
        let got = client.ns.shell(fetch)?;
        ensure!(got.starts_with(files.sha256()), "{got}");
        // The connection that the flow after this one finds is dead, and another is made for it.
        gateway.kill();
        gateway.start()?;
        let got = client.ns.shell(fetch)?;
        ensure!(got.starts_with(files.sha256()), "after a restart: {got}");
        Ok(())
    });
}
