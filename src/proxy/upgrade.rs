//! Requests that turn their connection into a tunnel: WebSockets, and other protocols by 101.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body::Body as _;

use crate::wire::tunnel::Connect;
use crate::wire::{Request, Response};

/// A client's wish for another protocol.
#[derive(Debug)]
pub(super) struct Upgrade {
    protocol: HeaderValue,
    /// Where it came over HTTP/2.
    connect: Option<Connect>,
}

impl Upgrade {
    /// What `request` asks for, if it is one that is passed on (RFC 9110, 7.8).
    ///
    /// HTTP/1.0 has no upgrades; HTTP/2 in the clear and TLS are never negotiated through us.
    pub(super) fn asked_by(request: &Request) -> Option<Self> {
        let headers = request.headers();
        let mut protocols = headers.get_all(header::UPGRADE).iter();
        let protocol = protocols.next()?;
        let single = protocols.next().is_none() && !protocol.as_bytes().contains(&b',');
        let asked = single
            && request.method() == Method::GET
            && (request.version() == Version::HTTP_11 || is_by_connect(request))
            && names_upgrade(headers)
            && request.body().is_end_stream()
            && is_passed_on(protocol);
        asked.then(|| Self {
            protocol: protocol.clone(),
            connect: request.extensions().get().cloned(),
        })
    }

    /// Whether the wish is for a WebSocket (RFC 6455).
    pub(super) fn is_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// Says so in the head of a message, after what belonged to the other connection is gone.
    pub(super) fn write_to(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// Whether `response` agrees to this wish.
    pub(super) fn is_granted_by(&self, response: &Response) -> bool {
        let mut granted = response.headers().get_all(header::UPGRADE).iter();
        let agrees = |granted: &HeaderValue| {
            granted
                .as_bytes()
                .eq_ignore_ascii_case(self.protocol.as_bytes())
        };
        response.status() == StatusCode::SWITCHING_PROTOCOLS
            && response.version() == Version::HTTP_11
            && granted.next().is_some_and(agrees)
            && granted.next().is_none()
            && self.is_keyed(response.headers())
    }

    /// Whether an answer to our own key is one to that key (RFC 6455, 4.1).
    fn is_keyed(&self, headers: &HeaderMap) -> bool {
        let Some(Connect { accept }) = &self.connect else {
            return true;
        };
        let mut given = headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
        given.next() == Some(accept) && given.next().is_none()
    }
}

/// Whether a WebSocket is asked for over HTTP/2 (RFC 8441), by a request without `Upgrade` of its own.
pub(super) fn is_by_connect(request: &Request) -> bool {
    request.version() == Version::HTTP_2 && request.extensions().get::<Connect>().is_some()
}

/// Whether `response` would be taken for a tunnel over HTTP/2 and is none: there any success is one
/// (RFC 9110, 9.3.6).
pub(super) fn is_no_tunnel(asked: bool, response: &Response) -> bool {
    asked && response.status().is_success()
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    })
}

fn is_passed_on(protocol: &HeaderValue) -> bool {
    let name = protocol
        .as_bytes()
        .split(|byte| *byte == b'/')
        .next()
        .unwrap_or_default();
    !name.is_empty()
        && ![&b"h2c"[..], b"h2", b"http", b"tls"]
            .iter()
            .any(|refused| name.eq_ignore_ascii_case(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http2_and_tls_are_not_negotiated_through_us() {
        let passed = |protocol: &'static str| is_passed_on(&HeaderValue::from_static(protocol));
        assert!(passed("websocket"));
        assert!(passed("WebSocket"));
        assert!(passed("my-protocol/1"));
        for protocol in ["h2c", "H2C", "TLS/1.0", "HTTP/2.0", "h2", ""] {
            assert!(!passed(protocol), "{protocol}");
        }
    }
}
