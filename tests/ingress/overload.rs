//! More than there is room for: who is turned away, how, and who never notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::api::{error, json_response};
use crate::harness::backend::{ok, response};
use crate::harness::{Answering, Caller, Gate, TestApi, TestBackend, TestIngress, eventually};

const APP: &str = "app/Resolve";
const SLOW: &str = "slow.m3o.app";
const OTHER: &str = "other.m3o.app";

fn shed(ingress: &TestIngress, reason: &str) -> f64 {
    ingress.metric(&format!(r#"m3o_ingress_shed_total{{reason="{reason}"}}"#))
}

/// A backend that answers when the gate is open.
fn hanging(gate: &Gate) -> TestBackend {
    let held = gate.clone();
    TestBackend::scripted(move |answering| {
        answering.body();
        held.wait();
        answering.write(ok("late"));
    })
}

fn ask(ingress: &TestIngress, host: &str) -> Caller {
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    caller
}

#[test]
fn an_app_that_hangs_under_a_flood_takes_nothing_from_another() {
    let gate = Gate::default();
    let slow = hanging(&gate);
    let other = TestBackend::answering(ok("other"));
    let api = TestApi::new();
    api.resolves(APP, &[("slow", &slow.url()), ("other", &other.url())]);
    let ingress = TestIngress::before_with(&api, |config| {
        config.listen.workers = 2;
        config.limits.per_workload = 8;
    });
    let mut flood: Vec<_> = (0..100).map(|_| ask(&ingress, SLOW)).collect();
    eventually("all but eight are turned away", || {
        shed(&ingress, "workload") == 92.0
    });
    eventually("the eight are at the backend", || slow.seen().len() == 8);
    for _ in 0..50 {
        assert_eq!(ingress.get(OTHER, "/").expect(200).text(), "other");
    }
    gate.open();
    let replies: Vec<_> = flood.iter_mut().map(Caller::reply).collect();
    let late = replies.iter().filter(|reply| reply.status() == 200);
    assert_eq!(late.count(), 8);
    for reply in replies.iter().filter(|reply| reply.status() != 200) {
        assert_eq!(reply.status(), 503);
        assert!(reply.field("Retry-After").is_some());
    }
    assert_eq!(slow.seen().len(), 8);
}

#[test]
fn one_app_never_fills_all_connections() {
    let gate = Gate::default();
    let slow = hanging(&gate);
    let other = TestBackend::answering(ok("other"));
    let api = TestApi::new();
    api.resolves(APP, &[("slow", &slow.url()), ("other", &other.url())]);
    let ingress = TestIngress::before_with(&api, |config| config.limits.connections = 6);
    let mut waiting: Vec<_> = (0..3).map(|_| ask(&ingress, SLOW)).collect();
    eventually("half of the connections wait", || slow.seen().len() == 3);
    let mut turned_away = ask(&ingress, SLOW);
    turned_away.reply().expect(503);
    turned_away.get(OTHER, "/").expect(200);
    gate.open();
    for caller in &mut waiting {
        caller.reply().expect(200);
    }
}

#[test]
fn a_client_that_is_turned_away_reads_why_although_it_has_asked_already() {
    let other = TestBackend::answering(ok("other"));
    let api = TestApi::with_app("other", &other.url());
    let ingress = TestIngress::before_with(&api, |config| config.limits.connections = 1);
    let mut only = ingress.caller();
    only.get(OTHER, "/").expect(200);
    for _ in 0..100 {
        let mut caller = ingress.caller();
        let body = "x".repeat(10_000);
        caller.send(format!(
            "POST / HTTP/1.1\r\nHost: {OTHER}\r\nContent-Length: 10000\r\n\r\n{body}"
        ));
        let reply = caller.reply().expect(503);
        assert!(reply.field("Retry-After").is_some());
    }
    assert_eq!(shed(&ingress, "connections"), 100.0);
    drop(only);
    eventually("its place is free", || {
        ingress.caller().get(OTHER, "/").status() == 200
    });
}

/// An API that knows `other`, and holds every other question until the gate is open.
struct Slow {
    api: TestApi,
    gate: Gate,
    /// Questions under way, and the most of them at once.
    asked: Arc<(AtomicUsize, AtomicUsize)>,
}

fn slow_api(url: &str) -> Slow {
    let api = TestApi::new();
    let gate = Gate::default();
    let asked = Arc::<(AtomicUsize, AtomicUsize)>::default();
    let (held, counted, url) = (gate.clone(), Arc::clone(&asked), url.to_owned());
    api.on(APP, move |answering| {
        if String::from_utf8_lossy(&answering.body()).contains(r#""other""#) {
            answering.write(json_response(&format!(r#"{{"url":"{url}"}}"#)));
            return;
        }
        let now = counted.0.fetch_add(1, Ordering::SeqCst) + 1;
        counted.1.fetch_max(now, Ordering::SeqCst);
        held.wait();
        counted.0.fetch_sub(1, Ordering::SeqCst);
        answering.write(error("404 Not Found", "no such app"));
    });
    Slow { api, gate, asked }
}

#[test]
fn thousands_of_made_up_names_are_a_few_questions_and_known_apps_go_on() {
    let other = TestBackend::answering(ok("other"));
    let slow = slow_api(&other.url());
    let ingress = TestIngress::before_with(&slow.api, |config| {
        config.listen.workers = 2;
        config.cache.lookups = 16;
        config.cache.capacity = 100;
    });
    ingress.get(OTHER, "/").expect(200);
    let mut waiting: Vec<_> = (0..16)
        .map(|number| ask(&ingress, &format!("waits-{number}.m3o.app")))
        .collect();
    eventually("the API is asked as much as it may be", || {
        slow.asked.0.load(Ordering::SeqCst) == 16
    });
    let mut caller = ingress.caller();
    for number in 0..3000 {
        let made_up = format!("made-up-{number}.m3o.app");
        let reply = caller.get(&made_up, "/").expect(503);
        assert!(reply.field("Retry-After").is_some());
        if number % 100 == 0 {
            ingress.get(OTHER, "/").expect(200);
        }
    }
    assert_eq!(shed(&ingress, "lookups"), 3000.0);
    slow.gate.open();
    for caller in &mut waiting {
        caller.reply().expect(404);
    }
    // Nothing was remembered of those that were not asked about, and nobody pushes a known app out.
    for number in 0..3000 {
        let made_up = format!("made-up-{number}.m3o.app");
        caller.get(&made_up, "/").expect(404);
        if number % 100 == 0 {
            ingress.get(OTHER, "/").expect(200);
        }
    }
    assert_eq!(slow.asked.1.load(Ordering::SeqCst), 16);
    assert!(slow.api.server().opened() <= 17);
    assert_eq!(slow.api.calls(APP).len(), 1 + 16 + 3000);
}

#[test]
fn a_stale_app_is_served_while_made_up_names_keep_the_api_busy() {
    let other = TestBackend::answering(ok("other"));
    let slow = slow_api(&other.url());
    let ingress = TestIngress::before_with(&slow.api, |config| {
        config.cache.lookups = 2;
        config.cache.fresh = Duration::ZERO;
    });
    ingress.get(OTHER, "/").expect(200);
    let _waiting = ["a", "b"].map(|name| ask(&ingress, &format!("{name}.m3o.app")));
    eventually("strangers have their places", || {
        slow.asked.0.load(Ordering::SeqCst) == 2
    });
    ingress.get("c.m3o.app", "/").expect(503);
    let before = slow.api.calls(APP).len();
    ingress.get(OTHER, "/").expect(200);
    eventually("it is asked about again all the same", || {
        slow.api.calls(APP).len() > before
    });
    slow.gate.open();
}

#[test]
fn no_failure_of_the_api_is_remembered_as_a_missing_app() {
    let other = TestBackend::answering(ok("other"));
    let api = TestApi::new();
    let ingress = TestIngress::before_with(&api, |config| {
        config.cache.negative = Duration::from_secs(3600);
        config.timeouts.connect = Duration::from_millis(50);
        config.timeouts.response = Duration::from_millis(100);
    });
    let says = |answer: String| {
        move |answering: &mut Answering| {
            answering.body();
            answering.write(&answer);
        }
    };
    let cut = |answering: &mut Answering| {
        answering.write("HTTP/1.1 404 Not Found\r\nContent-Le");
        answering.close();
    };
    type Failure = Box<dyn Fn(&mut Answering) + Send + Sync>;
    let failures: Vec<Failure> = vec![
        Box::new(says(error("500 Internal Server Error", "no"))),
        Box::new(says(error("503 Service Unavailable", "no"))),
        Box::new(says(error("429 Too Many Requests", "no"))),
        Box::new(says(error("408 Request Timeout", "no"))),
        Box::new(says(error("401 Unauthorized", "no"))),
        Box::new(says(error("403 Forbidden", "no"))),
        Box::new(says(response("200 OK", "", "<html>"))),
        Box::new(says(json_response("{}"))),
        Box::new(says(response("302 Found", "Location: /404\r\n", ""))),
        Box::new(says("no HTTP at all\r\n\r\n".to_owned())),
        Box::new(cut),
        Box::new(Answering::reset),
        Box::new(Answering::wait_for_close),
    ];
    for (number, failure) in failures.into_iter().enumerate() {
        let id = format!("app-{number}");
        let host = format!("{id}.m3o.app");
        api.on(APP, failure);
        let status = ingress.get(&host, "/").status();
        assert!(matches!(status, 502 | 503), "{id}: {status}");
        api.resolves(APP, &[(&id, &other.url())]);
        assert_eq!(ingress.get(&host, "/").status(), 200, "{id}");
    }
}
