//! The reverse proxy against a real hyper server on loopback.

use crate::{Body, ClientAddr, Site, SiteConfig, SiteError, Source, Timeouts};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use tower::ServiceExt;

/// Fifty megabytes, in pieces of 16 KiB.
const PIECES: usize = 3200;
const PIECE: Bytes = Bytes::from_static(&[7; 16 * 1024]);
/// What may be under way between two ends on loopback: socket buffers, nothing of ours to speak of.
const UNDER_WAY: usize = 16 << 20;
const SOON: Duration = Duration::from_secs(20);

async fn upstream<F, R>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    address
}

/// An upstream that answers with the head of the request, a line a field.
async fn echo() -> SocketAddr {
    upstream(|request| async move {
        let mut text = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        Response::new(Body::from(text))
    })
    .await
}

fn site_with(source: Source) -> Site {
    Site::new(&SiteConfig { source, alt_svc: None }).unwrap()
}

fn site(address: SocketAddr) -> Site {
    site_with(Source::upstream(format!("http://{address}")))
}

fn impatient(address: SocketAddr) -> Site {
    let moment = Duration::from_millis(150);
    let timeouts = Timeouts { connect: moment, header: moment, idle: moment };
    let url = format!("http://{address}");
    site_with(Source::Upstream { url, preserve_host: false, forwarded: true, timeouts })
}

fn get(target: &str) -> Request<Body> {
    Request::get(target).body(Body::empty()).unwrap()
}

async fn ask(site: &Site, request: Request<Body>) -> Response<Body> {
    timeout(SOON, site.clone().oneshot(request)).await.unwrap().unwrap()
}

async fn text(response: Response<Body>) -> String {
    let octets = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&octets).into_owned()
}

/// Fifty megabytes that count themselves as they are taken.
fn large() -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let pieces = stream::iter(0..PIECES).map(move |_| {
        count.fetch_add(PIECE.len(), SeqCst);
        Ok::<_, Infallible>(PIECE)
    });
    (Body::from_stream(pieces), taken)
}

#[tokio::test]
async fn the_upstream_sees_a_request_of_ours() {
    let address = echo().await;
    let url = format!("http://{address}/base/");
    let request = || {
        let mut request = Request::get("https://shop.test/a?b=c")
            .version(Version::HTTP_2)
            .header("connection", "x-private, close")
            .header("x-private", "1")
            .header("te", "trailers, deflate")
            .header("proxy-authorization", "Basic eDp5")
            .header("authorization", "Basic eDp5")
            .header("x-forwarded-for", "192.0.2.66")
            .header("forwarded", "for=192.0.2.66")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Body::empty())
            .unwrap();
        request.extensions_mut().insert(ClientAddr([203, 0, 113, 9].into()));
        request
    };
    let seen = text(ask(&site_with(Source::upstream(&url)), request()).await).await;
    for expected in [
        "GET /base/a?b=c\n".to_owned(),
        format!("host: {address}\n"),
        "te: trailers\n".into(),
        "connection: te\n".into(),
        "authorization: Basic eDp5\n".into(),
        "cookie: a=1; b=2\n".into(),
        "x-forwarded-for: 203.0.113.9\n".into(),
        "x-forwarded-host: shop.test\n".into(),
        "x-forwarded-proto: https\n".into(),
    ] {
        assert!(seen.contains(&expected), "{expected} in {seen}");
    }
    for unwanted in ["x-private", "proxy-auth", "deflate", "192.0.2.66"] {
        assert!(!seen.contains(unwanted), "{unwanted} in {seen}");
    }
    let timeouts = Timeouts::default();
    let source = Source::Upstream { url, preserve_host: true, forwarded: false, timeouts };
    let seen = text(ask(&site_with(source), request()).await).await;
    assert!(seen.contains("host: shop.test\n") && !seen.contains("forwarded"), "{seen}");
}

#[tokio::test]
async fn the_client_sees_an_answer_of_ours() {
    let address = upstream(|request| async move {
        let status = request.uri().path()[1..].parse().unwrap();
        Response::builder()
            .status(StatusCode::from_u16(status).unwrap())
            .header("keep-alive", "timeout=5")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("alt-svc", "h3=\":1\"")
            .header("proxy-status", "x")
            .header("www-authenticate", "Basic realm=x")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .body(Body::from("made there"))
            .unwrap()
    })
    .await;
    let site = site(address);
    let response = ask(&site, get("/401")).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "the upstream's own pages are its own");
    for name in ["keep-alive", "connection", "x-hop", "alt-svc", "proxy-status", "via", "server"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    assert_eq!(text(response).await, "made there");
    let response = ask(&site, get("/407")).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "only a proxy may ask that");
}

