//! A reverse proxy.

use crate::{Body, SiteError, Timeouts, page};
use http::{Request, Response, StatusCode};

/// The way to another server.
pub(crate) struct Upstream;

impl Upstream {
    pub(crate) fn new(_: &str, _: bool, _: bool, _: Timeouts) -> Result<Self, SiteError> {
        Ok(Self)
    }

    pub(crate) async fn answer(&self, _: Request<Body>) -> Response<Body> {
        page::plain(StatusCode::BAD_GATEWAY)
    }
}
