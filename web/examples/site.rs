//! Serves the sample site, or the folder or `http://` upstream named as an argument, over HTTP/1.1
//! on loopback:
//!
//! ```sh
//! cargo run -p bauta-web --example site -- [FOLDER | URL]
//! ```

use bauta_web::{Body, Site, SiteConfig, Source};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use std::{env, error::Error};
use tower::ServiceExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let source = match env::args().nth(1) {
        None => Source::Sample,
        Some(url) if url.contains("://") => Source::upstream(url),
        Some(path) => Source::Folder { path: path.into() },
    };
    let site = Site::new(&SiteConfig { source, alt_svc: None })?;
    let port = env::var("PORT").map_or(Ok(0), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    eprintln!("http://{}/", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = site.clone().map_request(|request: http::Request<_>| request.map(Body::new));
        let service = TowerToHyperService::new(service);
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection.with_upgrades());
    }
}
