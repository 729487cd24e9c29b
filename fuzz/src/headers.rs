//! The fields of messages that are forwarded.

use std::net::SocketAddr;

use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, Version};
use m3o_ingress::proxy::headers::{self, Trust};
use m3o_ingress::resolve::Backend;
use m3o_ingress::wire::timer::Timer;
use m3o_ingress::wire::{Peer, Scheme};

/// Fields that are never forwarded.
const OF_A_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Fields that are ours to set, or that only a proxy may.
const OURS: [&str; 12] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "forwarded",
    "x-real-ip",
    "via",
    "cdn-loop",
    "te",
    "expect",
    "host",
    "content-length",
];

/// Each line is a field.
pub fn check(input: &[u8]) {
    let fields = fields(input);
    for trust in [Trust::Stranger, Trust::Proxy] {
        request(&fields, trust);
    }
    response(&fields);
}

fn fields(input: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().map(HeaderName::from_bytes);
        let value = parts
            .next()
            .map(|value| HeaderValue::from_bytes(value.trim_ascii()));
        if let (Some(Ok(name)), Some(Ok(value))) = (name, value) {
            fields.append(name, value);
        }
    }
    fields
}

fn request(sent: &HeaderMap, trust: Trust) {
    let address = SocketAddr::from(([192, 0, 2, 7], 1));
    let peer = Peer::new(address, Scheme::Https, Timer::new());
    let authority = HeaderValue::from_static("blog.m3o.app:8443");
    let mut fields = sent.clone();
    headers::prepare(&mut fields, Version::HTTP_11, &peer, trust, &authority);

    for name in OF_A_CONNECTION.into_iter().chain(["expect"]) {
        assert!(!fields.contains_key(name), "{name}");
    }
    let nominated = nominated(sent);
    for (name, value) in sent {
        let text = name.as_str();
        let goes = OF_A_CONNECTION.contains(&text) || nominated.contains(name);
        if goes || OURS.contains(&text) || text.contains('_') || text.starts_with("x-forwarded-") {
            continue;
        }
        let kept = fields.get_all(name).iter().any(|other| other == value);
        assert!(kept, "{name} is the client's own");
    }
    for name in fields.keys() {
        let known = sent.contains_key(name) || OURS.contains(&name.as_str());
        assert!(known, "{name} comes from nowhere");
        let twin = name.as_str().replace('_', "-");
        assert!(
            !(twin != name.as_str() && OURS.contains(&&*twin)),
            "{name} shadows"
        );
        if nominated.contains(name) {
            assert!(OURS.contains(&name.as_str()), "{name} was nominated");
        }
    }
    let last = |name: &str| {
        let last = fields.get_all(name).iter().next_back();
        last.map(HeaderValue::as_bytes).unwrap_or_default().to_vec()
    };
    assert_eq!(last("via"), b"1.1 m3o-ingress");
    assert_eq!(last("cdn-loop"), b"m3o-ingress");
    assert!(fields.get("te").is_none_or(|te| te == "trailers"));
    assert!(last("x-forwarded-for").ends_with(b"192.0.2.7"));
    if trust == Trust::Stranger {
        let one = |name: &str, expected: &str| {
            let values: Vec<_> = fields.get_all(name).iter().collect();
            assert_eq!(values, [expected], "{name}");
        };
        one("x-forwarded-for", "192.0.2.7");
        one("x-forwarded-host", "blog.m3o.app:8443");
        one("x-forwarded-proto", "https");
        one("x-forwarded-port", "8443");
        assert!(!fields.contains_key("forwarded") && !fields.contains_key("x-real-ip"));
    }
    for name in [header::HOST, header::CONTENT_LENGTH] {
        let (before, after) = (sent.get_all(&name), fields.get_all(&name));
        assert!(
            before.iter().eq(after.iter()),
            "{name} cannot be nominated away"
        );
    }
    headers::loops(&fields);
}

fn response(sent: &HeaderMap) {
    let backend = Backend::parse("http://backend.example:81/base").expect("it is a URL");
    let mut fields = sent.clone();
    headers::remove_hop_by_hop(&mut fields);
    let ours = HeaderValue::from_static("blog.m3o.app");
    headers::map_to_public(&mut fields, &backend, Scheme::Https, &ours);

    let nominated = nominated(sent);
    for name in fields.keys() {
        assert!(!OF_A_CONNECTION.contains(&name.as_str()), "{name}");
        assert!(!nominated.contains(name), "{name} was nominated");
        let (before, after) = (sent.get_all(name), fields.get_all(name));
        match name {
            // Of several only one can be followed.
            &header::LOCATION => {}
            &header::SET_COOKIE => assert_eq!(before.iter().count(), after.iter().count()),
            name => assert!(before.iter().eq(after.iter()), "{name}"),
        }
    }
    let cookies = sent.get_all(header::SET_COOKIE).iter();
    for (before, after) in cookies.zip(fields.get_all(header::SET_COOKIE)) {
        let named = |cookie: &HeaderValue| {
            let text = cookie.to_str().unwrap_or_default().to_ascii_lowercase();
            let attributes = text.split(';').skip(1);
            let mut named = attributes.filter_map(|attribute| attribute.split_once('='));
            named.any(|(name, value)| name.trim() == "domain" && value.trim() == "backend.example")
        };
        assert!(!named(after), "{after:?}");
        let pair = |cookie: &HeaderValue| {
            cookie
                .as_bytes()
                .split(|byte| *byte == b';')
                .next()
                .map(<[u8]>::to_vec)
        };
        assert_eq!(pair(before), pair(after));
    }
}

/// What `Connection` names, but what it cannot take away.
fn nominated(fields: &HeaderMap) -> Vec<HeaderName> {
    let options = ["close", "keep-alive", "upgrade", "host", "content-length"];
    fields
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| !options.contains(&name.as_str()))
        .collect()
}
