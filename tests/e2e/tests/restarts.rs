//! Killed, restarted, taken down: addresses stay, nothing leaks, everything is put back.
//! Needs root.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, ensure};
use bauta_e2e::leaks::{assert_no_leaks, leaks, restless};
use bauta_e2e::{Machine, Pings, SOON, Setting, json, play};
use bauta_lab::Capture;
use bauta_lab::clock::now_ns;

const V4: &str = "203.0.113.2";

#[test]
fn without_a_tunnel_the_restless_do_leak() {
    // Else the tests that see no leak would prove nothing.
    play(Setting::default(), |scene| {
        let capture = Capture::start(&scene.clients[0].ns, "wan", "")?;
        let client = &mut scene.clients[0];
        client.up()?;
        client.down()?;
        let _restless = restless(client)?;
        sleep(Duration::from_secs(2));
        ensure!(leaks(client, capture)?.len() > 10, "they were not seen");
        Ok(())
    });
}

#[test]
fn a_client_killed_and_restarted_keeps_its_addresses_and_leaks_nothing() {
    play(Setting::default(), |scene| {
        let client = &mut scene.clients[0];
        client.up()?;
        let before = client.addresses()?;
        let capture = Capture::start(&client.ns, "wan", "")?;
        let restless = restless(client)?;
        sleep(Duration::from_secs(1));
        client.kill();
        sleep(Duration::from_secs(2));
        ensure!(client.ns.run("nft", &["list", "ruleset"])?.contains("policy drop"), "it opened");
        client.up()?;
        let after = client.addresses()?;
        ensure!(before == after, "{before:?} became {after:?}");
        client.ping(V4, "-c5 -i0.1")?.assert_lossless()?;
        drop(restless);
        assert_no_leaks(client, capture)
    });
}

#[test]
fn down_puts_everything_back() {
    play(Setting::default(), |scene| {
        let client = &mut scene.clients[0];
        client.ns.shell("nft add table inet mine; nft add chain inet mine c '{ type filter hook output priority 5; }'")?;
        client.ns.ip("rule add from 192.0.2.1 lookup 7 priority 900")?;
        let before = Machine::of(&client.ns)?;
        client.up()?;
        let during = Machine::of(&client.ns)?;
        for title in ["links", "rules", "routes", "nftables", "resolv.conf"] {
            ensure!(during.look(title) != before.look(title), "up changed nothing of {title}");
        }
        client.down()?;
        before.assert_restored(&Machine::of(&client.ns)?)
    });
}

#[test]
fn an_up_that_is_told_to_end_puts_everything_back() {
    play(Setting::default(), |scene| {
        let client = &mut scene.clients[0];
        let before = Machine::of(&client.ns)?;
        client.up()?;
        let status = client.process.take().context("not up")?.stop(SOON);
        ensure!(status.is_some_and(|s| s.success()), "{status:?}");
        before.assert_restored(&Machine::of(&client.ns)?)
    });
}

#[test]
fn down_puts_everything_back_after_a_kill_too() {
    play(Setting::default(), |scene| {
        let client = &mut scene.clients[0];
        let before = Machine::of(&client.ns)?;
        client.up()?;
        client.ping(V4, "-c2 -i0.1")?.assert_lossless()?;
        client.kill();
        let status = client.bauta(&["status"])?;
        ensure!(status.code() == 9 && status.output.contains("bauta down"), "{status:?}");
        client.down()?;
        before.assert_restored(&Machine::of(&client.ns)?)?;
        ensure!(
            client.bauta(&["down"])?.success()?.contains("nothing to undo") || {
                client.bauta(&["down"])?.status.success()
            },
            "a second down fails"
        );
        Ok(())
    });
}

#[test]
fn a_killed_run_that_was_taken_over_leaves_nothing_either() {
    play(Setting::default(), |scene| {
        let client = &mut scene.clients[0];
        let before = Machine::of(&client.ns)?;
        for _ in 0..3 {
            client.up()?;
            client.kill();
        }
        client.up()?;
        client.ping(V4, "-c2 -i0.1")?.assert_lossless()?;
        client.down()?;
        before.assert_restored(&Machine::of(&client.ns)?)
    });
}

#[test]
fn a_gateway_killed_and_restarted_has_its_client_back_within_seconds() {
    play(Setting::default(), |scene| {
        let (client, gateway, _) = scene.cast();
        client.up()?;
        let before = client.addresses()?;
        let capture = Capture::start(&client.ns, "wan", "")?;
        let restless = restless(client)?;
        sleep(Duration::from_secs(1));
        gateway.kill();
        sleep(Duration::from_secs(2));
        let begun = now_ns();
        gateway.start()?;
        let served = now_ns();
        let mut back = None;
        while back.is_none() && now_ns() - begun < 30_000_000_000 {
            let ping = client.ping(V4, "-c1 -W1")?;
            back = (ping.received == 1).then(now_ns);
        }
        let back =
            back.with_context(|| format!("not back: {:#}", client.status().unwrap_or_default()))?;
        let seconds = back.saturating_sub(served) as f64 / 1e9;
        println!("back {seconds:.2} s after the gateway served again");
        ensure!(seconds < 5.0, "it took {seconds:.1} s");
        let status = client.wait_reconnected(SOON)?;
        ensure!(json(&status, "reconnects") >= 1, "{status:#}");
        let after = client.addresses()?;
        ensure!(before == after, "{before:?} became {after:?}");
        drop(restless);
        assert_no_leaks(client, capture)
    });
}

#[test]
fn a_gateway_restarted_in_order_has_its_client_back_too() {
    play(Setting::default(), |scene| {
        let (client, gateway, _) = scene.cast();
        client.up()?;
        let before = client.addresses()?;
        let capture = Capture::start(&client.ns, "wan", "")?;
        let ping = Pings::start(&client.ns, V4, "-i0.1")?;
        sleep(Duration::from_secs(1));
        gateway.stop()?;
        gateway.start()?;
        sleep(Duration::from_secs(5));
        let pings = ping.stop()?;
        println!("{} of {} pings lost", pings.lost(), pings.sent);
        ensure!(pings.lost() <= 40, "{}", pings.tail());
        ensure!(before == client.addresses()?, "other addresses");
        assert_no_leaks(client, capture)
    });
}

#[test]
fn a_gateway_removes_what_it_set_and_what_a_killed_one_had_left() {
    play(Setting::default(), |scene| {
        let gateway = &mut scene.gateway;
        gateway.stop()?;
        let before = Machine::of(&gateway.ns)?;
        gateway.start()?;
        let during = Machine::of(&gateway.ns)?;
        for title in ["links", "nftables", "switches"] {
            ensure!(during.look(title) != before.look(title), "{title} did not change");
        }
        gateway.kill();
        ensure!(gateway.ns.run("nft", &["list", "ruleset"])?.contains("bauta"), "nothing is left");
        gateway.start()?;
        gateway.stop()?;
        before.assert_restored(&Machine::of(&gateway.ns)?)
    });
}
