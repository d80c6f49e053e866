//! The real gateway on loopback, over HTTP/3, without CONNECT-IP and without root's doings.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use bauta_masque::datagram::{H3_DATAGRAM_ERROR, H3_MESSAGE_ERROR};
use bytes::Bytes;
use common::{Gateway, tcp_echo, udp_echo};

#[tokio::test]
async fn the_site_answers_over_http_3() {
    let gateway = Gateway::start("");
    let mut client = gateway.connect().await;
    let stream = client.get("/");
    let (status, body) = client.answer(stream).await;
    assert_eq!(status, "200");
    assert!(body.starts_with(b"<!"), "{}", String::from_utf8_lossy(&body));
    assert!(client.heard.field(stream, "date").is_some());
    assert!(client.heard.field(stream, "alt-svc").is_none());
    let stream = client.get("/no-such-page");
    let (status, body) = client.answer(stream).await;
    assert_eq!(status, "404");
    assert!(!body.is_empty(), "the site's own page");
    let head =
        [(":method", "HEAD"), (":scheme", "https"), (":authority", "site.test"), (":path", "/")];
    let stream = client.request(&head, true);
    let (status, body) = client.answer(stream).await;
    assert_eq!((status.as_str(), body.len()), ("200", 0));
    let metrics = gateway.admin("/metrics");
    assert!(metrics.contains("bauta_requests_total{http=\"3\"} 3\n"), "{metrics}");
    assert_eq!(gateway.stop(), 0);
}

