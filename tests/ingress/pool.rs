//! Connections to backends: kept, queued for, dialled, and what happens when a kept one is dead.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::backend::ok;
use crate::harness::{Answering, TestApi, TestBackend, TestIngress, eventually};

const BLOG: &str = "blog.m3o.app";

/// A backend, and an ingress in front of it.
fn scripted(
    script: impl Fn(&mut Answering) + Send + Sync + 'static,
) -> (TestBackend, TestApi, TestIngress) {
    let backend = TestBackend::scripted(script);
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    (backend, api, ingress)
}

fn retries(ingress: &TestIngress, reason: &str) -> f64 {
    ingress.metric(&format!(
        r#"m3o_ingress_backend_retries_total{{reason="{reason}"}}"#
    ))
}

#[test]
fn a_post_after_the_backend_closed_what_was_idle_goes_over_a_fresh_connection_once() {
    let (backend, _api, ingress) = scripted(|answering| {
        answering.body();
        answering.write(ok("hello"));
        // Without a word: only its end says so.
        answering.close();
    });
    let mut caller = ingress.caller();
    for round in 1..=10 {
        caller.post(BLOG, "/", "", b"precious").expect(200);
        eventually("it is closed", || backend.closed() == round);
    }
    let bodies: Vec<String> = backend.seen().iter().map(|seen| seen.text()).collect();
    assert_eq!(bodies, ["precious"; 10]);
    assert_eq!(backend.opened(), 10);
    assert_eq!(retries(&ingress, "broken_off"), 0.0);
}

#[test]
fn a_get_whose_kept_connection_breaks_is_repeated_once_and_counted() {
    let served = AtomicUsize::new(0);
    let (backend, _api, ingress) =
        scripted(
            move |answering| match served.fetch_add(1, Ordering::SeqCst) {
                0 => answering.write(ok("hello")),
                _ => answering.close(),
            },
        );
    let mut caller = ingress.caller();
    caller.get(BLOG, "/").expect(200);
    // The kept one breaks, and so does the fresh one: that is the backend's answer.
    caller.get(BLOG, "/").expect(502);
    assert_eq!(backend.seen().len(), 3);
    assert_eq!(backend.opened(), 2);
    assert_eq!(retries(&ingress, "broken_off"), 1.0);
}

#[test]
fn a_request_is_not_repeated_once_the_backend_was_at_work_on_it() {
    // The fields of the request were gone after an interim response, and it went out without them.
    let served = AtomicUsize::new(0);
    let (backend, _api, ingress) = scripted(move |answering| {
        if served.fetch_add(1, Ordering::SeqCst) == 1 {
            answering.write("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
            answering.close();
        } else {
            answering.write(ok("hello"));
        }
    });
    let mut caller = ingress.caller();
    caller.get(BLOG, "/").expect(200);
    caller.get(BLOG, "/").expect(502);
    assert_eq!(backend.seen().len(), 2);
    assert_eq!(retries(&ingress, "broken_off"), 0.0);
}

#[test]
fn a_post_of_which_something_was_written_is_a_502_and_is_not_repeated() {
    let served = AtomicUsize::new(0);
    let (backend, _api, ingress) = scripted(move |answering| {
        answering.body();
        match served.fetch_add(1, Ordering::SeqCst) {
            0 => answering.write(ok("hello")),
            _ => answering.reset(),
        }
    });
    let mut caller = ingress.caller();
    caller.get(BLOG, "/").expect(200);
    caller.post(BLOG, "/", "", b"once").expect(502);
    assert_eq!(backend.seen().len(), 2);
    assert_eq!(backend.opened(), 1);
    for reason in ["unsent", "broken_off"] {
        assert_eq!(retries(&ingress, reason), 0.0, "{reason}");
    }
}

#[test]
fn a_token_is_spent_once_also_when_what_was_idle_is_closed() {
    let api = TestApi::new();
    for endpoint in ["app/Resolve", "user/VerifyEmail"] {
        api.on(endpoint, |answering| {
            answering.body();
            answering.write(ok("{}"));
            answering.close();
        });
    }
    let ingress = TestIngress::before(&api);
    ingress.get(BLOG, "/").expect(502);
    eventually("it is closed", || api.server().closed() == 1);
    ingress.get("user.m3o.com", "/?token=t").expect(200);
    assert_eq!(api.calls("user/VerifyEmail").len(), 1);
    assert_eq!(api.server().opened(), 2);
}