#[tokio::test]
async fn a_large_download_waits_for_its_reader() {
    let (body, sent) = large();
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let address = upstream(move |_| {
        let body = body.lock().unwrap().take().unwrap_or_default();
        async move { Response::new(body) }
    })
    .await;
    let mut body = ask(&site(address), get("/")).await.into_body();
    let mut received = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    sleep(Duration::from_millis(300)).await;
    assert!(sent.load(SeqCst) < UNDER_WAY, "{} sent to a reader at rest", sent.load(SeqCst));
    while let Some(frame) = body.frame().await {
        received += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(received, PIECES * PIECE.len());
}

#[tokio::test]
async fn a_large_upload_waits_for_the_upstream() {
    let address = upstream(|request| async move {
        sleep(Duration::from_millis(300)).await;
        let mut received = 0;
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            received += frame.unwrap().into_data().unwrap().len();
        }
        Response::new(Body::from(received.to_string()))
    })
    .await;
    let (body, taken) = large();
    let site = site(address);
    let request = Request::post("/").body(body).unwrap();
    let answer = tokio::spawn(async move { ask(&site, request).await });
    sleep(Duration::from_millis(200)).await;
    assert!(taken.load(SeqCst) < UNDER_WAY, "{} taken for an upstream at rest", taken.load(SeqCst));
    assert_eq!(text(answer.await.unwrap()).await, (PIECES * PIECE.len()).to_string());
}

#[tokio::test]
async fn trailers_travel_both_ways() {
    fn with_trailers(name: &'static str, value: HeaderValue) -> Body {
        let trailers = HeaderMap::from_iter([(name.parse().unwrap(), value)]);
        let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(trailers)];
        Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>))))
    }
    let address = upstream(|request| async move {
        let collected = request.into_body().collect().await.unwrap();
        let sum = collected.trailers().unwrap()["x-sum"].clone();
        let mut response = Response::new(with_trailers("x-echo", sum));
        response.headers_mut().insert("trailer", HeaderValue::from_static("x-echo"));
        response
    })
    .await;
    let request = Request::post("/").header("trailer", "x-sum").header("te", "trailers");
    let request = request.body(with_trailers("x-sum", HeaderValue::from_static("42"))).unwrap();
    let response = ask(&site(address), request).await;
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-echo"], "42");
    assert_eq!(collected.to_bytes(), "body");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_bad_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let response = ask(&site(address), get("/")).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(text(response).await.contains("Bad Gateway"));
}

#[tokio::test]
async fn an_upstream_that_does_not_accept_is_a_gateway_timeout() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    let timeouts = Timeouts { connect: Duration::from_millis(100), ..Timeouts::default() };
    let url = format!("http://{address}");
    let source = Source::Upstream { url, preserve_host: false, forwarded: true, timeouts };
    let site = site_with(source);
    assert_eq!(ask(&site, get("/")).await.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_a_gateway_timeout() {
    let address = upstream(|_| std::future::pending()).await;
    assert_eq!(ask(&impatient(address), get("/")).await.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn an_upload_that_moves_is_not_timed_out() {
    let address = upstream(|request| async move {
        let length = request.into_body().collect().await.unwrap().to_bytes().len();
        Response::new(Body::from(length.to_string()))
    })
    .await;
    let drip = stream::iter(0..10).then(|_| async {
        sleep(Duration::from_millis(60)).await;
        Ok::<_, Infallible>(Bytes::from_static(b"x"))
    });
    let request = Request::post("/").body(Body::from_stream(drip)).unwrap();
    assert_eq!(text(ask(&impatient(address), request).await).await, "10");
}

#[tokio::test]
async fn an_answer_that_stops_short_fails_where_it_stops() {
    let address = upstream(|_| async {
        let begun = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"begun"))]);
        Response::new(Body::from_stream(begun.chain(stream::pending())))
    })
    .await;
    let mut body = ask(&impatient(address), get("/")).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");
    let end = timeout(SOON, body.frame()).await.unwrap().unwrap();
    assert!(end.is_err());
}

