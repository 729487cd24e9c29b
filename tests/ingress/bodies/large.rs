//! Large bodies, which go past the ingress where they can: they are held to all that small ones are.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::time::Duration;

use m3o_ingress::config::Config;
use m3o_ingress::server::shutdown::Stage;
use tokio::time::Instant;

use crate::harness::backend::ok;
use crate::harness::caller::timed_out;
use crate::harness::message::Arrival;
use crate::harness::{Answering, Gate, TestApi, TestBackend, TestIngress, eventually};

use super::{BLOG, scripted};

/// Much more than is looked at of a body on its way, and than the system holds of it.
const LARGE: usize = 24 << 20;

/// Bytes that tell where in the body they belong.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at ^ at >> 8 ^ at >> 16) as u8)
        .collect()
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

/// A backend that answers `/n` with a body of n bytes, cut anywhere, and tells how many bytes it got.
fn of_any_size(answering: &mut Answering) {
    let target = answering.target();
    let Ok(length) = target[1..].parse() else {
        let body = answering.body();
        let same = body == pattern(body.len());
        return answering.write(ok(&format!("{} {same}", body.len())));
    };
    answering.write(head(length));
    let body = pattern(length);
    let mut rest = &body[..];
    for piece in [1, 100_000, 7, 65_536, 300_000].into_iter().cycle() {
        if rest.is_empty() {
            return;
        }
        let (piece, after) = rest.split_at(piece.min(rest.len()));
        answering.write(piece);
        rest = after;
    }
}

fn blog_with(
    adjust: impl FnOnce(&mut Config),
    script: impl Fn(&mut Answering) + Send + Sync + 'static,
) -> (TestBackend, TestApi, TestIngress) {
    let backend = TestBackend::scripted(script);
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, adjust);
    (backend, api, ingress)
}

#[test]
fn a_large_body_arrives_exactly_and_its_connections_go_on() {
    let threshold = 256 << 10;
    let sizes = [threshold - 1, threshold, threshold + 1, 1_000_003, 5 << 20];
    for pipes in [0, 1, 64] {
        let (backend, _api, ingress) = blog_with(|config| config.limits.pipes = pipes, of_any_size);
        let mut caller = ingress.caller();
        for size in sizes {
            let reply = caller.get(BLOG, &format!("/{size}")).expect(200);
            assert!(reply.body == pattern(size), "{size} bytes, {pipes} pipes");
            let reply = caller.post(BLOG, "/upload", "", &pattern(size)).expect(200);
            assert_eq!(reply.text(), format!("{size} true"), "{pipes} pipes");
        }
        assert_eq!(backend.opened(), 1);
    }
}

