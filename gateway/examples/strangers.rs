//! Times the answers that strangers get, for `tests/bench/run strangers`: requests one after another over one HTTP/3
//! connection, classes in random order, all of one length. Prints `CLASS NANOSECONDS` a request.
//!
//! `strangers ADDRESS NAME CA SEED SAMPLES`: SEED is the secret of a key that has an account, 64 hexadecimal digits.
//! `strangers SEED` prints the public key.
#![expect(clippy::print_stdout, reason = "this is a command's output")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bauta_masque::concealed::{Credential, Origin};
use bauta_masque_io::DatagramBuf;
use bauta_masque_io::concealed::SigningKey;
use bauta_masque_io::tls::{ClientTls, Roots, TransportConfig, quic_client_config};
use bauta_masque_io::udp::{BindOptions, UdpSocket};
use bauta_masque_io::{
    App, ConnId, Connection, Endpoint, EndpointConfig, Event, Header, NameValue, QuicConfig, cid,
    clock,
};

/// Requests on one connection: few enough that no limit of it is near.
const A_CONNECTION: usize = 20_000;
const WARM_UP: usize = 500;
const PATIENCE: Duration = Duration::from_secs(10);
const CLASSES: [&str; 4] = ["missing page", "bad bearer", "unknown key", "bad signature"];

#[derive(Default)]
struct Heard {
    established: bool,
    closed: bool,
    status: Vec<u8>,
    ended: Option<Instant>,
}

impl App for Heard {
    fn datagram(&mut self, _: &mut Connection, _: u64, _: DatagramBuf) {}

    fn event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Established => self.established = true,
            Event::Headers { headers, .. } => {
                let status = headers.iter().find(|field| field.name() == b":status");
                self.status = status.map(|field| field.value().to_vec()).unwrap_or_default();
            }
            Event::Data { stream } => while conn.recv_body(stream, &mut [0; 16384]) > 0 {},
            Event::Finished { .. } => self.ended = Some(clock::now()),
            Event::Closed(_) => self.closed = true,
            _ => {}
        }
    }
}

/// Where requests go.
struct Site {
    at: SocketAddr,
    name: String,
}

impl Site {
    fn origin(&self) -> Origin<'_> {
        Origin { scheme: b"https", host: self.name.as_bytes(), port: self.at.port() }
    }
}

struct Client {
    endpoint: Endpoint,
    conn: ConnId,
    heard: Heard,
}

impl Client {
    async fn connect(site: &Site, quic: &mut QuicConfig) -> Result<Self> {
        let socket = UdpSocket::bind(([127, 0, 0, 1], 0).into(), &BindOptions::default())?;
        let mut endpoint = Endpoint::client(socket, EndpointConfig::default())?;
        let conn = endpoint.connect(site.at, &site.name, quic)?;
        let mut client = Self { endpoint, conn, heard: Heard::default() };
        client.until(|heard| heard.established).await?;
        // The path's MTU is found, and nothing else is under way.
        let settled = clock::now() + Duration::from_millis(300);
        client.until(|_| clock::now() >= settled).await?;
        Ok(client)
    }

    async fn until(&mut self, done: impl Fn(&Heard) -> bool) -> Result<()> {
        let end = clock::now() + PATIENCE;
        loop {
            self.endpoint.flush(clock::now(), &mut self.heard);
            if done(&self.heard) {
                return Ok(());
            }
            ensure!(!self.heard.closed && clock::now() < end, "no answer");
            let due = self.endpoint.timeout().map_or(end, |at| at.min(end));
            let due = due.min(clock::now() + Duration::from_millis(50));
            tokio::select! {
                ready = self.endpoint.readable() => {
                    ready?;
                    self.endpoint.handle_readable(clock::now(), &mut self.heard);
                }
                () = tokio::time::sleep_until(due.into()) => {
                    self.endpoint.handle_timeout(clock::now(), &mut self.heard);
                }
            }
        }
    }

    fn conn(&mut self) -> Result<&mut Connection> {
        self.endpoint.touch(self.conn);
        self.endpoint.get(self.conn).context("the connection is gone")
    }

