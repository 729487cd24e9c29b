//! Backends and clients that fail or leave, at every stage: somebody is told in time, and nothing is
//! held for who is gone.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::backend::{ok, response};
use crate::harness::front::{BLOG, Front, check_error};
use crate::harness::{Answering, Caller, Gate, eventually};

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    Closes,
    Resets,
}

impl Leaving {
    fn leave(self, caller: Caller) {
        if let Self::Resets = self {
            let socket = socket2::SockRef::from(caller.stream());
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(caller);
    }
}

/// The request is over within a second after its client has left.
#[track_caller]
fn check_let_go(front: &Front, left: Instant, what: &str) {
    eventually(what, || !front.ingress.access_lines().is_empty());
    assert!(left.elapsed() < Duration::from_secs(1), "{what}");
    let lines = front.ingress.access_lines();
    assert_eq!(lines.len(), 1, "{what}");
    front.serves_others();
}

#[test]
fn a_client_that_leaves_takes_its_request_along_at_every_stage() {
    let post =
        |framing: &str| format!("POST /attack HTTP/1.1\r\nHost: {BLOG}\r\n{framing}\r\n\r\n");
    for leaving in [Leaving::Closes, Leaving::Resets] {
        for (stage, request) in [
            ("no answer yet", post("Content-Length: 0")),
            (
                "an upload of known length",
                post("Content-Length: 10") + "half",
            ),
            (
                "an upload in chunks",
                post("Transfer-Encoding: chunked") + "4\r\nhalf\r\n",
            ),
            (
                "an upload in the middle of a chunk",
                post("Transfer-Encoding: chunked") + "8\r\nhalf",
            ),
            (
                "a whole upload without an answer",
                post("Content-Length: 5") + "hello",
            ),
            (
                "another request behind it",
                post("Content-Length: 0") + &post("Content-Length: 0"),
            ),
            (
                "half of another request behind it",
                post("Content-Length: 0") + "GET /half HTTP/1.1\r\nHo",
            ),
            (
                "leave to send",
                post("Content-Length: 5\r\nExpect: 100-continue"),
            ),
        ] {
            let front = Front::scripted(Answering::wait_for_close);
            let mut caller = front.ingress.caller();
            caller.send(request);
            eventually("the backend is asked", || front.backend.opened() == 1);
            if stage == "leave to send" {
                assert_eq!(caller.head().status(), 100);
            }
            let left = Instant::now();
            leaving.leave(caller);
            let what = format!("{stage} {leaving:?}");
            eventually(&what, || front.backend.closed() == 1);
            check_let_go(&front, left, &what);
        }
    }
}

#[test]
fn a_client_that_leaves_a_stream_takes_the_backend_along() {
    for leaving in [Leaving::Closes, Leaving::Resets] {
        for body in ["", "an upload beside it"] {
            let front = Front::scripted(|answering| {
                answering.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
                answering.wait_for_close();
            });
            let mut caller = front.ingress.caller();
            let length = if body.is_empty() { 0 } else { 1000 };
            caller.send(format!(
                "POST /attack HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
            assert_eq!(caller.head().status(), 200);
            assert_eq!(caller.chunk().unwrap(), b"x");
            let left = Instant::now();
            leaving.leave(caller);
            let what = format!("{leaving:?} {body:?}");
            eventually(&what, || front.backend.closed() == 1);
            check_let_go(&front, left, &what);
        }
    }
}

#[test]
fn a_client_that_leaves_a_flood_unread_takes_the_backend_along() {
    for leaving in [Leaving::Closes, Leaving::Resets] {
        let front = Front::scripted(|answering| {
            answering.write("HTTP/1.1 200 OK\r\n\r\n");
            let piece = vec![b'x'; 64 << 10];
            while answering.try_write(&piece).is_ok() {}
            answering.close();
        });
        let mut caller = front.ingress.caller();
        caller.send(format!("GET /attack HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(caller.head().status(), 200);
        let left = Instant::now();
        leaving.leave(caller);
        eventually("the backend is let go", || front.backend.closed() == 1);
        check_let_go(&front, left, "a flood");
    }
}

/// Sends until nothing is taken any more.
fn fill(caller: &Caller) {
    let stream = caller.stream();
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let piece = vec![b'x'; 64 << 10];
    while (&mut &*stream).write(&piece).is_ok() {}
}

#[test]
fn a_client_that_resets_an_upload_is_noticed_though_the_backend_does_not_read() {
    let gate = Gate::default();
    let held = gate.clone();
    let front = Front::scripted(move |answering| {
        held.wait();
        answering.close();
    });
    let mut caller = front.ingress.caller();
    caller.send(format!(
        "POST /attack HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 1000000000\r\n\r\n"
    ));
    fill(&caller);
    let left = Instant::now();
    Leaving::Resets.leave(caller);
    check_let_go(&front, left, "an upload that nobody takes");
    gate.open();
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    for (what, end) in [("closes", true), ("stays", false)] {
        let front = Front::scripted(move |answering| {
            answering.write(response("413 Payload Too Large", "", "no more"));
            if end {
                answering.close();
            } else {
                answering.wait_for_close();
            }
        });
        for framing in ["Content-Length: 3000000", "Transfer-Encoding: chunked"] {
            let mut caller = front.ingress.caller();
            caller.send(format!(
                "POST /attack HTTP/1.1\r\nHost: {BLOG}\r\n{framing}\r\n\r\n"
            ));
            let mut piece = vec![b'x'; 10_000];
            if framing.starts_with("Transfer") {
                piece = [b"2710\r\n", &piece[..], b"\r\n"].concat();
            }
            for _ in 0..100 {
                let _nobody_reads_it = caller.try_send(&piece);
            }
            let reply = caller.reply().expect(413);
            assert_eq!(reply.text(), "no more", "{what} {framing}");
            // The rest is not here, so the next request cannot be found.
            caller.rest();
            front.serves_others();
        }
        eventually("the backend is let go", || {
            front.backend.opened() - front.backend.closed() <= 1
        });
    }
}

#[test]
fn an_early_answer_ends_in_order_although_more_was_sent() {
    let front = Front::scripted(|answering| {
        answering.write(response("413 Payload Too Large", "", "no more"));
        answering.close();
    });
    let mut caller = front.ingress.caller();
    let head = format!("POST /attack HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 3000000\r\n\r\n");
    caller.send([head.as_bytes(), &[b'x'; 300_000]].concat());
    caller.reply().expect(413);
    let mut stream = caller.stream();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    for _ in 0..20 {
        caller.send([b'x'; 10_000]);
    }
}

#[test]
fn an_early_answer_to_a_small_upload_keeps_the_connection_in_step() {
    let front = Front::scripted(|answering| {
        answering.write(ok("early"));
        answering.body();
    });
    for rest in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut caller = front.ingress.caller();
        let (other, answer) = front.other();
        caller.send(format!(
            "POST /attack HTTP/1.1\r\nHost: {BLOG}\r\n{rest}{other}"
        ));
        assert_eq!(caller.reply().expect(200).text(), "early");
        // Either in step or closed, but never out of step.
        if let Ok(reply) = caller.try_reply() {
            assert_eq!(reply.expect(200).text(), answer);
        }
    }
}

#[test]
fn a_backend_that_fails_during_an_upload_is_told_at_once() {
    let front = Front::scripted(|answering| {
        answering.some();
        match &*answering.target() {
            "/reset" => answering.reset(),
            "/garbage" => {
                answering.write("garbage\n");
                answering.wait_for_close();
            }
            _ => answering.close(),
        }
    });
    for target in ["/reset", "/close", "/garbage"] {
        for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
            let mut caller = front.ingress.caller();
            let piece = if framing.starts_with("Content") {
                "start"
            } else {
                "5\r\nstart\r\n"
            };
            let asked = Instant::now();
            caller.send(format!(
                "POST {target} HTTP/1.1\r\nHost: {BLOG}\r\n{framing}\r\n\r\n{piece}"
            ));
            let what = format!("{target} {framing}");
            check_error(&caller.reply(), &[502], &what);
            assert!(asked.elapsed() < Duration::from_secs(2), "{what}");
            caller.rest();
            front.serves_others();
        }
    }
}

#[test]
fn a_backend_that_hangs_at_any_stage_is_let_go_in_time() {
    let front = Front::scripted_with(
        |config| config.timeouts.response = Duration::from_secs(1),
        |answering| {
            answering.write(match &*answering.target() {
                "/head" => "HTTP/1.1 200 OK\r\nContent-Le",
                "/interim" => "HTTP/1.1 103 Early Hints\r\n\r\n",
                "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
                "/chunks" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf",
                "/trailers" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
                "/close" => "HTTP/1.1 200 OK\r\n\r\nhalf",
                _ => "",
            });
            answering.wait_for_close();
        },
    );
    // All at once, so that they wait at the same time.
    let ask = |target: &'static str| {
        let mut caller = front.ingress.caller();
        caller.send(format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        (target, caller)
    };
    let without_head = ["/nothing", "/head", "/interim"].map(ask);
    let with_head = ["/length", "/chunks", "/trailers", "/close"].map(ask);
    for (target, mut caller) in without_head {
        check_error(&caller.reply(), &[504], target);
    }
    for (target, mut caller) in with_head {
        let head = caller.head();
        assert_eq!(head.status(), 200, "{target}");
        let error = caller.try_body(&head).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
            ),
            "{target} {error}"
        );
    }
    eventually("every connection is let go", || front.backend.closed() == 7);
    front.serves_others();
}
