//! The one door: every request goes in here, whatever its source.

use crate::{
    Body, SiteConfig, SiteError, Source,
    pages::{Folder, Pages, Sample},
    upstream::Upstream,
};
use http::{HeaderValue, Request, Response, Version, header};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower::Service;

/// A website, cheap to clone. As a [`Service`] it is always ready and never fails.
///
/// Answering needs a tokio runtime with time and, for an upstream, network I/O enabled.
#[derive(Clone)]
pub struct Site(Arc<Inner>);

struct Inner {
    origin: Origin,
    alt_svc: Option<HeaderValue>,
}

enum Origin {
    Sample(Pages<Sample>),
    Folder(Pages<Folder>),
    Upstream(Box<Upstream>),
}

impl Site {
    /// Makes a site.
    ///
    /// # Errors
    /// When the folder cannot be read, or the upstream's URL cannot be used.
    pub fn new(config: &SiteConfig) -> Result<Self, SiteError> {
        let alt_svc = config.alt_svc.as_ref().map(|value| {
            HeaderValue::from_str(value).map_err(|_| SiteError::AltSvc(value.clone()))
        });
        let origin = match &config.source {
            Source::Sample => Origin::Sample(Pages::new(Sample)),
            Source::Folder { path } => Origin::Folder(Pages::new(Folder::new(path)?)),
            Source::Upstream { url, preserve_host, forwarded, timeouts } => {
                let upstream = Upstream::new(url, *preserve_host, *forwarded, *timeouts)?;
                Origin::Upstream(Box::new(upstream))
            }
        };
        Ok(Self(Arc::new(Inner { origin, alt_svc: alt_svc.transpose()? })))
    }

    /// Answers one request.
    ///
    /// The version of the request is the version of the client's connection: `Alt-Svc` is left out
    /// for HTTP/3. What this has to say about methods and resources is in the crate's description.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let version = request.version();
        let mut response = match &self.0.origin {
            Origin::Sample(pages) => pages.answer(request).await,
            Origin::Folder(pages) => pages.answer(request).await,
            Origin::Upstream(upstream) => upstream.answer(request).await,
        };
        if let Some(value) = &self.0.alt_svc
            && version != Version::HTTP_3
        {
            response.headers_mut().insert(header::ALT_SVC, value.clone());
        }
        response
    }
}

impl Service<Request<Body>> for Site {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let site = self.clone();
        Box::pin(async move { Ok(site.answer(request).await) })
    }
}
