//! Something to reach: UDP echo, files, names, iperf3.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bauta_lab::{Namespace, Process, addresses};
use sha2::{Digest, Sha256};

use crate::SOON;

/// How often a server looks whether it is to end.
const TICK: Duration = Duration::from_millis(50);

/// Who has been here, and whether to go on.
#[derive(Default)]
struct Visits {
    peers: Mutex<BTreeSet<SocketAddr>>,
    over: AtomicBool,
}

impl Visits {
    fn note(&self, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
    }

    fn peers(&self) -> BTreeSet<SocketAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A UDP echo server, for both families.
pub struct Echo(Arc<Visits>);

/// A web server with one file, for both families.
pub struct Files {
    visits: Arc<Visits>,
    sha256: String,
}

/// A name server: `*.internet.test` is the internet's host.
pub struct Names(Process);

/// Starts a UDP echo server on `port`.
pub fn echo(ns: &Namespace, port: u16) -> Result<Echo> {
    let socket = ns.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))??;
    // A thousand flows may speak at once.
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(4 << 20))?;
    socket.set_read_timeout(Some(TICK))?;
    let visits = Arc::new(Visits::default());
    let seen = visits.clone();
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while !seen.over.load(Ordering::Relaxed) {
            if let Ok((n, peer)) = socket.recv_from(&mut buffer) {
                seen.note(peer);
                let _ = socket.send_to(&buffer[..n], peer);
            }
        }
    });
    Ok(Echo(visits))
}

impl Echo {
    /// Who was answered.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<SocketAddr> {
        self.0.peers()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Starts a web server on `port` that answers everything with the same `size` bytes.
pub fn files(ns: &Namespace, port: u16, size: usize) -> Result<Files> {
    let listener = ns.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))??;
    listener.set_nonblocking(true)?;
    let body: Arc<[u8]> = noise(size).into();
    let sha256 = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    let visits = Arc::new(Visits::default());
    let seen = visits.clone();
    thread::spawn(move || {
        while !seen.over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, peer)) => {
                    seen.note(peer);
                    let body = body.clone();
                    thread::spawn(move || serve(stream, &body));
                }
                Err(_) => thread::sleep(TICK),
            }
        }
    });
    Ok(Files { visits, sha256 })
}

fn serve(mut stream: TcpStream, body: &[u8]) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")?;
    stream.write_all(body)
}

/// Bytes in which no two stretches are alike (xorshift).
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(size);
    bytes
}

impl Files {
    /// Who came.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<SocketAddr> {
        self.visits.peers()
    }

    /// The SHA-256 of what each gets, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.visits.over.store(true, Ordering::Relaxed);
    }
}

/// Starts a name server that knows `*.internet.test` alone and logs every query.
pub fn dns(ns: &Namespace) -> Result<Names> {
    let (v4, v6) = (addresses::INTERNET_V4, addresses::INTERNET_V6);
    let answers = [v4.into(), v6.into()].map(|ip: IpAddr| format!("--address=/internet.test/{ip}"));
    let mut words = vec!["--keep-in-foreground", "--no-resolv", "--no-hosts", "--log-queries"];
    words.extend(["--log-facility=-", "--conf-file=/dev/null", "--pid-file=", "--user=root"]);
    words.extend(answers.iter().map(String::as_str));
    let mut process = ns.start("dnsmasq", &words)?;
    process.wait_for_line("started", SOON).context("dnsmasq")?;
    Ok(Names(process))
}

impl Names {
    /// Waits for a query for `name` and returns the address it came from.
    pub fn asker(&mut self, name: &str) -> Result<IpAddr> {
        let asked = format!(" {name} from ");
        let read = |line: &str| line.split_once(&asked)?.1.trim().parse().ok();
        Ok(self.0.wait_for(&format!("query for {name}"), SOON, read)?)
    }
}

/// Starts an iperf3 server.
pub fn iperf(ns: &Namespace) -> Result<Process> {
    let mut server = ns.start("iperf3", &["-s", "--forceflush"])?;
    server.wait_for_line("listening", SOON)?;
    Ok(server)
}

/// Starts a program that listens on a TCP port of an address, and answers nobody.
pub fn hold(ns: &Namespace, address: &str, port: u16) -> Result<Process> {
    let line = format!(
        "import socket, time; s = socket.create_server(('{address}', {port})); \
         print('held', flush=True); time.sleep(120)"
    );
    let mut holder = ns.start("python3", &["-c", &line])?;
    holder.wait_for_line("held", SOON)?;
    Ok(holder)
}
