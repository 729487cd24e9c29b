//! The M3O API for browsers, query parameters and official clients.

use std::pin::pin;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body::Body as _;

use super::error::{Error, of_body, of_upstream};
use super::form::Form;
use super::headers;
use super::parameters::{Parameters, has_key, without_key};
use super::upgrade::Upgrade;
use super::{Client, Proxy};
use crate::credentials::{Credentials, Secret};
use crate::telemetry::exchange::Exchange;
use crate::wire::{Body, Request, Response};

const ALLOWED: &str = "GET, HEAD, POST, OPTIONS";
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What the content type of a request makes of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Urlencoded,
    Multipart,
    Other,
}

impl Proxy {
    /// Answers a call of `endpoint`, errors included: a browser reads those too, so they need CORS. One
    /// that is `refused` already is told so.
    pub(super) async fn api(
        &self,
        endpoint: &str,
        request: &mut Request,
        refused: Option<Box<Error>>,
        client: &Client<'_>,
        exchange: &mut Exchange,
    ) -> Response {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let in_url = take_key_from_url(request);
        let keyed_url = in_url.is_some();
        let answered = match (refused, request.method()) {
            (Some(error), _) => Err(*error),
            (None, method) => match wish(method) {
                Err(error) => Err(error),
                Ok(Wish::Preflight) => Ok(preflight(request.headers())),
                Ok(Wish::Call) => {
                    let key = in_url.flatten();
                    pin!(self.call(endpoint, request, key, client, exchange)).await
                }
            },
        };
        let mut response =
            answered.unwrap_or_else(|error| super::tell(&error, Form::Json, exchange));
        let headers = response.headers_mut();
        if keyed_url {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            let no_referrer = HeaderValue::from_static("no-referrer");
            headers.insert(header::REFERRER_POLICY, no_referrer);
        }
        allow_origin(headers, origin);
        response
    }

