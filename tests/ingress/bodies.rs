//! Bodies in both directions: how they are framed, with everything that goes before or behind them.

use crate::harness::backend::{ok, response};
use crate::harness::{Answering, TestApi, TestBackend, TestIngress};

mod connections;
mod failures;
mod large;
mod streams;

const BLOG: &str = "blog.m3o.app";

fn blog(backend: &TestBackend) -> (TestApi, TestIngress) {
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    (api, ingress)
}

fn scripted(
    script: impl Fn(&mut Answering) + Send + Sync + 'static,
) -> (TestBackend, TestApi, TestIngress) {
    let backend = TestBackend::scripted(script);
    let (api, ingress) = blog(&backend);
    (backend, api, ingress)
}

#[test]
fn a_body_of_known_length_keeps_its_length() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog(&backend);
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    ingress.caller().post(BLOG, "/", "", &body).expect(200);
    let seen = backend.only();
    assert_eq!(seen.field("Content-Length"), Some("100000"));
    assert_eq!(seen.field("Transfer-Encoding"), None);
    assert_eq!(seen.body, body);
}

#[test]
fn a_chunked_body_stays_chunked_whatever_the_method() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog(&backend);
    let mut caller = ingress.caller();
    for method in ["POST", "PUT", "GET", "DELETE"] {
        caller.send(format!(
            "{method} / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n\
             5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        ));
        caller.reply().expect(200);
        let seen = backend.last();
        assert_eq!(seen.text(), "hello world", "{method}");
        assert_eq!(seen.field("Content-Length"), None);
    }
}

#[test]
fn an_empty_body_keeps_its_framing() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog(&backend);
    let mut caller = ingress.caller();
    caller.post(BLOG, "/", "", b"").expect(200);
    let seen = backend.last();
    assert_eq!(seen.field("Content-Length"), Some("0"));
    caller.get(BLOG, "/").expect(200);
    let seen = backend.last();
    assert_eq!(seen.field("Content-Length"), None);
    assert_eq!(seen.field("Transfer-Encoding"), None);
}

#[test]
fn trailers_of_a_request_reach_the_backend() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog(&backend);
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n"
    ));
    caller.reply().expect(200);
    let seen = backend.only();
    let (name, value) = &seen.trailers[0];
    assert!(name.eq_ignore_ascii_case("X-Sum"), "{name}");
    assert_eq!(value, "7");
}

#[test]
fn trailers_of_a_response_reach_the_client() {
    let backend = TestBackend::answering(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    let (_api, ingress) = blog(&backend);
    let mut caller = ingress.caller();
    let reply = caller.ask("GET", "/", BLOG, "TE: trailers\r\n").expect(200);
    assert_eq!(reply.text(), "hi");
    let trailers: Vec<_> = reply
        .trailers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    assert_eq!(trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn a_response_that_ends_with_its_connection_is_passed_whole() {
    let (_backend, _api, ingress) = scripted(|answering| {
        answering.write("HTTP/1.1 200 OK\r\n\r\nuntil the end");
        answering.close();
    });
    let mut caller = ingress.caller();
    assert_eq!(caller.get(BLOG, "/").expect(200).text(), "until the end");
}

#[test]
fn the_answer_to_a_head_has_the_length_and_no_body() {
    let (backend, _api, ingress) = scripted(|answering| {
        let with_body = answering.head.first.starts_with("GET");
        let body = if with_body { "hello" } else { "" };
        answering.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}"
        ));
    });
    let mut caller = ingress.caller();
    let reply = caller.ask("HEAD", "/", BLOG, "").expect(200);
    assert_eq!(reply.field("Content-Length"), Some("5"));
    assert_eq!(caller.get(BLOG, "/").expect(200).text(), "hello");
    assert_eq!(backend.seen()[0].method(), "HEAD");
    assert_eq!(backend.opened(), 1);
}

#[test]
fn nothing_is_made_up_about_the_length_of_what_head_did_not_send() {
    for framing in ["Transfer-Encoding: chunked\r\n", "Connection: close\r\n"] {
        let (_backend, _api, ingress) = scripted(move |answering| {
            answering.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n"));
            answering.close();
        });
        let mut caller = ingress.caller();
        let reply = caller.ask("HEAD", "/", BLOG, "").expect(200);
        assert_eq!(reply.field("Content-Length"), None, "{framing}");
    }
}

#[test]
fn answers_without_a_body_have_none() {
    let (_backend, _api, ingress) = scripted(|answering| {
        let answer = match &*answering.target() {
            "/204" => "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
            _ => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",
        };
        answering.write(answer);
    });
    let mut caller = ingress.caller();
    let reply = caller.get(BLOG, "/204").expect(204);
    assert_eq!(reply.field("Content-Length"), None);
    assert_eq!(reply.field("Transfer-Encoding"), None);
    let reply = caller.get(BLOG, "/304").expect(304);
    assert_eq!(reply.field("ETag"), Some("\"x\""));
    caller.get(BLOG, "/204").expect(204);
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it() {
    let backend = TestBackend::answering(ok("thanks"));
    let (_api, ingress) = blog(&backend);
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(caller.head().status(), 100);
    caller.send("hello");
    assert_eq!(caller.reply().expect(200).text(), "thanks");
    let seen = backend.only();
    assert_eq!(seen.text(), "hello");
    assert_eq!(seen.field("Expect"), None);
}

#[test]
fn another_expectation_is_a_417() {
    let backend = TestBackend::answering(ok(""));
    let (_api, ingress) = blog(&backend);
    let reply = ingress.caller().ask("GET", "/", BLOG, "Expect: more\r\n");
    reply.expect(417);
    assert_eq!(backend.opened(), 0);
}

#[test]
fn interim_answers_of_the_backend_do_not_stand_for_the_final_one() {
    let backend = TestBackend::answering(format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{}",
        ok("final")
    ));
    let (_api, ingress) = blog(&backend);
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let mut head = caller.head();
    while head.status() < 200 {
        head = caller.head();
    }
    assert_eq!(caller.try_body(&head).unwrap(), b"final");
}

#[test]
fn an_answer_before_the_end_of_the_upload_reaches_the_client() {
    let (_backend, _api, ingress) = scripted(|answering| {
        answering.write(response("401 Unauthorized", "Connection: close\r\n", "no"));
        answering.close();
    });
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 1000000\r\n\r\nstart"
    ));
    assert_eq!(caller.reply().expect(401).text(), "no");
}

#[test]
fn requests_one_behind_the_other_are_answered_in_their_order() {
    let (_backend, _api, ingress) = scripted(|answering| {
        let target = answering.target();
        answering.body();
        answering.write(ok(&target));
    });
    let mut caller = ingress.caller();
    caller.send(format!(
        "GET /1 HTTP/1.1\r\nHost: {BLOG}\r\n\r\n\
         POST /2 HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 2\r\n\r\nhi\
         GET /3 HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"
    ));
    for target in ["/1", "/2", "/3"] {
        assert_eq!(caller.reply().expect(200).text(), target);
    }
}
