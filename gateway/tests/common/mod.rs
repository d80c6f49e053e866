//! The real gateway as a process on loopback, and a client of our own transport.
#![allow(dead_code, unreachable_pub, reason = "each test takes the part it needs")]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bauta_masque_io::steer;
use bauta_masque_io::tls::{ClientTls, Roots, TransportConfig, quic_client_config};
use bauta_masque_io::udp::{BindOptions, UdpSocket};
use bauta_masque_io::{
    App, Closed, ConnId, Connection, DatagramBuf, Endpoint, EndpointConfig, Event, Header,
    NameValue, clock,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A gateway in a folder of its own, ended with the test.
pub struct Gateway {
    child: Child,
    pub dir: tempfile::TempDir,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    pub token: String,
}

/// A port that is free for TCP and UDP, and that nobody is given by chance: below the range the
/// system takes its own from.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = std::process::id().wrapping_mul(97) + NEXT.fetch_add(1, Ordering::Relaxed);
        let addr = SocketAddr::from(([127, 0, 0, 1], 10_000 + (n % 20_000) as u16));
        if std::net::TcpListener::bind(addr).is_ok() && std::net::UdpSocket::bind(addr).is_ok() {
            return addr.port();
        }
    }
}

/// Writes a certificate for `name` and its authority.
pub fn certificate(dir: &Path, name: &str) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "an authority of one test");
    let ca = rcgen::CertifiedIssuer::self_signed(ca, ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), leaf.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bauta-gateway"));
    command.arg("--config").arg(dir.join("gateway.toml"));
    command
}

impl Gateway {
    /// Starts one without CONNECT-IP; `tunnel` is more of the `[tunnel]` section.
    pub fn start(tunnel: &str) -> Self {
        Self::start_with(&format!("ip = false\nallow = [\"127.0.0.1\"]\n{tunnel}"))
    }

    /// Starts one with this `[tunnel]` section.
    pub fn start_with(tunnel: &str) -> Self {
        Self::start_as("root", tunnel)
    }

    /// Starts one that becomes `user`.
    pub fn start_as(user: &str, tunnel: &str) -> Self {
        let user = format!("user = \"{user}\"");
        let dir = tempfile::tempdir().unwrap();
        // The user has to get at the certificate and the accounts.
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), all).unwrap();
        certificate(dir.path(), "site.test");
        let at = |name: &str| dir.path().join(name);
        let addr: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let admin: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let config = format!(
            "domain = \"site.test\"\nlisten = \"{addr}\"\n{user}\nworkers = 2\n\
             state_dir = {:?}\n[tls]\ncert = {:?}\nkey = {:?}\n[accounts]\nfile = {:?}\n[admin]\nlisten = \"{admin}\"\n[log]\nlevel = \"bauta_gateway=debug\"\n\
             [tunnel]\n{tunnel}\n",
            at("state"),
            at("cert.pem"),
            at("key.pem"),
            at("accounts.toml"),
        );
        std::fs::write(at("gateway.toml"), config).unwrap();
        let output =
            command(dir.path()).args(["user", "add", "alice", "--quiet"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let link = String::from_utf8(output.stdout).unwrap();
        let token = link.trim().strip_prefix("bauta://").unwrap().split('@').next().unwrap();
        let token = token.to_owned();
        let child = spawn(dir.path(), admin);
        Self { child, dir, addr, admin, token }
    }

    /// Kills it and starts it again, in the same folder.
    pub fn crash_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.dir.path(), self.admin);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        read(&self.dir.path().join("log"))
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Ends it with SIGTERM and returns its exit code.
    pub fn stop(mut self) -> i32 {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// What the admin address answers.
    pub fn admin(&self, path: &str) -> String {
        ask(self.admin, path).unwrap()
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.addr, &self.dir.path().join("ca.pem"), None).await
    }

    /// A connection that reaches the same one of the gateway's two workers as `other`.
    pub async fn connect_beside(&self, other: &mut Client) -> Client {
        let worker = other.conn().worker(2);
        let id = steer::pick_cid(worker, 2, &mut |out| bauta_masque_io::cid::random(out));
        Client::connect(self.addr, &self.dir.path().join("ca.pem"), Some(id)).await
    }
}

fn spawn(dir: &Path, admin: SocketAddr) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut child = command(dir).arg("run").stderr(log).stdout(Stdio::null()).spawn().unwrap();
    for _ in 0..200 {
        if ask(admin, "/healthz").is_some_and(|answer| answer.contains(" 200 ")) {
            return child;
        }
        assert!(child.try_wait().unwrap().is_none(), "{}", read(&dir.join("log")));
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("the gateway did not start: {}", read(&dir.join("log")));
}

fn ask(admin: SocketAddr, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}", self.log());
        }
    }
}

/// What a client heard.
#[derive(Default)]
pub struct Heard {
    pub established: bool,
    pub heads: HashMap<u64, Vec<(String, String)>>,
    pub bodies: HashMap<u64, Vec<u8>>,
    pub finished: HashSet<u64>,
    pub resets: HashMap<u64, u64>,
    pub datagrams: Vec<(u64, Vec<u8>)>,
    pub closed: Option<Closed>,
}

impl Heard {
    pub fn status(&self, stream: u64) -> Option<&str> {
        self.field(stream, ":status")
    }

