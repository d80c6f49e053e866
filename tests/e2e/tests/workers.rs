//! Several workers: each has what its sessions need, whichever core a packet came in on. Needs root.

use anyhow::{Context, Result, ensure};
use bauta_e2e::{Client, Gateway, Setting, iperf, json, play};

const V4: &str = "203.0.113.2";
const V6: &str = "2001:db8:2::2";
const BY_CID: &str = "bauta_handed_over_total{by=\"cid\"}";
const BY_TUN: &str = "bauta_handed_over_total{by=\"tun\"}";

/// Enough for a client to have met every one of two workers, but for once in a million times.
const ATTEMPTS: usize = 20;

/// The worker that serves the only tunnel.
fn worker(gateway: &Gateway) -> Result<u64> {
    let sessions = gateway.sessions()?;
    Ok(json(sessions.first().context("no session")?, "worker"))
}

/// Brings the client up until its session is on worker 1.
fn up_on_the_second(client: &mut Client, gateway: &Gateway) -> Result<()> {
    for _ in 0..ATTEMPTS {
        client.up()?;
        if worker(gateway)? == 1 {
            return Ok(());
        }
        client.down()?;
        gateway
            .wait_for_metric("bauta_tunnels{kind=\"connect-ip\"}", bauta_e2e::SOON, |n| n == 0)?;
    }
    anyhow::bail!("{ATTEMPTS} connections, and all of them on worker 0")
}

#[test]
fn packets_from_the_internet_come_out_of_the_queue_of_their_sessions_worker() {
    let setting = Setting::default().gateway("workers = 4").clients(3);
    play(setting, |scene| {
        let _server = iperf(scene.internet())?;
        for client in &mut scene.clients {
            client.up()?;
        }
        for client in &scene.clients {
            client.ping(V4, "-c10 -i0.05")?.assert_lossless()?;
            client.ping(V6, "-c10 -i0.05")?.assert_lossless()?;
            let stream = client.iperf(V4, "-t1 -C cubic -R -P4")?;
            ensure!(stream.rate > 20e6, "{stream:?}");
        }
        let down = scene.gateway.metric("bauta_down_packets_total{kind=\"connect-ip\"}")?;
        let strays = scene.gateway.metric(BY_TUN)?;
        println!("{strays} of {down} packets were handed over");
        ensure!(strays == 0 && down > 1000, "{strays} of {down} packets were handed over");
        Ok(())
    });
}

#[test]
fn a_worker_without_a_ring_serves_by_what_its_sibling_hands_over() {
    for mode in ["native", "skb"] {
        let setting = Setting::default()
            .gateway("workers = 2")
            .tables(&format!("[xdp]\nmode = \"{mode}\"\ninterfaces = [\"access0\"]"));
        play(setting, |scene| {
            let (client, gateway, internet) = scene.cast();
            let _server = iperf(internet)?;
            // The veth has one queue, and worker 0 its ring.
            up_on_the_second(client, gateway)?;
            let before = gateway.metric(BY_CID)?;
            client.ping(V4, "-c20 -i0.02")?.assert_lossless()?;
            let handed = gateway.metric(BY_CID)? - before;
            ensure!(handed >= 20, "{mode}: {handed} datagrams were handed over");
            let stream = client.iperf(V4, "-t1 -C cubic")?;
            ensure!(stream.rate > 20e6, "{mode}: {stream:?}");
            client.down()
        });
    }
}
