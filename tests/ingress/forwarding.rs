//! What of a request reaches the backend, and what of its response comes back.

use crate::harness::backend::{ok, response};
use crate::harness::{TestApi, TestBackend, TestIngress, eventually};

const BLOG: &str = "blog.m3o.app";

/// An ingress before one app, `blog`, whose backend has `path` in its URL.
fn blog_at(backend: &TestBackend, path: &str) -> (TestApi, TestIngress) {
    let api = TestApi::with_app("blog", &format!("{}{path}", backend.url()));
    let ingress = TestIngress::before(&api);
    (api, ingress)
}

#[test]
fn path_and_query_reach_the_backend_untouched() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog_at(&backend, "");
    let mut caller = ingress.caller();
    for target in [
        "/",
        "/a//b///c",
        "//",
        "//evil.example/x",
        "/a/../b/./c",
        "/..",
        "/%2e%2e/%2E/%2f%5c",
        "/%zz%",
        "/a%00b",
        "/a;b=c,d",
        "/?",
        "/?a",
        "/a?b=c&b=d&&=%zz+%20",
        "/a?b?c=/d/../e",
        "/api/helloworld/call?api_key=of-the-app",
        "/:8080/@x",
        "/a'(b)!*~",
    ] {
        caller.get(BLOG, target).expect(200);
        assert_eq!(backend.last().target(), target);
    }
}

#[test]
fn path_and_query_are_joined_to_those_of_the_backend() {
    let check = |base: &str, asked: &str, expected: &str| {
        let backend = TestBackend::answering(ok(""));
        let (_api, ingress) = blog_at(&backend, base);
        ingress.get(BLOG, asked).expect(200);
        assert_eq!(backend.only().target(), expected, "{base} {asked}");
    };
    check("/", "/", "/");
    check("/base", "/", "/base/");
    check("/base", "/a", "/base/a");
    check("/base/", "/a", "/base/a");
    check("/base", "//a", "/base//a");
    check("/base", "/../a", "/base/../a");
    check("/base?x=1", "/a", "/base/a?x=1");
    check("/base?x=1", "/a?y=2", "/base/a?x=1&y=2");
    check("?x=1", "/?y=%zz", "/?x=1&y=%zz");
    check("/base#fragment", "/a", "/base/a");
}

#[test]
fn the_host_is_the_backends_and_the_clients_is_told_beside() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog_at(&backend, "");
    ingress.get("Blog.m3o.app:8080", "/").expect(200);
    let seen = backend.only();
    assert_eq!(seen.field("Host"), Some(&*backend.address.to_string()));
    assert_eq!(seen.field("X-Forwarded-Host"), Some("Blog.m3o.app:8080"));
    assert_eq!(seen.field("X-Forwarded-Proto"), Some("http"));
    assert_eq!(seen.field("X-Forwarded-Port"), Some("8080"));
    assert_eq!(seen.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(seen.field("Via"), Some("1.1 m3o-ingress"));
    assert_eq!(seen.field("CDN-Loop"), Some("m3o-ingress"));
}

#[test]
fn what_a_stranger_says_about_who_is_behind_it_is_replaced() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog_at(&backend, "");
    let fields = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil.example\r\n\
        X-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\nX-Forwarded-User: root\r\n\
        Forwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\n\
        X-Request-Id: made-up\r\nVia: 1.0 before\r\nCDN-Loop: other\r\n";
    let reply = ingress.caller().ask("GET", "/", BLOG, fields).expect(200);
    let seen = backend.only();
    assert_eq!(seen.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(seen.field("X-Forwarded-Host"), Some(BLOG));
    assert_eq!(seen.field("X-Forwarded-Proto"), Some("http"));
    assert_eq!(seen.field("X-Forwarded-Port"), Some("80"));
    for gone in [
        "X-Forwarded-User",
        "Forwarded",
        "X-Real-IP",
        "X_Forwarded_For",
    ] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    assert_eq!(
        seen.head.all("Via").join(", "),
        "1.0 before, 1.1 m3o-ingress"
    );
    assert_eq!(seen.head.all("CDN-Loop").join(", "), "other, m3o-ingress");

    let id = seen.field("X-Request-Id").unwrap();
    assert_ne!(id, "made-up");
    assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
    assert_eq!(reply.field("X-Request-Id"), Some(id));
}