/// Sends when it is dropped.
struct Gone(mpsc::UnboundedSender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_upstream_request_with_it() {
    let (sender, mut gone) = mpsc::unbounded_channel();
    let (arrived, mut arrival) = mpsc::unbounded_channel();
    let address = upstream(move |request| {
        let guard = Gone(sender.clone());
        arrived.send(()).unwrap();
        async move {
            if request.uri().path() == "/silent" {
                sleep(SOON).await;
            }
            let endless = stream::repeat_with(move || {
                let _ = &guard;
                Ok::<_, Infallible>(PIECE)
            });
            Response::new(Body::from_stream(endless))
        }
    })
    .await;
    let site = site(address);
    // In the middle of an answer,
    let mut response = ask(&site, get("/")).await;
    arrival.recv().await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    timeout(SOON / 2, gone.recv()).await.unwrap().unwrap();
    // before it has begun,
    let answer = tokio::spawn(async move { ask(&site, get("/silent")).await });
    arrival.recv().await.unwrap();
    answer.abort();
    timeout(SOON / 2, gone.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_upload_cut_short_is_cut_short_upstream() {
    let (sender, mut ends) = mpsc::unbounded_channel();
    let address = upstream(move |request| {
        let sender = sender.clone();
        async move {
            sender.send(request.into_body().collect().await.is_err()).unwrap();
            Response::new(Body::empty())
        }
    })
    .await;
    let cut = stream::iter([true, false]).then(|more| async move {
        sleep(Duration::from_millis(50)).await;
        more.then_some(PIECE).ok_or(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    let request = Request::post("/").body(Body::from_stream(cut)).unwrap();
    assert_eq!(ask(&site(address), request).await.status(), StatusCode::BAD_GATEWAY);
    assert!(timeout(SOON, ends.recv()).await.unwrap().unwrap(), "the upstream saw no end");
}

#[tokio::test]
async fn no_connect_ever_succeeds() {
    let address = upstream(|request| async move {
        assert_eq!(request.method(), "GET");
        let found = request.uri().path() == "/";
        let mut response = Response::new(Body::from("theirs"));
        *response.status_mut() = if found { StatusCode::OK } else { StatusCode::NOT_FOUND };
        response
    })
    .await;
    let site = site(address);
    for (target, status, theirs) in [
        ("https://shop.test/", 405, false),
        ("https://shop.test/.well-known/masque/udp/a/1/", 404, true),
        ("192.0.2.1:443", 404, false),
    ] {
        let endless = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let request = Request::connect(target).body(endless).unwrap();
        let response = ask(&site, request).await;
        assert_eq!(response.status(), status, "{target}");
        assert_eq!(text(response).await == "theirs", theirs, "{target}");
    }
}

#[tokio::test]
async fn a_path_does_not_climb_out_of_the_prefix() {
    let address = echo().await;
    let site = site_with(Source::upstream(format!("http://{address}/public")));
    for target in ["/../admin", "/%2e%2E/admin", "/a/..%2f", "/a/.%2e"] {
        let response = ask(&site, get(target)).await;
        let climbs = !target.ends_with("%2f");
        assert_eq!(response.status() == StatusCode::NOT_FOUND, climbs, "{target}");
    }
}

#[tokio::test]
async fn a_url_of_no_use_is_explained() {
    for (url, word) in [
        ("https://127.0.0.1/", "https is not supported"),
        ("127.0.0.1:80", "http://host"),
        ("http://user@host/", "user"),
        ("http://a b/", "a b"),
    ] {
        let config = SiteConfig { source: Source::upstream(url), alt_svc: None };
        let error = Site::new(&config).err().unwrap();
        assert!(matches!(error, SiteError::Upstream { .. }));
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_websocket_passes_over_http_1() {
    let address = upstream(|mut request| async move {
        assert_eq!(request.headers()["sec-websocket-key"], "k");
        let switch = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(switch.await.unwrap()));
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(Body::empty())
            .unwrap()
    })
    .await;
    let site = site(address);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(site.map_request(|r: Request<_>| r.map(Body::new)));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connection.with_upgrades().await.unwrap();
    });
    let mut client = TcpStream::connect(front).await.unwrap();
    let head = "GET /live HTTP/1.1\r\nHost: shop.test\r\nConnection: keep-alive, Upgrade\r\n\
                Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(SOON, client.read_u8()).await.unwrap().unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    client.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    timeout(SOON, client.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test]
async fn a_stream_nobody_reads_does_not_stall_another() {
    let address = upstream(|request| async move {
        Response::new(if request.uri().path() == "/large" { large().0 } else { "small".into() })
    })
    .await;
    let site = site(address);
    let (client, server) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let service = TowerToHyperService::new(site.map_request(|r: Request<_>| r.map(Body::new)));
        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http2.serve_connection(TokioIo::new(server), service).await
    });
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client));
    let (mut client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let stalled = client.send_request(get("http://shop.test/large")).await.unwrap();
    for _ in 0..3 {
        let answer = client.send_request(get("http://shop.test/small"));
        let response = timeout(SOON, answer).await.unwrap().unwrap();
        let body = timeout(SOON, response.into_body().collect()).await.unwrap().unwrap();
        assert_eq!(body.to_bytes(), "small");
    }
    drop(stalled);
}
