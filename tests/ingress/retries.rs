//! What is asked a second time, and what never is.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::backend::ok;
use crate::harness::front::{BLOG, Front, check_error};
use crate::harness::message::Arrival;
use crate::harness::{Answering, Gate};

/// How a backend's connection ends under a request.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It reads the head, and closes.
    Head,
    /// It reads everything, and closes.
    Whole,
    /// It resets the connection.
    Reset,
}

/// A front with one kept connection, on which the next `failing` requests meet `end`.
fn kept(end: End, failing: usize) -> Front {
    let failures = AtomicUsize::new(0);
    let front = Front::scripted(move |answering: &mut Answering| {
        if failures.fetch_add(1, Ordering::SeqCst) < failing {
            match end {
                End::Head => answering.close(),
                End::Whole => {
                    answering.body();
                    answering.close();
                }
                End::Reset => answering.reset(),
            }
            return;
        }
        answering.body();
        answering.write(ok("attacked"));
    });
    front.serves_others();
    assert_eq!(front.backend.opened(), 1);
    front
}

fn attempts(front: &Front) -> usize {
    let seen = front.backend.seen();
    seen.iter()
        .filter(|seen| seen.target() == "/attack")
        .count()
}

#[test]
fn what_may_arrive_twice_and_has_no_body_is_tried_once_more() {
    for end in [End::Head, End::Whole, End::Reset] {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            let front = kept(end, 1);
            let mut caller = front.ingress.caller();
            let fields = match method {
                "PUT" => "Content-Length: 0\r\n",
                _ => "",
            };
            let reply = caller.ask(method, "/attack", BLOG, fields);
            assert_eq!(reply.status(), 200, "{method} {end:?}");
            assert_eq!(attempts(&front), 2, "{method} {end:?}");
            assert_eq!(front.backend.opened(), 2, "{method} {end:?}");
            front.serves_another_over(&mut caller);
        }
    }
}

#[test]
fn what_must_not_arrive_twice_is_a_502_after_one_attempt() {
    let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let length = "Content-Length: 5\r\n\r\nhello";
    for end in [End::Head, End::Whole, End::Reset] {
        for (method, rest) in [
            ("POST", "Content-Length: 0\r\n\r\n"),
            ("POST", "\r\n"),
            ("POST", length),
            ("POST", chunks),
            ("PATCH", length),
            ("X-OWN", "\r\n"),
            // These may, but their bodies are gone when the first attempt fails.
            ("PUT", length),
            ("PUT", chunks),
            ("DELETE", length),
            ("GET", length),
            ("GET", chunks),
        ] {
            let front = kept(end, 1);
            let mut caller = front.ingress.caller();
            caller.send(format!(
                "{method} /attack HTTP/1.1\r\nHost: {BLOG}\r\n{rest}"
            ));
            let what = format!("{method} {rest:?} {end:?}");
            check_error(&caller.reply(), &[502], &what);
            assert_eq!(attempts(&front), 1, "{what}");
            front.serves_others();
        }
    }
}

#[test]
fn a_second_failure_is_told_and_not_tried_again() {
    for end in [End::Head, End::Reset] {
        let front = kept(end, usize::MAX);
        check_error(
            &front.ingress.get(BLOG, "/attack"),
            &[502],
            "a GET that fails twice",
        );
        assert_eq!(attempts(&front), 2);
        // On a fresh connection there is no doubt who failed.
        check_error(
            &front.ingress.get(BLOG, "/attack"),
            &[502],
            "a GET on a fresh connection",
        );
        assert_eq!(attempts(&front), 3);
    }
}

#[test]
fn many_dead_connections_cost_one_retry() {
    const KEPT: usize = 5;
    let waiting = AtomicUsize::new(0);
    let gate = Gate::default();
    let failures = AtomicUsize::new(0);
    let front = Front::scripted(move |answering| match &*answering.target() {
        "/together" => {
            if waiting.fetch_add(1, Ordering::SeqCst) + 1 == KEPT {
                gate.open();
            }
            gate.wait();
            answering.write(ok(""));
        }
        _ if failures.fetch_add(1, Ordering::SeqCst) < KEPT => answering.close(),
        _ => answering.write(ok("never")),
    });
    let mut callers: Vec<_> = (0..KEPT).map(|_| front.ingress.caller()).collect();
    for caller in &mut callers {
        caller.send(format!("GET /together HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    }
    for caller in &mut callers {
        caller.reply().expect(200);
    }
    assert_eq!(front.backend.opened(), KEPT);
    front.ingress.get(BLOG, "/attack").expect(502);
    assert_eq!(attempts(&front), 2);
    // What ended one kept connection may have ended them all.
    assert_eq!(front.backend.opened(), KEPT + 1);
}

#[test]
fn an_answer_that_has_begun_is_never_asked_for_again() {
    let front = Front::scripted(|answering| {
        answering.write(match &*answering.target() {
            "/head" => "HTTP/1.1 200 OK\r\nContent-Le",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        });
        answering.close();
    });
    for target in ["/head", "/body"] {
        front.serves_others();
        let mut caller = front.ingress.caller();
        caller.send(format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        let head = caller.head();
        if target == "/body" {
            assert_eq!(head.status(), 200);
            caller.try_body(&head).unwrap_err();
        } else {
            assert_eq!(head.status(), 502, "{target}");
        }
        let seen = front.backend.seen();
        let attempts = seen.iter().filter(|seen| seen.target() == target).count();
        assert_eq!(attempts, 1, "{target}");
    }
}

#[test]
fn a_body_is_never_there_twice_in_part() {
    // The backend takes half of the upload, and then the connection breaks.
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let front = Front::scripted(|answering| {
            answering.some();
            answering.reset();
        });
        front.serves_others();
        let mut caller = front.ingress.caller();
        let half = match framing {
            "Content-Length: 10" => "half",
            _ => "4\r\nhalf\r\n",
        };
        caller.send(format!(
            "PUT /attack HTTP/1.1\r\nHost: {BLOG}\r\n{framing}\r\n\r\n{half}"
        ));
        check_error(&caller.reply(), &[502], framing);
        caller.rest();
        front.serves_others();
        assert_eq!(attempts(&front), 1, "{framing}");
        let seen = front.backend.seen();
        assert!(
            seen.iter()
                .all(|seen| seen.target() != "/attack" || seen.arrival != Arrival::Whole)
        );
    }
}
