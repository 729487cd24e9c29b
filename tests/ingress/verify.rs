//! Verification links: when a token is spent, and where its reader is sent.

use std::time::Duration;

use m3o_ingress::proxy::verify::Confirm;

use crate::harness::api::error;
use crate::harness::{Reply, TestApi, TestBackend, TestIngress, eventually};

const VERIFY: &str = "user/VerifyEmail";
const HOST: &str = "user.m3o.com";
const GOOD: &str = "https%3A%2F%2Fgood.example%2Fwelcome";
const BAD: &str = "https%3A%2F%2Fbad.example%2Fsorry";

fn api_that_takes_the_token() -> TestApi {
    let api = TestApi::new();
    api.gives(VERIFY, "{}");
    api
}

fn api_that_refuses_the_token() -> TestApi {
    let api = TestApi::new();
    api.says(VERIFY, error("400 Bad Request", "secret detail"));
    api
}

fn link() -> String {
    format!("/?token=t%2B1&redirectUrl={GOOD}&failureRedirectUrl={BAD}")
}

#[track_caller]
fn check_sealed(reply: Reply) -> Reply {
    assert_eq!(reply.field("Cache-Control"), Some("no-store"));
    assert_eq!(reply.field("Referrer-Policy"), Some("no-referrer"));
    reply
}