#[test]
fn every_byte_of_a_large_body_is_counted_and_logged() {
    let (_backend, _api, ingress) = scripted(of_any_size);
    let mut caller = ingress.caller();
    caller.get(BLOG, "/5000000").expect(200);
    caller
        .post(BLOG, "/upload", "", &pattern(3_000_000))
        .expect(200);
    eventually("both are logged", || ingress.access_lines().len() == 2);
    let lines = ingress.access_lines();
    assert_eq!(lines[0]["http.response.body.size"], 5_000_000);
    assert_eq!(lines[0]["outcome"], "complete");
    assert_eq!(lines[1]["http.request.body.size"], 3_000_000);
    for (what, size) in [("response", 5_000_012.0), ("request", 3_000_000.0)] {
        let name = format!("http_server_{what}_body_size_bytes_sum");
        let series = format!(r#"{name}{{http_route="app"}}"#);
        assert_eq!(ingress.metric(&series), size);
    }
}

#[test]
fn requests_behind_a_large_answer_are_answered_in_their_order() {
    let (backend, _api, ingress) = scripted(of_any_size);
    let mut caller = ingress.caller();
    let requests: String = [1_000_000, 5, 400_000, 0]
        .map(|size| format!("GET /{size} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"))
        .concat();
    caller.send(requests);
    for size in [1_000_000, 5, 400_000, 0] {
        assert!(caller.reply().expect(200).body == pattern(size), "{size}");
    }
    assert_eq!(backend.opened(), 1);
}

#[test]
fn what_comes_behind_a_large_answer_belongs_to_nobody() {
    let (backend, _api, ingress) = scripted(|answering| {
        answering.write(head(1 << 20));
        answering.write([&pattern(1 << 20)[..], &b"HTTP/1.1 200 OK\r\n\r\n"[..]].concat());
    });
    let mut caller = ingress.caller();
    for opened in 1..=3 {
        assert!(caller.get(BLOG, "/").expect(200).body == pattern(1 << 20));
        assert_eq!(backend.opened(), opened);
    }
}

#[test]
fn many_who_read_slowly_get_all_also_where_pipes_are_few() {
    let (_backend, _api, ingress) = blog_with(|config| config.limits.pipes = 2, of_any_size);
    let mut callers: Vec<_> = (0..4).map(|_| ingress.caller()).collect();
    for caller in &mut callers {
        caller.send(format!("GET /{LARGE} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(caller.head().status(), 200);
    }
    let expected = pattern(LARGE);
    let mut read = 0;
    while read < LARGE {
        let next = (1 << 20).min(LARGE - read);
        for caller in &mut callers {
            assert!(
                caller.exactly(next) == expected[read..read + next],
                "{read}"
            );
        }
        read += next;
    }
    for caller in &mut callers {
        assert!(caller.get(BLOG, "/300000").expect(200).body == pattern(300_000));
    }
}

#[test]
fn a_client_that_leaves_within_a_large_answer_lets_the_backend_go() {
    let (backend, _api, ingress) = scripted(|answering| {
        answering.write(head(LARGE));
        answering.write(pattern(1 << 20));
        answering.wait_for_close();
    });
    // One that reads what there is, and one that reads nothing.
    for (index, read) in [1 << 20, 0].into_iter().enumerate() {
        let mut caller = ingress.caller();
        caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(caller.head().status(), 200);
        caller.exactly(read);
        let left = Instant::now();
        drop(caller);
        eventually("the backend is let go", || backend.closed() == index + 1);
        assert!(left.elapsed() < Duration::from_secs(1));
    }
    eventually("both are logged", || ingress.access_lines().len() == 2);
    let lines = ingress.access_lines();
    assert!(
        lines.iter().all(|line| line["outcome"] == "client_left"),
        "{lines:#?}"
    );
    // What was taken from the backend counts: of the first all that it sent.
    assert_eq!(lines[0]["http.response.body.size"], 1 << 20);
}

#[test]
fn a_large_answer_that_breaks_off_is_visibly_cut() {
    let (_backend, _api, ingress) = scripted(|answering| {
        let target = answering.target();
        answering.write(head(LARGE));
        answering.write(pattern(1 << 20));
        match &*target {
            "/resets" => answering.reset(),
            _ => answering.close(),
        }
    });
    for target in ["/closes", "/resets"] {
        let mut caller = ingress.caller();
        caller.send(format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        let head = caller.head();
        let error = caller.try_body(&head).unwrap_err();
        let is_cut = matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
        );
        assert!(is_cut, "{target}: {error}");
    }
    eventually("both are logged as cut", || {
        let lines = ingress.access_lines();
        lines.len() == 2 && lines.iter().all(|line| line["outcome"] == "cut")
    });
}

#[test]
fn a_large_answer_that_stops_moving_is_cut() {
    let script = |answering: &mut Answering| {
        answering.write(head(LARGE));
        answering.write(pattern(1 << 20));
        answering.wait_for_close();
    };
    let adjust = |config: &mut Config| config.timeouts.response = Duration::from_millis(150);
    let (backend, _api, ingress) = blog_with(adjust, script);
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let head = caller.head();
    assert!(!timed_out(&caller.try_body(&head).unwrap_err()));
    eventually("the backend is let go", || backend.closed() == 1);
}

#[test]
fn a_client_that_takes_nothing_of_a_large_answer_is_cut_off() {
    let adjust = |config: &mut Config| config.timeouts.response = Duration::from_millis(150);
    let (backend, _api, ingress) = blog_with(adjust, |answering| {
        answering.write(head(usize::MAX >> 8));
        while answering.try_write([b'x'; 64 << 10]).is_ok() {}
        answering.close();
    });
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("the backend is let go", || backend.closed() == 1);
    eventually("it is logged", || {
        let lines = ingress.access_lines();
        lines.len() == 1 && lines[0]["outcome"] == "client_left"
    });
}

#[test]
fn a_large_answer_within_a_drain_is_whole() {
    let gate = Gate::default();
    let held = gate.clone();
    let (_backend, _api, mut ingress) = scripted(move |answering| {
        let body = pattern(LARGE);
        answering.write(head(LARGE));
        answering.write(&body[..LARGE / 2]);
        held.wait();
        answering.write(&body[LARGE / 2..]);
    });
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    assert_eq!(caller.head().status(), 200);
    let mut body = caller.exactly(LARGE / 2);
    ingress.advance(Stage::Draining);
    gate.open();
    body.extend(caller.exactly(LARGE - LARGE / 2));
    assert!(body == pattern(LARGE));
    assert_eq!(caller.rest(), b"", "it is closed then");
    ingress.join().unwrap();
}

#[test]
fn others_are_served_while_a_large_body_moves() {
    let (_backend, _api, ingress) = scripted(|answering| {
        if answering.target() != "/endless" {
            return answering.write(ok("small"));
        }
        answering.write(head(usize::MAX >> 8));
        let piece = pattern(1 << 20);
        while answering.try_write(&piece).is_ok() {}
        answering.close();
    });
    let mut endless = ingress.caller();
    endless.send(format!("GET /endless HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    assert_eq!(endless.head().status(), 200);
    let stream = endless.stream().try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut room = vec![0; 1 << 20];
        while (&stream).read(&mut room).is_ok_and(|read| read > 0) {}
    });
    for _ in 0..50 {
        assert_eq!(ingress.get(BLOG, "/").expect(200).text(), "small");
    }
    endless.stream().shutdown(Shutdown::Both).unwrap();
    reading.join().unwrap();
}

#[test]
fn a_large_upload_that_stops_moving_is_a_408() {
    let adjust = |config: &mut Config| config.timeouts.body = Duration::from_millis(150);
    let (backend, _api, ingress) = blog_with(adjust, of_any_size);
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST /upload HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {LARGE}\r\n\r\n"
    ));
    caller.send(pattern(1 << 20));
    caller.reply().expect(408);
    caller.rest();
    eventually("the backend is let go", || backend.closed() == 1);
    assert_eq!(backend.only().arrival, Arrival::Cut);
}

#[test]
fn a_client_that_leaves_within_a_large_upload_lets_the_backend_go() {
    let (backend, _api, ingress) = scripted(of_any_size);
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST /upload HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {LARGE}\r\n\r\n"
    ));
    caller.send(pattern(1 << 20));
    eventually("the backend is asked", || backend.seen().len() == 1);
    let left = Instant::now();
    drop(caller);
    eventually("the backend is let go", || backend.closed() == 1);
    assert!(left.elapsed() < Duration::from_secs(1));
    assert_eq!(backend.only().arrival, Arrival::Cut);
    eventually("it is logged", || {
        let lines = ingress.access_lines();
        lines.len() == 1 && lines[0]["outcome"] == "client_left"
    });
}

#[test]
fn a_large_upload_goes_on_beside_its_early_answer() {
    let gate = Gate::default();
    let held = gate.clone();
    let (backend, _api, ingress) = scripted(move |answering| {
        answering.write(head(1 << 20));
        held.wait();
        let body = answering.body();
        assert!(body == pattern(LARGE));
        answering.write(pattern(1 << 20));
    });
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {LARGE}\r\n\r\n"
    ));
    assert_eq!(caller.head().status(), 200);
    gate.open();
    caller.send(pattern(LARGE));
    assert!(caller.exactly(1 << 20) == pattern(1 << 20));
    assert_eq!(backend.only().arrival, Arrival::Whole);
}

#[test]
fn leave_to_send_a_large_body_is_given_first() {
    let (_backend, _api, ingress) = scripted(of_any_size);
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST /upload HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {LARGE}\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(caller.head().status(), 100);
    caller.send(pattern(LARGE));
    assert_eq!(caller.reply().expect(200).text(), format!("{LARGE} true"));
}
