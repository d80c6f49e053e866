//! Certificates fetched from real ACME servers, which look for themselves whether the name is ours.
//! Needs root, pebble and caddy.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bauta_e2e::{Acme, Client, EAB, Gateway, Pings, Scene, Setting, iperf, play};
use bauta_lab::clock::poll_until;
use serde_json::Value;

const V4: &str = "203.0.113.2";

/// Time for an order: an authority may look several times.
const ORDER: Duration = Duration::from_secs(60);

const DONE: &str = "bauta_certificate_renewals_total{what=\"done\"}";
const MADE: &str = "bauta_connections_made_total{transport=\"quic\"}";

/// Ends the scene's gateway, which has files, and begins one that asks the authority.
fn start_over(gateway: &mut Gateway, acme: &str) -> Result<()> {
    gateway.stop()?;
    gateway.configure("", "", acme)?;
    gateway.run(&["check"])?.success()?;
    gateway.start()
}

/// What clients trust from now on.
fn trust(gateway: &Gateway, root: &Path) -> Result<()> {
    fs::copy(root, gateway.authority.file())?;
    Ok(())
}

fn status(gateway: &Gateway) -> Result<Value> {
    Ok(serde_json::from_str(&gateway.admin("/certificate")?)?)
}

/// The status once it is as wanted.
fn status_once(gateway: &Gateway, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = poll_until(ORDER, || status(gateway).ok().filter(&wanted));
    found.with_context(|| format!("{:?}", status(gateway)))
}

/// What the website answers over TCP; 000 without a handshake.
fn site(client: &Client) -> String {
    client
        .ns
        .shell("curl -sk -m5 -o /dev/null -w '%{http_code}' https://site.test/")
        .unwrap_or_else(|_| "000".into())
}

/// A field of the certificate that TCP is served with.
fn served(client: &Client, words: &str) -> Result<String> {
    let line = format!(
        "openssl s_client -connect site.test:443 -servername site.test </dev/null 2>/dev/null \
         | openssl x509 -noout {words}"
    );
    Ok(client.ns.shell(&line)?.trim().to_owned())
}

/// Accounts, keys and certificates are readable for the gateway's user alone.
fn private(gateway: &Gateway) -> Result<()> {
    let folder = gateway.folder().join("state/acme");
    let state = fs::metadata(&folder)?;
    ensure!(state.permissions().mode() & 0o777 == 0o700 && state.uid() != 0, "{state:?}");
    let files: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    ensure!(files.len() == 3, "an account, a certificate and a history: {files:?}");
    for file in files {
        let about = file.metadata()?;
        ensure!(about.permissions().mode() & 0o777 == 0o600, "{file:?}: {about:?}");
    }
    Ok(())
}

#[test]
fn a_certificate_comes_once_it_can_and_is_still_there_after_a_restart() {
    play(Setting::default(), |scene| {
        let Scene { clients, gateway, topology } = scene;
        let client = &mut clients[0];
        // There is an authority, but it is down.
        let mut acme = Acme::pebble(&topology.internet, false)?;
        acme.stop();
        start_over(gateway, &acme.lines())?;
        let failed = poll_until(ORDER, || {
            status(gateway)
                .ok()
                .filter(|status| status["failures"] == 1 && status["why"] == "failed")
        });
        let failed = failed.with_context(|| format!("no failure: {:?}", status(gateway)))?;
        ensure!(failed["valid_until"].is_null() && failed["next"].is_u64(), "{failed:#}");
        let told = gateway.run(&["status"])?.success()?;
        ensure!(told.contains("none yet") && told.contains("the last order failed"), "{told}");
        // Meanwhile port 80 answers, 443 shows nobody a certificate, and QUIC is silent.
        let moved =
            client.ns.shell("curl -s -o /dev/null -w '%{redirect_url}' http://site.test/a")?;
        ensure!(moved == "https://site.test/a", "{moved}");
        ensure!(site(client) == "000", "{}", site(client));
        ensure!(client.bauta(&["up"])?.code() != 0, "a tunnel without a certificate");
        // Somebody mends it and does not want to wait.
        let acme = Acme::pebble(&topology.internet, false)?;
        trust(gateway, &acme.root)?;
        gateway.reload()?;
        gateway.wait_for_metric(DONE, ORDER, |n| n == 1)?;
        ensure!(site(client) == "200", "{}", site(client));
        client.up()?;
        client.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
        client.down()?;
        private(gateway)?;
        let told = gateway.run(&["status"])?.success()?;
        ensure!(told.contains("for site.test") && told.contains("it nears its end"), "{told}");
        // Nobody who asks for it meets a challenge when there is none.
        let alert = client.ns.shell(
            "openssl s_client -connect site.test:443 -servername site.test -alpn acme-tls/1 \
             </dev/null 2>&1 || true",
        )?;
        ensure!(alert.contains("no application protocol"), "{alert}");
        // After a restart there is no need to ask again.
        let serial = served(client, "-serial")?;
        drop(acme);
        gateway.stop()?;
        gateway.start()?;
        ensure!(served(client, "-serial")? == serial);
        client.up()
    });
}

