//! `/api` and `/v1`: which calls there are, and what is passed to the API.

use crate::harness::ingress::KEY;
use crate::harness::{Reply, Seen, TestApi, TestIngress};

mod answers;
mod bodies;
mod keys;
mod origins;
mod websockets;

const HOST: &str = "api.example";
const CALL: &str = "helloworld/Call";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const MULTIPART: &str = "Content-Type: multipart/form-data; boundary=XX\r\n";
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
fn other_methods_are_a_405() {
    for method in ["PUT", "DELETE", "PATCH", "PROPFIND"] {
        let reply = refused(method, "/api/helloworld/Call", AUTHORIZED, b"", 405);
        assert_eq!(reply.field("Allow"), Some("GET, HEAD, POST, OPTIONS"));
        assert_eq!(reply.json()["id"], "ingress.api");
    }
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
