use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::concealed::Export;
use crate::tls::tests::Authority;
use crate::tls::{HotCertificate, rustls_client_config, rustls_server_config};

pub(super) const HOST: &str = "site.test";

/// Says what it saw; echoes what comes through CONNECT, extended CONNECT and upgrades.
async fn echo(request: Request<Incoming>, peer: Peer) -> Response<Full<Bytes>> {
    let protocol = request.extensions().get::<hyper::ext::Protocol>();
    let seen = format!(
        "{} {} {:?} {:?} {:?}",
        request.method(),
        request.uri(),
        peer.version,
        peer.server_name.as_deref(),
        protocol.map(hyper::ext::Protocol::as_str),
    );
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    if request.uri().path() == "/exported" {
        let exported = peer.exporter.clone().export(b"context").unwrap_or([0; 48]);
        let mut response = Response::new(Full::new(exported.to_vec().into()));
        let shown = format!("{exported:?}").replace(' ', "");
        response.headers_mut().insert("exported", shown.parse().unwrap());
        return response;
    }
    let upgrade = request.headers().contains_key("upgrade");
    if request.method() != Method::CONNECT && !upgrade {
        return Response::new(Full::new(seen.into()));
    }
    tokio::spawn(async move {
        let mut io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let (mut read, mut write) = tokio::io::split(&mut io);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let mut response = Response::new(Full::default());
    response.headers_mut().insert("seen", seen.parse().unwrap());
    if upgrade {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "echo".parse().unwrap());
    }
    response
}

pub(super) struct Site {
    pub(super) addr: SocketAddr,
    pub(super) authority: Authority,
    certificate: Arc<HotCertificate>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    pin: [u8; 32],
}

impl Site {
    pub(super) fn start(limits: TcpLimits) -> Self {
        Self::speaking(limits, &[b"h2", b"http/1.1"])
    }

    pub(super) fn speaking(limits: TcpLimits, alpn: &[&[u8]]) -> Self {
        let authority = Authority::new();
        let issued = authority.issue(HOST);
        let pin = issued.spki_sha256().unwrap();
        let certificate = HotCertificate::new(Some(&issued));
        let tls = rustls_server_config(certificate.clone(), alpn).unwrap();
        let listener = listen("[::]:0".parse().unwrap(), false).unwrap();
        let addr = ([127, 0, 0, 1], listener.local_addr().unwrap().port()).into();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        let served = tokio::spawn(serve(listener, Arc::new(tls), limits, echo, shutdown));
        Self { addr, authority, certificate, stop: Some(stop), served, pin }
    }

    pub(super) fn pin(&self) -> [u8; 32] {
        self.pin
    }

    async fn connect(&self, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let client = rustls_client_config(&self.authority.roots(), alpn).unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let stream = TcpStream::connect(self.addr).await?;
        tokio_rustls::TlsConnector::from(client).connect(name, stream).await
    }

    async fn http1(&self) -> http1::SendRequest<Empty<Bytes>> {
        let io = TokioIo::new(self.connect(&[b"http/1.1"]).await.unwrap());
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    async fn http2(&self) -> http2::SendRequest<Empty<Bytes>> {
        let stream = self.connect(&[b"h2", b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

fn request(method: Method, uri: &str) -> Request<Empty<Bytes>> {
    Request::builder().method(method).uri(uri).header("host", HOST).body(Empty::new()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

async fn echoes(response: Response<Incoming>) {
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"through").await.unwrap();
    let mut back = [0; 7];
    io.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"through");
}

#[tokio::test]
async fn alpn_chooses_between_http_1_and_2() {
    let site = Site::start(TcpLimits::default());
    let answer = site.http1().await.send_request(request(Method::GET, "/a")).await.unwrap();
    assert_eq!(text(answer).await, "GET /a Http1 Some(\"site.test\") None");
    let answer = site.http2().await.send_request(request(Method::GET, "https://site.test/b"));
    let answer = text(answer.await.unwrap()).await;
    assert_eq!(answer, "GET https://site.test/b Http2 Some(\"site.test\") None");
    site.connect(&[b"spdy/3"]).await.unwrap_err();
}

#[tokio::test]
async fn extended_connect_reaches_the_service_with_its_protocol_and_carries_bytes() {
    let site = Site::start(TcpLimits::default());
    let mut sender = site.http2().await;
    // The setting that allows it arrives with the first answer at the latest.
    let first = sender.send_request(request(Method::GET, "https://site.test/")).await.unwrap();
    text(first).await;
    let mut ask = request(Method::CONNECT, "https://site.test/masque");
    ask.extensions_mut().insert(hyper::ext::Protocol::from_static("connect-udp"));
    let answer = sender.send_request(ask).await.unwrap();
    assert_eq!(
        answer.headers()["seen"],
        "CONNECT https://site.test/masque Http2 Some(\"site.test\") Some(\"connect-udp\")"
    );
    echoes(answer).await;
}

#[tokio::test]
async fn plain_connect_and_upgrades_carry_bytes() {
    let site = Site::start(TcpLimits::default());
    let ask = request(Method::CONNECT, "target.test:443");
    echoes(site.http1().await.send_request(ask).await.unwrap()).await;
    let mut sender = site.http2().await;
    let answer = sender.send_request(request(Method::CONNECT, "target.test:443")).await.unwrap();
    assert!(
        answer.headers()["seen"].to_str().unwrap().starts_with("CONNECT target.test:443 Http2")
    );
    echoes(answer).await;
    let mut ask = request(Method::GET, "/masque");
    ask.headers_mut().insert("connection", "upgrade".parse().unwrap());
    ask.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let answer = site.http1().await.send_request(ask).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    echoes(answer).await;
}

#[tokio::test]
async fn a_new_certificate_is_seen_by_new_connections_and_old_ones_go_on() {
    let site = Site::start(TcpLimits::default());
    let leaf = |s: &TlsStream<TcpStream>| s.get_ref().1.peer_certificates().unwrap()[0].clone();
    let first = leaf(&site.connect(&[b"h2"]).await.unwrap());
    let mut old = site.http2().await;
    site.certificate.replace(&site.authority.issue(HOST));
    assert_ne!(leaf(&site.connect(&[b"h2"]).await.unwrap()), first);
    old.send_request(request(Method::GET, "https://site.test/")).await.unwrap();
}

#[tokio::test]
async fn noise_instead_of_a_handshake_disturbs_nobody() {
    let limits =
        TcpLimits { handshake_timeout: Duration::from_millis(100), ..TcpLimits::default() };
    let site = Site::start(limits);
    let mut noise = TcpStream::connect(site.addr).await.unwrap();
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut silent = TcpStream::connect(site.addr).await.unwrap();
    let mut nothing = [0; 8];
    let ended = silent.read(&mut nothing);
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), ended).await.unwrap().unwrap(), 0);
    site.http1().await.send_request(request(Method::GET, "/")).await.unwrap();
}

#[tokio::test]
async fn a_slow_head_is_cut_off() {
    let site =
        Site::start(TcpLimits { header_timeout: Duration::from_millis(100), ..Default::default() });
    let mut stream = site.connect(&[b"http/1.1"]).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest));
    let _ = ended.await.expect("still open");
}

#[tokio::test]
async fn connections_above_the_limit_wait_their_turn() {
    let site = Site::start(TcpLimits { max_connections: 1, ..Default::default() });
    let held = site.connect(&[b"http/1.1"]).await.unwrap();
    let second = site.connect(&[b"http/1.1"]);
    let mut second = std::pin::pin!(second);
    tokio::time::timeout(Duration::from_millis(100), second.as_mut()).await.unwrap_err();
    drop(held);
    tokio::time::timeout(Duration::from_secs(2), second).await.unwrap().unwrap();
}

#[tokio::test]
async fn at_shutdown_requests_in_progress_end_and_new_connections_are_refused() {
    let mut site = Site::start(TcpLimits::default());
    let mut sender = site.http2().await;
    let answer = sender.send_request(request(Method::GET, "https://site.test/slow"));
    let answer = tokio::spawn(answer);
    tokio::time::sleep(Duration::from_millis(50)).await;
    site.stop.take();
    assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    let addr = site.addr;
    tokio::time::timeout(Duration::from_secs(2), site.served).await.unwrap().unwrap();
    TcpStream::connect(addr).await.unwrap_err();
}

#[tokio::test]
async fn a_burst_of_resets_leaves_the_server_serving() {
    let site = Site::start(TcpLimits::default());
    let mut sender = site.http2().await;
    for _ in 0..2000 {
        let answer = sender.send_request(request(Method::GET, "https://site.test/slow"));
        // Dropped before it is answered: a reset.
        let _ = tokio::time::timeout(Duration::from_micros(20), answer).await;
    }
    site.http1().await.send_request(request(Method::GET, "/")).await.unwrap();
}

#[tokio::test]
async fn who_is_still_sending_hears_why_nobody_listens() {
    let site = Site::start(TcpLimits::default());
    for _ in 0..8 {
        let mut stream = site.connect(&[b"http/1.1"]).await.unwrap();
        stream.write_all(b"no request line\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        stream.write_all(&[b'x'; 200_000]).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
    }
}

#[tokio::test]
async fn plain_http_is_for_redirects() {
    let listener = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let addr = listener.local_addr().unwrap();
    let redirect = |request: Request<Incoming>, _: Peer| async move {
        let location = format!("https://{HOST}{}", request.uri().path());
        let response = Response::builder().status(308).header("location", location);
        response.body(Empty::<Bytes>::new()).unwrap_or_default()
    };
    tokio::spawn(serve_plain(listener, TcpLimits::default(), redirect, std::future::pending()));
    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request(Method::GET, "/x")).await.unwrap();
    assert_eq!(answer.headers()["location"], "https://site.test/x");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let first = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let addr = first.local_addr().unwrap();
    let e = listen(addr, false).unwrap_err().to_string();
    assert!(e.contains(&addr.to_string()) && e.contains("another port"), "{e}");
}

#[tokio::test]
async fn both_ends_export_the_same_and_another_connection_something_else() {
    let site = Site::start(TcpLimits::default());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let stream = site.connect(&[b"h2"]).await.unwrap();
        let tls = stream.get_ref().1;
        let label = bauta_masque::concealed::LABEL.as_bytes();
        let ours = tls.export_keying_material([0; 48], label, Some(b"context")).unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("https://{HOST}/exported");
        let response = sender.send_request(request(Method::GET, &uri)).await.unwrap();
        let theirs = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(theirs[..], ours[..]);
        seen.push(ours);
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(<Exporter>::none().export(b"context"), None);
}

#[tokio::test]
async fn who_says_nothing_over_http_2_is_not_kept() {
    let limits = TcpLimits { header_timeout: Duration::from_millis(300), ..TcpLimits::default() };
    let site = Site::start(limits);
    // One never speaks HTTP, one begins and never asks.
    for opening in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut stream = site.connect(&[b"h2"]).await.unwrap();
        stream.write_all(opening).await.unwrap();
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        let ended = tokio::time::timeout(Duration::from_secs(20), read).await;
        assert!(ended.is_ok(), "it is kept");
    }
    // Who has asked once stays.
    let mut sender = site.http2().await;
    let uri = format!("https://{HOST}/");
    sender.send_request(request(Method::GET, &uri)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    sender.send_request(request(Method::GET, &uri)).await.unwrap();
}

#[tokio::test]
async fn one_source_holds_so_many_connections_and_no_more() {
    let site = Site::start(TcpLimits { max_per_source: 2, ..TcpLimits::default() });
    let first = site.connect(&[b"h2"]).await.unwrap();
    let _second = site.connect(&[b"h2"]).await.unwrap();
    assert!(site.connect(&[b"h2"]).await.is_err(), "a third is taken");
    drop(first);
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while site.connect(&[b"h2"]).await.is_err() {
        assert!(tokio::time::Instant::now() < end, "the place is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
