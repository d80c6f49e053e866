use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tcp::TcpLimits;
use crate::tcp::tests::{HOST, Site};
use crate::tls::Roots;
use crate::tls::tests::Authority;

async fn dial(site: &Site, name: &str, roots: &Roots) -> Result<Dialled, TcpError> {
    let tcp = TcpStream::connect(site.addr).await.unwrap();
    Dialled::new(tcp, name, &TcpTls::new(roots).unwrap()).await
}

fn request(protocol: Option<&'static str>, authority: &str, path: &str) -> TunnelRequest {
    let (authority, path) = (authority.to_owned(), path.to_owned());
    TunnelRequest { protocol, authority, path, fields: HeaderMap::new() }
}

async fn echoes(answer: Answer, sizes: &[usize]) {
    let (mut reader, mut writer) = answer.stream.expect("a stream").split();
    for &size in sizes {
        let sent: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let mut back = vec![0; size];
        let both = async { tokio::join!(writer.write_all(&sent), reader.read_exact(&mut back)) };
        let (written, read) = both.await;
        written.unwrap();
        read.unwrap();
        assert!(back == sent, "{size} bytes");
    }
}

#[tokio::test]
async fn tunnels_go_over_either_http_and_carry_what_fills_the_socket() {
    for (alpn, version) in [("h2", Version::Http2), ("http/1.1", Version::Http1)] {
        let site = Site::speaking(TcpLimits::default(), &[alpn.as_bytes()]);
        let dialled = dial(&site, HOST, &site.authority.roots()).await.unwrap();
        assert_eq!(dialled.version(), version);
        let answer = dialled.ask(&request(Some("echo"), HOST, "/tunnel")).await.unwrap();
        let seen = answer.headers["seen"].to_str().unwrap().to_owned();
        assert!(seen.contains(HOST), "{seen}");
        echoes(answer, &[1, 1500, 8 << 20]).await;
        let dialled = dial(&site, HOST, &site.authority.roots()).await.unwrap();
        let answer = dialled.ask(&request(None, "far.test:443", "")).await.unwrap();
        echoes(answer, &[3]).await;
    }
}

#[tokio::test]
async fn who_is_trusted_is_named_and_the_refused_certificate_told_from_the_rest() {
    let site = Site::start(TcpLimits::default());
    let pin = Roots::PinnedSpki(site.pin());
    for (name, roots) in [(HOST, site.authority.roots()), (HOST, pin.clone()), ("other.test", pin)]
    {
        dial(&site, name, &roots).await.unwrap();
    }
    for (name, roots) in [
        ("other.test", site.authority.roots()),
        ("127.0.0.1", site.authority.roots()),
        (HOST, Authority::new().roots()),
        (HOST, Roots::PinnedSpki([7; 32])),
    ] {
        match dial(&site, name, &roots).await.map(|dialled| dialled.version()) {
            Err(TcpError::Io(e)) if e.kind() == io::ErrorKind::InvalidData => {}
            other => panic!("{name} by {roots:?}: {other:?}"),
        }
    }
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(mute.local_addr().unwrap()).await.unwrap();
    drop(mute.accept().await.unwrap());
    let tls = TcpTls::new(&site.authority.roots()).unwrap();
    let cut = Dialled::new(tcp, HOST, &tls).await.map(|dialled| dialled.version());
    assert!(
        !matches!(&cut, Err(TcpError::Io(e)) if e.kind() == io::ErrorKind::InvalidData),
        "{cut:?}"
    );
    assert!(cut.is_err());
}

#[tokio::test]
async fn the_client_exports_what_the_server_does() {
    let site = Site::start(TcpLimits::default());
    let mut dialled = dial(&site, HOST, &site.authority.roots()).await.unwrap();
    let ours = dialled.export(b"context").expect("TLS 1.3 exports");
    let mut requests = dialled.begin().await.unwrap();
    assert_eq!(requests.export(b"context"), Some(ours));
    let answer = requests.ask(&request(Some("echo"), HOST, "/exported")).await.unwrap();
    let theirs = answer.headers["exported"].to_str().unwrap().to_owned();
    assert_eq!(theirs, format!("{ours:?}").replace(' ', ""));
}