    pub fn field(&self, stream: u64, name: &str) -> Option<&str> {
        let head = self.heads.get(&stream)?;
        head.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn body(&self, stream: u64) -> &[u8] {
        self.bodies.get(&stream).map_or(&[], Vec::as_slice)
    }
}

impl App for Heard {
    fn datagram(&mut self, _: &mut Connection, stream: u64, payload: DatagramBuf) {
        self.datagrams.push((stream, payload.as_ref().to_vec()));
    }

    fn event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Established => self.established = true,
            Event::Headers { stream, headers, .. } => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let list = headers.iter().map(|h| (text(h.name()), text(h.value()))).collect();
                self.heads.insert(stream, list);
            }
            Event::Data { stream } => {
                let mut buffer = [0; 16384];
                loop {
                    let n = conn.recv_body(stream, &mut buffer);
                    if n == 0 {
                        break;
                    }
                    self.bodies.entry(stream).or_default().extend_from_slice(&buffer[..n]);
                }
            }
            Event::Finished { stream } => drop(self.finished.insert(stream)),
            Event::Reset { stream, code } | Event::Stopped { stream, code } => {
                self.resets.insert(stream, code);
            }
            Event::Closed(closed) => self.closed = Some(closed),
            _ => {}
        }
    }
}

pub struct Client {
    pub endpoint: Endpoint,
    pub conn: ConnId,
    pub heard: Heard,
    pub ca: PathBuf,
}

impl Client {
    pub async fn connect(to: SocketAddr, ca: &Path, id: Option<[u8; 8]>) -> Self {
        let bind: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(bind, &BindOptions::default()).unwrap();
        let mut endpoint = Endpoint::client(socket, EndpointConfig::default()).unwrap();
        let tls =
            ClientTls { roots: Roots::Pem(ca.to_owned()), transport: TransportConfig::client() };
        let mut config = quic_client_config(&tls).unwrap();
        let id = id.as_ref().map(<[u8; 8]>::as_slice);
        let conn = endpoint.connect_marked(to, "site.test", &mut config, id).unwrap();
        let mut client = Self { endpoint, conn, heard: Heard::default(), ca: ca.to_owned() };
        client.until(|heard| heard.established).await;
        client
    }

    /// Runs the connection until `done`, or panics.
    pub async fn until(&mut self, done: impl Fn(&Heard) -> bool) {
        assert!(self.run(PATIENCE, done).await, "waited in vain");
    }

    /// Runs the connection until `done`, at most for `time`; whether it came to that.
    pub async fn run(&mut self, time: Duration, done: impl Fn(&Heard) -> bool) -> bool {
        let end = clock::now() + time;
        loop {
            self.endpoint.flush(clock::now(), &mut self.heard);
            if done(&self.heard) {
                return true;
            }
            if clock::now() >= end {
                return false;
            }
            let due = self.endpoint.timeout().map_or(end, |at| at.min(end));
            tokio::select! {
                ready = self.endpoint.readable() => {
                    ready.unwrap();
                    self.endpoint.handle_readable(clock::now(), &mut self.heard);
                }
                () = self.endpoint.writable() => {}
                () = tokio::time::sleep_until(due.into()) => {
                    self.endpoint.handle_timeout(clock::now(), &mut self.heard);
                }
            }
        }
    }

    pub fn conn(&mut self) -> &mut Connection {
        self.endpoint.touch(self.conn);
        self.endpoint.get(self.conn).expect("the connection is gone")
    }

    pub fn request(&mut self, fields: &[(&str, &str)], fin: bool) -> u64 {
        let headers: Vec<_> =
            fields.iter().map(|(n, v)| Header::new(n.as_bytes(), v.as_bytes())).collect();
        self.conn().request(&headers, fin).unwrap()
    }

    pub fn get(&mut self, path: &str) -> u64 {
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "site.test"),
            (":path", path),
        ];
        self.request(&fields, true)
    }

    /// Asks for a CONNECT-UDP tunnel to 127.0.0.1.
    pub fn connect_udp(&mut self, port: u16, token: &str) -> u64 {
        let path = format!("/.well-known/masque/udp/127.0.0.1/{port}/");
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "connect-udp"),
            (":scheme", "https"),
            (":authority", "site.test"),
            (":path", &path),
            ("capsule-protocol", "?1"),
            ("authorization", &format!("Bearer {token}")),
        ];
        self.request(&fields, false)
    }

    /// Asks for an unlimited CONNECT-IP tunnel.
    pub fn connect_ip(&mut self, token: &str) -> u64 {
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "connect-ip"),
            (":scheme", "https"),
            (":authority", "site.test"),
            (":path", "/.well-known/masque/ip/*/*/"),
            ("capsule-protocol", "?1"),
            ("authorization", &format!("Bearer {token}")),
        ];
        self.request(&fields, false)
    }

    pub async fn answer(&mut self, stream: u64) -> (String, Vec<u8>) {
        self.until(|heard| heard.finished.contains(&stream) || heard.resets.contains_key(&stream))
            .await;
        let status = self.heard.status(stream).unwrap_or_default().to_owned();
        (status, self.heard.body(stream).to_vec())
    }
}

/// A UDP echo on loopback; returns its port.
pub fn udp_echo() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..n], from);
        }
    });
    port
}

/// A TCP echo on loopback; returns its port.
pub fn tcp_echo() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &stream, &mut &stream);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    port
}
