use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use boring::ssl::SelectCertError;
use serde_json::{Value as Json, json};

use super::quic::{INITIAL_SOURCE_CONNECTION_ID, VERSION_INFORMATION};
use super::*;
use crate::tls::{ClientTls, Roots, TransportConfig, quic_client_config, server};

/// What a server reads of a first flight.
struct Seen {
    hello: Vec<u8>,
    datagrams: Vec<usize>,
}

fn first_flight() -> Seen {
    let (a, b): (SocketAddr, SocketAddr) =
        ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    // Nobody is trusted: the handshake is only begun.
    let client = ClientTls { roots: Roots::PinnedSpki([0; 32]), ..ClientTls::default() };
    let mut config = quic_client_config(&client).unwrap();
    let scid = [7; 8];
    let mut conn = quiche::connect(
        Some("site.test"),
        &quiche::ConnectionId::from_ref(&scid),
        a,
        b,
        &mut config,
    )
    .unwrap();
    disguise(conn.as_mut(), &scid).unwrap();

    let hello = Arc::new(Mutex::new(Vec::new()));
    let mut tls = server::tls13().unwrap();
    let keep = hello.clone();
    tls.set_select_certificate_callback(move |seen| {
        *keep.lock().unwrap() = seen.as_bytes().to_vec();
        Err(SelectCertError::ERROR)
    });
    let mut config =
        quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, tls).unwrap();
    TransportConfig::server().apply(&mut config).unwrap();
    let mut server =
        quiche::accept(&quiche::ConnectionId::from_ref(&[9; 8]), None, b, a, &mut config).unwrap();
    let mut datagrams = Vec::new();
    let mut buf = [0; 2048];
    while let Ok((n, _)) = conn.send(&mut buf) {
        datagrams.push(n);
        let _ = server.recv(&mut buf[..n], quiche::RecvInfo { from: a, to: b });
    }
    let hello = hello.lock().unwrap().clone();
    Seen { hello, datagrams }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head
    }

    fn number(&mut self, n: usize) -> u64 {
        self.bytes(n).iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn sized(&mut self, n: usize) -> &'a [u8] {
        let len = self.number(n) as usize;
        self.bytes(len)
    }

    fn varint(&mut self) -> u64 {
        let len = 1usize << (self.0[0] >> 6);
        // The two upper bits are the length.
        self.number(len) & (u64::MAX >> (64 - 8 * len) >> 2)
    }
}

fn list(data: &[u8]) -> Vec<u64> {
    data.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1])).collect()
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ciphers and extensions of a ClientHello, GREASE among them.
fn take_apart(hello: &[u8]) -> (Vec<u64>, BTreeMap<u64, &[u8]>, Vec<u64>) {
    let mut reader = Reader(hello);
    reader.bytes(34);
    reader.sized(1);
    let ciphers = list(reader.sized(2));
    reader.sized(1);
    let mut rest = Reader(reader.sized(2));
    let (mut found, mut order) = (BTreeMap::new(), Vec::new());
    while !rest.0.is_empty() {
        let kind = rest.number(2);
        found.insert(kind, rest.sized(2));
        order.push(kind);
    }
    (ciphers, found, order)
}

fn is_grease(value: u64) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

fn steady(values: impl IntoIterator<Item = u64>) -> Vec<u64> {
    values.into_iter().filter(|value| !is_grease(*value)).collect()
}

fn sorted(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    values
}

fn names(data: &[u8]) -> Vec<String> {
    let mut reader = Reader(&data[2..]);
    let mut found = Vec::new();
    while !reader.0.is_empty() {
        found.push(String::from_utf8(reader.sized(1).to_vec()).unwrap());
    }
    found
}

/// What a capture says of a ClientHello. `transport` is JA4's letter.
fn describe(hello: &[u8], transport: char) -> Json {
    let (ciphers, extensions, _) = take_apart(hello);
    let kinds = steady(extensions.keys().copied());
    let algorithms = steady(list(&extensions[&13][2..]));
    let mut reader = Reader(&extensions[&51][2..]);
    let mut shares = Vec::new();
    while !reader.0.is_empty() {
        shares.push(reader.number(2));
        reader.sized(2);
    }
    let suites = steady(ciphers);
    let alpn = names(extensions[&16]);
    let (first, last) = (&alpn[0][..1], &alpn[0][alpn[0].len() - 1..]);
    let shown = kinds.iter().copied().filter(|kind| ![0, 16].contains(kind)).collect::<Vec<_>>();
    let ja4 = format!(
        "{transport}13d{:02}{:02}{first}{last}_{}_{}",
        suites.len(),
        kinds.len(),
        sha(&words(&sorted(suites.clone()))),
        sha(&format!("{}_{}", words(&shown), words(&algorithms)))
    );
    json!({
        "ja4": ja4,
        "cipher_suites": suites,
        "extensions": kinds,
        "grease": extensions.keys().any(|kind| is_grease(*kind)),
        "groups": steady(list(&extensions[&10][2..])),
        "key_shares": steady(shares),
        "signature_algorithms": algorithms,
        "compress_certificate": hex(extensions[&27]),
        "alpn": alpn,
        "application_settings": names(extensions[&0x44cd]),
        "trust_anchors": hex(&extensions[&0xca34][2..]),
    })
}