    async fn call(
        &self,
        endpoint: &str,
        request: &mut Request,
        key: Option<Secret>,
        client: &Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        check(request.headers())?;
        let upgrade = Upgrade::asked_by(request).filter(Upgrade::is_websocket);
        match self.upstream.is_local() {
            // What it says of its way is for others.
            true => headers::remove_hop_by_hop(request.headers_mut()),
            false => client.prepare(request),
        }
        keep_private(request.headers_mut());
        if let Some(upgrade) = upgrade {
            // Boxed, as what few calls are for: the future of each has room for all the rest.
            let opened = self.websocket(endpoint, request, key, upgrade, client, exchange);
            return Box::pin(opened).await;
        }
        // Before a form is read, unless the key is in there.
        let counted = self.count_key(request.headers(), key.as_ref(), client, exchange)?;
        let key = if request.body().is_end_stream() {
            let parameters = Parameters::parse(query_of(request));
            become_json(request, &parameters);
            key
        } else {
            Box::pin(self.form_to_json(request, key)).await?
        };
        authorize(request.headers_mut(), key)?;
        if !counted {
            self.count_key(request.headers(), None, client, exchange)?;
        }
        *request.method_mut() = Method::POST;
        let asked = pin!(self.ask(endpoint, request, client, exchange));
        let mut response = asked.await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::BackendUpgrade);
        }
        clean(response.headers_mut());
        self.pass_back(&mut response, client);
        Ok(response)
    }

    async fn ask(
        &self,
        endpoint: &str,
        request: &mut Request,
        client: &Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        let limit = self.settings.timeouts.response;
        let request = std::mem::take(request);
        let passed = pin!(self.upstream.pass(endpoint, request, Some(exchange)));
        client
            .peer
            .timer
            .while_moving(limit, passed)
            .await
            .ok_or(Error::UpstreamTimedOut)?
            .map_err(of_upstream)
    }

    /// A stream: the handshake goes upstream, and then the two ends speak to each other.
    async fn websocket(
        &self,
        endpoint: &str,
        request: &mut Request,
        key: Option<Secret>,
        upgrade: Upgrade,
        client: &Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        let headers = request.headers_mut();
        let given = headers.contains_key(header::AUTHORIZATION) || key.is_some();
        // A browser cannot set Authorization on a WebSocket: its token comes as a subprotocol,
        // which the answer must then name (RFC 6455, 4.2.2).
        let subprotocol = if given {
            None
        } else {
            take_subprotocol(headers)
        };
        let key = key.or_else(|| subprotocol.as_ref().map(|(token, _)| token.clone()));
        authorize(headers, key)?;
        self.count_key(headers, None, client, exchange)?;
        upgrade.write_to(headers);
        let mut response = self.ask(endpoint, request, client, exchange).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            clean(response.headers_mut());
            self.pass_back(&mut response, client);
            return Ok(response);
        }
        if !upgrade.is_granted_by(&response) {
            return Err(Error::BackendUpgrade);
        }
        clean(response.headers_mut());
        upgrade.write_to(response.headers_mut());
        if let Some((_, value)) = subprotocol {
            let headers = response.headers_mut();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        if let Body::Tunnel(tunnel) = response.body_mut() {
            tunnel.hold(self.settings.timeouts.tunnel, ());
            tunnel.carry_websocket();
        }
        Ok(response)
    }

    /// Turns a form into one JSON object; leaves every other body as it is. Gives the key, which a form may
    /// hold too.
    async fn form_to_json(
        &self,
        request: &mut Request,
        key: Option<Secret>,
    ) -> Result<Option<Secret>, Error> {
        let kind = kind_of(request.headers());
        if !matches!(kind, Kind::Urlencoded | Kind::Multipart) {
            return Ok(key);
        }
        if is_compressed(request.headers()) {
            return Err(Error::CompressedForm);
        }
        if kind == Kind::Urlencoded && self.is_json_in_disguise(request).await? {
            request.headers_mut().insert(header::CONTENT_TYPE, JSON);
            return Ok(key);
        }
        let body = std::mem::take(request.body_mut());
        let body = body
            .collect(self.settings.limits.form)
            .await
            .map_err(of_body)?;
        let form = match kind {
            Kind::Multipart => {
                let content_type = request.headers().get(header::CONTENT_TYPE);
                let content_type = content_type.and_then(|value| value.to_str().ok());
                Parameters::parse_multipart(content_type.unwrap_or_default(), body).await?
            }
            Kind::Urlencoded | Kind::Json | Kind::Other => Parameters::parse(&body),
        };
        let mut parameters = Parameters::parse(query_of(request)).overlaid_with(form);
        let in_form = parameters.take_key();
        become_json(request, &parameters);
        Ok(key.or(in_form))
    }

    /// Whether an urlencoded body is JSON that somebody sent with curl's default content type.
    async fn is_json_in_disguise(&self, request: &mut Request) -> Result<bool, Error> {
        let Body::Received(received) = request.body_mut() else {
            return Ok(false);
        };
        let first = received.peek().await.map_err(Error::ClientBody)?;
        Ok(first == Some(b'{'))
    }
}

/// What a method asks for.
pub(super) enum Wish {
    /// Whether a page may call.
    Preflight,
    /// A call.
    Call,
}

pub(super) fn wish(method: &Method) -> Result<Wish, Error> {
    match *method {
        Method::OPTIONS => Ok(Wish::Preflight),
        Method::GET | Method::HEAD | Method::POST => Ok(Wish::Call),
        _ => Err(Error::Method { allow: ALLOWED }),
    }
}

/// Refuses what no call may carry.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Error> {
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(Error::Malformed(
            "the request has more than one Authorization field",
        ));
    }
    if headers::loops(headers) {
        return Err(Error::Loop);
    }
    Ok(())
}

/// Removes what is not the API's business: the page that calls may have the key in its own address.
pub(super) fn keep_private(headers: &mut HeaderMap) {
    headers.remove(header::REFERER);
    headers.remove(header::COOKIE);
}

fn query_of(request: &Request) -> &[u8] {
    request.uri().query().unwrap_or_default().as_bytes()
}

/// Takes `api_key` out of the query: the outer option says that it was there, the inner one that it
/// had a value.
pub(super) fn take_key_from_url(request: &mut Request) -> Option<Option<Secret>> {
    let query = request.uri().query().filter(|query| has_key(query))?;
    let (rest, _) = without_key(query);
    let key = Parameters::parse(query.as_bytes()).take_key();
    let path = request.uri().path();
    let target = if rest.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{rest}")
    };
    // A part of a target that was valid is valid.
    *request.uri_mut() = Uri::try_from(target).unwrap_or_default();
    Some(key)
}

