//! `/api` and `/v1`: credentials, what becomes JSON, what stays as it is, and what comes back.

use std::time::Duration;

use serde_json::json;

use crate::harness::api::{error, json_response};
use crate::harness::backend::response;
use crate::harness::ingress::KEY;
use crate::harness::{Answering, Gate, Reply, Seen, TestApi, TestBackend, TestIngress, eventually};

const HOST: &str = "api.example";
const CALL: &str = "helloworld/Call";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const AUTHORIZED: &str = "Authorization: Bearer client-key\r\n";

fn before_api() -> (TestApi, TestIngress) {
    let api = TestApi::new();
    api.gives(CALL, r#"{"message":"Hello"}"#);
    let ingress = TestIngress::before(&api);
    (api, ingress)
}

/// Sends one request and gives what the API saw of it.
#[track_caller]
fn passed(method: &str, target: &str, fields: &str, body: &[u8]) -> (Seen, Reply) {
    let (api, ingress) = before_api();
    let mut caller = ingress.caller();
    let length = match body {
        [] => String::new(),
        body => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{length}{fields}\r\n");
    caller.send([head.as_bytes(), body].concat());
    let reply = caller.reply_to(method).expect(200);
    (api.only(), reply)
}

#[track_caller]
fn refused(method: &str, target: &str, fields: &str, body: &[u8], status: u16) -> Reply {
    let (api, ingress) = before_api();
    let mut caller = ingress.caller();
    let length = match body {
        [] => String::new(),
        body => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{length}{fields}\r\n");
    caller.send([head.as_bytes(), body].concat());
    let reply = caller.reply_to(method).expect(status);
    assert!(api.server().seen().is_empty(), "the API was asked");
    reply
}

#[test]
fn both_paths_lead_to_v1_by_post() {
    for (method, target) in [
        ("GET", "/api/helloworld/Call"),
        ("POST", "/api/helloworld/Call"),
        ("HEAD", "/api/helloworld/Call"),
        ("GET", "/v1/helloworld/Call"),
        ("POST", "/v1/helloworld/Call"),
    ] {
        let (call, _) = passed(method, target, AUTHORIZED, b"");
        assert_eq!(
            call.head.first, "POST /v1/helloworld/Call HTTP/1.1",
            "{method} {target}"
        );
        assert_eq!(call.text(), "{}");
        assert_eq!(call.field("Content-Type"), Some("application/json"));
    }
}

#[test]
fn a_third_segment_is_passed_too() {
    let api = TestApi::new();
    api.gives("helloworld/Helloworld/Call", "{}");
    let ingress = TestIngress::before(&api);
    let target = "/api/helloworld/Helloworld/Call";
    ingress
        .caller()
        .ask("GET", target, HOST, AUTHORIZED)
        .expect(200);
}

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
fn query_parameters_become_one_json_object() {
    let check = |query: &str, expected: serde_json::Value| {
        let target = format!("/api/helloworld/Call{query}");
        let (call, _) = passed("GET", &target, AUTHORIZED, b"");
        let sent: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!(sent, expected, "{query}");
        assert_eq!(call.target(), "/v1/helloworld/Call");
        assert_eq!(
            call.field("Content-Length"),
            Some(&*call.body.len().to_string())
        );
    };
    check("?name=John", json!({ "name": "John" }));
    check(
        "?a=1&a=2&b=3&a=4",
        json!({ "a": ["1", "2", "4"], "b": "3" }),
    );
    check("?a=&b", json!({ "a": "", "b": "" }));
    check("?name=J%C3%B6rg+M%2B", json!({ "name": "Jörg M+" }));
    check("?a=%22%7D%5C", json!({ "a": "\"}\\" }));
    check("?n=1&t=true", json!({ "n": "1", "t": "true" }));
    check("?", json!({}));
    check("", json!({}));
}

#[test]
fn a_form_becomes_one_json_object_over_the_query() {
    let target = "/api/helloworld/Call?a=query&b=query&a=query2";
    let fields = format!("{AUTHORIZED}{FORM}");
    let (call, _) = passed("POST", target, &fields, b"a=form&c=1&c=2&d=%C3%A4+b");
    let sent: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(
        sent,
        json!({ "a": "form", "b": "query", "c": ["1", "2"], "d": "ä b" })
    );
    assert_eq!(call.target(), "/v1/helloworld/Call");
    assert_eq!(call.field("Content-Type"), Some("application/json"));
    assert_eq!(call.field("Transfer-Encoding"), None);
}

#[test]
fn a_chunked_form_becomes_json_with_a_length() {
    let (api, ingress) = before_api();
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST /api/{CALL} HTTP/1.1\r\nHost: {HOST}\r\n{AUTHORIZED}{FORM}Transfer-Encoding: chunked\r\n\r\n\
         2\r\na=\r\n1\r\nb\r\n0\r\n\r\n"
    ));
    caller.reply().expect(200);
    let call = api.only();
    assert_eq!(call.text(), r#"{"a":"b"}"#);
    assert_eq!(call.field("Content-Length"), Some("9"));
    assert_eq!(call.field("Transfer-Encoding"), None);
}

const MULTIPART: &str = "Content-Type: multipart/form-data; boundary=XX\r\n";

fn multipart(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, data) in parts {
        let file = file.map_or(String::new(), |file| format!("; filename=\"{file}\""));
        body.extend_from_slice(
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
                .as_bytes(),
        );
        body.extend_from_slice(data);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    body
}

#[test]
fn a_multipart_form_becomes_json_and_a_file_its_base64() {
    let body = multipart(&[
        ("a", None, b"form"),
        ("file", Some("x.bin"), &[0, 255, 13, 10, 65]),
        ("b", None, b"1"),
        ("b", None, b"2"),
    ]);
    let fields = format!("{AUTHORIZED}{MULTIPART}");
    let (call, _) = passed(
        "POST",
        "/api/helloworld/Call?a=query&c=query",
        &fields,
        &body,
    );
    let sent: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(
        sent,
        json!({ "a": "form", "file": "AP8NCkE=", "b": ["1", "2"], "c": "query" })
    );
    assert_eq!(call.field("Content-Type"), Some("application/json"));
}

#[test]
fn a_form_that_cannot_be_read_is_refused() {
    let target = "/api/helloworld/Call";
    let fields = format!("{AUTHORIZED}{MULTIPART}");
    refused("POST", target, &fields, b"no parts at all", 400);
    let no_boundary = format!("{AUTHORIZED}Content-Type: multipart/form-data\r\n");
    refused("POST", target, &no_boundary, b"x", 400);
    let body = multipart(&[("a", None, &[255, 254])]);
    refused("POST", target, &fields, &body, 400);
}

#[test]
fn a_compressed_form_is_a_415() {
    let target = "/api/helloworld/Call";
    for kind in [FORM, MULTIPART] {
        let fields = format!("{AUTHORIZED}{kind}Content-Encoding: gzip\r\n");
        refused("POST", target, &fields, b"x", 415);
    }
    let fields = format!("{AUTHORIZED}{FORM}Content-Encoding: identity\r\n");
    let (call, _) = passed("POST", target, &fields, b"a=b");
    assert_eq!(call.text(), r#"{"a":"b"}"#);
    assert_eq!(call.field("Content-Encoding"), None);
}

#[test]
fn a_form_over_the_limit_is_a_413() {
    for chunked in [false, true] {
        for kind in [FORM, MULTIPART] {
            let api = TestApi::new();
            let ingress = TestIngress::before_with(&api, |config| config.limits.form = 100);
            let mut caller = ingress.caller();
            let body = "x".repeat(101);
            let (framing, body) = if chunked {
                let body = format!("65\r\n{body}\r\n0\r\n\r\n");
                ("Transfer-Encoding: chunked".to_owned(), body)
            } else {
                (format!("Content-Length: {}", body.len()), body)
            };
            caller.send(format!(
                "POST /api/a/b HTTP/1.1\r\nHost: {HOST}\r\n{AUTHORIZED}{kind}{framing}\r\n\r\n{body}"
            ));
            let reply = caller.reply().expect(413);
            assert_eq!(reply.json()["id"], "ingress.api");
            assert!(api.server().seen().is_empty());
        }
    }
}

#[test]
fn json_is_passed_untouched_with_the_rest_of_the_query() {
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/vnd.api+json",
    ] {
        let fields = format!("{AUTHORIZED}Content-Type: {kind}\r\n");
        let body = b" { \"a\" : 1e400, \"a\":\xff not json";
        let target = "/api/helloworld/Call?x=%zz&api_key=canary&y=+&&z";
        let (call, _) = passed("POST", target, &fields, body);
        assert_eq!(call.body, body, "{kind}");
        assert_eq!(call.target(), "/v1/helloworld/Call?x=%zz&y=+&&z");
        assert_eq!(call.field("Content-Type"), Some(kind));
        assert_eq!(call.field("Content-Length"), Some(&*body.len().to_string()));
    }
}

#[test]
fn json_is_streamed() {
    let arrived = Gate::default();
    let opened = arrived.clone();
    let api = TestApi::new();
    api.on(CALL, move |answering| {
        assert_eq!(answering.chunk().unwrap().unwrap(), b"{\"a\":");
        opened.open();
        while answering.chunk().unwrap().is_some() {}
        answering.write(json_response("{}"));
    });
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST /api/{CALL} HTTP/1.1\r\nHost: {HOST}\r\n{AUTHORIZED}{JSON}Transfer-Encoding: chunked\r\n\r\n\
         5\r\n{{\"a\":\r\n"
    ));
    arrived.wait();
    caller.send("2\r\n1}\r\n0\r\n\r\n");
    caller.reply().expect(200);
}

#[test]
fn json_sent_with_curls_default_content_type_is_json() {
    let fields = format!("{AUTHORIZED}{FORM}");
    let body = br#"{"name":"a=b&c"}"#;
    let (call, _) = passed("POST", "/api/helloworld/Call?x=y", &fields, body);
    assert_eq!(call.body, body);
    assert_eq!(call.field("Content-Type"), Some("application/json"));
    assert_eq!(call.field("Content-Length"), Some("16"));
    assert_eq!(call.target(), "/v1/helloworld/Call?x=y");
    assert_eq!(call.field("Transfer-Encoding"), None);
}

#[test]
fn json_in_disguise_may_be_larger_than_a_form() {
    let api = TestApi::new();
    api.gives(CALL, "{}");
    let ingress = TestIngress::before_with(&api, |config| config.limits.form = 100);
    let body = format!(r#"{{"name":"{}"}}"#, "x".repeat(300_000));
    let fields = format!("{AUTHORIZED}{FORM}");
    let mut caller = ingress.caller();
    caller
        .post(HOST, "/api/helloworld/Call", &fields, body.as_bytes())
        .expect(200);
    assert_eq!(api.only().text(), body);
}

#[test]
fn any_other_body_is_passed_untouched() {
    for kind in ["text/plain", "application/octet-stream", "application/xml"] {
        let fields = format!("{AUTHORIZED}Content-Type: {kind}\r\nContent-Encoding: gzip\r\n");
        let (call, _) = passed("POST", "/api/helloworld/Call?x=y", &fields, b"\x00\xffa=b");
        assert_eq!(call.body, b"\x00\xffa=b");
        assert_eq!(call.field("Content-Type"), Some(kind));
        assert_eq!(call.field("Content-Encoding"), Some("gzip"));
        assert_eq!(call.target(), "/v1/helloworld/Call?x=y");
    }
    let (call, _) = passed("POST", "/api/helloworld/Call", AUTHORIZED, b"no type");
    assert_eq!(call.text(), "no type");
    assert_eq!(call.field("Content-Type"), None);
}

#[test]
fn other_methods_are_a_405() {
    for method in ["PUT", "DELETE", "PATCH", "PROPFIND"] {
        let reply = refused(method, "/api/helloworld/Call", AUTHORIZED, b"", 405);
        assert_eq!(reply.field("Allow"), Some("GET, HEAD, POST, OPTIONS"));
        assert_eq!(reply.json()["id"], "ingress.api");
    }
}

#[test]
fn a_preflight_is_answered_here() {
    let fields = "Origin: https://page.example\r\nAccess-Control-Request-Method: POST\r\n\
        Access-Control-Request-Headers: authorization,x-custom\r\n";
    let reply = refused("OPTIONS", "/api/helloworld/Call", fields, b"", 204);
    assert_eq!(
        reply.field("Access-Control-Allow-Origin"),
        Some("https://page.example")
    );
    let methods = reply.field("Access-Control-Allow-Methods").unwrap();
    assert!(
        methods.contains("POST") && methods.contains("GET"),
        "{methods}"
    );
    assert_eq!(
        reply.field("Access-Control-Allow-Headers"),
        Some("authorization,x-custom")
    );
    assert!(reply.field("Access-Control-Max-Age").is_some());
    assert_eq!(reply.field("Access-Control-Allow-Credentials"), None);
    assert!(reply.head.all("Vary").join(", ").contains("Origin"));

    let reply = refused("OPTIONS", "/api/helloworld/Call", "", b"", 204);
    assert!(reply.field("Allow").unwrap().contains("POST"));
}

#[test]
fn a_page_may_read_answers_and_errors() {
    let origin = "Origin: https://page.example\r\n";
    let check = |reply: &Reply| {
        assert_eq!(
            reply.field("Access-Control-Allow-Origin"),
            Some("https://page.example")
        );
        assert_eq!(reply.field("Access-Control-Allow-Credentials"), None);
        assert!(reply.head.all("Vary").join(", ").contains("Origin"));
    };
    let fields = format!("{AUTHORIZED}{origin}");
    let (_, reply) = passed("GET", "/api/helloworld/Call", &fields, b"");
    check(&reply);
    check(&refused("GET", "/api/helloworld/Call", origin, b"", 401));
    check(&refused("PUT", "/api/helloworld/Call", origin, b"", 405));
    let (_, reply) = passed("GET", "/api/helloworld/Call", AUTHORIZED, b"");
    assert_eq!(reply.field("Access-Control-Allow-Origin"), None);
}

#[test]
fn the_apis_own_word_on_origins_is_replaced() {
    let api = TestApi::new();
    let fields = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n";
    api.says(CALL, response("200 OK", fields, "{}"));
    let ingress = TestIngress::before(&api);
    let fields = format!("{AUTHORIZED}Origin: https://page.example\r\n");
    let reply = ingress
        .caller()
        .ask("GET", "/api/helloworld/Call", HOST, &fields);
    assert_eq!(
        reply.field("Access-Control-Allow-Origin"),
        Some("https://page.example")
    );
    assert_eq!(reply.field("Access-Control-Allow-Credentials"), None);
}

#[test]
fn the_apis_answer_passes_through_as_it_is() {
    for status in [
        "200 OK",
        "202 Accepted",
        "400 Bad Request",
        "402 Payment Required",
        "418 Tea",
        "500 Internal Server Error",
        "503 Service Unavailable",
    ] {
        let api = TestApi::new();
        let fields = "Content-Type: application/x-own\r\nX-Rate: 7\r\nX-Rate: 8\r\nSet-Cookie: a=b\r\n\
            Connection: X-Their\r\nX-Their: secret\r\n";
        api.says(CALL, response(status, fields, "as it is"));
        let ingress = TestIngress::before(&api);
        let reply = ingress
            .caller()
            .ask("GET", "/api/helloworld/Call", HOST, AUTHORIZED);
        assert_eq!(reply.head.first, format!("HTTP/1.1 {status}"));
        assert_eq!(reply.text(), "as it is");
        assert_eq!(reply.field("Content-Type"), Some("application/x-own"));
        assert_eq!(reply.head.all("X-Rate"), ["7", "8"]);
        assert_eq!(reply.field("Set-Cookie"), None);
        assert_eq!(reply.field("X-Their"), None);
        assert_eq!(reply.field("Proxy-Status"), None);
        assert!(reply.field("X-Request-Id").is_some());
    }
}

#[test]
fn a_redirect_of_the_api_carries_no_token_anywhere() {
    let elsewhere = TestBackend::answering(json_response("{}"));
    let api = TestApi::new();
    let fields = format!("Location: {}/v1/x/y\r\n", elsewhere.url());
    api.says(CALL, response("307 Temporary Redirect", &fields, ""));
    let ingress = TestIngress::before(&api);
    ingress
        .caller()
        .ask("GET", "/api/helloworld/Call", HOST, AUTHORIZED);
    assert_eq!(elsewhere.opened(), 0);
}

#[test]
fn cookies_are_not_passed_to_the_api() {
    let fields = format!("{AUTHORIZED}Cookie: session=canary\r\nCookie2: x\r\nX-Custom: kept\r\n");
    let (call, _) = passed("GET", "/api/helloworld/Call", &fields, b"");
    assert_eq!(call.field("Cookie"), None);
    assert_eq!(call.field("X-Custom"), Some("kept"));
    assert_eq!(call.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(call.field("X-Forwarded-Host"), Some(HOST));
    assert!(call.field("X-Request-Id").is_some());
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
    let metrics = crate::harness::Caller::connect(ingress.admin).get("localhost", "/metrics");
    assert!(!metrics.text().contains("canary"));
}

#[test]
fn a_stream_arrives_line_by_line() {
    let gate = Gate::default();
    let held = gate.clone();
    let api = TestApi::new();
    api.on("helloworld/Stream", move |answering| {
        answering.body();
        answering.write(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        answering.write("4\r\n{1}\n\r\n");
        held.wait();
        answering.write("4\r\n{2}\n\r\n0\r\n\r\n");
    });
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.send(format!(
        "GET /api/helloworld/Stream?messages=2 HTTP/1.1\r\nHost: {HOST}\r\n{AUTHORIZED}\r\n"
    ));
    let head = caller.head();
    assert_eq!(head.field("Content-Type"), Some("application/x-ndjson"));
    assert_eq!(caller.chunk().unwrap(), b"{1}\n");
    gate.open();
    assert_eq!(caller.chunk().unwrap(), b"{2}\n");
    assert_eq!(caller.chunk(), None);
}

#[test]
fn an_api_that_hangs_is_a_504_in_the_m3o_shape() {
    let api = TestApi::new();
    api.on(CALL, Answering::wait_for_close);
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.response = Duration::from_millis(150);
    });
    let fields = format!("{AUTHORIZED}Accept: text/html\r\n");
    let reply = ingress
        .caller()
        .ask("GET", "/api/helloworld/Call", HOST, &fields)
        .expect(504);
    assert_eq!(
        reply.text(),
        r#"{"id":"ingress.api","code":504,"detail":"the API did not answer in time","status":"Gateway Timeout"}"#
    );
    assert_eq!(reply.field("Content-Type"), Some("application/json"));
    eventually("the API is let go", || api.server().closed() == 1);
}

#[test]
fn an_api_that_breaks_off_is_an_error_in_the_m3o_shape() {
    let api = TestApi::new();
    api.on(CALL, |answering| answering.reset());
    let ingress = TestIngress::before(&api);
    let reply = ingress
        .caller()
        .ask("GET", "/api/helloworld/Call", HOST, AUTHORIZED);
    assert!(matches!(reply.status(), 502 | 503), "{}", reply.status());
    assert_eq!(reply.json()["id"], "ingress.api");
}

#[test]
fn a_call_is_never_sent_twice() {
    let api = TestApi::new();
    api.gives(CALL, "{}");
    api.on("a/b", |answering| {
        answering.body();
        answering.close();
    });
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller
        .ask("GET", "/api/helloworld/Call", HOST, AUTHORIZED)
        .expect(200);
    let status = caller.ask("GET", "/api/a/b", HOST, AUTHORIZED).status();
    assert!(matches!(status, 502 | 503), "{status}");
    assert_eq!(api.calls("a/b").len(), 1);
}

#[test]
fn when_the_client_leaves_the_api_is_let_go() {
    let api = TestApi::new();
    api.on(CALL, Answering::wait_for_close);
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.send(format!(
        "GET /api/{CALL} HTTP/1.1\r\nHost: {HOST}\r\n{AUTHORIZED}\r\n"
    ));
    eventually("the API is asked", || api.server().seen().len() == 1);
    drop(caller);
    eventually("the API is let go", || api.server().closed() == 1);
}

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn streaming_api() -> TestApi {
    let api = TestApi::new();
    api.on("helloworld/Stream", |answering| {
        answering.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSet-Cookie: a=b\r\n\r\n",
        );
        loop {
            let bytes = answering.some();
            if bytes.is_empty() {
                answering.close();
                return;
            }
            answering.write(&bytes);
        }
    });
    api
}

#[test]
fn a_websocket_says_its_token_as_a_subprotocol_which_is_echoed() {
    let api = streaming_api();
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.send(format!(
        "GET /api/helloworld/Stream?x=y HTTP/1.1\r\nHost: {HOST}\r\n{HANDSHAKE}\
         Sec-WebSocket-Protocol: client-key\r\nCookie: a=b\r\n\r\n"
    ));
    let head = caller.head();
    assert_eq!(head.status(), 101);
    assert_eq!(head.field("Sec-WebSocket-Protocol"), Some("client-key"));
    assert_eq!(
        head.field("Sec-WebSocket-Accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(head.field("Set-Cookie"), None);

    let call = api.only();
    assert_eq!(call.head.first, "GET /v1/helloworld/Stream?x=y HTTP/1.1");
    assert_eq!(call.field("Authorization"), Some("Bearer client-key"));
    assert_eq!(call.field("Sec-WebSocket-Protocol"), None);
    assert_eq!(call.field("Cookie"), None);
    assert_eq!(call.field("Upgrade"), Some("websocket"));
    caller.send("ping");
    assert_eq!(caller.exactly(4), b"ping");
}

#[test]
fn a_websocket_may_say_its_key_as_any_other_call() {
    let check = |target: &str, fields: &str, expected: &str| {
        let api = streaming_api();
        let ingress = TestIngress::before(&api);
        let mut caller = ingress.caller();
        caller.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{HANDSHAKE}{fields}\r\n"
        ));
        let head = caller.head();
        assert_eq!(head.status(), 101, "{fields}");
        let call = api.only();
        assert_eq!(call.field("Authorization"), Some(expected));
        assert_eq!(call.target(), "/v1/helloworld/Stream");
        (head, call)
    };
    check("/v1/helloworld/Stream", AUTHORIZED, "Bearer client-key");
    check("/api/helloworld/Stream?api_key=canary", "", "Bearer canary");
    let both = format!("{AUTHORIZED}Sec-WebSocket-Protocol: chat\r\n");
    let (_, call) = check("/api/helloworld/Stream", &both, "Bearer client-key");
    assert_eq!(
        call.field("Sec-WebSocket-Protocol"),
        Some("chat"),
        "it is no token then"
    );
}

#[test]
fn a_websocket_without_a_key_is_refused() {
    let reply = refused("GET", "/api/helloworld/Call", HANDSHAKE, b"", 401);
    assert_eq!(reply.field("WWW-Authenticate"), Some("Bearer"));
}

#[test]
fn an_api_that_refuses_a_websocket_is_heard() {
    let api = TestApi::new();
    api.says("helloworld/Stream", error("403 Forbidden", "not you"));
    let ingress = TestIngress::before(&api);
    let fields = format!("{HANDSHAKE}{AUTHORIZED}");
    let mut caller = ingress.caller();
    let reply = caller
        .ask("GET", "/api/helloworld/Stream", HOST, &fields)
        .expect(403);
    assert_eq!(reply.json()["detail"], "not you");
}

#[test]
fn the_embedded_platform_is_called_the_same_way() {
    let ingress = TestIngress::embedded();
    let mut caller = ingress.caller();
    let target = format!("/api/helloworld/call?api_key={KEY}&name=John");
    let reply = caller.get(HOST, &target).expect(200);
    assert_eq!(reply.text(), r#"{"message":"Hello John"}"#);
    let fields = format!("{FORM}Authorization: Bearer {KEY}\r\n");
    let reply = caller.post(HOST, "/v1/helloworld/Call", &fields, b"name=Jane");
    assert_eq!(reply.expect(200).text(), r#"{"message":"Hello Jane"}"#);
    caller
        .get(HOST, "/api/helloworld/call?api_key=wrong&name=John")
        .expect(401);
    let reply = caller.get(HOST, &format!("/api/helloworld/nothing?api_key={KEY}"));
    assert_eq!(reply.expect(404).json()["code"], 404);
}
