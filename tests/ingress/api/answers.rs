//! Answers of the API: what comes back as it is, and an API that gives none.

use std::time::Duration;

use super::{AUTHORIZED, CALL, HOST};
use crate::harness::api::json_response;
use crate::harness::backend::response;
use crate::harness::{Answering, Gate, TestApi, TestBackend, TestIngress, eventually};

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
fn a_call_that_was_here_three_times_is_a_loop() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let fields = format!("{AUTHORIZED}CDN-Loop: m3o-ingress, m3o-ingress, m3o-ingress\r\n");
    let reply = ingress
        .caller()
        .ask("GET", "/api/helloworld/Call", HOST, &fields);
    reply.expect(508);
    assert_eq!(api.server().opened(), 0);
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
