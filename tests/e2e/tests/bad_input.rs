//! Mistakes of people and of machines: each a clear word and an exit code, and nothing left behind.
//! Needs root.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bauta_e2e::{Authority, Client, DOMAIN, Finished, Machine, SOON, Scene, Setting, hold, play};

/// The program of a command made by the harness, in full.
fn program(command: &Command) -> Result<String> {
    Ok(command.get_args().nth(3).context("no program")?.to_string_lossy().into_owned())
}

/// `bauta up` that fails: its exit code, words it says, and a machine that is as it was.
fn fails(client: &Client, code: i32, words: &[&str]) -> Result<()> {
    let before = Machine::of(&client.ns)?;
    let finished = client.bauta(&["up"])?;
    judge(&finished, code, words)?;
    before.assert_restored(&Machine::of(&client.ns)?)
}

fn judge(finished: &Finished, code: i32, words: &[&str]) -> Result<()> {
    ensure!(
        finished.code() == code,
        "exit code {}, not {code}:\n{}",
        finished.code(),
        finished.output
    );
    for word in words {
        ensure!(finished.output.contains(word), "no `{word}` in:\n{}", finished.output);
    }
    ensure!(!finished.output.contains("panicked"), "{}", finished.output);
    Ok(())
}

fn refused(scene: &Scene, words: &[&str]) -> Result<()> {
    let finished = scene.gateway.run(&["run"])?;
    judge(&finished, 1, words)?;
    judge(&scene.gateway.run(&["check"])?, 1, words)
}

#[test]
fn a_wrong_token_says_what_to_do_and_changes_nothing() {
    play(Setting::default(), |scene| {
        let client = &mut scene.clients[0];
        let (_, rest) = client.link.split_once('@').context("link")?;
        client.link = format!("bauta://AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA@{rest}");
        fails(client, 7, &["✗ CONNECT-IP", "revoked", "→"])
    });
}

#[test]
fn a_wrong_link_names_its_mistake_and_not_the_token() {
    play(Setting::default(), |scene| {
        let client = &mut scene.clients[0];
        client.link = "bauta://hush-hush@site.test:99999".into();
        fails(client, 3, &["BAUTA_LINK"])?;
        let finished = client.bauta(&["up"])?;
        ensure!(!finished.output.contains("hush"), "{}", finished.output);
        Ok(())
    });
}

#[test]
fn an_unknown_field_is_named_with_file_line_and_column() {
    play(Setting::default(), |scene| {
        let client = &scene.clients[0];
        client.configure("ipv4 = true\n  colour = \"red\"\n")?;
        fails(client, 3, &["bauta.toml:2:3: unknown field `colour`"])?;
        scene.gateway.stop()?;
        scene.gateway.configure("workers = 2\nflavour = 1", "", "")?;
        refused(scene, &["gateway.toml:4:1: unknown field `flavour`"])
    });
}

#[test]
fn a_port_in_use_is_named() {
    play(Setting::default(), |scene| {
        let finished = scene.gateway.run(&["run"])?;
        judge(&finished, 1, &["443", "another program"])?;
        // The one that was there goes on, and so do its rules.
        scene.clients[0].up()?;
        scene.clients[0].ping("203.0.113.2", "-c3 -i0.1")?.assert_lossless()?;
        let client = &scene.clients[0];
        let _holder = hold(&client.ns, "127.0.0.1", 1080)?;
        judge(&client.bauta(&["proxy"])?, 1, &["127.0.0.1:1080"])
    });
}

#[test]
fn a_port_held_by_udp_or_tcp_alone_is_named_too() {
    play(Setting::default(), |scene| {
        scene.gateway.stop()?;
        let before = Machine::of(&scene.gateway.ns)?;
        for kind in ["SOCK_STREAM", "SOCK_DGRAM"] {
            let line = format!(
                "import socket, time; s = socket.socket(socket.AF_INET6, socket.{kind}); \
                 s.bind(('::', 443)); getattr(s, 'listen' if s.type == 1 else 'fileno')(); \
                 print('bound', flush=True); time.sleep(60)"
            );
            let mut other = scene.gateway.ns.start("python3", &["-c", &line])?;
            other.wait_for_line("bound", SOON)?;
            judge(&scene.gateway.run(&["run"])?, 1, &["443", "another program"])?;
        }
        before.assert_restored(&Machine::of(&scene.gateway.ns)?)
    });
}

