//! The way of a call to the API.

use http::header;

use super::walk::{End, Walk, key, time};
use crate::proxy::Client;
use crate::proxy::api::{self, Wish};
use crate::proxy::error::Error;
use crate::units::{duration, size};
use crate::upstream::Upstream;
use crate::wire::Request;

impl Walk<'_> {
    /// As `Proxy::api` goes.
    pub(super) fn api(
        &mut self,
        endpoint: &str,
        request: &mut Request,
        client: &Client<'_>,
    ) -> Result<End, Error> {
        let in_url = api::take_key_from_url(request);
        self.check(request)?;
        if matches!(api::wish(request.method())?, Wish::Preflight) {
            return Ok(End::Depends(
                "204: what pages may send, none of it reaches the API".to_owned(),
            ));
        }
        api::check(request.headers())?;
        let before = request.headers().clone();
        client.prepare(request);
        api::keep_private(request.headers_mut());
        let whose = match (&in_url, before.contains_key(header::AUTHORIZATION)) {
            (_, true) => "that of Authorization",
            (Some(Some(_)), false) => "that of the URL, taken out of it",
            (Some(None) | None, false) => {
                "that of a form or a WebSocket, if there is one; else none"
            }
        };
        self.step("key", whose, &[]);
        let is_bare = request.method() != http::Method::POST;
        match api::authorize(request.headers_mut(), in_url.clone().flatten()) {
            // What a body holds is not known.
            Err(Error::NoKey) if !is_bare => {}
            authorized => authorized?,
        }
        self.changed(&before, request.headers());
        let body = match is_bare {
            true => "one JSON object, made of the query",
            false => "JSON as it is, a form as a JSON object",
        };
        let form = key("limits.form", size::format(self.limits().form));
        self.step("body", body, &[form]);
        let upstream = format!("{} of {}", Upstream::call_of(endpoint), self.sources.api);
        self.step("upstream", &upstream, &[]);
        let response = time("timeouts.response", self.timeouts().response);
        let what = format!(
            "response within {}",
            duration::format(self.timeouts().response)
        );
        self.step("timeout", &what, &[response]);
        if in_url.is_some() {
            self.step(
                "answered",
                "Cache-Control: no-store, Referrer-Policy: no-referrer",
                &[],
            );
        }
        Ok(End::Depends(
            "what the API answers, for any page to read".to_owned(),
        ))
    }
}
