//! Who is let in, and how they show who they are. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bauta_e2e::{Client, Setting, play};

const V4: &str = "203.0.113.2";
const DOMAIN: &str = "site.test";
/// A running gateway notices a change of its accounts.
const NOTICED: Duration = Duration::from_millis(1500);

/// Makes the client's key and returns its public half.
fn make_key(client: &Client) -> Result<String> {
    let printed = client.bauta(&["key"])?.success()?;
    let key = printed.lines().last().context("nothing printed")?.trim().to_owned();
    ensure!(key.len() == 43, "{printed}");
    ensure!(client.bauta(&["key"])?.success()?.contains(&key), "asked again, another key");
    Ok(key)
}

#[test]
fn a_client_with_a_key_of_its_own_needs_no_secret_in_its_link_and_is_put_out_at_once() {
    play(Setting::default(), |scene| {
        let (client, gateway, _) = scene.cast();
        let file = gateway.folder().with_file_name("client.key");
        client.configure(&format!("key_file = {file:?}\n"))?;
        let link = client.link.clone();
        client.link = gateway.complete("bauta://site.test:443");
        let finished = client.bauta(&["up"])?;
        ensure!(
            finished.code() != 0 && finished.output.contains("bauta key"),
            "{}",
            finished.output
        );
        let key = make_key(client)?;
        let finished = client.bauta(&["up"])?;
        ensure!(finished.code() == 7, "a key nobody knows: {}", finished.output);
        let given = gateway.add_user(&format!("keyed --key {key}"))?;
        ensure!(given == "bauta://site.test:443", "a secret in {given}");
        sleep(NOTICED);
        client.up()?;
        client.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
        gateway.run(&["user", "key", "keyed", &key, "--revoke"])?.success()?;
        client.wait_for_status("out", Duration::from_secs(10), |status| status["phase"] != "up")?;
        client.down()?;
        // The bearer link of old works as ever.
        client.link = link;
        client.up()?;
        client.ping(V4, "-c3 -i0.1")?.assert_lossless()
    });
}

/// The name under which clients are asked for a certificate.
const ASKING: &str = "in.site.test";

/// What a stranger's handshake under a name says of client certificates.
fn is_asked(client: &Client, name: &str) -> Result<bool> {
    let line = format!(
        "openssl s_client -connect site.test:443 -servername {name} -tls1_3 </dev/null 2>&1 || true"
    );
    let said = client.ns.shell(&line)?;
    ensure!(said.contains("BEGIN CERTIFICATE"), "no handshake: {said}");
    // What a CertificateRequest always brings (RFC 8446 section 4.3.2).
    Ok(said.contains("Requested Signature Algorithms"))
}

#[test]
fn a_client_certificate_opens_under_the_name_that_asks_for_one_over_quic_and_tcp() {
    play(Setting::default(), |scene| {
        let (client, gateway, _) = scene.cast();
        ensure!(!is_asked(client, ASKING)?, "asked before anybody configured it");
        gateway.stop()?;
        let names = format!("{DOMAIN} *.{DOMAIN}");
        gateway.authority.issue(&names, "wide", gateway.folder())?;
        let text = fs::read_to_string(gateway.config())?;
        let asking = format!("[accounts]\ncertificate_names = [\"{ASKING}\"]\n");
        fs::write(gateway.config(), text.replace("[accounts]\n", &asking))?;
        gateway.start()?;
        ensure!(is_asked(client, ASKING)? && !is_asked(client, DOMAIN)?);
        ensure!(!is_asked(client, "www.site.test")?);

        let folder = gateway.folder().join("alice");
        let mine = gateway.authority.issue("alice", "alice", &folder)?;
        fs::set_permissions(&mine.key, fs::Permissions::from_mode(0o600))?;
        let files = format!("cert = {:?}\nkey_file = {:?}\n", mine.cert, mine.key);
        client.configure(&files)?;
        let asked = gateway.complete(&format!("bauta://{DOMAIN}:443?sni={ASKING}"));
        client.link = asked.clone();
        let finished = client.bauta(&["up"])?;
        ensure!(finished.code() == 7, "a certificate nobody knows: {}", finished.output);
        let key = client.bauta(&["key"])?.success()?.trim().to_owned();
        ensure!(key.starts_with("cert:"), "{key}");
        gateway.add_user(&format!("shown --key {key}"))?;
        sleep(NOTICED);
        client.link = gateway.complete(&format!("bauta://{DOMAIN}:443"));
        let finished = client.bauta(&["up"])?;
        ensure!(finished.code() == 7, "under a name that asks nobody: {}", finished.output);
        client.link = asked;
        client.up()?;
        client.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
        gateway.run(&["user", "key", "shown", &key, "--revoke"])?.success()?;
        client.wait_for_status("out", Duration::from_secs(10), |status| status["phase"] != "up")?;
        client.down()?;
        // The same by the file itself, and over TCP.
        let file = mine.cert.display().to_string();
        gateway.run(&["user", "key", "shown", &file, "--quiet"])?.success()?;
        sleep(NOTICED);
        client.configure(&format!("{files}transport = \"tcp\"\n"))?;
        client.up()?;
        client.ping(V4, "-c3 -i0.1")?.assert_lossless()?;
        client.down()
    });
}
