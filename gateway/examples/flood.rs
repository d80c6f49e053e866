//! Initials at a gateway, for `tests/bench/run flood`: half of them genuine first flights, half garbage, from many sources, at a steady
//! rate. Prints how many were sent.
//!
//! `flood TARGET RATE SECONDS NETWORK`: NETWORK is an IPv4 /24 that is local here (`ip route add local NETWORK dev lo`).
#![expect(clippy::print_stdout, reason = "this is a command's output")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket as Plain};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bauta_masque_io::DatagramBuf;
use bauta_masque_io::tls::{ClientTls, Roots, TransportConfig, quic_client_config};
use bauta_masque_io::udp::{BindOptions, UdpSocket};
use bauta_masque_io::{App, Connection, Endpoint, EndpointConfig, Event, cid, clock};

/// Genuine first flights made beforehand; they are sent again and again.
const GENUINE: usize = 2000;
const SOURCES: u8 = 200;
/// Packets from one look at the clock to the next.
const BURST: u64 = 25;

struct Deaf;

impl App for Deaf {
    fn datagram(&mut self, _: &mut Connection, _: u64, _: DatagramBuf) {}
    fn event(&mut self, _: &mut Connection, _: Event) {}
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [target, rate, seconds, network] = &words[..] else {
        bail!("flood TARGET RATE SECONDS NETWORK")
    };
    let (target, rate, seconds): (SocketAddr, u64, u64) =
        (target.parse()?, rate.parse()?, seconds.parse()?);
    let [a, b, c, _] = network.parse::<Ipv4Addr>()?.octets();
    let sources: Vec<Plain> = (1..=SOURCES)
        .map(|d| Plain::bind((Ipv4Addr::new(a, b, c, d), 0)))
        .collect::<Result<_, _>>()
        .context("NETWORK is not local here")?;
    let genuine = first_flights()?;
    let begun = clock::now();
    let (mut sent, mut refused) = (0u64, 0u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let due = (begun.elapsed().as_micros() as u64) * rate / 1_000_000;
        if sent >= due {
            std::thread::sleep(Duration::from_micros(300));
            continue;
        }
        for _ in 0..BURST {
            let source = &sources[sent as usize % sources.len()];
            let noise;
            let packet = if sent.is_multiple_of(2) {
                &genuine[sent as usize / 2 % genuine.len()]
            } else {
                noise = garbage();
                &noise
            };
            refused += u64::from(source.send_to(packet, target).is_err());
            sent += 1;
        }
    }
    println!("{} {refused}", sent - refused);
    Ok(())
}

fn garbage() -> Vec<u8> {
    let mut packet = vec![0xc3, 0, 0, 0, 1, 8];
    packet.resize(1200, 0x5a);
    cid::random(&mut packet[6..14]);
    packet[14..24].copy_from_slice(&[8, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    packet[24..26].copy_from_slice(&[0x44, 0x96]);
    packet
}

/// What a client sends first, of as many clients.
fn first_flights() -> Result<Vec<Vec<u8>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let ear = Plain::bind((Ipv4Addr::LOCALHOST, 0))?;
        ear.set_read_timeout(Some(Duration::from_secs(5)))?;
        let tls =
            ClientTls { roots: Roots::PinnedSpki([0; 32]), transport: TransportConfig::client() };
        let mut quic = quic_client_config(&tls)?;
        let mut flights = Vec::with_capacity(GENUINE);
        let mut buffer = [0; 2048];
        while flights.len() < GENUINE {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), &BindOptions::default())?;
            let mut endpoint = Endpoint::client(socket, EndpointConfig::default())?;
            for _ in 0..20 {
                endpoint.connect(ear.local_addr()?, "site.test", &mut quic)?;
            }
            endpoint.flush(clock::now(), &mut Deaf);
            for _ in 0..20 {
                let n = ear.recv(&mut buffer)?;
                // A hello takes two datagrams where it holds a post-quantum share; each is an Initial.
                flights.push(buffer[..n].to_vec());
            }
            ear.set_nonblocking(true)?;
            while ear.recv(&mut buffer).is_ok() {}
            ear.set_nonblocking(false)?;
        }
        Ok(flights)
    })
}
