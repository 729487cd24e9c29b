//! Clients that are sent to HTTPS, and told to stay there.

use m3o_ingress::config::Config;
use m3o_ingress::proxy::https::Rule;

use crate::harness::backend::{ok, response};
use crate::harness::http2::{ask, get, run};
use crate::harness::secure::Authority;
use crate::harness::{Caller, TestApi, TestBackend, TestIngress};

const BLOG: &str = "blog.m3o.app";

struct Blog {
    backend: TestBackend,
    api: TestApi,
    ingress: TestIngress,
}

fn blog(adjust: impl FnOnce(&mut Config)) -> Blog {
    blog_answering(ok("hello"), adjust)
}

fn blog_answering(answer: String, adjust: impl FnOnce(&mut Config)) -> Blog {
    let backend = TestBackend::answering(answer);
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, adjust);
    Blog {
        backend,
        api,
        ingress,
    }
}

fn only(config: &mut Config) {
    config.https.redirect = true;
}

/// We are a proxy that speaks TLS with the clients.
fn behind_tls(config: &mut Config) {
    config.backends.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

const OVER_TLS: &str = "X-Forwarded-Proto: https\r\n";
const PROMISE: &str = "Strict-Transport-Security";

#[test]
fn every_method_is_sent_to_the_same_over_https() {
    let blog = blog(only);
    let mut caller = blog.ingress.caller();
    for method in [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "ODD",
    ] {
        let reply = caller.ask(method, "/a//b?c=%20&d", "Blog.M3O.app:8080", "");
        let reply = reply.expect(308);
        let location = reply.field("Location");
        assert_eq!(
            location,
            Some("https://blog.m3o.app/a//b?c=%20&d"),
            "{method}"
        );
        assert!(reply.field("X-Request-Id").is_some());
        assert_eq!(
            reply.field(PROMISE),
            None,
            "nothing is promised over plain HTTP"
        );
    }
    let reply = caller.post(BLOG, "/form", "", b"a=b").expect(308);
    assert_eq!(reply.field("Location"), Some("https://blog.m3o.app/form"));
    let reply = caller.ask("OPTIONS", "*", BLOG, "").expect(308);
    assert_eq!(reply.field("Location"), Some("https://blog.m3o.app/"));
    assert!(blog.backend.seen().is_empty());
    assert!(blog.api.server().seen().is_empty(), "nobody was asked");
}

#[test]
fn no_token_is_spent_by_a_redirect_and_none_is_logged() {
    let blog = blog(only);
    let mut caller = blog.ingress.caller();
    for (host, target) in [
        (
            "user.m3o.com",
            "/?token=canary-7&redirectUrl=https://a.example/",
        ),
        ("any.example", "/user/canary-7"),
        ("m3o.one", "/u/link"),
        ("any.example", "/api/helloworld/call?api_key=canary-7"),
        ("any.example", "/nowhere"),
    ] {
        let reply = caller.get(host, target).expect(308);
        let expected = format!("https://{host}{target}");
        assert_eq!(reply.field("Location"), Some(&*expected));
    }
    assert!(blog.api.server().seen().is_empty());
    drop(caller);
    let log = blog.ingress.log();
    assert!(!log.contains("canary"), "{log}");
}

#[test]
fn a_request_without_a_host_to_go_to_is_a_400() {
    let blog = blog(only);
    for fields in [
        "",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: u@a\r\n",
    ] {
        let mut caller = blog.ingress.caller();
        caller.send(format!("GET / HTTP/1.1\r\n{fields}\r\n"));
        caller.reply().expect(400);
    }
}

#[test]
fn challenges_and_health_stay_where_they_are() {
    let blog = blog(only);
    let challenge = "/.well-known/acme-challenge/abc";
    blog.ingress.get(BLOG, challenge).expect(200);
    assert_eq!(blog.backend.only().target(), challenge);
    let mut operator = Caller::connect(blog.ingress.admin);
    operator.get("localhost", "/livez").expect(200);
}

#[test]
fn whoever_is_there_already_is_not_sent_there_again() {
    let blog = blog(|config| {
        only(config);
        behind_tls(config);
    });
    let mut caller = blog.ingress.caller();
    let reply = caller.ask("GET", "/", BLOG, OVER_TLS).expect(200);
    assert_eq!(reply.field(PROMISE), Some("max-age=31536000"));
    caller.ask("GET", "/", BLOG, "").expect(308);
    caller
        .ask("GET", "/", BLOG, "X-Forwarded-Proto: http\r\n")
        .expect(308);
}

#[test]
fn a_stranger_that_claims_to_be_there_is_sent_there() {
    let blog = blog(only);
    let mut caller = blog.ingress.caller();
    caller.ask("GET", "/", BLOG, OVER_TLS).expect(308);
}

#[test]
fn our_own_errors_make_the_promise_too_and_no_answer_makes_it_twice() {
    let backends = response(
        "200 OK",
        "Strict-Transport-Security: max-age=1\r\nStrict-Transport-Security: max-age=2\r\n",
        "hello",
    );
    let blog = blog_answering(backends, |config| {
        behind_tls(config);
        config.https.hsts = Some(std::time::Duration::from_secs(60));
        config.https.hsts_subdomains = true;
    });
    let mut caller = blog.ingress.caller();
    for (host, method, status) in [
        (BLOG, "GET", 200),
        ("gone.m3o.app", "GET", 404),
        (BLOG, "TRACE", 501),
        ("any.example", "GET", 404),
    ] {
        let reply = caller.ask(method, "/", host, OVER_TLS).expect(status);
        let promised = reply.head.all(PROMISE);
        assert_eq!(
            promised,
            ["max-age=60; includeSubDomains"],
            "{host} {method}"
        );
    }
    let mut plain = blog.ingress.caller();
    let reply = plain.ask("GET", "/", "gone.m3o.app", "").expect(404);
    assert_eq!(reply.field(PROMISE), None);
}

#[test]
fn an_apps_own_promise_is_kept_where_we_make_none() {
    let own = response(
        "200 OK",
        "Strict-Transport-Security: max-age=1\r\n",
        "hello",
    );
    let blog = blog_answering(own, behind_tls);
    let mut caller = blog.ingress.caller();
    let reply = caller.ask("GET", "/", BLOG, OVER_TLS).expect(200);
    assert_eq!(reply.head.all(PROMISE), ["max-age=1"]);
}

#[test]
fn a_domain_stands_over_the_listener_that_a_request_came_by() {
    let second = "127.0.0.2:0".parse().unwrap();
    let rule = |redirect| Rule {
        redirect: Some(redirect),
        ..Rule::default()
    };
    let blog = blog(|config| {
        config.listen.http.push(second);
        config.https.listeners.insert(second, rule(true));
        let domains = &mut config.https.domains;
        domains.insert("m3o.sh".parse().unwrap(), rule(true));
        domains.insert("blog.m3o.app".parse().unwrap(), rule(false));
    });
    let [first, second] = blog.ingress.public[..] else {
        panic!("{:?}", blog.ingress.public);
    };
    let check = |listener, host: &str, status| {
        Caller::connect(listener).get(host, "/").expect(status);
    };
    check(first, BLOG, 200);
    check(second, BLOG, 200);
    check(first, "other.m3o.app", 404);
    check(second, "other.m3o.app", 308);
    check(first, "hello.m3o.sh", 308);
    check(second, "m3o.sh", 308);
}

#[test]
fn every_answer_over_tls_makes_the_promise_once_whichever_version_it_is_of() {
    let authority = Authority::new();
    authority.put("ours", &["*.m3o.app", "localhost"]);
    let own = response(
        "200 OK",
        "Strict-Transport-Security: max-age=1\r\n",
        "hello",
    );
    let blog = blog_answering(own, |config| {
        config.listen.https = vec!["127.0.0.1:0".parse().unwrap()];
        config.tls.certs = authority.folder().to_owned();
        only(config);
    });
    let secure = blog.ingress.secure();
    let cases = [
        (BLOG, "/", 200),
        ("gone.m3o.app", "/", 404),
        ("localhost", "/nowhere", 404),
        ("localhost", "/v1/helloworld/Call", 401),
        ("other.example", "/", 421),
    ];
    let mut caller = authority.clients().connect(secure, BLOG).unwrap();
    for (host, target, status) in cases {
        let reply = caller.get(host, target).expect(status);
        assert_eq!(reply.head.all(PROMISE), ["max-age=31536000"], "{host}");
    }
    for broken in ["Host: a\r\nHost: b\r\n", "Host: a b\r\n", "A B: c\r\n"] {
        let mut caller = authority.clients().connect(secure, BLOG).unwrap();
        caller
            .send(format!("GET / HTTP/1.1\r\n{broken}\r\n"))
            .unwrap();
        let head = caller.reader.head().unwrap().unwrap();
        assert_eq!(head.all(PROMISE), ["max-age=31536000"], "{broken}");
    }

    run(async {
        let client = authority.http2(secure, BLOG).await;
        for (host, target, status) in cases {
            let whole = ask(&client, get(host, target)).await;
            assert_eq!(whole.status(), status, "{host}");
            let promised: Vec<_> = whole.head.headers().get_all(PROMISE).iter().collect();
            assert_eq!(promised, ["max-age=31536000"], "{host}");
        }
        let mut many = get(BLOG, "/");
        for number in 0..200 {
            many.headers_mut()
                .append("x-field", number.to_string().parse().unwrap());
        }
        let whole = ask(&client, many).await;
        assert_eq!(whole.status(), 431);
        assert_eq!(whole.field(PROMISE), Some("max-age=31536000"));
    });

    let mut plain = blog.ingress.caller();
    for (host, target, status) in [
        (BLOG, "/", 308),
        (BLOG, "/.well-known/acme-challenge/abc", 200),
    ] {
        let reply = plain.get(host, target).expect(status);
        // What the app says itself is its own affair.
        let ours = reply.head.all(PROMISE).contains(&"max-age=31536000");
        assert!(!ours, "{target}");
    }
}
