//! The errors that the ingress makes itself: their form, their words, and what they never show.

use crate::harness::backend::ok;
use crate::harness::{Answering, Reply, TestApi, TestBackend, TestIngress};

fn ask(ingress: &TestIngress, host: &str, target: &str, accept: &str) -> Reply {
    ingress.caller().ask("GET", target, host, accept)
}

#[test]
fn browsers_get_a_page_and_everybody_else_json() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let check = |accept: &str, target: &str, expected: &str| {
        let reply = ask(&ingress, "any.example", target, accept);
        assert!(reply.status() >= 400, "{target}");
        assert_eq!(
            reply.field("Content-Type"),
            Some(expected),
            "{accept:?} {target}"
        );
    };
    let (html, json) = ("text/html; charset=utf-8", "application/json");
    let browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
    check(browser, "/", html);
    check("Accept: TEXT/HTML\r\n", "/", html);
    check(
        "Accept: application/json\r\nAccept: text/html;q=0.5\r\n",
        "/",
        html,
    );
    check("", "/", json);
    check("Accept: */*\r\n", "/", json);
    check("Accept: application/json\r\n", "/", json);
    check("Accept: text/html;q=0\r\n", "/", json);
    check("Accept: text/htmlx\r\n", "/", json);
    check(browser, "/api/helloworld/call", json);
    check(browser, "/v1/helloworld/call", json);
    check(browser, "/api/unknown", json);
}

#[test]
fn every_error_carries_its_request_and_its_kind() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let check = |head: &str, status: u16, kind: &str| {
        let mut caller = ingress.caller();
        caller.send(head);
        let reply = caller.reply().expect(status);
        let id = reply.field("X-Request-Id").unwrap();
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
        let expected = format!("m3o-ingress; error={kind}");
        assert_eq!(reply.field("Proxy-Status"), Some(&*expected), "{head}");
        let json = reply.json();
        assert_eq!(json["code"], status);
        assert!(!json["detail"].as_str().unwrap().is_empty());
        assert_eq!(json.as_object().unwrap().len(), 4);
    };
    check("GET / HTTP/1.1\r\n\r\n", 400, "http_request_error");
    check(
        "GET / HTTP/1.1\r\nHost: any.example\r\n\r\n",
        404,
        "destination_not_found",
    );
    check(
        "GET /api/a/b HTTP/1.1\r\nHost: any.example\r\n\r\n",
        401,
        "http_request_denied",
    );
    check(
        "PUT /api/a/b HTTP/1.1\r\nHost: any.example\r\n\r\n",
        405,
        "http_request_error",
    );
    check(
        "GET / HTTP/1.1\r\nHost: any.example\r\nExpect: x\r\n\r\n",
        417,
        "http_request_error",
    );
    check(
        "GET / HTTP/1.1\r\nHost: nothere.m3o.app\r\n\r\n",
        404,
        "destination_not_found",
    );
}

#[test]
fn an_error_has_the_m3o_shape_to_the_byte() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let reply = ingress.get("any.example", "/").expect(404);
    assert_eq!(
        reply.text(),
        r#"{"id":"ingress","code":404,"detail":"there is nothing here","status":"Not Found"}"#
    );
    let reply = ingress.get("any.example", "/api/a/b").expect(401);
    assert_eq!(
        reply.text(),
        r#"{"id":"ingress.api","code":401,"detail":"an API key is needed: send it as `Authorization: Bearer KEY` or as the parameter api_key","status":"Unauthorized"}"#
    );
    assert_eq!(
        reply.field("Content-Length"),
        Some(&*reply.body.len().to_string())
    );
}

#[test]
fn nothing_that_the_client_sent_is_shown_unescaped() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let accept = "Accept: text/html\r\nX-Request-Id: <script>\r\nReferer: <script>\r\n";
    for (host, target) in [
        ("any.example", "/<script>alert(1)</script>"),
        ("any.example", "/?q=<script>alert(1)</script>"),
        ("nothere.m3o.app", "/<script>"),
        ("user.m3o.com", "/?token=<script>&redirectUrl=<script>"),
        ("any.example", "/u/<script>"),
    ] {
        let reply = ask(&ingress, host, target, accept);
        assert!(reply.status() >= 400);
        assert!(
            !reply.text().contains("<script>"),
            "{target}: {}",
            reply.text()
        );
    }
}

