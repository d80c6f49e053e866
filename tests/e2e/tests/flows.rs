//! Single flows: forwards, SOCKS5 and HTTP proxies, and the gateway as a proxy itself. Needs root
//! for the namespaces; the client does without.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bauta_e2e::{Client, SOON, Setting, dns, echo, files, play};
use bauta_lab::Process;
use bauta_lab::clock::now_ns;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const FLOWS: &str = "bauta_tunnels{kind=\"connect-udp\"}";
const MIB: usize = 1 << 20;
const SOCKS: &str = "socks5h://127.0.0.1:1080";
const HTTP: &str = "http://127.0.0.1:8080";

/// Starts `bauta WORDS` and waits for a line with `ready`.
fn started(client: &Client, words: &[&str], ready: &str) -> Result<Process> {
    let mut process = client.ns.spawn(client.command(words)?)?;
    process.wait_for_line(ready, SOON)?;
    Ok(process)
}

fn proxies(client: &Client) -> Result<Process> {
    started(client, &["proxy", "--socks", "1080", "--http", "8080"], "HTTP proxy on")
}

/// The SHA-256 of what curl gets with these words.
fn download(client: &Client, words: &str) -> Result<String> {
    let line = format!("curl -sS -m 60 {words} | sha256sum");
    let printed = client.ns.run("bash", &["-o", "pipefail", "-ec", &line])?;
    Ok(printed.split(' ').next().context("no sum")?.to_owned())
}

#[test]
fn a_thousand_udp_flows_at_once_each_have_their_own_echo() {
    const COUNT: usize = 1000;
    play(Setting::default(), |scene| {
        let (client, gateway, internet) = scene.cast();
        let echo = echo(internet, 7)?;
        let _forward = started(client, &["forward", "udp", "5353", "203.0.113.2:7"], "udp 127")?;
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let answered = client.ns.enter(|| -> std::io::Result<usize> {
            let mut sockets = Vec::new();
            for _ in 0..COUNT {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.connect("127.0.0.1:5353")?;
                socket.set_nonblocking(true)?;
                sockets.push((socket, 0_usize));
            }
            // Three rounds for each; what UDP loses is sent again.
            let begun = now_ns();
            while now_ns() - begun < 40_000_000_000 && sockets.iter().any(|s| s.1 < 3) {
                for (n, (socket, round)) in sockets.iter_mut().enumerate() {
                    if *round < 3 {
                        let _ = socket.send(format!("flow {n} round {round}").as_bytes());
                    }
                }
                std::thread::sleep(Duration::from_millis(300));
                for (n, (socket, round)) in sockets.iter_mut().enumerate() {
                    let (mut buffer, mut next) = ([0; 100], *round);
                    while let Ok(len) = socket.recv(&mut buffer) {
                        let said = String::from_utf8_lossy(&buffer[..len]);
                        assert!(said.starts_with(&format!("flow {n} ")), "flow {n} got `{said}`");
                        if said == format!("flow {n} round {round}") {
                            next = *round + 1;
                        }
                    }
                    *round = next;
                }
            }
            Ok(sockets.iter().filter(|s| s.1 == 3).count())
        })??;
        ensure!(answered == COUNT, "{answered} of {COUNT} flows were answered");
        let held = gateway.metric(FLOWS)?;
        ensure!(held as usize == COUNT, "the gateway holds {held} flows");
        let seen = echo.peers().len();
        ensure!(seen == COUNT, "the internet saw {seen} senders");
        let account = gateway.sessions()?;
        ensure!(account.iter().filter(|s| s["account"] == "user-0").count() == COUNT, "accounts");
        Ok(())
    });
}

#[test]
fn the_first_datagram_of_a_flow_may_be_as_large_as_its_last() {
    play(Setting::default(), |scene| {
        let (client, _, internet) = scene.cast();
        let _echo = echo(internet, 7)?;
        // Each connects anew, and knows of no packet larger than QUIC's least when the flow opens.
        for round in 0..5 {
            let _forward =
                started(client, &["forward", "udp", "5353", "203.0.113.2:7"], "udp 127")?;
            client.ns.enter(|| -> Result<()> {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.connect("127.0.0.1:5353")?;
                socket.set_read_timeout(Some(SOON))?;
                socket.send(&[round; 1400])?;
                let mut back = [0; 2000];
                let len = socket.recv(&mut back).with_context(|| format!("round {round}"))?;
                ensure!(back[..len] == [round; 1400], "round {round}: another datagram");
                Ok(())
            })??;
        }
        Ok(())
    });
}

#[test]
fn a_forwarded_tcp_port_carries_every_byte() {
    play(Setting::default(), |scene| {
        let (client, _, internet) = scene.cast();
        let files = files(internet, 80, 10 * MIB)?;
        for (port, target) in [("8001", "203.0.113.2:80"), ("8002", "[2001:db8:2::2]:80")] {
            let _forward = started(client, &["forward", "tcp", port, target], "tcp 127")?;
            let sum = download(client, &format!("http://127.0.0.1:{port}/"))?;
            ensure!(sum == files.sha256(), "{target}: damaged");
        }
        Ok(())
    });
}

