//! The same site and the same tunnels over HTTP/1.1 and HTTP/2 on TCP, on one thread of their own.

mod carry;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bauta_masque::concealed::EXPORT_FIELD;
use bauta_masque::proxy_status::{self, ProxyError, ProxyStatus};
use bauta_masque::request::{Ask, Carriage, Head};
use bauta_masque_io::clock;
use bauta_masque_io::concealed::Export;
use bauta_masque_io::tcp::{self, Peer, TcpLimits, Version};
use bauta_masque_io::tls::{
    AcmeAware, AskingNames, HotCertificate, rustls_asking_config, rustls_server_config,
};
use bauta_web::acme::Challenges;
use bauta_web::{Body, ClientAddr, Site};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, on};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::accounts::{FlowGuard, Grant};
use crate::dial::Refusal;
use crate::metrics::Kind;
use crate::one_time;
use crate::router::{Credentials, Examined, Route, route};
use crate::shared::Everything;
use crate::tunnel::tcp::{Meter, relay};

/// Time for requests to end at shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// What the TCP side is made from.
pub struct Front {
    shared: Everything,
    site: watch::Receiver<Site>,
    certificate: Arc<HotCertificate>,
    challenges: Challenges,
}

impl Front {
    /// And the way to change its site.
    pub fn new(
        shared: Everything,
        site: Site,
        certificate: Arc<HotCertificate>,
        challenges: Challenges,
    ) -> (Self, watch::Sender<Site>) {
        let (sender, site) = watch::channel(site);
        (Self { shared, site, certificate, challenges }, sender)
    }
}

/// Serves on this thread until `stopped` says so.
pub fn run(
    front: Front,
    listener: TcpListener,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let Front { shared, site, certificate, challenges } = front;
    let alpn: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let names = AskingNames::new(&shared.config.accounts.certificate_names);
    let asking = rustls_asking_config(certificate.clone(), &alpn)?;
    let tls =
        AcmeAware::new(rustls_server_config(certificate, &alpn)?, move || challenges.tls_alpn01());
    let tls = tls.asking(names, asking);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(64)
        .build()?;
    let limits = shared.config.limits.tcp();
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let service = move |request: Request<Incoming>, peer: Peer| {
            let (shared, site) = (shared.clone(), site.borrow().clone());
            async move { answer(request, &peer, &shared, &site).await }
        };
        let stop = async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let limits = TcpLimits { drain_timeout: DRAIN, ..limits };
        tcp::serve(listener, Arc::new(tls), limits, service, stop).await;
        Ok(())
    })
}

async fn answer(
    mut request: Request<Incoming>,
    peer: &Peer,
    shared: &Everything,
    site: &Site,
) -> Response<Body> {
    let counters = &shared.metrics.tcp;
    let h1 = peer.version == Version::Http1;
    let arrived = clock::now();
    let mut tls = peer.exporter.clone();
    match decide(&request, h1, shared, &mut tls) {
        Route::Site(examined) => {
            counters.requests[usize::from(!h1)].add_shared(1);
            request.extensions_mut().insert(ClientAddr(peer.addr.ip()));
            // Only servers may say such a thing, to each other (RFC 9729 §6.2).
            request.headers_mut().remove(EXPORT_FIELD);
            let answer = site.answer(request.map(Body::new)).await;
            let status = answer.status();
            if status.is_client_error() || status.is_server_error() {
                if examined == Examined::No {
                    shared.accounts.pretend(&mut tls, clock::unix_time());
                }
                one_time::turn(arrived).await;
            }
            answer
        }
        Route::Refuse(status, refusal) => refused(shared, status, &refusal),
        Route::Tunnel(ask @ (Ask::ConnectUdp { .. } | Ask::ConnectIp { .. }), grant) => {
            let protocol = request.headers().get(header::UPGRADE).filter(|_| h1).cloned();
            let upgraded = on(&mut request);
            let answer = carry::tunnel(ask, grant, protocol, upgraded, shared).await;
            answer.unwrap_or_else(|| {
                let refusal = Refusal::from(ProxyError::ProxyInternalError);
                refused(shared, refusal.error.status(), &refusal)
            })
        }
        Route::Tunnel(ask, grant) => match open(ask, &grant, shared).await {
            Ok((target, flow)) => {
                let hop = target.peer_addr().map(|target| target.ip().to_string());
                tokio::spawn(carry(on(&mut request), target, grant, flow, shared.clone()));
                let mut response = Response::new(Body::empty());
                let status = ProxyStatus::new(&shared.config.domain);
                let status = status.next_hop(hop.as_deref().unwrap_or_default());
                if let Ok(status) = HeaderValue::from_str(status.value()) {
                    response.headers_mut().insert(proxy_status::NAME, status);
                }
                response
            }
            Err(refusal) => refused(shared, refusal.error.status(), &refusal),
        },
    }
}