#[tokio::test]
async fn a_wrong_token_meets_the_website() {
    let gateway = Gateway::start("");
    let mut client = gateway.connect().await;
    let missing = client.get("/.well-known/masque/udp/127.0.0.1/9/");
    let wanted = client.answer(missing).await;
    assert_eq!(wanted.0, "404");
    let stream = client.connect_udp(9, "wrong");
    assert_eq!(client.answer(stream).await, wanted);
    let fields =
        |list: &[(String, String)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(fields(&client.heard.heads[&stream]), fields(&client.heard.heads[&missing]));
    let connect = [
        (":method", "CONNECT"),
        (":authority", "127.0.0.1:9"),
        ("proxy-authorization", "Basic eDp5"),
    ];
    let stream = client.request(&connect, false);
    assert_eq!(client.answer(stream).await.0, "404");
    for name in ["proxy-status", "proxy-authenticate", "www-authenticate"] {
        assert!(client.heard.field(stream, name).is_none(), "{name}");
    }
}

#[tokio::test]
async fn with_tunnels_switched_off_even_a_good_token_meets_the_website() {
    let gateway = Gateway::start("enabled = false");
    let mut client = gateway.connect().await;
    let stream = client.connect_udp(9, &gateway.token);
    assert_eq!(client.answer(stream).await.0, "404");
    assert!(client.heard.field(stream, "proxy-status").is_none());
}

#[tokio::test]
async fn connect_udp_carries_datagrams_both_ways() {
    let gateway = Gateway::start("");
    let port = udp_echo();
    let mut client = gateway.connect().await;
    let stream = client.connect_udp(port, &gateway.token);
    // Rule 39: datagrams before the answer are kept.
    client.conn().send_datagram(stream, &[0], b"early").unwrap();
    client.until(|heard| heard.heads.contains_key(&stream)).await;
    assert_eq!(client.heard.status(stream), Some("200"));
    assert_eq!(client.heard.field(stream, "capsule-protocol"), Some("?1"));
    let status = client.heard.field(stream, "proxy-status").unwrap();
    assert_eq!(status, "site.test; next-hop=\"127.0.0.1\"");
    for i in 0..100u8 {
        client.conn().send_datagram(stream, &[0], &[i; 1000]).unwrap();
    }
    // Rule 19: a DATAGRAM capsule is a datagram too; rule 13: GREASE is skipped.
    let capsule = bauta_masque::encode_datagram_capsule(&[0], b"capsule");
    client.conn().send_body(stream, Bytes::from_static(&[0x17, 2, 9, 9]), false);
    client.conn().send_body(stream, capsule, false);
    client.until(|heard| heard.datagrams.len() == 102).await;
    let has = |wanted: &[u8]| client.heard.datagrams.iter().any(|(_, d)| d[1..] == *wanted);
    assert!(has(b"early") && has(b"capsule") && has(&[99; 1000]));
    let sessions = gateway.admin("/sessions");
    assert!(sessions.contains("\"account\":\"alice\",\"kind\":\"connect-udp\""), "{sessions}");
    // Rule 78: a FIN is an orderly end.
    client.conn().send_body(stream, Bytes::new(), true);
    client.until(|heard| heard.finished.contains(&stream)).await;
    assert!(gateway.admin("/metrics").contains("bauta_tunnels{kind=\"connect-udp\"} 0\n"));
    assert_eq!(gateway.stop(), 0);
}

#[tokio::test]
async fn a_thousand_flows_at_once() {
    let gateway = Gateway::start("");
    let port = udp_echo();
    let mut client = gateway.connect().await;
    let mut streams = Vec::new();
    for chunk in 0..10 {
        for _ in 0..99 {
            streams.push(client.connect_udp(port, &gateway.token));
        }
        let opened = (chunk + 1) * 99;
        client.until(|heard| heard.heads.len() == opened).await;
    }
    for (i, stream) in streams.iter().enumerate() {
        client.conn().send_datagram(*stream, &[0], &(i as u32).to_be_bytes()).unwrap();
        if i % 50 == 0 {
            client.run(Duration::from_millis(5), |_| false).await;
        }
    }
    let all = streams.len();
    client.run(Duration::from_secs(5), |heard| heard.datagrams.len() == all).await;
    assert_eq!(client.heard.datagrams.len(), all);
    let metrics = gateway.admin("/metrics");
    assert!(metrics.contains("bauta_tunnels{kind=\"connect-udp\"} 990\n"), "{metrics}");
}

#[tokio::test]
async fn refusals_name_their_reason_to_account_holders() {
    let gateway = Gateway::start("flows = 1");
    let mut client = gateway.connect().await;
    let token = gateway.token.clone();
    let ask = |client: &mut common::Client, host: &str| {
        let path = format!("/.well-known/masque/udp/{host}/53/");
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "connect-udp"),
            (":scheme", "https"),
            (":authority", "site.test"),
            (":path", &path),
            ("proxy-authorization", &format!("Bearer {token}")),
        ];
        client.request(&fields, false)
    };
    for (host, status, error) in [
        ("127.0.0.2", "502", "error=destination_ip_prohibited"),
        ("169.254.169.254", "502", "error=destination_ip_prohibited"),
        ("%3A%3A1", "502", "error=destination_ip_prohibited"),
        ("no-such-name.invalid", "502", "error=dns_error"),
        ("a%20b", "400", "error=http_request_error"),
    ] {
        let stream = ask(&mut client, host);
        assert_eq!(client.answer(stream).await.0, status, "{host}");
        let told = client.heard.field(stream, "proxy-status").unwrap();
        assert!(told.contains(error), "{host}: {told}");
    }
    let port = udp_echo();
    let first = client.connect_udp(port, &token);
    client.until(|heard| heard.heads.contains_key(&first)).await;
    let second = client.connect_udp(port, &token);
    assert_eq!(client.answer(second).await.0, "503");
    assert!(client.heard.field(second, "proxy-status").unwrap().contains("connection_limit"));
}

#[tokio::test]
async fn an_unreachable_target_ends_the_flow_and_a_malformed_capsule_aborts_it() {
    let gateway = Gateway::start("");
    let mut client = gateway.connect().await;
    let nobody = common::free_port();
    let stream = client.connect_udp(nobody, &gateway.token);
    client.until(|heard| heard.heads.contains_key(&stream)).await;
    client.conn().send_datagram(stream, &[0], b"anyone?").unwrap();
    client.until(|heard| heard.finished.contains(&stream)).await;
    // Rule 17: truncated at the end of the stream.
    let stream = client.connect_udp(udp_echo(), &gateway.token);
    client.until(|heard| heard.heads.contains_key(&stream)).await;
    client.conn().send_body(stream, Bytes::from_static(&[0, 9, 1]), true);
    client.until(|heard| heard.resets.contains_key(&stream)).await;
    assert_eq!(client.heard.resets[&stream], H3_MESSAGE_ERROR);
    // Rule 1: a datagram on a request without datagrams.
    let fields =
        [(":method", "POST"), (":scheme", "https"), (":authority", "site.test"), (":path", "/")];
    let stream = client.request(&fields, false);
    client.conn().send_datagram(stream, &[0], b"odd").unwrap();
    client.until(|h| h.resets.contains_key(&stream) || h.finished.contains(&stream)).await;
    if let Some(code) = client.heard.resets.get(&stream) {
        assert!([H3_DATAGRAM_ERROR, 0x100].contains(code), "{code:#x}");
    }
    // And the connection goes on.
    let stream = client.get("/");
    assert_eq!(client.answer(stream).await.0, "200");
}

