//! The fields of messages that are forwarded, edited in place. Knows no configuration.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, Entry, HeaderMap, HeaderName};
use http::{HeaderValue, Version};
use ipnet::IpNet;

use crate::resolve::Backend;
use crate::wire::{Peer, Scheme};

pub use crate::wire::Trust;

/// Our name in `Via`, `CDN-Loop` and `Proxy-Status`.
pub(super) const OUR_NAME: &str = "m3o-ingress";

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// How often our own mark in `CDN-Loop` is one too many (RFC 8586).
const MAX_PASSES: usize = 3;

/// Whether the request has been here too often already.
pub fn loops(headers: &HeaderMap) -> bool {
    let passes = headers
        .get_all(CDN_LOOP)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter(|entry| {
            let name = entry.split(|byte| *byte == b';').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(OUR_NAME.as_bytes())
        })
        .count();
    passes >= MAX_PASSES
}

/// Removes what belongs to this connection alone (RFC 9110, 7.6.1), and returns nothing of it:
/// framing and upgrades are decided anew for the next one.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    remove_with_nominated(headers, is_hop_by_hop);
}

/// Removes the fields that `goes` is true of, and those that `Connection` names.
///
/// Each name is looked at once: a look-up for each field that might be there costs more than all
/// the names of most messages, which have none of them.
fn remove_with_nominated(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let mut gone = Vec::new();
    for name in headers.keys() {
        if name == header::CONNECTION {
            gone.extend(headers.get_all(name).iter().flat_map(nominated));
        }
        if goes(name.as_str()) {
            gone.push(name.clone());
        }
    }
    for name in gone {
        headers.remove(name);
    }
}

/// The fields that a `Connection` value names, those that cannot be named away left out.
fn nominated(value: &HeaderValue) -> Vec<HeaderName> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        // The options that nearly every request has name no field worth a look-up.
        .filter(|token| {
            !token.eq_ignore_ascii_case(b"keep-alive")
                && !token.eq_ignore_ascii_case(b"close")
                && !token.eq_ignore_ascii_case(b"upgrade")
        })
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| ![header::HOST, header::CONTENT_LENGTH].contains(name))
        .collect()
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Makes the head of a client's request one of ours: removes what strangers may not say and what
/// belongs to one connection, says who is behind it and by what way it came.
pub fn prepare(
    headers: &mut HeaderMap,
    version: Version,
    peer: &Peer,
    trust: Trust,
    authority: &HeaderValue,
) {
    let trailers = accepts_trailers(headers);
    remove_with_nominated(headers, |name| {
        // `Expect` we have answered ourselves: 100 is sent when the body is first asked for.
        is_hop_by_hop(name) || matches!(name, "te" | "expect") || is_look_alike(name, trust)
    });
    headers.reserve(MAX_ADDED);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    say_who(headers, peer, trust, authority);
    headers.append(header::VIA, via(version));
    headers.append(CDN_LOOP, HeaderValue::from_static(OUR_NAME));
}

/// How many fields a request is given at most; room is made for them once.
const MAX_ADDED: usize = 10;

/// `TE: trailers` is the only one that a proxy may pass on.
fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Whether a field would be taken for framing or for our own word: with an underscore where those
/// have a hyphen, and, from strangers, the ones that speak for a proxy.
fn is_look_alike(name: &str, trust: Trust) -> bool {
    if name.contains('_') {
        return shadows(&name.replace('_', "-"));
    }
    trust == Trust::Stranger && speaks_for_a_proxy(name)
}

fn shadows(name: &str) -> bool {
    speaks_for_a_proxy(name)
        || matches!(
            name,
            "host"
                | "content-length"
                | "content-type"
                | "transfer-encoding"
                | "connection"
                | "upgrade"
                | "te"
                | "trailer"
                | "expect"
                | "via"
                | "cdn-loop"
                | "x-request-id"
                | "authorization"
                | "cookie"
                | "keep-alive"
                | "proxy-connection"
                | "proxy-authorization"
        )
}

fn speaks_for_a_proxy(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip")
}

fn say_who(headers: &mut HeaderMap, peer: &Peer, trust: Trust, authority: &HeaderValue) {
    let known = match trust {
        Trust::Stranger => None,
        Trust::Proxy => headers.get(X_FORWARDED_FOR),
    };
    let chain = match known {
        None => peer.address_value().clone(),
        Some(_) => joined(headers, peer),
    };
    headers.insert(X_FORWARDED_FOR, chain);
    let mut set = |name: HeaderName, value: &HeaderValue| {
        if trust == Trust::Stranger || !headers.contains_key(&name) {
            headers.insert(name, value.clone());
        }
    };
    set(X_FORWARDED_HOST, authority);
    set(
        X_FORWARDED_PROTO,
        &HeaderValue::from_static(peer.scheme.as_str()),
    );
    set(X_FORWARDED_PORT, &port_of(authority, peer.scheme));
}

/// Scheme and authority as whoever is behind `peer` sees them.
pub(super) fn public_origin(
    headers: &HeaderMap,
    peer: &Peer,
    trust: Trust,
    authority: &HeaderValue,
) -> (Scheme, HeaderValue) {
    let scheme = public_scheme(headers, peer, trust);
    if trust == Trust::Stranger {
        return (scheme, authority.clone());
    }
    let authority = headers.get(X_FORWARDED_HOST).unwrap_or(authority);
    (scheme, authority.clone())
}