#[test]
fn curl_downloads_by_both_proxies_by_name_and_by_address() {
    play(Setting::default(), |scene| {
        let (client, _, internet) = scene.cast();
        let (_names, files) = (dns(internet)?, files(internet, 80, MIB)?);
        let _proxies = proxies(client)?;
        for host in ["203.0.113.2", "[2001:db8:2::2]", "a.internet.test"] {
            for proxy in [SOCKS, HTTP] {
                let sum = download(client, &format!("-p -x {proxy} 'http://{host}/'"))?;
                ensure!(sum == files.sha256(), "{host} by {proxy}: damaged");
            }
        }
        // Many at once, over one connection to the gateway.
        let line = format!(
            "for n in 1 2 3 4 5 6 7 8; do curl -sS -m 60 -x {SOCKS} http://203.0.113.2/ | sha256sum & done; wait"
        );
        let sums = client.ns.run("bash", &["-ec", &line])?;
        ensure!(sums.matches(files.sha256()).count() == 8, "{sums}");
        Ok(())
    });
}

#[test]
fn what_cannot_be_reached_is_said_at_once() {
    play(Setting::default(), |scene| {
        let (client, _, internet) = scene.cast();
        let _names = dns(internet)?;
        let _proxies = proxies(client)?;
        for url in ["http://203.0.113.2:81/", "http://nowhere.invalid/", "http://192.168.1.1/"] {
            for proxy in [SOCKS, HTTP] {
                let begun = now_ns();
                let answer = client.curl(&["-p", "-x", proxy, url]);
                ensure!(answer.is_err(), "{url} by {proxy}: {answer:?}");
                ensure!(now_ns() - begun < 8_000_000_000, "{url} by {proxy} took long");
            }
        }
        Ok(())
    });
}

#[test]
fn socks_associates_udp_with_names_and_addresses() {
    play(Setting::default(), |scene| {
        let (client, _, internet) = scene.cast();
        let (_names, _echo) = (dns(internet)?, echo(internet, 7)?);
        let _proxies = proxies(client)?;
        client.ns.enter(|| -> Result<()> {
            let mut control = TcpStream::connect("127.0.0.1:1080")?;
            control.set_read_timeout(Some(SOON))?;
            control.write_all(&[5, 1, 0])?;
            let mut choice = [0; 2];
            control.read_exact(&mut choice)?;
            ensure!(choice == [5, 0], "{choice:?}");
            control.write_all(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0])?;
            let mut reply = [0; 10];
            control.read_exact(&mut reply)?;
            ensure!(reply[..4] == [5, 0, 0, 1], "{reply:?}");
            let [ip @ .., high, low] = <[u8; 6]>::try_from(&reply[4..])?;
            let relay =
                SocketAddr::from((<[u8; 4]>::try_from(&ip[..])?, u16::from_be_bytes([high, low])));
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(relay)?;
            socket.set_read_timeout(Some(SOON))?;
            let mut name = vec![3, 15];
            name.extend(b"a.internet.test");
            let targets = [name, vec![1, 203, 0, 113, 2]];
            for (n, target) in targets.iter().enumerate() {
                let mut packet = vec![0, 0, 0];
                packet.extend(target);
                packet.extend([0, 7]);
                packet.extend(format!("hello {n}").as_bytes());
                socket.send(&packet)?;
                let mut buffer = [0; 200];
                let len = socket.recv(&mut buffer).with_context(|| format!("target {n}"))?;
                ensure!(
                    buffer[..len].ends_with(format!("hello {n}").as_bytes()),
                    "{:?}",
                    &buffer[..len]
                );
            }
            Ok(())
        })?
    });
}

#[test]
fn the_proxies_need_no_root() {
    play(Setting::default(), |scene| {
        let (client, _, internet) = scene.cast();
        let files = files(internet, 80, MIB)?;
        let program = client.command(&[])?;
        let program = program.get_args().nth(3).context("no program")?.to_owned();
        let mut command = client.ns.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
        command.arg(program).args(["proxy", "--socks", "1080"]);
        client.surround(&mut command);
        let mut process = client.ns.spawn(command)?;
        process.wait_for_line("SOCKS5 on", SOON)?;
        ensure!(
            download(client, &format!("-x {SOCKS} http://203.0.113.2/"))? == files.sha256(),
            "damaged"
        );
        Ok(())
    });
}

#[test]
fn curl_uses_the_gateway_itself_as_an_https_proxy() {
    play(Setting::default(), |scene| {
        let (client, gateway, internet) = scene.cast();
        let files = files(internet, 80, MIB)?;
        let token =
            client.link.trim_start_matches("bauta://").split('@').next().context("token")?;
        let ca = gateway.authority.file().display();
        let words = format!(
            "-p -x https://site.test --proxy-cacert {ca} --proxy-user user-0:{token} http://203.0.113.2/"
        );
        ensure!(download(client, &words)? == files.sha256(), "damaged");
        let wrong = words.replace(token, "wrong");
        let words: Vec<&str> = wrong.split(' ').collect();
        ensure!(client.curl(&words).is_err(), "a wrong token was taken");
        Ok(())
    });
}

#[test]
fn a_proxy_survives_a_gateway_that_restarts() {
    play(Setting::default(), |scene| {
        let (client, gateway, internet) = scene.cast();
        let files = files(internet, 80, MIB)?;
        let _proxies = proxies(client)?;
        let words = format!("-x {SOCKS} http://203.0.113.2/");
        ensure!(download(client, &words)? == files.sha256(), "damaged");
        gateway.kill();
        gateway.start()?;
        let begun = now_ns();
        while download(client, &words).is_err() {
            ensure!(now_ns() - begun < 10_000_000_000, "the proxy does not come back");
        }
        Ok(())
    });
}
