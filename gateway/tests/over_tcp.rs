//! The same tunnels where QUIC does not get through: HTTP/2 and HTTP/1.1 over the real gateway.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use bauta_masque::datagram::CONTEXT_ID_ZERO;
use bauta_masque::encode_datagram_capsule;
use bauta_masque_io::tcp::client::{Answer, Dialled, TunnelRequest};
use bauta_masque_io::tls::{Roots, TcpTls};
use common::{Gateway, udp_echo};
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asks for CONNECT-UDP to a port of loopback.
async fn udp(gateway: &Gateway, alpn: &'static [u8], port: u16, token: Option<&str>) -> Answer {
    let roots = Roots::Pem(gateway.dir.path().join("ca.pem"));
    let tls = TcpTls::offering(&roots, &[alpn]).unwrap();
    let tcp = TcpStream::connect(gateway.addr).await.unwrap();
    let dialled = Dialled::new(tcp, "site.test", &tls).await.unwrap();
    let mut fields = HeaderMap::new();
    fields.insert("capsule-protocol", HeaderValue::from_static("?1"));
    if let Some(token) = token {
        fields.insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let request = TunnelRequest {
        protocol: Some("connect-udp"),
        authority: format!("site.test:{}", gateway.addr.port()),
        path: format!("/.well-known/masque/udp/127.0.0.1/{port}/"),
        fields,
    };
    let asked = tokio::time::timeout(Duration::from_secs(10), dialled.ask(&request));
    asked.await.unwrap().unwrap()
}

const BOTH: [(&[u8], u16); 2] = [(b"h2", 200), (b"http/1.1", 101)];

#[tokio::test]
async fn rule_33_34_connect_udp_is_carried_in_capsules_over_http_2_and_1() {
    let gateway = Gateway::start("");
    let port = udp_echo();
    for (alpn, status) in BOTH {
        let answer = udp(&gateway, alpn, port, Some(&gateway.token)).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.headers["capsule-protocol"], "?1");
        assert!(answer.headers.contains_key("proxy-status"));
        let mut stream = answer.stream.unwrap();
        for size in [1usize, 1200, 1400] {
            let payload = vec![size as u8; size];
            let capsule = encode_datagram_capsule(&CONTEXT_ID_ZERO, &payload);
            // In two pieces, so that a capsule is not taken for a read.
            let (head, tail) = capsule.split_at(capsule.len() / 2);
            stream.write_all(head).await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            stream.write_all(tail).await.unwrap();
            stream.flush().await.unwrap();
            let mut echoed = vec![0; capsule.len()];
            let read =
                tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut echoed));
            read.await.unwrap().unwrap();
            assert_eq!(echoed, capsule);
        }
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
        end.await.unwrap().unwrap();
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn rule_46_a_refused_upgrade_says_why_to_account_holders_alone() {
    let gateway = Gateway::start("");
    for (alpn, _) in BOTH {
        // Port 0 is malformed; a stranger meets the website.
        let told = udp(&gateway, alpn, 0, Some(&gateway.token)).await;
        assert_eq!(told.status, 400);
        assert!(told.headers.contains_key("proxy-status"));
        assert_eq!(told.headers.contains_key("connection"), alpn == b"http/1.1");
        for token in [None, Some("wrong")] {
            let met = udp(&gateway, alpn, 9, token).await;
            assert!(met.stream.is_none());
            assert!(!met.headers.contains_key("proxy-status"));
            assert!(met.status.is_client_error(), "{}", met.status);
        }
    }
}

#[tokio::test]
async fn a_removed_account_loses_its_tunnels_over_tcp() {
    let gateway = Gateway::start("");
    let port = udp_echo();
    for (alpn, _) in BOTH {
        let mut stream = udp(&gateway, alpn, port, Some(&gateway.token)).await.stream.unwrap();
        assert!(gateway.admin("/sessions").contains("connect-udp"));
        drop(stream.write_all(&encode_datagram_capsule(&CONTEXT_ID_ZERO, b"x")).await);
        drop(stream);
        for _ in 0..200 {
            if !gateway.admin("/sessions").contains("connect-udp") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        assert!(!gateway.admin("/sessions").contains("connect-udp"));
    }
    let mut stream = udp(&gateway, b"h2", port, Some(&gateway.token)).await.stream.unwrap();
    let removed = common::command(gateway.dir.path()).args(["user", "remove", "alice"]).output();
    assert!(removed.unwrap().status.success());
    gateway.signal(nix::sys::signal::Signal::SIGHUP);
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
    end.await.unwrap().unwrap();
}
