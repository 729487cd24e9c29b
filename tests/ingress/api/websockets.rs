//! Calls over a WebSocket: the handshake and its key.

use super::{AUTHORIZED, HOST, refused};
use crate::harness::api::error;
use crate::harness::{TestApi, TestIngress};

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
