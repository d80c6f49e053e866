//! What leaves a machine beside its tunnel.

use anyhow::{Context, Result, ensure};
use bauta_lab::{Capture, Process};

use crate::Client;

/// Programs that never stop trying to reach the internet.
pub fn restless(client: &Client) -> Result<Process> {
    let line = "while :; do \
        ping -c1 -W1 203.0.113.2 & ping -c1 -W1 2001:db8:2::2 & \
        getent ahosts a.internet.test & curl -m1 http://203.0.113.2/ & \
        curl -m1 'http://[2001:db8:2::2]/' & curl -m1 http://198.51.100.1:8080/ & \
        sleep 0.3; done >/dev/null 2>&1";
    Ok(client.ns.start("sh", &["-c", line])?)
}

/// What left a client, and is neither the tunnel nor the search for the next hop.
pub fn leaks(client: &Client, capture: Capture) -> Result<Vec<String>> {
    let link = client.ns.ip("-o link show dev wan")?;
    let mac = link.split_once("link/ether ").context("no MAC")?.1;
    let mac = mac.split(' ').next().context("no MAC")?;
    let tunnel = "((udp dst port 443 or tcp dst port 443) and (dst host 198.51.100.1 or dst host 2001:db8:1::1))";
    let discovery = "(icmp6 and ip6[40] >= 133 and ip6[40] <= 136)";
    let captured = capture.stop()?;
    ensure!(captured.count(tunnel)? > 0, "the capture has not even seen the tunnel");
    Ok(captured
        .lines(&format!("ether src {mac} and not {tunnel} and not arp and not {discovery}"))?)
}

/// Fails if anything did.
pub fn assert_no_leaks(client: &Client, capture: Capture) -> Result<()> {
    let leaks = leaks(client, capture)?;
    ensure!(
        leaks.is_empty(),
        "{} packets leaked: {:#?}",
        leaks.len(),
        &leaks[..leaks.len().min(20)]
    );
    Ok(())
}
