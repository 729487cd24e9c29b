use std::net::SocketAddr;

use super::*;
use crate::wire::timer::Timer;

fn peer() -> Peer {
    let client = SocketAddr::from(([192, 0, 2, 7], 5000));
    Peer::new(client, Scheme::Http, Timer::new())
}

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

fn prepared(fields: &[(&'static str, &str)], trust: Trust) -> HeaderMap {
    let mut headers = map(fields);
    let authority = HeaderValue::from_static("blog.m3o.app:8080");
    prepare(&mut headers, Version::HTTP_11, &peer(), trust, &authority);
    headers
}

/// Who a request with these values of `X-Forwarded-For` is from, where its peer and 10.0.0.0/8 are trusted.
fn client_of(chains: &[&str]) -> String {
    let chains: Vec<_> = chains
        .iter()
        .map(|chain| ("x-forwarded-for", *chain))
        .collect();
    let trusted = ["192.0.2.7/32", "10.0.0.0/8"].map(|net| net.parse().unwrap());
    client_address(&map(&chains), &peer(), Trust::Proxy, &trusted).to_string()
}

#[test]
fn a_client_is_the_last_address_that_is_not_trusted() {
    let check =
        |chains: &[&str], expected: &str| assert_eq!(client_of(chains), expected, "{chains:?}");
    check(&[], "192.0.2.7");
    check(&["198.51.100.1"], "198.51.100.1");
    check(&["198.51.100.9, 198.51.100.1"], "198.51.100.1");
    check(&["198.51.100.1, 10.0.0.1,10.0.0.2"], "198.51.100.1");
    check(&["198.51.100.9", "198.51.100.1,  10.0.0.1"], "198.51.100.1");
    // All are trusted: the first of them asks for itself.
    check(&["10.0.0.1, 10.0.0.2"], "10.0.0.1");
    check(&["198.51.100.1:5000"], "198.51.100.1");
    check(&["2001:db8::1"], "2001:db8::1");
    check(&["[2001:db8::1]"], "2001:db8::1");
    check(&["[2001:db8::1]:443"], "2001:db8::1");
    check(&["::ffff:198.51.100.1"], "198.51.100.1");
    // What is no address ends the search: whoever wrote it is the last who is known.
    check(&["198.51.100.1, unknown"], "192.0.2.7");
    check(&["198.51.100.1, unknown, 10.0.0.1"], "10.0.0.1");
    check(&["", "198.51.100.1,"], "192.0.2.7");
}

#[test]
fn a_stranger_is_its_own_client_whatever_it_says() {
    let headers = map(&[("x-forwarded-for", "198.51.100.1")]);
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let client = client_address(&headers, &peer(), Trust::Stranger, &trusted);
    assert_eq!(client, peer().address.ip());
}

#[test]
fn a_request_says_who_is_behind_it_and_by_what_way_it_came() {
    assert_eq!(
        shown(&prepared(&[("accept", "*/*")], Trust::Stranger)),
        [
            "accept: */*",
            "cdn-loop: m3o-ingress",
            "via: 1.1 m3o-ingress",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: blog.m3o.app:8080",
            "x-forwarded-port: 8080",
            "x-forwarded-proto: http",
        ]
    );
}

#[test]
fn a_stranger_cannot_speak_for_a_proxy() {
    let headers = prepared(
        &[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/x"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded_for", "1.1.1.1"),
            ("transfer_encoding", "chunked"),
            ("content_length", "5"),
            ("my_own_field", "kept"),
        ],
        Trust::Stranger,
    );
    assert_eq!(
        shown(&headers),
        [
            "cdn-loop: m3o-ingress",
            "my_own_field: kept",
            "via: 1.1 m3o-ingress",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: blog.m3o.app:8080",
            "x-forwarded-port: 8080",
            "x-forwarded-proto: http",
        ]
    );
}

#[test]
fn a_trusted_proxy_is_believed_and_added_to_the_chain() {
    let headers = prepared(
        &[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("via", "1.1 other"),
        ],
        Trust::Proxy,
    );
    assert_eq!(
        shown(&headers),
        [
            "cdn-loop: m3o-ingress",
            "via: 1.1 m3o-ingress",
            "via: 1.1 other",
            "x-forwarded-for: 1.1.1.1, 2.2.2.2, 192.0.2.7",
            "x-forwarded-host: shop.example",
            "x-forwarded-port: 8080",
            "x-forwarded-proto: https",
        ]
    );
}

#[test]
fn what_belongs_to_one_connection_goes_no_further() {
    let mut headers = map(&[
        ("connection", "keep-alive, X-Secret, host , content-length"),
        ("connection", "X-Other"),
        ("x-secret", "1"),
        ("x-other", "2"),
        ("host", "kept"),
        ("content-length", "5"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
        ("accept", "kept"),
    ]);
    remove_hop_by_hop(&mut headers);
    assert_eq!(
        shown(&headers),
        ["accept: kept", "content-length: 5", "host: kept"]
    );
}

#[test]
fn our_own_fields_cannot_be_nominated_away() {
    let headers = prepared(
        &[
            ("connection", "X-Forwarded-For, Via, CDN-Loop"),
            ("cdn-loop", "other"),
        ],
        Trust::Stranger,
    );
    assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.7");
    assert_eq!(headers[header::VIA], "1.1 m3o-ingress");
    assert_eq!(headers[CDN_LOOP], "m3o-ingress");
}

#[test]
fn only_trailers_of_te_pass() {
    let te = |value| {
        prepared(&[("te", value), ("connection", "te")], Trust::Stranger)
            .get(header::TE)
            .cloned()
    };
    assert_eq!(te("gzip, Trailers").unwrap(), "trailers");
    assert_eq!(te("gzip"), None);
}

#[test]
fn a_request_that_was_here_three_times_loops() {
    assert!(!loops(&map(&[(
        "cdn-loop",
        "m3o-ingress, other, M3O-Ingress; v=1"
    )])));
    assert!(loops(&map(&[
        ("cdn-loop", "m3o-ingress, m3o-ingress"),
        ("cdn-loop", "x, M3O-Ingress;a=b"),
    ])));
    assert!(!loops(&map(&[(
        "cdn-loop",
        "xm3o-ingress, m3o-ingress-b, a, b"
    )])));
}

#[test]
fn a_location_on_the_backends_origin_becomes_one_on_the_public_one() {
    let check = |backend: &str, location: &str, expected: &str| {
        let mut headers = map(&[("location", location)]);
        let authority = HeaderValue::from_static("blog.m3o.app:8080");
        map_to_public(
            &mut headers,
            &Backend::parse(backend).unwrap(),
            Scheme::Http,
            &authority,
        );
        assert_eq!(headers[header::LOCATION], expected, "{backend} {location}");
    };
    check(
        "http://b:9000",
        "http://b:9000/x?y#z",
        "http://blog.m3o.app:8080/x?y#z",
    );
    check(
        "http://b:9000",
        "http://B:9000",
        "http://blog.m3o.app:8080/",
    );
    check("http://b", "http://b:80/x", "http://blog.m3o.app:8080/x");
    check("https://b", "https://b/x", "http://blog.m3o.app:8080/x");
    check(
        "http://b/base",
        "http://b/base/x",
        "http://blog.m3o.app:8080/x",
    );
    check(
        "http://b/base",
        "http://b/base",
        "http://blog.m3o.app:8080/",
    );
    check(
        "http://b/base",
        "http://b/based",
        "http://blog.m3o.app:8080/based",
    );
    check("http://b", "http://b:81/x", "http://b:81/x");
    check("http://b", "https://b/x", "https://b/x");
    check("http://b", "http://other/x", "http://other/x");
    check("http://b", "http://b.evil.com/x", "http://b.evil.com/x");
    check("http://b", "http://b@evil.com/x", "http://b@evil.com/x");
    check("http://b", "/x", "/x");
    check("http://b", "//b/x", "//b/x");
}

#[test]
fn a_cookie_for_the_backends_host_becomes_one_for_the_public_host() {
    let check = |cookie: &str, expected: &str| {
        let mut headers = map(&[("set-cookie", cookie), ("set-cookie", "other=1")]);
        let backend = Backend::parse("http://b.internal").unwrap();
        let authority = HeaderValue::from_static("blog.m3o.app");
        map_to_public(&mut headers, &backend, Scheme::Http, &authority);
        let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(cookies, [expected, "other=1"]);
    };
    check("a=b; Domain=b.internal; Path=/", "a=b; Path=/");
    check("a=b; path=/;DOMAIN=.B.Internal", "a=b; path=/");
    check(
        "a=b; Domain=other.example; Secure",
        "a=b; Domain=other.example; Secure",
    );
    check("domain=b.internal; Secure", "domain=b.internal; Secure");
    check("a=b", "a=b");
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn field() -> impl Strategy<Value = (String, String)> {
        let name = prop_oneof![
            "[a-z][a-z_-]{0,12}",
            prop::sample::select(vec![
                "connection",
                "x-forwarded-for",
                "x_forwarded_for",
                "te",
                "upgrade",
                "via",
                "keep-alive",
                "transfer-encoding",
                "forwarded",
                "cdn-loop",
                "host",
            ])
            .prop_map(str::to_owned),
        ];
        let value = prop_oneof![
            "[ -~]{0,20}",
            "(x-forwarded-for|via|te|close|host|a-b)(, ?x-y)?"
        ];
        (name, value)
    }

    proptest! {
        #[test]
        fn whatever_stands_before_the_last_stranger_the_client_is_the_same(before in "[ -~]{0,60}") {
            prop_assert_eq!(client_of(&[&format!("{before},198.51.100.1, 10.0.0.1")]), "198.51.100.1");
        }

        #[test]
        fn whatever_a_stranger_sends_only_our_word_about_it_is_forwarded(
            fields in prop::collection::vec(field(), 0..20)
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_str(&value).unwrap());
            }
            let authority = HeaderValue::from_static("blog.m3o.app");
            prepare(&mut headers, Version::HTTP_11, &peer(), Trust::Stranger, &authority);

            for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "forwarded"] {
                prop_assert!(!headers.contains_key(name), "{name}");
            }
            prop_assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().count(), 1);
            prop_assert_eq!(&headers[X_FORWARDED_FOR], "192.0.2.7");
            prop_assert_eq!(headers.get_all(header::VIA).iter().next_back().unwrap(), "1.1 m3o-ingress");
            prop_assert!(headers.keys().all(|name| !shadows(&name.as_str().replace('_', "-"))
                || !name.as_str().contains('_')));
            prop_assert!(headers.get(header::TE).is_none_or(|te| te == "trailers"));
        }
    }
}
