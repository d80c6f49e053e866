use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use boring::ssl::SelectCertError;
use serde_json::{Value as Json, json};

use super::*;
use crate::tls::{ClientTls, TransportConfig, quic_client_config, server};

/// What a server reads of a first flight.
struct Seen {
    hello: Vec<u8>,
    datagrams: Vec<usize>,
}

fn first_flight() -> Seen {
    let (a, b): (SocketAddr, SocketAddr) =
        ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    // Nobody is trusted: the handshake is only begun.
    let client =
        ClientTls { roots: crate::tls::Roots::PinnedSpki([0; 32]), ..ClientTls::default() };
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

/// The ciphers and extensions of a ClientHello.
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

#[test]
fn a_first_flight_says_what_chromium_says() {
    let captured: Json =
        serde_json::from_str(include_str!("../../../fingerprint/chromium.json")).unwrap();
    let seen = first_flight();
    let (ciphers, extensions, _) = take_apart(&seen.hello);
    let kinds: Vec<u64> = extensions.keys().copied().collect();
    let algorithms = list(&extensions[&13][2..]);
    let mut shares = Reader(&extensions[&51][2..]);
    let mut groups = Vec::new();
    while !shares.0.is_empty() {
        groups.push(shares.number(2));
        shares.sized(2);
    }
    let shown: Vec<u64> = kinds.iter().copied().filter(|k| ![0, 16].contains(k)).collect();
    let mut sorted = ciphers.clone();
    sorted.sort_unstable();
    let ja4 = format!(
        "q13d{:02}{:02}h3_{}_{}",
        ciphers.len(),
        kinds.len(),
        sha(&words(&sorted)),
        sha(&format!("{}_{}", words(&shown), words(&algorithms)))
    );
    for (field, ours) in [
        ("cipher_suites", json!(ciphers)),
        ("extensions", json!(kinds)),
        ("groups", json!(list(&extensions[&10][2..]))),
        ("key_shares", json!(groups)),
        ("signature_algorithms", json!(algorithms)),
        ("compress_certificate", json!(hex(extensions[&27]))),
        ("trust_anchors", json!(hex(&extensions[&0xca34][2..]))),
        ("transport_parameters", parameters(extensions[&57])),
        ("ja4", json!(ja4)),
        ("datagrams", json!(seen.datagrams.len())),
    ] {
        assert_eq!(captured[field], ours, "{field}");
    }
}

#[test]
fn no_two_first_flights_are_in_the_same_order() {
    let orders: Vec<_> = (0..4).map(|_| take_apart(&first_flight().hello).2).collect();
    assert!(orders.windows(2).any(|pair| pair[0] != pair[1]), "{orders:?}");
    let shuffled: Vec<_> = (0..4).map(|_| encode(chromium().unwrap(), &[7; 8]).unwrap()).collect();
    assert!(shuffled.windows(2).all(|pair| pair[0] != pair[1]));
}
