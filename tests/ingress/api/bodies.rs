//! Bodies of calls: what becomes JSON, and what stays as it is.

use serde_json::json;

use super::{
    AUTHORIZED, CALL, FORM, HOST, JSON, MULTIPART, before_api, multipart, passed, refused,
};
use crate::harness::api::json_response;
use crate::harness::{Gate, TestApi, TestIngress};

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