#[test]
fn several_names_by_a_file_on_port_80() {
    play(Setting::default(), |scene| {
        let Scene { clients, gateway, topology } = scene;
        let acme = Acme::pebble(&topology.internet, false)?;
        let lines = acme.lines() + "challenge = \"http-01\"\ndomains = [\"www.site.test\"]\n";
        start_over(gateway, &lines)?;
        gateway.wait_for_metric(DONE, ORDER, |n| n == 1)?;
        ensure!(status(gateway)?["source"] == "rustls-acme");
        let names = served(&clients[0], "-ext subjectAltName")?;
        ensure!(names.contains("DNS:site.test, DNS:www.site.test"), "{names}");
        Ok(())
    });
}

#[test]
fn an_address_for_a_bound_account() {
    play(Setting::default(), |scene| {
        let Scene { clients, gateway, topology } = scene;
        let acme = Acme::pebble(&topology.internet, true)?;
        let (kid, key) = EAB;
        let lines = acme.lines() + "domains = [\"203.0.113.1\"]\nari = true\n";
        let eab = format!("[acme.eab]\nkid = \"{kid}\"\nkey = \"{key}\"\n");
        start_over(gateway, &(lines + &eab))?;
        gateway.wait_for_metric(DONE, ORDER, |n| n == 1)?;
        let status = status(gateway)?;
        ensure!(status["source"] == "instant-acme", "{status:#}");
        let names = served(&clients[0], "-ext subjectAltName")?;
        ensure!(names.contains("DNS:site.test") && names.contains("203.0.113.1"), "{names}");
        trust(gateway, &acme.root)?;
        clients[0].up()
    });
}

#[test]
fn the_authority_says_when_to_renew() {
    play(Setting::default(), |scene| {
        let Scene { clients, gateway, topology } = scene;
        let acme = Acme::pebble_with_ari(&topology.internet)?;
        start_over(gateway, &(acme.lines() + "ari = true\n"))?;
        gateway.wait_for_metric(DONE, ORDER, |n| n == 1)?;
        // Pebble's own word: a day to either side of two thirds of the life, and we pick within.
        let suggested = |status: &Value| status["why"] == "suggested" && status["next"].is_u64();
        let seconds = |now: &Value, what: &str| now[what].as_u64().context("no time");
        let now = status_once(gateway, suggested)?;
        let (end, next) = (seconds(&now, "valid_until")?, seconds(&now, "next")?);
        ensure!(next < end, "{now:#}");
        // In trouble, the authority wants its certificate replaced at once.
        let pem = clients[0].ns.shell(
            "openssl s_client -connect site.test:443 -servername site.test </dev/null 2>/dev/null \
             | openssl x509",
        )?;
        let serial = served(&clients[0], "-serial")?;
        let past = ["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"];
        Acme::suggest(&topology.internet, &pem, past)?;
        gateway.stop()?;
        gateway.start()?;
        gateway.wait_for_metric(DONE, ORDER, |n| n == 1)?;
        ensure!(served(&clients[0], "-serial")? != serial, "the old certificate is still served");
        // Of the new one it has not said so, and nothing is ordered again.
        let now = status_once(gateway, suggested)?;
        ensure!(seconds(&now, "next")? + 2 * 86_400 > next, "{now:#}");
        ensure!(gateway.metric(DONE)? == 1);
        trust(gateway, &acme.root)?;
        clients[0].up()
    });
}

#[test]
fn a_short_lived_certificate_is_renewed_under_load() {
    play(Setting::default().clients(2), |scene| {
        let Scene { clients, gateway, topology } = scene;
        let [client, other] = &mut clients[..] else { unreachable!() };
        let acme = Acme::caddy(&topology.internet)?;
        // Twelve hours but a quarter of a minute.
        let lines = acme.lines() + "renew_before = \"43185s\"\n";
        start_over(gateway, &lines)?;
        trust(gateway, &acme.root)?;
        gateway.wait_for_metric(DONE, ORDER, |n| n >= 1)?;
        client.up()?;
        let _server = iperf(&topology.internet)?;
        let load = client.ns.start("iperf3", &["-c", V4, "-t", "200", "-b", "20M"])?;
        let ping = Pings::start(&client.ns, V4, "-i0.05")?;
        let (made, first) = (gateway.metric(MADE)?, served(other, "-serial")?);
        let before = gateway.metric(DONE)?;
        gateway.wait_for_metric(DONE, ORDER * 2, |n| n >= before + 2)?;
        ensure!(served(other, "-serial")? != first, "the same certificate after two renewals");
        // New connections, over QUIC as well, are served with the new one.
        other.up()?;
        other.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
        // The old one has lost nothing.
        ping.stop()?.assert_lossless()?;
        drop(load);
        let status = client.status()?;
        ensure!(status["reconnects"] == 0 && status["handovers"] == 0, "{status:#}");
        ensure!(gateway.metric(MADE)? >= made, "the gateway has begun anew");
        Ok(())
    });
}
