//! Backends that fail: before their answer, within it, or by saying nothing at all.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use super::{BLOG, scripted};
use crate::harness::backend::ok;
use crate::harness::caller::timed_out;
use crate::harness::{Answering, TestApi, TestBackend, TestIngress, eventually};

#[test]
fn a_response_that_is_cut_is_visibly_cut() {
    let (_backend, _api, ingress) = scripted(|answering| {
        match &*answering.target() {
            "/length" => answering.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            "/chunked" => answering
                .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
            _ => answering.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf"),
        }
        answering.close();
    });
    for target in ["/length", "/chunked", "/chunk"] {
        let mut caller = ingress.caller();
        caller.send(format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        let head = caller.head();
        assert_eq!(head.status(), 200);
        let error = caller.try_body(&head).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
            ),
            "{target}: {error}"
        );
    }
    eventually("all are logged as cut", || {
        let lines = ingress.access_lines();
        lines.len() == 3 && lines.iter().all(|line| line["outcome"] == "cut")
    });
}

#[test]
fn a_backend_that_fails_is_a_502() {
    let (_backend, _api, ingress) = scripted(|answering| match &*answering.target() {
        "/resets" => answering.reset(),
        "/closes" => answering.close(),
        "/cut-head" => {
            answering.write("HTTP/1.1 200 OK\r\nContent-");
            answering.close();
        }
        "/mail" => {
            answering.write("220 mail.example ESMTP\r\n");
            answering.close();
        }
        _ => {
            answering.write("HTTP/1.1 200 OK\r\nBad Header\u{0}: x\r\n\r\n");
            answering.close();
        }
    });
    for target in ["/resets", "/closes", "/cut-head", "/mail", "/garbage"] {
        let reply = ingress.get(BLOG, target);
        assert_eq!(reply.status(), 502, "{target}");
        assert_eq!(reply.json()["code"], 502);
        assert!(reply.field("Proxy-Status").is_some());
    }
}

#[test]
fn a_backend_that_refuses_is_a_502() {
    let gone = TestBackend::answering(ok(""));
    let api = TestApi::with_app("blog", &gone.url());
    let ingress = TestIngress::before(&api);
    drop(gone);
    let reply = ingress.get(BLOG, "/").expect(502);
    assert_eq!(
        reply.field("Proxy-Status"),
        Some("m3o-ingress; error=connection_refused")
    );
}

#[test]
fn a_backend_that_hangs_is_a_504() {
    let backend = TestBackend::scripted(Answering::wait_for_close);
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.response = Duration::from_millis(150);
    });
    let reply = ingress.get(BLOG, "/").expect(504);
    assert_eq!(
        reply.field("Proxy-Status"),
        Some("m3o-ingress; error=http_response_timeout")
    );
    eventually("the backend is let go", || backend.closed() == 1);
}

#[test]
fn an_old_client_sees_a_cut_although_nothing_tells_it_the_length() {
    let (_backend, _api, ingress) = scripted(|answering| {
        answering.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        answering.close();
    });
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.0\r\nHost: {BLOG}\r\n\r\n"));
    let mut whole = Vec::new();
    let read = caller.stream().read_to_end(&mut whole);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_response_that_stops_moving_is_cut() {
    let backend = TestBackend::scripted(|answering| {
        answering.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        answering.wait_for_close();
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.response = Duration::from_millis(150);
    });
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let head = caller.head();
    assert!(!timed_out(&caller.try_body(&head).unwrap_err()));
    eventually("the backend is let go", || backend.closed() == 1);
}
