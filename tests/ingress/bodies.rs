//! Bodies in both directions: framing, streaming, back-pressure, connections that are kept or cut.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::backend::{ok, response};
use crate::harness::caller::timed_out;
use crate::harness::{Answering, Gate, TestApi, TestBackend, TestIngress, eventually};

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
fn server_sent_events_arrive_one_by_one() {
    let gates = [Gate::default(), Gate::default()];
    let held = gates.clone();
    let (_backend, _api, ingress) = scripted(move |answering| {
        answering.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        answering.write("9\r\ndata: 1\n\n\r\n");
        held[0].wait();
        answering.write("9\r\ndata: 2\n\n\r\n");
        held[1].wait();
        answering.write("0\r\n\r\n");
    });
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let head = caller.head();
    assert_eq!(head.field("Content-Type"), Some("text/event-stream"));
    assert_eq!(caller.chunk().unwrap(), b"data: 1\n\n");
    gates[0].open();
    assert_eq!(caller.chunk().unwrap(), b"data: 2\n\n");
    gates[1].open();
    assert_eq!(caller.chunk(), None);
}

#[test]
fn the_backend_sees_the_start_of_an_upload_before_its_end_is_sent() {
    let first = Gate::default();
    let arrived = first.clone();
    let (backend, _api, ingress) = scripted(move |answering| {
        assert_eq!(answering.chunk().unwrap().unwrap(), b"hello");
        arrived.open();
        while answering.chunk().unwrap().is_some() {}
        answering.write(ok("done"));
        answering.close();
    });
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    ));
    first.wait();
    caller.send("1\r\n!\r\n0\r\n\r\n");
    assert_eq!(caller.reply().expect(200).text(), "done");
    assert_eq!(backend.opened(), 1);
}

#[test]
fn a_client_that_reads_slowly_holds_the_backend_back() {
    const PIECE: usize = 64 << 10;
    let whole = system_buffers() + (32 << 20);
    let pieces = whole / PIECE;
    let whole = pieces * PIECE;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let (_backend, _api, ingress) = scripted(move |answering| {
        answering.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {whole}\r\n\r\n"
        ));
        let piece = vec![b'x'; PIECE];
        for _ in 0..pieces {
            if answering.try_write(&piece).is_err() {
                return;
            }
            counted.fetch_add(PIECE, Ordering::SeqCst);
        }
    });
    let mut caller = ingress.caller();
    // Little, so that what is on its way is mostly what the ingress holds.
    let socket = socket2::SockRef::from(caller.stream());
    socket.set_recv_buffer_size(64 << 10).unwrap();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let head = caller.head();
    assert_eq!(head.status(), 200);

    let stuck = settles(&sent);
    assert!(
        stuck < system_buffers(),
        "{stuck} bytes were taken from the backend"
    );
    assert_eq!(caller.try_body(&head).unwrap().len(), whole);
    assert_eq!(sent.load(Ordering::SeqCst), whole);
}

#[test]
fn a_backend_that_reads_slowly_holds_the_client_back() {
    let whole = system_buffers() + (32 << 20);
    let gate = Gate::default();
    let held = gate.clone();
    let (backend, _api, ingress) = scripted(move |answering| {
        held.wait();
        let length = answering.body().len();
        answering.write(ok(&length.to_string()));
    });
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {whole}\r\n\r\n"
    ));
    eventually("the request is at the backend", || {
        backend.seen().len() == 1
    });
    let stream = caller.stream();
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    let stopped = loop {
        match (&mut &*stream).write(&piece[..piece.len().min(whole - sent)]) {
            Ok(0) => break false,
            Ok(count) => sent += count,
            Err(error) => break timed_out(&error),
        }
    };
    assert!(stopped, "the client could send all");
    assert!(
        sent < system_buffers(),
        "{sent} bytes were taken from the client"
    );
    gate.open();
    stream.set_write_timeout(None).unwrap();
    while sent < whole {
        let count = piece.len().min(whole - sent);
        (&mut &*stream).write_all(&piece[..count]).unwrap();
        sent += count;
    }
    assert_eq!(caller.reply().expect(200).text(), whole.to_string());
}

/// What the system itself may hold of a body on its way through two connections, and a little for
/// the buffers of the ingress.
fn system_buffers() -> usize {
    let largest = |name: &str| -> usize {
        let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        limits.split_whitespace().last().unwrap().parse().unwrap()
    };
    2 * (largest("tcp_rmem") + largest("tcp_wmem")) + (2 << 20)
}

