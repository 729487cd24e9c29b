//! More than there is room for: who is turned away, how, and who never notices.

use crate::harness::backend::ok;
use crate::harness::{Caller, Gate, TestApi, TestBackend, TestIngress, eventually};

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