fn decide(
    request: &Request<Incoming>,
    h1: bool,
    shared: &Everything,
    tls: &mut dyn Export,
) -> Route {
    let fields = || request.headers().iter().map(|(n, v)| (n.as_str().as_bytes(), v.as_bytes()));
    let uri = request.uri();
    let method = request.method().as_str().as_bytes();
    let target = uri.to_string();
    let path = uri.path_and_query().map(|path| path.as_str().as_bytes());
    let head = if h1 {
        Head::from_h1(method, target.as_bytes(), fields())
    } else {
        // hyper has taken the pseudo-header fields apart; plain CONNECT has an authority alone.
        let protocol = request.extensions().get::<hyper::ext::Protocol>();
        let pseudo = [
            (&b":method"[..], Some(method)),
            (b":protocol", protocol.map(|protocol| protocol.as_ref())),
            (b":scheme", uri.scheme_str().map(str::as_bytes)),
            (b":authority", uri.authority().map(|authority| authority.as_str().as_bytes())),
            (b":path", path),
        ];
        let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some((name, value?)));
        Head::from_fields(Carriage::H2, pseudo.chain(fields()))
    };
    let now = clock::unix_time();
    route(&head, Credentials::of(fields()), &shared.templates, &shared.accounts, tls, now)
}

async fn open(
    ask: Ask,
    grant: &Grant,
    shared: &Everything,
) -> Result<(TcpStream, FlowGuard), Refusal> {
    let Ask::ConnectTcp { host, port } = ask else {
        return Err(ProxyError::HttpRequestDenied.into());
    };
    let limit = shared.config.tunnel.flows;
    let flow = grant.account.usage.open_flow(limit).ok_or(ProxyError::ConnectionLimitReached)?;
    let target = shared.dialer.tcp(&host.to_string(), port).await?;
    Ok((target, flow))
}

/// Copies both ways until both are at their end, one fails, or the account is gone.
async fn carry(
    upgraded: OnUpgrade,
    target: TcpStream,
    grant: Grant,
    flow: FlowGuard,
    shared: Everything,
) {
    let Ok(client) = upgraded.await else { return };
    let tunnels = &shared.metrics.tcp.tunnels[Kind::Tcp as usize];
    tunnels.add_shared(1);
    let meter = Meter::new(&grant, shared.metrics.tcp.clone());
    let copy = relay(TokioIo::new(client), target, &meter);
    let withdrawn = async {
        while shared.accounts.stands(&grant, clock::unix_time()) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        _ = copy => {}
        () = withdrawn => {}
    }
    tunnels.sub_shared(1);
    drop(flow);
}

fn refused(shared: &Everything, status: u16, refusal: &Refusal) -> Response<Body> {
    shared.metrics.tcp.refused.add_shared(1);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let status = refusal.proxy_status(&shared.config.domain);
    if let Ok(status) = HeaderValue::from_str(&status) {
        response.headers_mut().insert(proxy_status::NAME, status);
    }
    // RFC 9931: a refused CONNECT ends an HTTP/1.1 connection; what follows might be meant for
    // the target.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
