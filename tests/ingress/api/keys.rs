//! Keys: where a call may carry one, which one counts, and that nobody else hears of it.

use super::{AUTHORIZED, FORM, HOST, JSON, MULTIPART, before_api, multipart, passed, refused};
use crate::harness::api::error;
use crate::harness::{Caller, Reply, eventually};

#[test]
fn authorization_is_passed_through_as_it_is() {
    for value in [
        "Bearer client-key",
        "Basic bm9ib2R5OmNsaWVudC1rZXk=",
        "bearer x",
        "Custom a=b, c=d",
    ] {
        let fields = format!("Authorization: {value}\r\n");
        let (call, _) = passed("GET", "/api/helloworld/Call", &fields, b"");
        assert_eq!(call.field("Authorization"), Some(value));
    }
}

#[test]
fn a_key_in_the_query_becomes_a_bearer_and_leaves_the_query() {
    for target in [
        "/api/helloworld/Call?api_key=canary&name=John",
        "/api/helloworld/Call?name=John&api_key=canary",
        "/api/helloworld/Call?name=John&api%5Fkey=canary",
        "/api/helloworld/Call?name=John&api_key=canary&api_key=other-canary",
    ] {
        let fields = "Referer: https://page.example/?api_key=canary\r\n";
        let (call, reply) = passed("GET", target, fields, b"");
        assert_eq!(
            call.field("Authorization"),
            Some("Bearer canary"),
            "{target}"
        );
        assert_eq!(call.text(), r#"{"name":"John"}"#);
        assert_eq!(call.target(), "/v1/helloworld/Call");
        let rest = String::from_utf8_lossy(&call.head.raw).replace("Bearer canary", "");
        assert!(!rest.contains("canary"), "{rest}");
        assert!(!String::from_utf8_lossy(&reply.head.raw).contains("canary"));
    }
}

#[test]
fn a_key_in_a_form_becomes_a_bearer_and_leaves_the_form() {
    let (call, reply) = passed(
        "POST",
        "/api/helloworld/Call",
        FORM,
        b"api_key=canary&name=John",
    );
    assert_eq!(call.field("Authorization"), Some("Bearer canary"));
    assert_eq!(call.text(), r#"{"name":"John"}"#);
    assert_eq!(reply.field("Cache-Control"), None, "it was not in the URL");

    let body = multipart(&[("api_key", None, b"canary"), ("name", None, b"John")]);
    let (call, _) = passed("POST", "/api/helloworld/Call", MULTIPART, &body);
    assert_eq!(call.field("Authorization"), Some("Bearer canary"));
    assert_eq!(call.text(), r#"{"name":"John"}"#);
}

#[test]
fn the_authorization_field_wins_then_the_query_then_the_form() {
    let target = "/api/helloworld/Call?api_key=query-canary";
    let fields = format!("{FORM}{AUTHORIZED}");
    let (call, _) = passed("POST", target, &fields, b"api_key=form-canary");
    assert_eq!(call.field("Authorization"), Some("Bearer client-key"));
    assert_eq!(call.text(), "{}");
    assert_eq!(call.target(), "/v1/helloworld/Call");

    let (call, _) = passed("POST", target, FORM, b"api_key=form-canary");
    assert_eq!(call.field("Authorization"), Some("Bearer query-canary"));
    assert_eq!(call.text(), "{}");
}

#[test]
fn without_a_key_the_answer_says_what_is_needed() {
    for target in [
        "/api/helloworld/Call",
        "/v1/helloworld/Call?name=x",
        "/api/helloworld/Call?api_key=",
    ] {
        let reply = refused("GET", target, "Cookie: api_key=x\r\n", b"", 401);
        assert_eq!(reply.field("WWW-Authenticate"), Some("Bearer"));
        assert_eq!(reply.json()["id"], "ingress.api");
    }
    refused("POST", "/api/helloworld/Call", JSON, b"{}", 401);
    refused("POST", "/api/helloworld/Call", FORM, b"a=b", 401);
    // Only a WebSocket says its token this way.
    let protocol = "Sec-WebSocket-Protocol: canary\r\n";
    refused("GET", "/api/helloworld/Call", protocol, b"", 401);
}

#[test]
fn a_key_that_could_break_a_field_is_refused() {
    for key in ["a%0D%0AX-Evil:%20b", "a%20b", "%00", "%C3%A4", "a%0Ab"] {
        let target = format!("/api/helloworld/Call?api_key={key}");
        refused("GET", &target, "", b"", 400);
    }
}

#[test]
fn two_authorization_fields_are_refused() {
    let twice = format!("{AUTHORIZED}Authorization: Bearer other\r\n");
    refused("GET", "/api/helloworld/Call", &twice, b"", 400);
}

#[test]
fn an_answer_to_a_key_in_the_url_is_kept_by_nobody() {
    let check = |reply: &Reply| {
        assert_eq!(reply.field("Cache-Control"), Some("no-store"));
        assert_eq!(reply.field("Referrer-Policy"), Some("no-referrer"));
    };
    let (_, reply) = passed("GET", "/api/helloworld/Call?api_key=canary", "", b"");
    check(&reply);
    let (_, reply) = passed(
        "GET",
        "/api/helloworld/Call?api_key=canary",
        AUTHORIZED,
        b"",
    );
    check(&reply);
    check(&refused(
        "PUT",
        "/api/helloworld/Call?api_key=canary",
        "",
        b"",
        405,
    ));
    check(&refused(
        "GET",
        "/api/helloworld/Call?api_key=a%20b",
        "",
        b"",
        400,
    ));
    let (_, reply) = passed("GET", "/api/helloworld/Call", AUTHORIZED, b"");
    assert_eq!(reply.field("Cache-Control"), None);
}

#[test]
fn no_key_is_in_any_log_metric_or_error() {
    let (api, ingress) = before_api();
    api.says("a/b", error("500 Internal Server Error", "no"));
    let mut caller = ingress.caller();
    caller
        .get(HOST, "/api/helloworld/Call?api_key=canary")
        .expect(200);
    caller
        .get(HOST, "/api/a/b?api%5Fkey=canary&x=y")
        .expect(500);
    caller
        .ask("GET", "/v1/a/b", HOST, "Authorization: Bearer canary\r\n")
        .expect(500);
    caller.get(HOST, "/other?api_key=canary").expect(404);
    let refused = caller.get(HOST, "/api/a/b?api_key=canary%20x").expect(400);
    assert!(!refused.text().contains("canary"));
    caller
        .post(HOST, "/api/a/b", FORM, b"api_key=canary")
        .expect(500);
    eventually("all are logged", || ingress.access_lines().len() == 6);
    assert!(!ingress.log().contains("canary"), "{}", ingress.log());
    let metrics = Caller::connect(ingress.admin).get("localhost", "/metrics");
    assert!(!metrics.text().contains("canary"));
}
