//! A tunnel over a bad link: rate control, repair, and a peer that wants none of it. Needs root.

use anyhow::{Result, ensure};
use bauta_e2e::{SOON, Setting, iperf, json, play};
use bauta_lab::clock::now_ns;
use bauta_lab::link::{LinkPair, LinkSpec};

const V4: &str = "203.0.113.2";
const JOINED: &str = "bauta_bond_sent_total{kind=\"numbered\"}";

/// A client behind a link of these properties each way; the seed decides every packet's fate.
fn over(words: &str) -> Result<Setting> {
    let pair = LinkPair::symmetric(words.parse::<LinkSpec>()?).seed(7);
    Ok(Setting::default().topology(|t| t.access(pair)))
}

/// TCP over five per cent of loss goes as if there were next to none: CUBIC alone would carry
/// about one hundredth of it.
#[test]
fn tcp_gets_through_five_per_cent_of_loss_in_both_directions() -> Result<()> {
    play(over("rate 50mbit delay 10ms loss 5%")?, |scene| {
        let (client, gateway, internet) = scene.cast();
        let _server = iperf(internet)?;
        client.up()?;
        for way in ["-t8 -C cubic", "-t8 -C cubic -R"] {
            let stream = client.iperf(V4, way)?;
            println!("TCP {way} at 5 % loss: {:.1} Mbit/s", stream.rate / 1e6);
            ensure!(stream.rate > 12e6, "{way}: {stream:?}\n{:#}", client.status()?);
        }
        let status = client.status()?;
        println!("{:#} {:#}", status["paths"], status["repair"]);
        ensure!(json(&status["repair"], "numbered") > 0, "nothing was numbered: {status:#}");
        ensure!(gateway.metric(JOINED)? > 0, "the gateway numbered nothing");
        ensure!(json(&status, "reconnects") == 0, "{status:#}");
        Ok(())
    });
    Ok(())
}

/// Nothing is added to a clean link, and nobody is lost on a clean one.
#[test]
fn a_clean_link_needs_no_repair() {
    play(Setting::default(), |scene| {
        let (client, _, _) = scene.cast();
        client.up()?;
        client.ping(V4, "-c50 -i0.02")?.assert_lossless()?;
        let status = client.status()?;
        ensure!(status["paths"].as_array().is_some_and(|p| p.len() == 1), "{status:#}");
        ensure!(json(&status["repair"], "sent") == 0, "{status:#}");
        Ok(())
    });
}

/// What a client declares, and what an account is allowed, holds for all that goes over the link,
/// repair included; both ways.
#[test]
fn a_declared_rate_is_never_exceeded_in_either_direction() -> Result<()> {
    for (client, tunnel) in [("rate = \"6mbit\"", ""), ("", "rate = \"6mbit\"")] {
        let setting = over("rate 50mbit delay 10ms loss 2%")?.client(client).tunnel(tunnel);
        play(setting, |scene| {
            let link = scene.topology.links[0][0].as_ref();
            let carried =
                || link.map_or([0; 2], |l| [l.stats().up.bytes_in, l.stats().down.bytes_in]);
            let client = &mut scene.clients[0];
            client.up()?;
            for (at, way) in ["-t5 -C cubic", "-t5 -C cubic -R"].iter().enumerate() {
                // The last server may wait for a farewell that is still under way.
                let _server = iperf(&scene.topology.internet)?;
                let (begun, before) = (now_ns(), carried()[at]);
                let stream = client.iperf(V4, way)?;
                let bits = (carried()[at] - before) as f64 * 8.0;
                let rate = bits / ((now_ns() - begun) as f64 / 1e9);
                println!(
                    "{way}: {:.2} Mbit/s on the link, {:.2} inside",
                    rate / 1e6,
                    stream.rate / 1e6
                );
                ensure!(rate < 6.2e6, "{rate} bit/s: {stream:?}\n{:#}", client.status()?);
                ensure!(stream.rate > 2e6, "{stream:?}\n{:#}", client.status()?);
            }
            Ok(())
        });
    }
    Ok(())
}

/// Either end may want RFC 9484 and nothing else.
#[test]
fn an_end_without_the_extension_gets_plain_connect_ip() {
    for (gateway, client) in [("resilience = false", ""), ("", "resilience = false")] {
        play(Setting::default().tunnel(gateway).client(client), |scene| {
            let (client, gateway, internet) = scene.cast();
            let _server = iperf(internet)?;
            client.up()?;
            client.ping(V4, "-c10 -i0.05")?.assert_lossless()?;
            ensure!(client.iperf(V4, "-t2 -C cubic")?.rate > 20e6, "too slow");
            let status = client.status()?;
            ensure!(status["paths"].as_array().is_some_and(Vec::is_empty), "{status:#}");
            ensure!(gateway.metric(JOINED)? == 0, "something was numbered");
            gateway.wait_for_metric("bauta_tunnels{kind=\"connect-ip\"}", SOON, |n| n == 1)?;
            Ok(())
        });
    }
}
