//! Connections to backends: kept, queued for, dialled, and what happens when a kept one is dead.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::backend::ok;
use crate::harness::{Answering, Gate, TestApi, TestBackend, TestIngress, eventually};

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

#[test]
fn a_backend_that_was_not_used_for_longest_makes_room_for_a_new_one() {
    let backends: Vec<TestBackend> = (0..3)
        .map(|_| TestBackend::answering(ok("hello")))
        .collect();
    let urls: Vec<String> = backends.iter().map(TestBackend::url).collect();
    let api = TestApi::new();
    let known = [("a", &*urls[0]), ("b", &*urls[1]), ("c", &*urls[2])];
    api.resolves("app/Resolve", &known);
    // One of them is the connection to the API.
    let ingress = TestIngress::before_with(&api, |config| config.backends.connections = 3);
    let mut caller = ingress.caller();
    for app in ["a", "b", "a", "c"] {
        caller.get(&format!("{app}.m3o.app"), "/").expect(200);
    }
    eventually("the one of b is closed", || backends[1].closed() == 1);
    caller.get("a.m3o.app", "/").expect(200);
    caller.get("c.m3o.app", "/").expect(200);
    let opened: Vec<usize> = backends.iter().map(TestBackend::opened).collect();
    assert_eq!(opened, [1, 1, 1]);
    assert_eq!(ingress.metric("m3o_ingress_pool_idle"), 3.0);
}

#[test]
fn a_connection_that_is_held_for_long_costs_the_others_one_more_and_no_wait() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = TestBackend::scripted(move |answering| {
        if answering.target() == "/held" {
            held.wait();
        }
        answering.write(ok("hello"));
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| config.backends.per_backend = 1);
    let mut patient = ingress.caller();
    patient.send(format!("GET /held HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("it is held", || backend.opened() == 1);
    for _ in 0..5 {
        ingress.get(BLOG, "/").expect(200);
    }
    assert_eq!(backend.opened(), 2);
    gate.open();
    assert_eq!(patient.reply().status(), 200);
    // No more are kept than the cap.
    eventually("one of them is closed", || backend.closed() == 1);
    ingress.get(BLOG, "/").expect(200);
    assert_eq!(backend.opened(), 2);
}