#[test]
fn every_request_has_its_own_id() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog_at(&backend, "");
    let mut caller = ingress.caller();
    let id = |reply: crate::harness::Reply| reply.field("X-Request-Id").unwrap().to_owned();
    let one = id(caller.get(BLOG, "/"));
    assert_ne!(one, id(caller.get(BLOG, "/")));
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_added_to() {
    let backend = TestBackend::answering(ok(""));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.backends.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let fields = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: public.example\r\n\
        X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nX-Request-Id: from-before\r\n";
    let reply = ingress.caller().ask("GET", "/", BLOG, fields).expect(200);
    let seen = backend.only();
    assert_eq!(seen.field("X-Forwarded-For"), Some("1.2.3.4, 127.0.0.1"));
    assert_eq!(seen.field("X-Forwarded-Host"), Some("public.example"));
    assert_eq!(seen.field("X-Forwarded-Proto"), Some("https"));
    assert_eq!(seen.field("X-Forwarded-Port"), Some("443"));
    assert_eq!(seen.field("X-Request-Id"), Some("from-before"));
    assert_eq!(reply.field("X-Request-Id"), Some("from-before"));
}

#[test]
fn the_clients_own_credentials_are_the_apps() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog_at(&backend, "");
    let fields = "Authorization: Basic Zm9vOmJhcg==\r\nCookie: a=b; c=d\r\nX-Custom: \u{e4}\r\n";
    ingress.caller().ask("GET", "/", BLOG, fields).expect(200);
    let seen = backend.only();
    assert_eq!(seen.field("Authorization"), Some("Basic Zm9vOmJhcg=="));
    assert_eq!(seen.field("Cookie"), Some("a=b; c=d"));
    assert_eq!(seen.field("X-Custom"), Some("\u{e4}"));
}

