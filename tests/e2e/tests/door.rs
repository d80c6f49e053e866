//! Who is let in, and how they show who they are. Needs root.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bauta_e2e::{Client, Setting, play};

const V4: &str = "203.0.113.2";
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
