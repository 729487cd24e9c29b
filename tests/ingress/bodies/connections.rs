//! Connections to backends: which of them are used again after a body has ended.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{BLOG, blog, scripted};
use crate::harness::TestBackend;
use crate::harness::backend::{ok, response};

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