#[test]
fn without_privileges_both_say_so() {
    play(Setting::default(), |scene| {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
        let client = &scene.clients[0];
        let mut command = client.ns.command("setpriv");
        command.args(nobody).arg(program(&client.command(&[])?)?).arg("up");
        client.surround(&mut command);
        let finished = Finished::of(client.ns.spawn(command)?, SOON)?;
        judge(&finished, 4, &["✗ privileges", "root", "→"])?;

        scene.gateway.stop()?;
        scene.gateway.configure("listen = \"[::]:8443\"", "", "")?;
        let mut command = scene.gateway.ns.command("setpriv");
        let program = program(&scene.gateway.command(&[])?)?;
        command.args(nobody).arg(program).arg("--config").arg(scene.gateway.config()).arg("run");
        let finished = Finished::of(scene.gateway.ns.spawn(command)?, SOON)?;
        ensure!(finished.code() == 1, "{}", finished.output);
        ensure!(!finished.output.contains("panicked"), "{}", finished.output);
        Ok(())
    });
}

#[test]
fn without_a_tun_device_both_say_so_and_the_website_is_offered_alone() {
    play(Setting::default(), |scene| {
        let hidden = "mount -t tmpfs -o ro none /dev/net && exec \"$@\"";
        let client = &scene.clients[0];
        let before = Machine::of(&client.ns)?;
        let mut command = client.ns.command("unshare");
        command.args(["-m", "sh", "-c", hidden, "sh"]);
        command.arg(program(&client.command(&[])?)?).arg("up");
        client.surround(&mut command);
        let finished = Finished::of(client.ns.spawn(command)?, SOON)?;
        judge(&finished, 4, &["/dev/net/tun", "→"])?;
        before.assert_restored(&Machine::of(&client.ns)?)?;

        scene.gateway.stop()?;
        let before = Machine::of(&scene.gateway.ns)?;
        let mut command = scene.gateway.ns.command("unshare");
        command.args(["-m", "sh", "-c", hidden, "sh"]);
        command.arg(program(&scene.gateway.command(&[])?)?);
        command.arg("--config").arg(scene.gateway.config()).arg("run");
        let finished = Finished::of(scene.gateway.ns.spawn(command)?, SOON)?;
        judge(&finished, 1, &["/dev/net/tun", "ip = false"])?;
        before.assert_restored(&Machine::of(&scene.gateway.ns)?)
    });
}

#[test]
fn certificates_that_are_missing_damaged_or_of_another_key_are_named() {
    play(Setting::default(), |scene| {
        scene.gateway.stop()?;
        let (cert, key) = (scene.gateway.issued.cert.clone(), scene.gateway.issued.key.clone());
        let other = scene.gateway.folder().join("other");
        let other = scene.gateway.authority.issue(DOMAIN, "other", &other)?;
        let good = fs::read(&key)?;
        fs::write(&key, fs::read(other.key)?)?;
        refused(scene, &["key.pem"])?;
        fs::write(&key, "no key")?;
        refused(scene, &["key.pem"])?;
        fs::write(&key, good)?;
        fs::write(&cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
        refused(scene, &["cert.pem"])?;
        fs::remove_file(&cert)?;
        refused(scene, &["cert.pem"])
    });
}

#[test]
fn a_gateway_that_is_not_what_it_should_be_is_refused() {
    play(Setting::default(), |scene| {
        let folder = scene.topology.net.folder().join("impostor");
        fs::create_dir_all(&folder)?;
        let impostor = Authority::new(&folder)?;
        let client = &mut scene.clients[0];
        let right = client.link.clone();
        let ca = scene.gateway.authority.file().display().to_string();
        client.link = right.replace(&ca, &impostor.file().display().to_string());
        fails(client, 6, &["✗ certificate", "do not go on"])?;
        client.link = right.replace("@site.test:", "@other.test:");
        fails(client, 6, &["other.test"])?;
        client.link = format!("{right}&pin=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        fails(client, 6, &["✗ certificate"])
    });
}

#[test]
fn a_gateway_that_does_not_answer_is_given_up() {
    play(Setting::default(), |scene| {
        scene.gateway.stop()?;
        fails(&scene.clients[0], 5, &["✗ QUIC handshake", "→"])
    });
}

#[test]
fn a_second_tunnel_of_the_same_name_is_refused_and_the_first_goes_on() {
    play(Setting::default(), |scene| {
        let client = &mut scene.clients[0];
        client.up()?;
        fails(client, 4, &["✗ privileges", "bauta0"])?;
        client.ping("203.0.113.2", "-c3 -i0.1")?.assert_lossless()
    });
}