/// The scheme as whoever is behind `peer` sees it.
pub(super) fn public_scheme(headers: &HeaderMap, peer: &Peer, trust: Trust) -> Scheme {
    let said = match trust {
        Trust::Stranger => None,
        Trust::Proxy => headers.get(X_FORWARDED_PROTO),
    };
    match said.map(HeaderValue::as_bytes) {
        Some(b"https") => Scheme::Https,
        Some(b"http") => Scheme::Http,
        _ => peer.scheme,
    }
}

/// The address of whoever a request is from.
///
/// That of its peer, and behind trusted proxies the one before them: the last of `X-Forwarded-For` that is not
/// itself `trusted`. What is no address ends the search.
pub fn client_address(headers: &HeaderMap, peer: &Peer, trust: Trust, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.address.ip();
    if trust == Trust::Stranger {
        return client;
    }
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for entry in value.as_bytes().rsplit(|byte| *byte == b',') {
            let Some(address) = address_in(entry.trim_ascii()) else {
                return client;
            };
            client = address;
            if !trusted.iter().any(|net| net.contains(&client)) {
                return client;
            }
        }
    }
    client
}

/// An address, with or without a port, as proxies write it.
fn address_in(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

/// The chain that a trusted proxy sent, with its own address at the end.
fn joined(headers: &HeaderMap, peer: &Peer) -> HeaderValue {
    let mut chain = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.address_value().as_bytes());
    HeaderValue::from_bytes(&chain).unwrap_or_else(|_| peer.address_value().clone())
}

/// The port in the client's address bar.
fn port_of(authority: &HeaderValue, scheme: Scheme) -> HeaderValue {
    let text = authority.to_str().unwrap_or_default();
    let host = text.rfind(']').map_or(0, |end| end + 1);
    match text[host..].split_once(':') {
        Some((_, port)) if !port.is_empty() => {
            HeaderValue::from_str(port).unwrap_or_else(|_| scheme.default_port().into())
        }
        _ => match scheme {
            Scheme::Http => HeaderValue::from_static("80"),
            Scheme::Https => HeaderValue::from_static("443"),
        },
    }
}

/// Our entry in `Via`: the protocol that the message came by (RFC 9110, 7.6.3).
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 m3o-ingress",
        Version::HTTP_2 => "2 m3o-ingress",
        Version::HTTP_3 => "3 m3o-ingress",
        _ => "1.1 m3o-ingress",
    })
}

/// Makes what a backend says of itself true for the public name: `Location` on its own origin, and
/// cookies for its own host.
pub fn map_to_public(
    headers: &mut HeaderMap,
    backend: &Backend,
    scheme: Scheme,
    authority: &HeaderValue,
) {
    if let Some(location) = headers.get(header::LOCATION)
        && let Some(public) = public_location(location, backend, scheme, authority)
    {
        headers.insert(header::LOCATION, public);
    }
    if let Entry::Occupied(mut cookies) = headers.entry(header::SET_COOKIE) {
        for cookie in cookies.iter_mut() {
            if let Some(mapped) = without_domain(cookie, backend.origin().host()) {
                *cookie = mapped;
            }
        }
    }
}

fn public_location(
    location: &HeaderValue,
    backend: &Backend,
    scheme: Scheme,
    authority: &HeaderValue,
) -> Option<HeaderValue> {
    let location = location.to_str().ok()?;
    let (their_scheme, rest) = location.split_once("://")?;
    let their_scheme = match their_scheme {
        scheme if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        scheme if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (their_authority, target) = rest.split_at(end);
    let host = crate::host::Host::parse(their_authority).ok()?;
    let origin = backend.origin();
    let same = their_scheme == origin.scheme()
        && host.name().eq_ignore_ascii_case(origin.host())
        && host.port().unwrap_or_else(|| their_scheme.default_port()) == origin.port();
    if !same {
        return None;
    }
    let target = below(target, backend.path());
    let public = format!("{}://{}{target}", scheme.as_str(), authority.to_str().ok()?);
    HeaderValue::from_str(&public).ok()
}

/// `target` as seen from below the backend's own path, where it is below it.
fn below<'a>(target: &'a str, path: &str) -> &'a str {
    match target.strip_prefix(path) {
        Some("") => "/",
        Some(rest) if rest.starts_with(['/', '?', '#']) => rest,
        _ => target,
    }
}

/// The cookie without its `Domain`, where that names the backend's host.
fn without_domain(cookie: &HeaderValue, host: &str) -> Option<HeaderValue> {
    let text = std::str::from_utf8(cookie.as_bytes()).ok()?;
    let names_host = |attribute: &str| {
        attribute.split_once('=').is_some_and(|(name, domain)| {
            name.trim().eq_ignore_ascii_case("domain")
                && domain
                    .trim()
                    .trim_start_matches('.')
                    .eq_ignore_ascii_case(host)
        })
    };
    // The first part is the cookie itself, whatever it is called.
    let (pair, attributes) = text.split_once(';')?;
    if !attributes.split(';').any(names_host) {
        return None;
    }
    let mut kept = pair.to_owned();
    for attribute in attributes
        .split(';')
        .filter(|attribute| !names_host(attribute))
    {
        kept.push(';');
        kept.push_str(attribute);
    }
    HeaderValue::from_bytes(kept.as_bytes()).ok()
}

#[cfg(test)]
mod tests;
