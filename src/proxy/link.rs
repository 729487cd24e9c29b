//! Short links: where one leads, as a redirect.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::Proxy;
use super::error::Error;
use super::route::is_of_the_api;
use crate::destination::Destination;
use crate::telemetry::exchange::Exchange;
use crate::upstream::{self, Hit, NoLink, ShortLink};
use crate::wire::{self, Body, Request, Response};

const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

impl Proxy {
    /// Redirects to where `link` leads.
    pub(super) async fn link(
        &self,
        link: &ShortLink,
        request: &mut Request,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        let hit = hit(request.method(), request.uri().path())?;
        let found = self.upstream.resolve_link(link, hit, Some(exchange)).await;
        let destination = found.map_err(|error| unresolved(error, request.uri().path()))?;
        let mut response = redirect(&destination, wire::emptied(request.headers_mut()));
        let headers = response.headers_mut();
        // Each visit is counted, so nobody may remember it for the next one.
        let nobody = HeaderValue::from_static("private, no-cache");
        headers.insert(header::CACHE_CONTROL, nobody);
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
pub(super) fn unresolved(error: NoLink, path: &str) -> Error {
    match error {
        NoLink::Upstream(
            upstream::Error::NotFound
            | upstream::Error::Rejected(StatusCode::BAD_REQUEST | StatusCode::GONE),
        ) => {
            if is_of_the_api(path) {
                Error::NoSuchEndpoint
            } else {
                Error::NoSuchLink
            }
        }
        NoLink::Upstream(error) => Error::Upstream(error),
        NoLink::Destination(error) => Error::Destination(error),
    }
}

/// A `302` to `destination`, to the byte; `fields` is an empty map that is filled.
pub(super) fn redirect(destination: &Destination, fields: HeaderMap) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.headers_mut() = fields;
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, destination.to_header());
    response
}
