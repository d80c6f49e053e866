//! Changes under a running gateway: certificates and accounts. Needs root.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use bauta_e2e::{Client, DOMAIN, Gateway, Pings, Setting, play};

const V4: &str = "203.0.113.2";
const MADE: &str = "bauta_connections_made_total{transport=\"quic\"}";

/// The common name of the certificate that TCP is served with.
fn subject(client: &Client) -> Result<String> {
    let line = "openssl s_client -connect site.test:443 -servername site.test </dev/null 2>/dev/null \
        | openssl x509 -noout -subject";
    Ok(client.ns.shell(line)?.trim().to_owned())
}

/// And the one of QUIC.
fn subject_over_quic(client: &Client) -> Result<String> {
    let words = [
        "--exit-on-all-streams-close",
        "--timeout=5s",
        "--no-quic-dump",
        "--sni=site.test",
        "198.51.100.1",
        "443",
        "https://site.test/",
    ];
    Ok(client.ns.run("gtlsclient", &words)?)
}

fn with_a_ping(
    client: &Client,
    gateway: &mut Gateway,
    act: impl FnOnce(&mut Gateway) -> Result<()>,
) -> Result<()> {
    let made = gateway.metric(MADE)?;
    let ping = Pings::start(&client.ns, V4, "-i0.02")?;
    sleep(Duration::from_secs(1));
    act(gateway)?;
    sleep(Duration::from_secs(1));
    ping.stop()?.assert_lossless()?;
    let status = client.status()?;
    ensure!(status["reconnects"] == 0 && status["handovers"] == 0, "{status:#}");
    ensure!(gateway.metric(MADE)? >= made, "the gateway has begun anew");
    Ok(())
}

#[test]
fn a_new_certificate_is_served_at_once_and_tunnels_go_on() {
    play(Setting::default().clients(2), |scene| {
        scene.clients[0].up()?;
        let [client, other] = &mut scene.clients[..] else { unreachable!() };
        ensure!(subject(other)?.ends_with("CN = first"), "{}", subject(other)?);
        with_a_ping(client, &mut scene.gateway, |gateway| {
            let folder = gateway.folder().to_owned();
            gateway.authority.issue(DOMAIN, "second", &folder)?;
            gateway.reload()
        })?;
        ensure!(subject(other)?.ends_with("CN = second"), "{}", subject(other)?);
        subject_over_quic(other)?;
        // Over QUIC as well: a client comes up that trusts nothing but the new key.
        let pin = other.ns.shell(
            "openssl s_client -connect site.test:443 -servername site.test </dev/null 2>/dev/null \
             | openssl x509 -noout -pubkey | openssl pkey -pubin -outform der \
             | openssl dgst -sha256 -binary | base64 | tr '+/' '-_' | tr -d '='",
        )?;
        other.link = format!("{}&pin={}", other.link, pin.trim());
        other.up()?;
        other.ping(V4, "-c3 -i0.1")?.assert_lossless()
    });
}

#[test]
fn a_damaged_certificate_changes_nothing() {
    play(Setting::default().clients(2), |scene| {
        scene.clients[0].up()?;
        let [client, other] = &mut scene.clients[..] else { unreachable!() };
        with_a_ping(client, &mut scene.gateway, |gateway| {
            fs::write(&gateway.issued.cert, "damaged")?;
            let refused = gateway.reload();
            ensure!(refused.is_err(), "it was taken");
            Ok(())
        })?;
        ensure!(subject(other)?.ends_with("CN = first"), "{}", subject(other)?);
        other.up()
    });
}

#[test]
fn a_removed_user_is_out_within_two_seconds_and_others_stay() {
    play(Setting::default().clients(2), |scene| {
        scene.clients.iter_mut().try_for_each(Client::up)?;
        let [gone, stays] = &scene.clients[..] else { unreachable!() };
        let gateway = &mut scene.gateway;
        let ping = Pings::start(&stays.ns, V4, "-i0.02")?;
        gone.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
        gateway.remove_user("user-0")?;
        gateway.wait_for_metric(
            "bauta_tunnels{kind=\"connect-ip\"}",
            Duration::from_secs(2),
            |n| n == 1,
        )?;
        gone.ping(V4, "-c5 -i0.2")?.assert_silence()?;
        let left = gateway.sessions()?;
        ensure!(left.len() == 1 && left[0]["account"] == "user-1", "{left:?}");
        ping.stop()?.assert_lossless()?;
        let status = gone.status()?;
        ensure!(status["phase"] != "up" && status["kill_switch"] == true, "{status:#}");
        ensure!(status["failure"].to_string().contains("website"), "{status:#}");
        Ok(())
    });
}

#[test]
fn a_new_user_is_let_in_without_a_restart_and_a_revoked_link_is_not() {
    play(Setting::default().clients(2), |scene| {
        scene.clients[1].up()?;
        let [client, other] = &mut scene.clients[..] else { unreachable!() };
        let gateway = &mut scene.gateway;
        with_a_ping(other, gateway, |gateway| {
            client.link = gateway.complete(&gateway.add_user("newcomer --sessions 1")?);
            sleep(Duration::from_millis(1500));
            client.up()?;
            client.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
            client.down()?;
            gateway.run(&["user", "link", "newcomer", "--revoke", "--quiet"])?.success()?;
            sleep(Duration::from_millis(1500));
            let finished = client.bauta(&["up"])?;
            ensure!(finished.code() == 7, "{}", finished.output);
            Ok(())
        })
    });
}

#[test]
fn an_account_with_a_rate_gets_no_more() {
    play(Setting::default(), |scene| {
        let (client, gateway, internet) = scene.cast();
        let _server = bauta_e2e::iperf(internet)?;
        client.link = gateway.complete(&gateway.add_user("slow --rate 10mbit")?);
        sleep(Duration::from_millis(1500));
        client.up()?;
        for way in ["-t4 -C cubic", "-t4 -C cubic -R"] {
            let stream = client.iperf(V4, way)?;
            println!("{way}: {:.1} Mbit/s", stream.rate / 1e6);
            ensure!((4e6..12e6).contains(&stream.rate), "{way}: {stream:?}");
        }
        Ok(())
    });
}