pub(super) fn authorize(headers: &mut HeaderMap, key: Option<Secret>) -> Result<(), Error> {
    if let Some(given) = headers.remove(header::AUTHORIZATION) {
        headers.insert(
            header::AUTHORIZATION,
            Credentials::from_header(given).to_header(),
        );
        return Ok(());
    }
    let key = key.ok_or(Error::NoKey)?;
    let credentials = Credentials::bearer(key.expose()).map_err(|_| Error::BadKey)?;
    headers.insert(header::AUTHORIZATION, credentials.to_header());
    Ok(())
}

/// The first subprotocol that the client offers, as a token and as it stood.
pub(super) fn take_subprotocol(headers: &mut HeaderMap) -> Option<(Secret, HeaderValue)> {
    let offered = headers.remove(header::SEC_WEBSOCKET_PROTOCOL)?;
    let first = offered.to_str().ok()?.split(',').next()?.trim();
    let value = HeaderValue::from_str(first)
        .ok()
        .filter(|_| !first.is_empty())?;
    Some((Secret::new(first), value))
}

fn become_json(request: &mut Request, parameters: &Parameters) {
    let json = parameters.to_json();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CONTENT_LENGTH, json.len().into());
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONTENT_ENCODING);
    *request.body_mut() = Body::from(json);
    // All that would go on of it is its query.
    *request.uri_mut() = Uri::default();
}

fn kind_of(headers: &HeaderMap) -> Kind {
    let Some(Ok(content_type)) = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str) else {
        return Kind::Other;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Kind::Json,
        "application/x-www-form-urlencoded" => Kind::Urlencoded,
        "multipart/form-data" => Kind::Multipart,
        other if other.ends_with("+json") => Kind::Json,
        _ => Kind::Other,
    }
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| {
            !coding
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"identity")
        })
}

/// The answer to a preflight (Fetch, 3.3.3), or to somebody who asks for the methods.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
    if asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, HEAD, POST"),
        );
        let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let allowed = wanted
            .cloned()
            .unwrap_or_else(|| HeaderValue::from_static("authorization, content-type"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static("86400"),
        );
        headers.append(
            header::VARY,
            HeaderValue::from_static("Access-Control-Request-Headers"),
        );
    }
    response
}

/// Lets the page that called read the answer; without its cookies, which we neither take nor give.
fn allow_origin(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("X-Request-Id, Retry-After, RateLimit, RateLimit-Policy"),
    );
}

/// Removes from the API's answer what is ours to say, and its cookies.
fn clean(headers: &mut HeaderMap) {
    headers::remove_hop_by_hop(headers);
    headers.remove(header::SET_COOKIE);
    let cors: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("access-control-"))
        .cloned()
        .collect();
    for name in cors {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_decides_what_a_body_is() {
        let check = |content_type: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(kind_of(&headers), expected, "{content_type}");
        };
        check("application/json", Kind::Json);
        check("Application/JSON; charset=utf-8", Kind::Json);
        check("application/problem+json", Kind::Json);
        check(
            "application/x-www-form-urlencoded;charset=UTF-8",
            Kind::Urlencoded,
        );
        check("multipart/form-data; boundary=x", Kind::Multipart);
        check("text/plain", Kind::Other);
        check("application/jsonp", Kind::Other);
        assert_eq!(kind_of(&HeaderMap::new()), Kind::Other);
    }

    #[test]
    fn the_key_leaves_the_target_and_the_rest_stays_to_the_byte() {
        let take = |target: &'static str| {
            let mut request = Request::new(Body::Empty);
            *request.uri_mut() = Uri::from_static(target);
            let key = take_key_from_url(&mut request);
            let key = key.map(|key| key.map(|key| key.expose().to_owned()));
            (request.uri().to_string(), key)
        };
        let some = |key: &str| Some(Some(key.to_owned()));
        assert_eq!(
            take("/api/a/b?x=%zz&api_key=k&y=+"),
            ("/api/a/b?x=%zz&y=+".into(), some("k"))
        );
        assert_eq!(
            take("/api/a/b?api_key=k%20"),
            ("/api/a/b".into(), some("k "))
        );
        assert_eq!(take("/api/a/b?api_key="), ("/api/a/b".into(), Some(None)));
        assert_eq!(take("/api/a/b?x=y"), ("/api/a/b?x=y".into(), None));
        assert_eq!(
            take("http://h/api/a/b?api_key=k&x=1"),
            ("/api/a/b?x=1".into(), some("k"))
        );
    }
}
