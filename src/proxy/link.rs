//! Short links: where one leads, as a redirect.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::Proxy;
use super::error::Error;
use super::route::is_of_the_api;
use crate::destination::Destination;
use crate::telemetry::exchange::Exchange;
use crate::upstream::{self, Hit, ShortLink};
use crate::wire::{Body, Request, Response};

const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

impl Proxy {
    /// Redirects to where `link` leads.
    pub(super) async fn link(
        &self,
        link: &ShortLink,
        request: &Request,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        let hit = hit(request.method(), request.uri().path())?;
        let url = self
            .upstream
            .resolve_link(link, hit, Some(exchange))
            .await
            .map_err(|error| unresolved(error, request.uri().path()))?;
        // Checked when it was written, and again here: what is sent is what we answer for.
        let destination = Destination::parse(&url).map_err(Error::Destination)?;
        let mut response = redirect(&destination);
        let headers = response.headers_mut();
        // Each visit is counted, so nobody may remember it for the next one.
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        );
        headers.insert(ROBOTS, HeaderValue::from_static("noindex"));
        Ok(response)
    }
}

/// Whether a request with `method` is a visit.
pub(super) fn hit(method: &Method, path: &str) -> Result<Hit, Error> {
    match *method {
        Method::GET => Ok(Hit::Count),
        Method::HEAD => Ok(Hit::Peek),
        // On a host of short links this is a link by its whole URL, but nobody means one.
        _ if is_of_the_api(path) => Err(Error::NoSuchEndpoint),
        _ => Err(Error::Method { allow: "GET, HEAD" }),
    }
}

/// Why a link leads nowhere.
pub(super) fn unresolved(error: upstream::Error, path: &str) -> Error {
    match error {
        upstream::Error::NotFound
        | upstream::Error::Rejected(StatusCode::BAD_REQUEST | StatusCode::GONE) => {
            if is_of_the_api(path) {
                Error::NoSuchEndpoint
            } else {
                Error::NoSuchLink
            }
        }
        error => Error::Upstream(error),
    }
}

/// A `302` to `destination`, to the byte.
pub(super) fn redirect(destination: &Destination) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::FOUND;
    let location =
        HeaderValue::from_str(destination.as_str()).expect("a destination is visible ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    response
}