#[test]
fn a_link_on_a_page_is_escaped() {
    let api = TestApi::new();
    api.says(
        "user/VerifyEmail",
        crate::harness::api::error("400 Bad Request", "no"),
    );
    let ingress = TestIngress::before(&api);
    let target = "/?token=t&failureRedirectUrl=https://bad.example/%22onclick=alert(1)%3E%26x";
    let page = ingress.get("user.m3o.com", target).expect(400).text();
    assert!(page.contains("bad.example"), "{page}");
    assert!(!page.contains("\"onclick"), "{page}");
    assert!(!page.contains("(1)>"), "{page}");
}

#[test]
fn pages_are_self_contained_and_harmless() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let reply = ask(&ingress, "any.example", "/", "Accept: text/html\r\n").expect(404);
    let policy = reply.field("Content-Security-Policy").unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(reply.field("X-Content-Type-Options"), Some("nosniff"));
    let page = reply.text();
    for foreign in ["<script", "src=", "<link", "@import"] {
        assert!(!page.contains(foreign), "{foreign} in {page}");
    }
    assert!(page.contains(reply.field("X-Request-Id").unwrap()));
}

#[test]
fn an_error_never_shows_where_the_backend_or_the_api_is() {
    let hidden = |reply: &Reply, secrets: &[&str]| {
        let all = format!(
            "{}{}",
            String::from_utf8_lossy(&reply.head.raw),
            reply.text()
        );
        for secret in secrets {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
    };
    let backend = TestBackend::scripted(Answering::reset);
    let gone = TestBackend::answering(ok("")).url();
    let api = TestApi::new();
    api.resolves(
        "app/Resolve",
        &[("resets", &backend.url()), ("gone", &gone)],
    );
    let ingress = TestIngress::before(&api);
    let port = backend.address.port().to_string();
    for host in ["resets.m3o.app", "gone.m3o.app"] {
        for accept in ["", "Accept: text/html\r\n"] {
            let reply = ask(&ingress, host, "/", accept).expect(502);
            hidden(
                &reply,
                &["127.0.0.1", &port, "hyper", "os error", "own-token"],
            );
        }
    }
    let nobody = TestBackend::answering("").url();
    let ingress = TestIngress::before_address(&nobody, |_| {});
    for (host, target) in [
        ("blog.m3o.app", "/"),
        ("m3o.one", "/u/abc"),
        ("user.m3o.com", "/?token=canary"),
        ("any.example", "/api/a/b?api_key=canary"),
    ] {
        let reply = ask(&ingress, host, target, "").expect(503);
        hidden(
            &reply,
            &["127.0.0.1", "hyper", "os error", "own-token", "canary"],
        );
    }
}

#[test]
fn an_error_to_a_head_has_no_body() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.ask("HEAD", "/", "any.example", "").expect(404);
    caller.get("any.example", "/").expect(404);
}

#[test]
fn the_connection_lives_on_after_an_error() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.get("any.example", "/").expect(404);
    caller.ask("GET", "/", "a b", "").expect(400);
    caller.post("any.example", "/", "", b"small").expect(404);
    caller.get("any.example", "/api/a/b").expect(401);
}

#[test]
fn malformed_requests_are_answered_and_closed() {
    let backend = TestBackend::answering(ok(""));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    for head in [
        "GARBAGE\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: blog.m3o.app\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: blog.m3o.app\r\nA B: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: blog.m3o.app\r\nA: b\u{0}\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: blog.m3o.app\r\nContent-Length: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: blog.m3o.app\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: blog.m3o.app\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let mut caller = ingress.caller();
        caller.send(head);
        let status = caller.reply().status();
        assert!(matches!(status, 400 | 501 | 505), "{head:?} {status}");
        caller.rest();
    }
    assert!(backend.seen().is_empty());
}
