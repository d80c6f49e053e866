use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::ServerName;

use super::*;
use crate::clock;

const HOST: &str = "gateway.test";

/// Authorities of one name would be taken for one another.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// A certificate authority made for one test.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("test authority {number}"));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(issuer.pem().as_bytes()).unwrap();
        Self { issuer, file }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::Pem(self.file.path().to_owned())
    }

    fn issue_pem(&self, host: &str, edit: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        edit(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem() + &self.issuer.pem(), key.serialize_pem())
    }

    pub(crate) fn issue(&self, host: &str) -> Certified {
        let (chain, key) = self.issue_pem(host, |_| {});
        Certified::from_pem(chain.into(), key.into()).unwrap()
    }
}

/// Hands packets to and fro in memory until both ends are established, or one has closed.
fn shake(client: &mut quiche::Connection, server: &mut quiche::Connection) -> bool {
    let (a, b): (SocketAddr, SocketAddr) =
        ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    let mut buffer = vec![0; 65_535];
    for _ in 0..20 {
        let mut moved = false;
        for from_client in [true, false] {
            let (from, to) = if from_client {
                (&mut *client, &mut *server)
            } else {
                (&mut *server, &mut *client)
            };
            let (from_addr, to_addr) = if from_client { (a, b) } else { (b, a) };
            while let Ok((n, _)) = from.send(&mut buffer) {
                let info = quiche::RecvInfo { from: from_addr, to: to_addr };
                let _ = to.recv(&mut buffer[..n], info);
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    client.is_established() && server.is_established() && !client.is_draining()
}

struct Handshake {
    completed: bool,
    resumed: bool,
    session: Option<Vec<u8>>,
    alpn: Vec<u8>,
    group: Option<String>,
    datagram_room: Option<usize>,
}

fn quic(server: &mut quiche::Config, roots: Roots, session: Option<&[u8]>) -> Handshake {
    let client = ClientTls { roots, ..ClientTls::default() };
    let mut client = quic_client_config(&client).unwrap();
    let (a, b) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    let id = |byte| quiche::ConnectionId::from_vec(vec![byte; 8]);
    let mut c = quiche::connect(Some(HOST), &id(1), a, b, &mut client).unwrap();
    if let Some(session) = session {
        c.set_session(session).unwrap();
    }
    let mut s = quiche::accept(&id(2), None, b, a, server).unwrap();
    let completed = shake(&mut c, &mut s);
    let ssl: &mut boring::ssl::SslRef = c.as_mut();
    let group = ssl.curve_name().map(str::to_owned);
    Handshake {
        completed,
        resumed: s.is_resumed(),
        session: c.session().map(<[u8]>::to_vec),
        alpn: c.application_proto().to_vec(),
        group,
        datagram_room: c.dgram_max_writable_len(),
    }
}

fn server(certified: &Certified, tickets: &TicketKey) -> quiche::Config {
    quic_server_config(certified, tickets, &TransportConfig::server()).unwrap()
}

#[test]
fn a_quic_handshake_completes_with_h3_datagrams_and_a_post_quantum_group() {
    let authority = Authority::new();
    let mut server = server(&authority.issue(HOST), &TicketKey::random().unwrap());
    let handshake = quic(&mut server, authority.roots(), None);
    assert!(handshake.completed);
    assert_eq!(handshake.alpn, b"h3");
    assert_eq!(handshake.group.as_deref(), Some("X25519MLKEM768"));
    assert!(handshake.datagram_room.unwrap() > 1000);
}

#[test]
fn a_session_begun_with_one_worker_resumes_with_another_but_not_with_another_key() {
    let authority = Authority::new();
    let (certified, tickets) = (authority.issue(HOST), TicketKey::random().unwrap());
    let first = quic(&mut server(&certified, &tickets), authority.roots(), None);
    let session = first.session.expect("a ticket");
    assert!(!first.resumed);
    let sibling = quic(&mut server(&certified, &tickets), authority.roots(), Some(&session));
    assert!(sibling.completed && sibling.resumed);
    let stranger = TicketKey::random().unwrap();
    let other = quic(&mut server(&certified, &stranger), authority.roots(), Some(&session));
    assert!(other.completed && !other.resumed);
}

#[test]
fn a_certificate_is_asked_for_under_a_name_that_says_so_and_under_no_other() {
    let authority = Authority::new();
    let (certified, tickets) = (authority.issue(HOST), TicketKey::random().unwrap());
    let mine = authority.issue("alice");
    let roots = || ClientTls { roots: authority.roots(), ..ClientTls::default() };
    let (a, b) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    let id = |byte| quiche::ConnectionId::from_vec(vec![byte; 8]);
    let shown = |names: &[String], identity: Option<&Certified>| {
        let (names, transport) = (AskingNames::new(names), TransportConfig::server());
        let mut server = quic_asking_config(&certified, &tickets, &transport, &names).unwrap();
        let mut client = quic_client_config_as(&roots(), identity).unwrap();
        let mut c = quiche::connect(Some(HOST), &id(1), a, b, &mut client).unwrap();
        let mut s = quiche::accept(&id(2), None, b, a, &mut server).unwrap();
        assert!(shake(&mut c, &mut s));
        s.peer_cert().and_then(crate::concealed::spki_sha256)
    };
    let asking = [HOST.to_uppercase()];
    assert_eq!(shown(&asking, Some(&mine)), Some(mine.spki_sha256().unwrap()));
    assert_eq!(shown(&asking, None), None, "whoever has none comes in as well");
    assert_eq!(shown(&["other.test".into()], Some(&mine)), None, "asked under another name");
    assert_eq!(shown(&[], Some(&mine)), None);
}

#[test]
fn a_quic_client_refuses_a_strange_authority_and_a_wrong_name() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let tickets = TicketKey::random().unwrap();
    let good = authority.issue(HOST);
    assert!(!quic(&mut server(&good, &tickets), stranger.roots(), None).completed);
    let misnamed = authority.issue("elsewhere.test");
    assert!(!quic(&mut server(&misnamed, &tickets), authority.roots(), None).completed);
}

#[test]
fn a_pinned_key_is_all_that_matters_to_a_quic_client_that_pins() {
    let authority = Authority::new();
    let tickets = TicketKey::random().unwrap();
    let certified = authority.issue("elsewhere.test");
    let pin = certified.spki_sha256().unwrap();
    assert!(quic(&mut server(&certified, &tickets), Roots::PinnedSpki(pin), None).completed);
    assert!(!quic(&mut server(&certified, &tickets), Roots::PinnedSpki([7; 32]), None).completed);
}

#[test]
fn the_system_has_authorities_or_says_so() {
    match quic_client_config(&ClientTls::default()) {
        Ok(_) | Err(TlsError::NoRoots) => {}
        Err(e) => panic!("{e}"),
    }
}

/// A handshake over a pipe; what the client and the server say about it.
async fn tcp(
    certificate: Arc<HotCertificate>,
    roots: &Roots,
) -> (Result<Vec<u8>, String>, Result<(), String>) {
    let server = rustls_server_config(certificate, &[b"h2", b"http/1.1"]).unwrap();
    let client = rustls_client_config(roots, &[b"h2"]).unwrap();
    let (near, far) = tokio::io::duplex(1 << 16);
    let accept = tokio_rustls::TlsAcceptor::from(server).accept(far);
    let name = ServerName::try_from(HOST).unwrap();
    let connect = tokio_rustls::TlsConnector::from(client).connect(name, near);
    let both = async { tokio::join!(connect, accept) };
    let (client, server) = tokio::time::timeout(Duration::from_secs(5), both).await.unwrap();
    let alpn = client.map(|s| s.get_ref().1.alpn_protocol().unwrap().to_vec());
    (alpn.map_err(|e| e.to_string()), server.map(|_| ()).map_err(|e| e.to_string()))
}

#[tokio::test]
async fn a_tcp_handshake_completes_and_refuses_strangers_wrong_names_and_wrong_pins() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let certified = authority.issue(HOST);
    let hot = HotCertificate::new(Some(&certified));
    assert_eq!(tcp(hot.clone(), &authority.roots()).await.0.unwrap(), b"h2");
    let e = tcp(hot.clone(), &stranger.roots()).await.0.unwrap_err();
    assert!(e.contains("UnknownIssuer"), "{e}");
    let pin = Roots::PinnedSpki(certified.spki_sha256().unwrap());
    tcp(hot.clone(), &pin).await.0.unwrap();
    hot.replace(&authority.issue("elsewhere.test"));
    let e = tcp(hot.clone(), &authority.roots()).await.0.unwrap_err();
    assert!(e.contains("not valid for name"), "{e}");
    tcp(hot, &pin).await.0.unwrap_err();
}

#[test]
fn each_fault_of_a_certificate_names_the_file_and_what_is_wrong() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (chain, key) = authority.issue_pem(HOST, |_| {});
    let (_, other_key) = authority.issue_pem(HOST, |_| {});
    let (chain, key) = (file("chain.pem", &chain), file("key.pem", &key));
    Certified::load(&chain, &key).unwrap().check_time(clock::unix_time()).unwrap();
    let cases = [
        (folder.path().join("none.pem"), key.clone(), "none.pem"),
        (file("empty.pem", ""), key.clone(), "holds no certificate"),
        (
            file("bad.pem", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"),
            key.clone(),
            "bad.pem",
        ),
        (chain.clone(), file("nokey.pem", "hello"), "holds no private key"),
        (chain, file("other.pem", &other_key), "does not belong"),
        (key.clone(), key, "holds no certificate"),
    ];
    for (chain, key, expected) in cases {
        let e = Certified::load(&chain, &key).unwrap_err().to_string();
        assert!(e.contains(expected), "{e}");
        assert!(e.contains(".pem"), "{e}");
        assert!(!e.contains("BEGIN PRIVATE KEY-----\nM"), "a key in an error");
    }
}

#[test]
fn a_certificate_knows_its_time_and_its_names() {
    let authority = Authority::new();
    let (chain, key) = authority.issue_pem("*.gateway.test", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let old = Certified::from_pem(chain.into(), key.into()).unwrap();
    let at = |seconds| std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    assert!(matches!(old.check_time(clock::unix_time()), Err(TlsError::Expired { .. })));
    assert!(matches!(old.check_time(at(1_500_000_000)), Err(TlsError::NotYetValid { .. })));
    old.check_time(at(1_600_000_000)).unwrap();
    assert!(old.covers("a.gateway.test") && !old.covers("gateway.test") && !old.covers("a.b"));
}
