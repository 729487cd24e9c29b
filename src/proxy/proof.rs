//! The answer that proves that a custom domain leads here: its token, said back.

use http::{HeaderValue, Method, header};

use super::error::Error;
use crate::wire::{Body, Response};

/// Answers `token`, which the platform waits for at the host that was asked.
pub(super) fn respond(token: &str, method: &Method) -> Result<Response, Error> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Error::Method { allow: "GET, HEAD" });
    }
    let mut response = Response::new(Body::from(token.to_owned()));
    let headers = response.headers_mut();
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, text);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
