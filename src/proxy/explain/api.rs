//! The way of a call to the API.

use http::header;

use super::walk::{End, Walk, key, time};
use crate::proxy::api::{self, Wish};
use crate::proxy::error::Error;
use crate::proxy::upgrade::Upgrade;
use crate::proxy::{Client, rate};
use crate::rates::Rates;
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
        if matches!(api::wish(request.method())?, Wish::Preflight) {
            return Ok(End::Depends(
                "204: what pages may send, none of it reaches the API".to_owned(),
            ));
        }
        api::check(request.headers())?;
        let upgrade = Upgrade::asked_by(request).filter(Upgrade::is_websocket);
        let before = request.headers().clone();
        client.prepare(request);
        api::keep_private(request.headers_mut());
        let keyed_url = in_url.is_some();
        let headers = request.headers_mut();
        let key_of_url = in_url.flatten();
        let given = headers.contains_key(header::AUTHORIZATION);
        let subprotocol = match &upgrade {
            Some(_) if !given && key_of_url.is_none() => api::take_subprotocol(headers),
            Some(_) | None => None,
        };
        let whose = match (given, &key_of_url, &subprotocol) {
            (true, ..) => "that of Authorization",
            (false, Some(_), _) => "that of the URL, taken out of it",
            (false, None, Some(_)) => "the first subprotocol, which the answer names",
            (false, None, None) if upgrade.is_some() => "none",
            (false, None, None) => "that of a form, if there is one; else none",
        };
        self.step("key", whose, &[]);
        let key_given = key_of_url.or_else(|| subprotocol.map(|(key, _)| key));
        let is_bare = request.method() != http::Method::POST;
        if self.rates.is_some_and(Rates::limit_keys) {
            rate::key_in(request.headers())?;
        }
        match api::authorize(request.headers_mut(), key_given) {
            // What a body holds is not known.
            Err(Error::NoKey) if !is_bare => {}
            authorized => authorized?,
        }
        let counted = rate::key_in(request.headers()).unwrap_or_default();
        self.count_key(counted.as_ref())?;
        if let Some(upgrade) = &upgrade {
            upgrade.write_to(request.headers_mut());
        }
        self.changed(&before, request.headers());
        if upgrade.is_none() {
            let body = match is_bare {
                true => "one JSON object, made of the query",
                false => "JSON as it is, a form as a JSON object",
            };
            let form = key("limits.form", size::format(self.limits().form));
            self.step("body", body, &[form]);
        }
        let call = match &upgrade {
            Some(_) => Upstream::websocket_to(endpoint),
            None => Upstream::call_of(endpoint),
        };
        let upstream = format!("{call} of {}", self.sources.api);
        self.step("upstream", &upstream, &[]);
        let response = time("timeouts.response", self.timeouts().response);
        let what = format!(
            "response within {}",
            duration::format(self.timeouts().response)
        );
        self.step("timeout", &what, &[response]);
        if upgrade.is_some() {
            let tunnel = time("timeouts.tunnel", self.timeouts().tunnel);
            self.step("upgrade", "a tunnel, if the API agrees", &[tunnel]);
        }
        if keyed_url {
            self.step(
                "answered",
                "Cache-Control: no-store, Referrer-Policy: no-referrer",
                &[],
            );
        }
        Ok(End::Depends(
            match upgrade {
                Some(_) => "101, if the API agrees; else what it answers",
                None => "what the API answers, for any page to read",
            }
            .to_owned(),
        ))
    }
}
