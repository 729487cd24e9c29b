//! Connections that become tunnels: WebSockets and other upgrades.

use std::time::Duration;

use crate::harness::backend::ok;
use crate::harness::{Answering, Caller, TestApi, TestBackend, TestIngress, eventually};

const BLOG: &str = "blog.m3o.app";

const HANDSHAKE: &str = "GET /ws?a=b HTTP/1.1\r\nHost: blog.m3o.app\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: chat\r\n\r\n";

const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

fn echo(answering: &mut Answering) {
    answering.write(ACCEPTED);
    loop {
        let bytes = answering.some();
        if bytes.is_empty() {
            answering.close();
            return;
        }
        answering.write(&bytes);
    }
}

fn before(backend: &TestBackend) -> (TestApi, TestIngress) {
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    (api, ingress)
}

fn open(ingress: &TestIngress) -> Caller {
    let mut caller = ingress.caller();
    caller.send(HANDSHAKE);
    assert_eq!(caller.head().status(), 101);
    caller
}

#[test]
fn a_websocket_is_opened_and_echoes() {
    let backend = TestBackend::scripted(echo);
    let (_api, ingress) = before(&backend);
    let mut caller = ingress.caller();
    caller.send(HANDSHAKE);
    let head = caller.head();
    assert_eq!(head.status(), 101);
    assert_eq!(head.field("Upgrade"), Some("websocket"));
    assert!(
        head.field("Connection")
            .unwrap()
            .eq_ignore_ascii_case("upgrade")
    );
    assert_eq!(
        head.field("Sec-WebSocket-Accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(head.field("Sec-WebSocket-Protocol"), Some("chat"));

    let seen = backend.only();
    assert_eq!(seen.target(), "/ws?a=b");
    assert!(
        seen.field("Connection")
            .unwrap()
            .eq_ignore_ascii_case("upgrade")
    );
    assert_eq!(seen.field("Upgrade"), Some("websocket"));
    assert_eq!(
        seen.field("Sec-WebSocket-Key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    assert_eq!(seen.field("X-Forwarded-Host"), Some(BLOG));

    for message in ["one", "two", "three"] {
        caller.send(message);
        assert_eq!(caller.exactly(message.len()), message.as_bytes());
    }
}

#[test]
fn bytes_right_behind_the_handshake_are_not_lost() {
    let backend = TestBackend::scripted(|answering| {
        answering.write(format!("{ACCEPTED}hello from the server"));
        let bytes = answering.some();
        answering.write(&bytes);
        answering.close();
    });
    let (_api, ingress) = before(&backend);
    let mut caller = ingress.caller();
    caller.send(format!("{HANDSHAKE}early"));
    assert_eq!(caller.head().status(), 101);
    assert_eq!(caller.exactly(21), b"hello from the server");
    assert_eq!(caller.exactly(5), b"early");
}

#[test]
fn no_byte_reaches_the_backend_as_a_tunnel_before_it_agreed() {
    let backend = TestBackend::answering(ok("no tunnel here"));
    let (_api, ingress) = before(&backend);
    let mut caller = ingress.caller();
    caller.send(format!(
        "{HANDSHAKE}GET /second HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"
    ));
    assert_eq!(caller.reply().expect(200).text(), "no tunnel here");
    caller.reply().expect(200);
    let seen = backend.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].target(), "/second");
    assert_eq!(seen[1].field("X-Forwarded-Host"), Some(BLOG));
}

#[test]
fn a_refusal_of_the_handshake_comes_back() {
    let backend = TestBackend::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let (_api, ingress) = before(&backend);
    let mut caller = ingress.caller();
    caller.send(HANDSHAKE);
    assert_eq!(caller.reply().expect(403).text(), "no");
}

#[test]
fn a_tunnel_that_nobody_asked_for_is_a_502() {
    let backend = TestBackend::scripted(echo);
    let (_api, ingress) = before(&backend);
    ingress.get(BLOG, "/").expect(502);
    eventually("the backend is let go", || backend.closed() == 1);
}

#[test]
fn a_tunnel_of_another_kind_than_asked_for_is_a_502() {
    let backend = TestBackend::scripted(|answering| {
        answering.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        );
        answering.wait_for_close();
    });
    let (_api, ingress) = before(&backend);
    let mut caller = ingress.caller();
    caller.send(HANDSHAKE);
    caller.reply().expect(502);
}

#[test]
fn http2_is_not_negotiated_through_us() {
    let backend = TestBackend::answering(ok("plain"));
    let (_api, ingress) = before(&backend);
    let fields =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let reply = ingress.caller().ask("GET", "/", BLOG, fields);
    assert_eq!(reply.expect(200).text(), "plain");
    let seen = backend.only();
    for gone in ["Upgrade", "HTTP2-Settings", "Connection"] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
}

#[test]
fn other_protocols_are_tunnelled_too() {
    let backend = TestBackend::scripted(|answering| {
        answering.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: my-protocol\r\n\r\n");
        let bytes = answering.some();
        answering.write(&bytes);
        answering.close();
    });
    let (_api, ingress) = before(&backend);
    let mut caller = ingress.caller();
    caller.send(format!(
        "GET / HTTP/1.1\r\nHost: {BLOG}\r\nConnection: Upgrade\r\nUpgrade: my-protocol\r\n\r\n"
    ));
    assert_eq!(caller.head().status(), 101);
    caller.send("hi");
    assert_eq!(caller.exactly(2), b"hi");
}

#[test]
fn an_upgrade_over_http_1_0_is_ignored() {
    let backend = TestBackend::answering(ok("plain"));
    let (_api, ingress) = before(&backend);
    let mut caller = ingress.caller();
    caller.send(HANDSHAKE.replacen("HTTP/1.1", "HTTP/1.0", 1));
    caller.reply().expect(200);
    assert_eq!(backend.only().field("Upgrade"), None);
}

#[test]
fn when_one_end_leaves_the_other_is_let_go() {
    let backend = TestBackend::scripted(echo);
    let (_api, ingress) = before(&backend);
    let caller = open(&ingress);
    drop(caller);
    eventually("the backend is let go", || backend.closed() == 1);

    let leaving = TestBackend::scripted(|answering| {
        answering.write(ACCEPTED);
        answering.some();
        answering.close();
    });
    let (_api, ingress) = before(&leaving);
    let mut caller = open(&ingress);
    caller.send("go");
    assert_eq!(caller.rest(), b"");
}

#[test]
fn a_quiet_tunnel_is_closed_where_that_is_configured() {
    let backend = TestBackend::scripted(echo);
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.tunnel = Duration::from_millis(150);
    });
    let mut caller = open(&ingress);
    caller.send("hi");
    assert_eq!(caller.exactly(2), b"hi");
    assert_eq!(caller.rest(), b"");
    eventually("the backend is let go", || backend.closed() == 1);
}

#[test]
fn a_tunnel_outlives_the_time_limits_of_requests() {
    let backend = TestBackend::scripted(echo);
    let api = TestApi::with_app("blog", &backend.url());
    // Long enough for a handshake on a busy machine.
    let limit = Duration::from_secs(1);
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.idle = limit;
        config.timeouts.response = limit;
        config.timeouts.header = limit;
        config.timeouts.body = limit;
    });
    let mut tunnel = open(&ingress);
    // Another connection that is idle from now on shows that the limit has passed.
    let mut idle = ingress.caller();
    assert_eq!(idle.rest(), b"");
    tunnel.send("still here");
    assert_eq!(tunnel.exactly(10), b"still here");
}

#[test]
fn a_tunnel_has_a_place_until_it_ends() {
    let backend = TestBackend::scripted(echo);
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| config.limits.per_workload = 1);
    let tunnel = open(&ingress);
    let refused = |ingress: &TestIngress| {
        let mut caller = ingress.caller();
        caller.send(HANDSHAKE);
        caller.head().status() == 503
    };
    assert!(refused(&ingress));
    drop(tunnel);
    eventually("its place is free", || !refused(&ingress));
}
