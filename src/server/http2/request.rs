//! Makes one of our requests from one that came over HTTP/2: it looks as it would over HTTP/1.1, but
//! for its version. `h2` has checked names, values and pseudo-fields; this checks the rest.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{self, HeaderMap};
use http::{HeaderValue, Method, request};

use crate::wire::framing;
use crate::wire::head::HeadLimits;
use crate::wire::tunnel::{self, Connect};

/// A request, and what its answer depends on.
pub(super) struct Asked {
    pub(super) head: http::Request<()>,
    /// Whether it asks for a WebSocket (RFC 8441).
    pub(super) connects: bool,
    /// The length of its body, where it says so.
    pub(super) length: Option<u64>,
    /// Whether the client waits for our word before it sends the body.
    pub(super) expects: bool,
}

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is malformed (RFC 9113, 8.1.1).
    Malformed,
    /// It has more fields than `limits.headers`, each crumb of a cookie counted.
    TooManyFields,
}

/// Takes the head of a request.
///
/// # Errors
/// When it is not passed on.
pub(super) fn take(head: request::Parts, limits: &HeadLimits) -> Result<Asked, Bad> {
    let mut head = http::Request::from_parts(head, ());
    if head.headers().len() > limits.fields {
        return Err(Bad::TooManyFields);
    }
    if !has_target(&head) || !are_fields(head.headers()) {
        return Err(Bad::Malformed);
    }
    join_cookies(head.headers_mut());
    if !head.headers().contains_key(header::HOST)
        && let Some(authority) = head.uri().authority()
    {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Bad::Malformed)?;
        head.headers_mut().insert(header::HOST, host);
    }
    let connects = becomes_upgrade(&mut head);
    let headers = head.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    Ok(Asked {
        connects,
        length: length.and_then(|length| length.to_str().ok()?.parse().ok()),
        expects: headers.contains_key(header::EXPECT),
        head,
    })
}

/// Whether the target is one in origin form, or the asterisk of OPTIONS (RFC 9113, 8.3.1).
fn has_target(head: &http::Request<()>) -> bool {
    let is_connect = head.method() == Method::CONNECT;
    let is_plain = is_connect && head.extensions().get::<Protocol>().is_none();
    match head.uri().path_and_query().map(|target| target.as_str()) {
        None => is_plain && head.uri().authority().is_some(),
        Some("*") => head.method() == Method::OPTIONS,
        Some(target) => {
            (target.starts_with('/') || is_plain)
                && target.bytes().all(|byte| byte.is_ascii_graphic())
        }
    }
}

/// Whether names and values are such as `h2` does not see to. An empty length is none (RFC 9110, 8.6).
fn are_fields(headers: &HeaderMap) -> bool {
    headers.keys().all(framing::is_token)
        && !headers.values().any(is_padded)
        && !headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(HeaderValue::is_empty)
}

/// RFC 9113, 8.2.1: a value neither starts nor ends with white space.
fn is_padded(value: &HeaderValue) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.as_bytes().first()) || is_space(value.as_bytes().last())
}

/// RFC 9113, 8.2.3: crumbs of a cookie become one field again.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return;
    };
    let mut whole = first.as_bytes().to_vec();
    for crumb in [second].into_iter().chain(crumbs) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(mut whole) = HeaderValue::from_maybe_shared(bytes::Bytes::from(whole)) {
        whole.set_sensitive(true);
        headers.insert(header::COOKIE, whole);
    }
}

/// RFC 8441, 5: what asks for a WebSocket by CONNECT does so by GET over HTTP/1.1, with a key that is
/// made here. Any other CONNECT stays one.
fn becomes_upgrade(head: &mut http::Request<()>) -> bool {
    let is_websocket = head
        .extensions_mut()
        .remove::<Protocol>()
        .is_some_and(|protocol| protocol.as_str() == "websocket");
    let mut nonce = [0; 16];
    if !is_websocket || rand::fill(&mut nonce).is_err() {
        return false;
    }
    let key = STANDARD.encode(nonce);
    let accept = tunnel::accept(key.as_bytes());
    let Ok(key) = HeaderValue::try_from(key) else {
        return false;
    };
    *head.method_mut() = Method::GET;
    let headers = head.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_KEY, key);
    head.extensions_mut().insert(Connect { accept });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_with(request: request::Builder) -> Result<Asked, Bad> {
        let limits = HeadLimits {
            bytes: 1024,
            fields: 4,
        };
        take(request.body(()).unwrap().into_parts().0, &limits)
    }

    fn get(target: &str) -> request::Builder {
        http::Request::get(format!("http://blog.m3o.app{target}"))
    }

    #[test]
    fn crumbs_of_a_cookie_become_one_and_each_of_them_counts() {
        let request = get("/").header("cookie", "a=1").header("cookie", "b=2");
        let asked = take_with(request.header("cookie", "c=3")).ok().unwrap();
        assert_eq!(asked.head.headers()["cookie"], "a=1; b=2; c=3");
        assert_eq!(asked.head.headers()["host"], "blog.m3o.app");
        let crumbs = (0..5).fold(get("/"), |request, _| request.header("cookie", "a=1"));
        assert_eq!(take_with(crumbs).err(), Some(Bad::TooManyFields));
    }

    #[test]
    fn values_have_no_white_space_around_them() {
        for value in [" a", "a ", "\ta", "a\t", " "] {
            let request = take_with(get("/").header("x", value));
            assert_eq!(request.err(), Some(Bad::Malformed), "{value:?}");
        }
        assert!(take_with(get("/").header("x", "a b").header("y", "")).is_ok());
    }

    #[test]
    fn only_options_has_an_asterisk_for_a_target() {
        let with = |method: &str, target: &'static str| {
            let target: http::uri::PathAndQuery = target.parse().unwrap();
            let mut parts = http::uri::Parts::default();
            parts.path_and_query = Some(target);
            let request = http::Request::builder().method(method);
            take_with(request.uri(http::Uri::from_parts(parts).unwrap())).is_ok()
        };
        assert!(with("OPTIONS", "*"));
        assert!(!with("GET", "*"));
        assert!(with("GET", "/a?b"));
        assert!(!with("GET", "/\u{e4}"));
    }

    #[test]
    fn a_websocket_is_asked_for_by_get_with_a_key_of_ours() {
        let request = || {
            get("/chat")
                .method("CONNECT")
                .header("sec-websocket-key", "theirs")
        };
        let asked = take_with(request().extension(Protocol::from_static("websocket")));
        let asked = asked.ok().unwrap();
        assert!(asked.connects);
        assert_eq!(asked.head.method(), Method::GET);
        let key = &asked.head.headers()["sec-websocket-key"];
        assert_eq!(STANDARD.decode(key).unwrap().len(), 16);
        assert!(asked.head.extensions().get::<Connect>().is_some());

        let other = take_with(request().extension(Protocol::from_static("connect-udp")));
        let other = other.ok().unwrap();
        assert!(!other.connects);
        assert_eq!(other.head.method(), Method::CONNECT);
    }
}