fn parameters(data: &[u8]) -> Json {
    let mut reader = Reader(data);
    let mut found = BTreeMap::new();
    while !reader.0.is_empty() {
        let id = reader.varint();
        let len = reader.varint() as usize;
        let value = reader.bytes(len);
        let value = match id {
            INITIAL_SOURCE_CONNECTION_ID => continue,
            _ if id % 31 == 27 => continue,
            VERSION_INFORMATION => json!(hex(&value[..value.len() - 4])),
            ..0x40 => json!(Reader(value).varint()),
            _ => json!(hex(value)),
        };
        found.insert(id, value);
    }
    found.into_iter().map(|(id, value)| json!({ "id": id, "value": value })).collect()
}

fn sha(text: &str) -> String {
    hex(&boring::sha::sha256(text.as_bytes()))[..12].to_owned()
}

fn words(values: &[u64]) -> String {
    values.iter().map(|v| format!("{v:04x}")).collect::<Vec<_>>().join(",")
}

fn captured() -> Json {
    serde_json::from_str(include_str!("../../../fingerprint/chromium.json")).unwrap()
}

#[track_caller]
fn assert_same(ours: &Json, captured: &Json) {
    for (field, ours) in ours.as_object().unwrap() {
        assert_eq!(&captured[field], ours, "{field}");
    }
}

#[test]
fn a_first_flight_says_what_chromium_says() {
    let seen = first_flight();
    let captured = &captured()["quic"];
    assert_same(&describe(&seen.hello, 'q'), captured);
    let (_, extensions, _) = take_apart(&seen.hello);
    assert_eq!(captured["transport_parameters"], parameters(extensions[&57]));
    assert_eq!(captured["datagrams"], json!(seen.datagrams.len()));
}

/// Keeps what is written, and has nothing to be read.
#[derive(Debug)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Read for Kept {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Kept {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The ClientHello over TCP, without the headers of record and message.
fn over_tcp(name: &str) -> Vec<u8> {
    let tls = TcpTls::new(&Roots::PinnedSpki([0; 32])).unwrap();
    let record = Arc::new(Mutex::new(Vec::new()));
    tls.begin(name).unwrap().connect(Kept(record.clone())).unwrap_err();
    let record = record.lock().unwrap();
    let mut reader = Reader(&record);
    assert_eq!(reader.bytes(3), [22, 3, 1]);
    assert_eq!(reader.sized(2).len() + 5, record.len(), "one record");
    record[9..].to_vec()
}

#[test]
fn a_hello_over_tcp_says_what_chromium_says() {
    let hello = over_tcp("site.test");
    assert_same(&describe(&hello, 't'), &captured()["tcp"]);
    let (ciphers, extensions, order) = take_apart(&hello);
    let (first, last) = (order[0], order[order.len() - 1]);
    assert!(is_grease(ciphers[0]) && is_grease(first) && is_grease(last), "{ciphers:?} {order:?}");
    assert_eq!(extensions[&0][5..], *b"site.test");
    let orders: Vec<_> = (0..4).map(|_| take_apart(&over_tcp("site.test")).2).collect();
    assert!(orders.windows(2).any(|pair| pair[0][1..] != pair[1][1..]), "{orders:?}");
    // An address is no server name (RFC 6066 section 3).
    assert!(!take_apart(&over_tcp("192.0.2.1")).1.contains_key(&0));
}

#[test]
fn no_two_first_flights_are_in_the_same_order() {
    let orders: Vec<_> = (0..4).map(|_| take_apart(&first_flight().hello).2).collect();
    assert!(orders.windows(2).any(|pair| pair[0] != pair[1]), "{orders:?}");
    let shuffled: Vec<_> =
        (0..4).map(|_| quic::encode(&chromium().unwrap().quic, &[7; 8]).unwrap()).collect();
    assert!(shuffled.windows(2).all(|pair| pair[0] != pair[1]));
}