#[tokio::test]
async fn connect_carries_a_stream_with_back_pressure() {
    let gateway = Gateway::start("");
    let mut client = gateway.connect().await;
    let authority = format!("127.0.0.1:{}", tcp_echo());
    let fields = [
        (":method", "CONNECT"),
        (":authority", authority.as_str()),
        ("proxy-authorization", &format!("Bearer {}", gateway.token)),
    ];
    let stream = client.request(&fields, false);
    client.until(|heard| heard.heads.contains_key(&stream)).await;
    assert_eq!(client.heard.status(stream), Some("200"));
    let sent: Vec<u8> = (0..4_000_000u32).map(|i| (i % 251) as u8).collect();
    client.conn().send_body(stream, sent.clone().into(), true);
    client.until(|heard| heard.finished.contains(&stream)).await;
    assert!(client.heard.body(stream) == sent, "{} bytes", client.heard.body(stream).len());
    // Nobody listens there.
    let authority = format!("127.0.0.1:{}", common::free_port());
    let fields = [fields[0], (":authority", authority.as_str()), fields[2]];
    let stream = client.request(&fields, false);
    assert_eq!(client.answer(stream).await.0, "502");
    assert!(client.heard.field(stream, "proxy-status").unwrap().contains("connection_refused"));
}

#[tokio::test]
async fn bodies_stream_both_ways_through_an_upstream() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Read, Write};
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(&stream);
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                let lower = line.to_lowercase();
                if let Some(n) = lower.strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                line.clear();
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let _ = (&stream).write_all(head.as_bytes());
            let _ = std::io::copy(&mut reader.take(length), &mut &stream);
        }
    });
    let site = format!("[site]\nkind = \"upstream\"\nurl = \"http://127.0.0.1:{port}\"");
    let gateway = Gateway::start(&site);
    let mut client = gateway.connect().await;
    let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i % 241) as u8).collect();
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "site.test"),
        (":path", "/echo"),
        ("content-length", "3000000"),
    ];
    let stream = client.request(&fields, false);
    client.conn().send_body(stream, sent.clone().into(), true);
    let (status, body) = client.answer(stream).await;
    assert_eq!(status, "200");
    assert!(body == sent, "{} bytes", body.len());
}

#[tokio::test]
async fn an_accounts_rate_holds_for_datagrams() {
    let gateway = Gateway::start("rate = \"8mbit\"");
    let mut client = gateway.connect().await;
    let stream = client.connect_udp(udp_echo(), &gateway.token);
    client.until(|heard| heard.heads.contains_key(&stream)).await;
    for _ in 0..400 {
        client.conn().send_datagram(stream, &[0], &[7; 1000]).unwrap();
    }
    client.run(Duration::from_millis(500), |_| false).await;
    let came = client.heard.datagrams.len();
    assert!((50..300).contains(&came), "{came} of 400 kB at once, 100 ms of 1 MB/s admitted");
    assert!(!gateway.admin("/metrics").contains("why=\"rate\"} 0\n"));
}