#[test]
fn a_good_token_is_spent_with_our_own_token_and_its_reader_sent_on() {
    let api = api_that_takes_the_token();
    let ingress = TestIngress::before(&api);
    let fields = "Authorization: Bearer of-the-client\r\nCookie: a=b\r\n";
    let reply = ingress
        .caller()
        .ask("GET", &link(), HOST, fields)
        .expect(302);
    assert_eq!(
        reply.field("Location"),
        Some("https://good.example/welcome")
    );
    check_sealed(reply);
    let call = api.only();
    assert_eq!(call.head.first, "POST /v1/user/VerifyEmail HTTP/1.1");
    assert_eq!(call.field("Authorization"), Some("Bearer own-token"));
    assert_eq!(call.field("Cookie"), None);
    assert_eq!(call.text(), r#"{"token":"t+1"}"#);
}

#[test]
fn the_id_is_the_token_where_there_is_none() {
    for (host, target, token) in [
        (HOST, "/user/abc", "abc"),
        (HOST, "/user/abc?token=other", "other"),
        (HOST, "/user/a%20b", "a b"),
        (HOST, "/any/path?token=x", "x"),
        ("any.example", "/user/abc", "abc"),
        ("any.example", "/user/abc?token=other", "other"),
        ("m3o.one", "/user/abc", "abc"),
    ] {
        let api = api_that_takes_the_token();
        let ingress = TestIngress::before(&api);
        ingress.get(host, target).expect(200);
        let expected = serde_json::json!({ "token": token }).to_string();
        assert_eq!(api.only().text(), expected, "{host}{target}");
    }
}

#[test]
fn without_a_redirect_a_page_says_that_it_worked() {
    let api = api_that_takes_the_token();
    let ingress = TestIngress::before(&api);
    let reply = check_sealed(ingress.get(HOST, "/?token=t").expect(200));
    assert_eq!(
        reply.field("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    assert!(reply.text().contains("verified"), "{}", reply.text());
}

#[test]
fn a_link_without_a_token_is_a_400() {
    let api = api_that_takes_the_token();
    let ingress = TestIngress::before(&api);
    for target in [
        "/",
        "/?token=",
        "/?redirectUrl=https://good.example/",
        "/user/",
    ] {
        check_sealed(ingress.get(HOST, target).expect(400));
    }
    assert_eq!(api.server().seen().len(), 0);
}

#[test]
fn a_refused_token_shows_where_it_would_lead_and_does_not_redirect() {
    let api = api_that_refuses_the_token();
    let ingress = TestIngress::before(&api);
    let reply = check_sealed(ingress.get(HOST, &link()).expect(400));
    assert_eq!(reply.field("Location"), None);
    assert!(reply.field("X-Request-Id").is_some());
    assert_eq!(
        reply.field("Proxy-Status"),
        Some("m3o-ingress; error=http_request_denied")
    );
    let page = reply.text();
    assert!(page.contains("https://bad.example/sorry"), "{page}");
    assert!(!page.contains("secret detail"));
    assert!(!page.contains("t+1"), "the token is shown");
}

#[test]
fn a_refused_token_without_a_failure_redirect_is_a_page() {
    let api = api_that_refuses_the_token();
    let ingress = TestIngress::before(&api);
    let reply = check_sealed(ingress.get(HOST, "/?token=t").expect(400));
    assert_eq!(
        reply.field("Content-Type"),
        Some("text/html; charset=utf-8")
    );
}

#[test]
fn with_a_list_of_hosts_a_refused_token_redirects_to_those() {
    let api = api_that_refuses_the_token();
    let ingress = TestIngress::before_with(&api, |config| {
        config.user.redirect_hosts = vec![
            "good.example".parse().unwrap(),
            "bad.example".parse().unwrap(),
        ];
    });
    let reply = check_sealed(ingress.get(HOST, &link()).expect(302));
    assert_eq!(reply.field("Location"), Some("https://bad.example/sorry"));
}

#[test]
fn with_a_list_of_hosts_others_are_refused_before_the_token_is_spent() {
    let api = api_that_takes_the_token();
    let ingress = TestIngress::before_with(&api, |config| {
        config.user.redirect_hosts = vec!["good.example".parse().unwrap()];
    });
    check_sealed(ingress.get(HOST, &link()).expect(400));
    let other = "/?token=t&redirectUrl=https%3A%2F%2Fnot.good.example%2F";
    check_sealed(ingress.get(HOST, other).expect(400));
    assert_eq!(api.server().seen().len(), 0);
    let known = format!("/?token=t&redirectUrl={GOOD}");
    ingress.get(HOST, &known).expect(302);
}

#[test]
fn a_target_that_is_no_web_address_is_refused_before_the_token_is_spent() {
    let api = api_that_takes_the_token();
    let ingress = TestIngress::before(&api);
    for target in [
        "javascript%3Aalert(1)",
        "%2F%2Fevil.example",
        "%2Frelative",
        "https%3A%2F%2Fuser%40evil.example%2F",
        "https%3A%5C%5Cevil.example",
        "https%3A%2F%2Fgood.example%0D%0ASet-Cookie%3A%20a%3Db",
        "https%3A%2F%2Fgood.example%2F%00",
        "data%3Atext%2Fhtml%2Cx",
        "ftp%3A%2F%2Fgood.example%2F",
        "https%3A%2F%2F",
    ] {
        for parameter in ["redirectUrl", "failureRedirectUrl"] {
            let reply = ingress.get(HOST, &format!("/?token=t&{parameter}={target}"));
            assert_eq!(reply.status(), 400, "{parameter}={target}");
            assert_eq!(reply.field("Set-Cookie"), None);
            check_sealed(reply);
        }
    }
    assert_eq!(api.server().seen().len(), 0);
}

#[test]
fn an_api_that_is_down_is_a_503_and_no_failure_redirect() {
    for failure in [
        "500 Internal Server Error",
        "503 Unavailable",
        "429 Too Many Requests",
    ] {
        let api = TestApi::new();
        api.says(VERIFY, error(failure, "no"));
        check_down(&TestIngress::before(&api), failure);
    }
    let api = TestApi::new();
    api.on(VERIFY, |answering| answering.wait_for_close());
    let hanging = TestIngress::before_with(&api, |config| {
        config.timeouts.connect = Duration::from_millis(50);
        config.timeouts.response = Duration::from_millis(100);
    });
    check_down(&hanging, "hangs");
    let nobody = TestBackend::answering("").url();
    check_down(&TestIngress::before_address(&nobody, |_| {}), "gone");
}

/// 401 and 403 are about our own token: the reader's may be as good as ever.
#[test]
fn an_api_that_refuses_our_own_token_says_nothing_of_the_link() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let api = TestApi::new();
        api.says(VERIFY, error(status, "not you"));
        let ingress = TestIngress::before(&api);
        let reply = check_sealed(ingress.get(HOST, &link()).expect(502));
        assert_eq!(reply.field("Location"), None);
        let told = reply.text();
        assert!(told.contains("cannot be checked right now"), "{told}");
    }
}

#[track_caller]
fn check_down(ingress: &TestIngress, how: &str) {
    for redirect_to_failure in [link(), "/?token=t".to_owned()] {
        let fields = "Accept: text/html\r\n";
        let reply = ingress
            .caller()
            .ask("GET", &redirect_to_failure, HOST, fields);
        assert_eq!(reply.status(), 503, "{how}");
        assert_eq!(reply.field("Location"), None);
        assert!(reply.field("Retry-After").is_some());
        assert!(reply.text().contains("try again"), "{}", reply.text());
        check_sealed(reply);
    }
}

#[test]
fn a_token_is_never_sent_twice() {
    let api = TestApi::new();
    // Keeps the connection, so that the next call meets its end.
    api.gives("app/Resolve", r#"{"url":"http://127.0.0.1:1"}"#);
    api.on(VERIFY, |answering| {
        answering.body();
        answering.close();
    });
    let ingress = TestIngress::before(&api);
    ingress.get("blog.m3o.app", "/").expect(502);
    ingress.get(HOST, "/?token=t").expect(503);
    assert_eq!(api.calls(VERIFY).len(), 1);
}

#[test]
fn looking_at_a_link_never_spends_its_token() {
    for confirm in [Confirm::Never, Confirm::Always, Confirm::Auto] {
        let api = api_that_takes_the_token();
        let ingress = TestIngress::before_with(&api, |config| config.user.confirm = confirm);
        for method in ["HEAD", "OPTIONS"] {
            let reply = ingress.caller().ask(method, &link(), HOST, "");
            assert!(
                matches!(reply.status(), 200 | 204),
                "{method} {}",
                reply.status()
            );
            assert_eq!(reply.field("Location"), None);
            check_sealed(reply);
        }
        for method in ["PUT", "DELETE", "PATCH"] {
            let reply = ingress.caller().ask(method, &link(), HOST, "").expect(405);
            assert!(reply.field("Allow").unwrap().contains("GET"));
        }
        assert_eq!(api.server().seen().len(), 0);
    }
}

#[test]
fn without_confirmation_a_post_spends_nothing() {
    let api = api_that_takes_the_token();
    let ingress = TestIngress::before(&api);
    check_sealed(ingress.caller().post(HOST, &link(), "", b"").expect(405));
    assert_eq!(api.server().seen().len(), 0);
}

#[test]
fn with_confirmation_a_get_shows_a_button_and_its_post_spends_the_token() {
    let api = api_that_takes_the_token();
    let ingress = TestIngress::before_with(&api, |config| config.user.confirm = Confirm::Always);
    let clicked = "Sec-Fetch-User: ?1\r\n";
    let reply = ingress
        .caller()
        .ask("GET", &link(), HOST, clicked)
        .expect(200);
    let page = check_sealed(reply).text();
    assert!(page.contains("<form") && page.contains("post"), "{page}");
    assert!(!page.contains("t%2B1") && !page.contains("t+1"), "{page}");
    assert_eq!(api.server().seen().len(), 0);

    let reply = ingress.caller().post(HOST, &link(), "", b"").expect(302);
    assert_eq!(
        reply.field("Location"),
        Some("https://good.example/welcome")
    );
    assert_eq!(api.only().text(), r#"{"token":"t+1"}"#);
}

#[test]
fn with_automatic_confirmation_a_persons_click_needs_no_button() {
    let api = api_that_takes_the_token();
    let ingress = TestIngress::before_with(&api, |config| config.user.confirm = Confirm::Auto);
    let reply = ingress.get(HOST, &link()).expect(200);
    assert!(check_sealed(reply).text().contains("<form"));
    assert_eq!(api.server().seen().len(), 0);
    let clicked = "Sec-Fetch-User: ?1\r\n";
    ingress
        .caller()
        .ask("GET", &link(), HOST, clicked)
        .expect(302);
    assert_eq!(api.calls(VERIFY).len(), 1);
    ingress.caller().post(HOST, &link(), "", b"").expect(302);
    assert_eq!(api.calls(VERIFY).len(), 2);
}

#[test]
fn a_bad_link_is_refused_before_the_button_is_shown() {
    let api = api_that_takes_the_token();
    let ingress = TestIngress::before_with(&api, |config| config.user.confirm = Confirm::Always);
    ingress
        .get(HOST, "/?token=t&redirectUrl=javascript:1")
        .expect(400);
    ingress.get(HOST, "/").expect(400);
}

#[test]
fn the_token_is_in_no_log() {
    let api = api_that_refuses_the_token();
    let ingress = TestIngress::before(&api);
    for (host, target) in [
        (HOST, "/?token=canary"),
        (HOST, "/user/canary"),
        (HOST, "/canary/x?token=canary"),
        ("any.example", "/user/canary"),
        ("any.example", "/user/canary?token=canary&x=canary"),
    ] {
        ingress.get(host, target).expect(400);
    }
    eventually("all are logged", || ingress.access_lines().len() == 5);
    let log = ingress.log();
    assert!(!log.contains("canary"), "{log}");
}