    /// One request from its sending to the end of its answer.
    async fn time(&mut self, fields: &[Header]) -> Result<Duration> {
        (self.heard.ended, self.heard.status) = (None, Vec::new());
        self.conn()?.request(fields, true)?;
        let begun = clock::now();
        self.until(|heard| heard.ended.is_some()).await?;
        let ended = self.heard.ended.context("no end")?;
        ensure!(
            self.heard.status == b"404",
            "status {:?}",
            String::from_utf8_lossy(&self.heard.status)
        );
        // What is left to acknowledge leaves before the next begins.
        self.until(|_| true).await?;
        Ok(ended - begun)
    }

    fn request(&mut self, site: &Site, class: usize, known: &SigningKey) -> Result<Vec<Header>> {
        const PATH: &str = "/.well-known/masque/udp/203.0.113.9/53/";
        let token = "Bearer 0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
        // Every request costs the asking end the same, whatever it is to hold: what its caches hold when the clock starts
        // would tell the classes apart as well as any gateway.
        let stranger = SigningKey::from_seed(&SigningKey::new_seed()).context("no key")?;
        let unknown = stranger.authorization(self.conn()?, site.origin()).context("no exporter")?;
        let value = known.authorization(self.conn()?, site.origin()).context("no exporter")?;
        let mut forged = Credential::parse(value.as_bytes()).context("not a credential")?;
        let mut noise = [0; 31];
        cid::random(&mut noise);
        forged.proof[..31].copy_from_slice(&noise);
        // What is not this class's credential is a cookie, so that all are of one length, compressed as well.
        let mut cookie = vec![token.to_owned(), unknown, forged.value()];
        let credential = class.checked_sub(1).map(|mine| cookie.remove(mine));
        let mut fields = if class == 0 {
            vec![(":method", "GET".to_owned())]
        } else {
            vec![(":method", "CONNECT".into()), (":protocol", "connect-udp".into())]
        };
        fields.extend([
            (":scheme", "https".into()),
            (":authority", format!("{}:{}", site.name, site.at.port())),
            (":path", PATH.into()),
        ]);
        if class == 0 {
            fields.push(("xprotocol", "connect-udp".into()));
        }
        fields.extend(credential.map(|value| ("authorization", value)));
        fields.push(("cookie", cookie.concat()));
        Ok(fields.iter().map(|(n, v)| Header::new(n.as_bytes(), v.as_bytes())).collect())
    }
}

fn key(seed: &str) -> Result<SigningKey> {
    let bytes: Result<Vec<u8>, _> = (0..32)
        .map(|i| u8::from_str_radix(seed.get(2 * i..2 * i + 2).unwrap_or_default(), 16))
        .collect();
    SigningKey::from_seed(&bytes.context("SEED is not 64 hexadecimal digits")?).context("SEED")
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [seed] = &words[..] {
        println!("{}", URL_SAFE_NO_PAD.encode(key(seed)?.public_key()));
        return Ok(());
    }
    let [at, name, ca, seed, samples] = &words[..] else {
        bail!("strangers ADDRESS NAME CA SEED SAMPLES")
    };
    let site = Site { at: at.parse()?, name: name.clone() };
    let (known, samples): (_, usize) = (key(seed)?, samples.parse()?);
    let tls = ClientTls { roots: Roots::Pem(ca.into()), transport: TransportConfig::client() };
    let mut quic = quic_client_config(&tls)?;
    let mut client = Client::connect(&site, &mut quic).await?;
    let mut left = [samples; CLASSES.len()];
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut sent = 0;
    while left.iter().any(|left| *left > 0) {
        if sent == A_CONNECTION {
            (client, sent) = (Client::connect(&site, &mut quic).await?, 0);
        }
        let mut random = [0];
        cid::random(&mut random);
        let class = usize::from(random[0]) % CLASSES.len();
        let fields = client.request(&site, class, &known)?;
        let took = client.time(&fields).await?;
        sent += 1;
        if sent > WARM_UP && left[class] > 0 {
            left[class] -= 1;
            writeln!(out, "{} {}", CLASSES[class].replace(' ', "-"), took.as_nanos())?;
        }
    }
    Ok(())
}
