//! Concealed authentication (RFC 9729) against the real gateway on loopback.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bauta_masque::concealed::Origin;
use bauta_masque_io::concealed::SigningKey;
use common::{Client, Gateway, command, udp_echo};

const SITE: Origin<'_> = Origin { scheme: b"https", host: b"site.test", port: 443 };

fn user(gateway: &Gateway, words: &[&str]) -> String {
    let output = command(gateway.dir.path()).arg("user").args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn key() -> (SigningKey, String) {
    let key = SigningKey::from_seed(&SigningKey::new_seed()).unwrap();
    let text = URL_SAFE_NO_PAD.encode(key.public_key());
    (key, text)
}

fn connect_udp(client: &mut Client, port: u16, credential: &str) -> u64 {
    let path = format!("/.well-known/masque/udp/127.0.0.1/{port}/");
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "connect-udp"),
        (":scheme", "https"),
        (":authority", "site.test"),
        (":path", &path),
        ("authorization", credential),
    ];
    client.request(&fields, false)
}

#[tokio::test]
async fn rules_87_to_91_a_key_opens_a_tunnel_and_its_revocation_ends_it() {
    let gateway = Gateway::start("");
    let (key, text) = key();
    let link = user(&gateway, &["add", "keyed", "--key", &text, "--quiet"]);
    assert_eq!(link.trim(), format!("bauta://site.test:{}", gateway.addr.port()), "no secret");
    let port = udp_echo();
    let mut client = gateway.connect().await;
    client.run(Duration::from_millis(1500), |_| false).await;
    let credential = key.authorization(client.conn(), SITE).unwrap();
    let tunnel = connect_udp(&mut client, port, &credential);
    client.until(|heard| heard.heads.contains_key(&tunnel)).await;
    assert_eq!(client.heard.status(tunnel), Some("200"));
    client.conn().send_datagram(tunnel, &[0], b"signed").unwrap();
    client.until(|heard| !heard.datagrams.is_empty()).await;
    // The same words on another connection, of another key, for another name: a page that is not there.
    let missing = client.get("/.well-known/masque/udp/127.0.0.1/9/");
    let wanted = client.answer(missing).await;
    assert_eq!(wanted.0, "404");
    let mut other = gateway.connect().await;
    let replayed = connect_udp(&mut other, port, &credential);
    assert_eq!(other.answer(replayed).await, wanted, "a replay");
    let stranger = self::key().0.authorization(other.conn(), SITE).unwrap();
    let refused = connect_udp(&mut other, port, &stranger);
    assert_eq!(other.answer(refused).await, wanted, "an unknown key");
    let elsewhere = Origin { host: b"other.test", ..SITE };
    let elsewhere = key.authorization(other.conn(), elsewhere).unwrap();
    let refused = connect_udp(&mut other, port, &elsewhere);
    assert_eq!(other.answer(refused).await, wanted, "signed for another name");
    let good = key.authorization(other.conn(), SITE).unwrap();
    let welcome = connect_udp(&mut other, port, &good);
    other.until(|heard| heard.heads.contains_key(&welcome)).await;
    assert_eq!(other.heard.status(welcome), Some("200"), "failures before it do no harm");
    user(&gateway, &["key", "keyed", &text, "--revoke"]);
    client.until(|heard| heard.finished.contains(&tunnel)).await;
    let again = connect_udp(&mut client, port, &credential);
    assert_eq!(client.answer(again).await, wanted, "revoked");
    assert!(!gateway.log().contains(&text), "keys are not logged");
}

#[tokio::test]
async fn rule_92_what_servers_tell_each_other_is_taken_from_nobody() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let n = stream.read(&mut request).unwrap_or(0);
            let _ = told.send(String::from_utf8_lossy(&request[..n]).to_lowercase());
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let site = format!("[site]\nkind = \"upstream\"\nurl = \"http://127.0.0.1:{port}\"");
    let gateway = Gateway::start(&site);
    let mut client = gateway.connect().await;
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "site.test"),
        (":path", "/over-h3"),
        ("concealed-auth-export", ":AAAA:"),
        ("x-other", "kept"),
    ];
    let stream = client.request(&fields, true);
    assert_eq!(client.answer(stream).await.0, "200");
    let url = format!("https://site.test:{}/over-tcp", gateway.addr.port());
    let resolve = format!("site.test:{}:127.0.0.1", gateway.addr.port());
    let ca = gateway.dir.path().join("ca.pem");
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "10", "--resolve", &resolve, "--cacert"])
        .arg(ca)
        .args(["-H", "Concealed-Auth-Export: :AAAA:", "-H", "X-Other: kept", &url])
        .status()
        .unwrap();
    assert!(curl.success());
    for _ in 0..2 {
        let request = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(request.contains("x-other: kept"), "{request}");
        assert!(!request.contains("concealed-auth-export"), "{request}");
    }
}