/// The value that a counter no longer leaves.
fn settles(counter: &AtomicUsize) -> usize {
    let mut last = (usize::MAX, Instant::now());
    eventually("nothing moves any more", || {
        let now = counter.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(300)
    });
    last.0
}

#[test]
fn a_connection_to_the_backend_is_used_again() {
    let backend = TestBackend::answering(ok("hello"));
    let (_api, ingress) = blog(&backend);
    for _ in 0..5 {
        ingress.get(BLOG, "/").expect(200);
    }
    assert_eq!(backend.opened(), 1);
    let reused = ingress.metric(r#"m3o_ingress_pool_connections_total{result="reused"}"#);
    assert_eq!(reused, 4.0);
}

#[test]
fn a_connection_that_says_close_is_not_used_again() {
    let (backend, _api, ingress) = scripted(|answering| {
        answering.write(response("200 OK", "Connection: close\r\n", "bye"));
        answering.close();
    });
    let mut caller = ingress.caller();
    for _ in 0..3 {
        let reply = caller.get(BLOG, "/").expect(200);
        assert_eq!(
            reply.field("Connection"),
            None,
            "that is between the two of us"
        );
    }
    assert_eq!(backend.opened(), 3);
}

#[test]
fn a_kept_connection_that_the_backend_closed_is_no_error() {
    let (backend, _api, ingress) = scripted(|answering| {
        answering.write(ok("hello"));
        // Without a word: the client's side may think it is still there.
        answering.close();
    });
    let mut caller = ingress.caller();
    for _ in 0..20 {
        caller.get(BLOG, "/").expect(200);
    }
    assert_eq!(backend.opened(), 20);
}

#[test]
fn a_kept_connection_that_breaks_as_it_is_used_is_tried_again_for_a_get() {
    let served = AtomicUsize::new(0);
    let (backend, _api, ingress) = scripted(move |answering| {
        // The second request of each connection meets its end.
        match served.fetch_add(1, Ordering::SeqCst) {
            1 => answering.close(),
            _ => answering.write(ok("hello")),
        }
    });
    let mut caller = ingress.caller();
    caller.get(BLOG, "/").expect(200);
    caller.get(BLOG, "/").expect(200);
    assert_eq!(backend.opened(), 2);
}

#[test]
fn a_kept_connection_that_breaks_as_it_is_used_is_not_tried_again_for_a_post() {
    let served = AtomicUsize::new(0);
    let (backend, _api, ingress) = scripted(move |answering| {
        answering.body();
        match served.fetch_add(1, Ordering::SeqCst) {
            1 => answering.close(),
            _ => answering.write(ok("hello")),
        }
    });
    let mut caller = ingress.caller();
    caller.get(BLOG, "/").expect(200);
    caller.post(BLOG, "/", "", b"once").expect(502);
    let posts = backend
        .seen()
        .iter()
        .filter(|seen| seen.method() == "POST")
        .count();
    assert_eq!(posts, 1);
}

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
fn a_connection_with_bytes_beyond_its_answer_is_not_used_again() {
    let (backend, _api, ingress) = scripted(|answering| {
        answering.write(format!(
            "{}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!",
            ok("good")
        ));
    });
    let mut caller = ingress.caller();
    for _ in 0..3 {
        assert_eq!(caller.get(BLOG, "/").expect(200).text(), "good");
    }
    assert_eq!(backend.opened(), 3);
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
fn when_the_client_leaves_the_backend_is_let_go_within_a_second() {
    let (backend, _api, ingress) = scripted(|answering| {
        if answering.target() == "/stream" {
            answering.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        }
        answering.wait_for_close();
    });
    for (index, target) in ["/wait", "/stream", "/upload"].into_iter().enumerate() {
        let mut caller = ingress.caller();
        let framing = match target {
            "/upload" => "Content-Length: 100\r\n",
            _ => "",
        };
        caller.send(format!(
            "POST {target} HTTP/1.1\r\nHost: {BLOG}\r\n{framing}\r\n"
        ));
        if target == "/stream" {
            caller.head();
        }
        eventually("the backend is asked", || backend.seen().len() == index + 1);
        let left = Instant::now();
        drop(caller);
        eventually("the backend is let go", || backend.closed() == index + 1);
        assert!(left.elapsed() < Duration::from_secs(1), "{target}");
    }
    eventually("all are logged", || ingress.access_lines().len() == 3);
    for line in ingress.access_lines() {
        // A body that was cut off is malformed, whoever is still there to hear it.
        let is_upload = line["url.path"] == "/upload" && line["http.response.status_code"] == 400;
        assert!(line["outcome"] == "client_left" || is_upload, "{line}");
    }
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