#[tokio::test]
async fn a_removed_account_loses_its_tunnels_and_a_reload_keeps_the_others() {
    let gateway = Gateway::start("");
    let user = |args: &[&str]| {
        let output = common::command(gateway.dir.path()).arg("user").args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let link = user(&["add", "bob", "--quiet"]);
    let bob = link.strip_prefix("bauta://").unwrap().split('@').next().unwrap().to_owned();
    let port = udp_echo();
    let mut client = gateway.connect().await;
    client.run(Duration::from_millis(1500), |_| false).await;
    let alices = client.connect_udp(port, &gateway.token);
    let bobs = client.connect_udp(port, &bob);
    client.until(|heard| heard.heads.len() == 2).await;
    assert_eq!(client.heard.status(bobs), Some("200"), "a new account works within a second");
    user(&["remove", "bob"]);
    client.until(|heard| heard.finished.contains(&bobs)).await;
    common::certificate(gateway.dir.path(), "site.test");
    gateway.signal(nix::sys::signal::Signal::SIGHUP);
    client.run(Duration::from_millis(300), |_| false).await;
    client.conn().send_datagram(alices, &[0], b"still here").unwrap();
    client.until(|heard| !heard.datagrams.is_empty()).await;
    let mut fresh = gateway.connect().await;
    let stream = fresh.get("/");
    assert_eq!(fresh.answer(stream).await.0, "200", "with the new certificate");
    assert!(gateway.log().contains("were read again"));
}

/// What curl says, with the gateway's authority and address.
fn curl(gateway: &Gateway, args: &[&str]) -> String {
    let resolve = format!("site.test:{}:127.0.0.1", gateway.addr.port());
    let output = std::process::Command::new("curl")
        .args(["-sS", "-i", "--max-time", "10", "--resolve", &resolve, "--cacert"])
        .arg(gateway.dir.path().join("ca.pem"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn the_site_and_connect_over_http_1_and_2() {
    let gateway = Gateway::start("");
    let url = format!("https://site.test:{}/", gateway.addr.port());
    let offer = format!("alt-svc: h3=\":{}\"", gateway.addr.port());
    for (version, status) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
        let answer = curl(&gateway, &[version, &url]);
        assert!(answer.starts_with(status), "{answer}");
        assert!(answer.contains(&offer) && answer.contains("<!"), "{answer}");
        assert!(curl(&gateway, &[version, &format!("{url}nothing")]).contains(" 404"));
    }
    // Through the gateway to a plain server on loopback, by CONNECT.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\ninside");
        }
    });
    let proxy = format!("https://site.test:{}", gateway.addr.port());
    let ca = gateway.dir.path().join("ca.pem");
    let through = |token: &str| {
        let user = format!("alice:{token}");
        let ca = ca.to_str().unwrap();
        let proxy =
            ["--proxytunnel", "--proxy", &proxy, "--proxy-cacert", ca, "--proxy-user", &user];
        curl(&gateway, &[&proxy[..], &[target.as_str()]].concat())
    };
    let answer = through(&gateway.token);
    assert!(answer.contains("inside") && answer.contains("next-hop"), "{answer}");
    // A stranger meets the site's 404, and nothing that smells of a proxy.
    let answer = through("wrong");
    assert!(answer.contains("HTTP/1.1 404") && !answer.contains("inside"), "{answer}");
    assert!(!answer.to_lowercase().contains("proxy-"), "{answer}");
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let gateway = Gateway::start("");
    let dir = gateway.dir.path();
    let config = std::fs::read_to_string(dir.join("gateway.toml")).unwrap();
    let run = |config: &str, command: &str| {
        std::fs::write(dir.join("gateway.toml"), config).unwrap();
        let output = common::command(dir).arg(command).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&config, "check").0, Some(0));
    let (code, error) = run(&config, "run");
    assert_eq!(code, Some(1));
    assert!(error.contains("listen") && error.contains("ss -"), "port in use: {error}");
    let (_, error) = run(&config.replace("cert.pem", "none.pem"), "check");
    assert!(error.contains("none.pem") && error.contains("[tls]"), "{error}");
    let (_, error) = run(&config.replace("site.test", "other.test"), "check");
    assert!(error.contains("not for other.test"), "{error}");
    let (_, error) = run(&config.replace("user = \"root\"", "user = \"nobody-at-all\""), "check");
    assert!(error.contains("no such user"), "{error}");
    let (_, error) = run(&config.replace("ip = false", "ipp = false"), "check");
    assert!(error.contains("gateway.toml:") && error.contains("unknown field `ipp`"), "{error}");
}