#[test]
fn fields_of_one_connection_go_no_further() {
    let backend = TestBackend::answering(response(
        "200 OK",
        "Connection: X-Their, keep-alive\r\nX-Their: secret\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nX-Kept: yes\r\n",
        "",
    ));
    let (_api, ingress) = blog_at(&backend, "");
    let fields = "Connection: X-Mine, keep-alive, X-Forwarded-For, Host\r\nX-Mine: secret\r\n\
        Keep-Alive: timeout=5\r\nProxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\n\
        TE: trailers, deflate\r\nX-Kept: yes\r\n";
    let reply = ingress.caller().ask("GET", "/", BLOG, fields).expect(200);
    let seen = backend.only();
    for gone in [
        "X-Mine",
        "Keep-Alive",
        "Proxy-Authorization",
        "Proxy-Connection",
    ] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    assert_eq!(seen.field("X-Kept"), Some("yes"));
    assert_eq!(seen.field("TE"), Some("trailers"));
    assert_eq!(seen.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(seen.field("Host"), Some(&*backend.address.to_string()));
    for gone in ["X-Their", "Keep-Alive", "Proxy-Authenticate", "Connection"] {
        assert_eq!(reply.field(gone), None, "{gone}");
    }
    assert_eq!(reply.field("X-Kept"), Some("yes"));
}

#[test]
fn a_request_that_was_here_three_times_is_a_loop() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog_at(&backend, "");
    let mut caller = ingress.caller();
    let twice = "CDN-Loop: m3o-ingress, other; x=m3o-ingress\r\nCDN-Loop: M3O-Ingress; a=b\r\n";
    caller.ask("GET", "/", BLOG, twice).expect(200);
    let thrice = "CDN-Loop: m3o-ingress, m3o-ingress\r\nCDN-Loop: m3o-ingress\r\n";
    let reply = caller.ask("GET", "/", BLOG, thrice).expect(508);
    assert_eq!(
        reply.field("Proxy-Status"),
        Some("m3o-ingress; error=proxy_loop_detected")
    );
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn status_reason_fields_and_body_of_the_backend_come_back() {
    let backend = TestBackend::answering(response(
        "418 I'm a teapot",
        "Content-Type: text/x-tea\r\nServer: pot\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
         X-Twice: 1\r\nX-Twice: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nETag: \"x\"\r\n",
        "short and stout",
    ));
    let (_api, ingress) = blog_at(&backend, "");
    let reply = ingress.get(BLOG, "/").expect(418);
    assert_eq!(reply.text(), "short and stout");
    assert_eq!(reply.field("Content-Type"), Some("text/x-tea"));
    assert_eq!(reply.field("Server"), Some("pot"));
    assert_eq!(reply.field("Date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    assert_eq!(reply.head.all("X-Twice"), ["1", "2"]);
    assert_eq!(reply.head.all("Set-Cookie"), ["a=1", "b=2"]);
    assert_eq!(reply.field("ETag"), Some("\"x\""));
    assert_eq!(reply.field("Proxy-Status"), None, "it is not our error");
}

#[test]
fn a_location_on_the_backends_origin_becomes_public() {
    let check = |path: &'static str, location: &dyn Fn(&str) -> String, expected: &str| {
        let place = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let said = std::sync::Arc::clone(&place);
        let backend = TestBackend::scripted(move |answering| {
            answering.body();
            let location = said.lock().unwrap().clone();
            let fields = format!("Location: {location}\r\n");
            answering.write(response("302 Found", &fields, ""));
        });
        *place.lock().unwrap() = location(&backend.url());
        let (_api, ingress) = blog_at(&backend, path);
        let reply = ingress.get("blog.m3o.app:8080", "/").expect(302);
        assert_eq!(reply.field("Location"), Some(expected));
    };
    check(
        "",
        &|own| format!("{own}/login?next=%2F#x"),
        "http://blog.m3o.app:8080/login?next=%2F#x",
    );
    check("", &|own| own.to_owned(), "http://blog.m3o.app:8080/");
    check(
        "/base",
        &|own| format!("{own}/base/login"),
        "http://blog.m3o.app:8080/login",
    );
    check("", &|_| "/relative".to_owned(), "/relative");
    check(
        "",
        &|_| "https://other.example/x".to_owned(),
        "https://other.example/x",
    );
}

#[test]
fn a_cookie_for_the_backends_host_becomes_one_for_the_app() {
    let backend = TestBackend::answering(response(
        "200 OK",
        "Set-Cookie: a=1; Domain=127.0.0.1; Path=/; HttpOnly\r\n\
         Set-Cookie: b=2; domain=.127.0.0.1\r\n\
         Set-Cookie: c=3; Domain=other.example; Secure\r\n\
         Set-Cookie: domain=127.0.0.1; Path=/\r\n",
        "",
    ));
    let (_api, ingress) = blog_at(&backend, "");
    let reply = ingress.get(BLOG, "/").expect(200);
    assert_eq!(
        reply.head.all("Set-Cookie"),
        [
            "a=1; Path=/; HttpOnly",
            "b=2",
            "c=3; Domain=other.example; Secure",
            "domain=127.0.0.1; Path=/",
        ]
    );
}

#[test]
fn a_backend_over_tls_is_trusted_by_the_configured_authority_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let backend = TestBackend::secure(&ca, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecure");
    let api = TestApi::with_app("blog", &backend.url());
    let trusting = TestIngress::before_with(&api, |config| {
        config.backends.ca = ca.to_str().unwrap().to_owned();
    });
    let mut caller = trusting.caller();
    assert_eq!(caller.get(BLOG, "/").expect(200).text(), "secure");
    assert_eq!(caller.get(BLOG, "/").expect(200).text(), "secure");
    assert_eq!(backend.opened(), 1, "the connection is used again");

    let strict = TestIngress::before(&api);
    let reply = strict.get(BLOG, "/").expect(502);
    assert!(!reply.text().contains("certificate"), "{}", reply.text());
}

#[test]
fn chunks_arrive_over_tls_as_they_were_sent_whatever_their_size() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let backend = TestBackend::secure_scripted(&ca, |answering| {
        answering.body();
        answering.write(ok("hello"));
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.backends.ca = ca.to_str().unwrap().to_owned();
    });
    let mut caller = ingress.caller();
    // TLS takes so many bytes at once: the end of a chunk then comes with the next write.
    for (index, first) in (65_520..65_540).enumerate() {
        caller.send(format!(
            "POST / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        eventually("its head is there", || backend.seen().len() == index + 1);
        let chunk = |size: usize| format!("{size:x}\r\n{}\r\n", "x".repeat(size));
        caller.send(format!("{}{}0\r\n\r\n", chunk(first), chunk(8192)));
        caller.reply().expect(200);
        assert_eq!(backend.last().body.len(), first + 8192);
    }
}

#[test]
fn every_method_reaches_the_backend() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog_at(&backend, "");
    let mut caller = ingress.caller();
    for method in [
        "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X-OWN",
    ] {
        caller.ask(method, "/", BLOG, "").expect(200);
        assert_eq!(backend.last().method(), method);
    }
    for method in ["TRACE", "CONNECT"] {
        let reply = ingress.caller().ask(method, "/", BLOG, "");
        assert!(
            matches!(reply.status(), 400 | 501),
            "{method}: {}",
            reply.head.first
        );
    }
}
