//! Hostile backends: a response that could be read in two ways is a 502 or visibly cut, and nothing
//! that a backend sends unasked becomes the answer to anybody else.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::backend::ok;
use crate::harness::caller::timed_out;
use crate::harness::front::{BLOG, Front, check_error};
use crate::harness::{Answering, Caller, Gate, eventually};

/// What a backend would like to be taken for the answer to somebody else.
const POISON: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// A backend that answers with whatever it is given.
struct Hostile {
    front: Front,
    response: Arc<Mutex<Vec<u8>>>,
}

/// What the backend does when its answer is written.
#[derive(Debug, Clone, Copy)]
enum Then {
    GoesOn,
    WaitsForClose,
    Closes,
    Resets,
}

impl Hostile {
    fn new(then: Then) -> Self {
        let response = Arc::new(Mutex::new(Vec::new()));
        let given = Arc::clone(&response);
        let front = Front::scripted(move |answering| {
            answering.body();
            let response = given.lock().unwrap().clone();
            answering.write(response);
            match then {
                Then::GoesOn => {}
                Then::WaitsForClose => answering.wait_for_close(),
                Then::Closes => answering.close(),
                Then::Resets => answering.reset(),
            }
        });
        Self { front, response }
    }

    /// Asks for `response`, over HTTP/1.`minor`.
    fn ask(&self, method: &str, minor: u8, response: &[u8]) -> Caller {
        *self.response.lock().unwrap() = response.to_vec();
        let mut caller = self.front.ingress.caller();
        caller.send(format!(
            "{method} /attack HTTP/1.{minor}\r\nHost: {BLOG}\r\n\r\n"
        ));
        caller
    }

    /// The client gets a 502 and may go on; the backend's connection is not used again.
    #[track_caller]
    fn check_refused(&self, response: &[u8]) {
        let what = response[..response.len().min(300)]
            .escape_ascii()
            .to_string();
        let mut caller = self.ask("GET", 1, response);
        check_error(&caller.reply(), &[502], &what);
        self.front.serves_another_over(&mut caller);
        self.front.serves_others();
        self.is_let_go(&what);
    }

    /// The client sees the head and then a cut.
    #[track_caller]
    fn check_cut(&self, minor: u8, response: &[u8]) {
        let what = format!("HTTP/1.{minor} {}", response.escape_ascii());
        let mut caller = self.ask("GET", minor, response);
        let head = caller.head();
        assert_eq!(head.status(), 200, "{what}");
        match caller.try_body(&head) {
            Ok(body) => panic!("a clean end after {}: {what}", body.escape_ascii()),
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ),
                "{error}: {what}"
            ),
        }
        self.front.serves_others();
        self.is_let_go(&what);
    }

    /// Of all connections at most the one that serves the others is still open.
    #[track_caller]
    fn is_let_go(&self, what: &str) {
        let backend = &self.front.backend;
        eventually(what, || backend.opened() - backend.closed() <= 1);
    }
}

#[test]
fn a_response_whose_length_can_be_read_in_two_ways_is_a_502() {
    let hostile = Hostile::new(Then::WaitsForClose);
    let lines: &[&[u8]] = &[
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 0\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 05",
        b"Content-Length: 5\r\nX: y\r\ncontent-length:",
        b"Content-Length: 5, 6",
        b"Content-Length: 5,",
        b"Content-Length:",
        b"Content-Length: +5",
        b"Content-Length: -5",
        b"Content-Length: 0x5",
        b"Content-Length: 5.0",
        b"Content-Length: 5 5",
        b"Content-Length: 5;",
        b"Content-Length: five",
        b"Content-Length: \xd9\xa5",
        b"Content-Length: 18446744073709551616",
        b"Content-Length: 99999999999999999999999999",
        b"Content-Length : 5",
        b" Content-Length: 5",
        b"Content-Length: 5\r\n 6",
        b"Content-Length: 5\0",
        b"Content-Length: 5\r",
        b"Content-Length: 5\nX: y",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, gzip",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding: \"chunked\"",
        b"Transfer-Encoding: chunked,",
        b"Transfer-Encoding:",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding : chunked",
        b" Transfer-Encoding: chunked",
        b"X: y\r\n Transfer-Encoding: chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"Content-Length: x\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nTransfer-Encoding: gzip",
        b"Content-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked",
    ];
    for line in lines {
        let head = [b"HTTP/1.1 200 OK\r\n", *line, b"\r\n\r\n"].concat();
        hostile.check_refused(&[&head, &b"0\r\n\r\n"[..], POISON].concat());
    }
    for status in ["204 No Content", "304 Not Modified"] {
        let response =
            format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n");
        hostile.check_refused(response.as_bytes());
    }
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    hostile.check_refused(old.as_bytes());
}

#[test]
fn a_response_that_is_not_to_the_letter_is_a_502() {
    let hostile = Hostile::new(Then::WaitsForClose);
    let lines: &[&[u8]] = &[
        b"HTTP/0.9 200 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/2 200",
        b"HTTP/11 200 OK",
        b"HTTP/1.1.1 200 OK",
        b"http/1.1 200 OK",
        b"HTTPS/1.1 200 OK",
        b"ICY 200 OK",
        b"RTSP/1.0 200 OK",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 -20 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 000 OK",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1 \xb2\xb0\xb0 OK",
        b"HTTP/1.1 200 O\0K",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 O\x7fK",
        b"HTTP/1.1 200 OK\r",
        b" HTTP/1.1 200 OK",
        b"\r\nHTTP/1.1 200 OK",
        b"x\r\nHTTP/1.1 200 OK",
        b"GET / HTTP/1.1",
        b"220 mail.example ESMTP",
        b"SSH-2.0-OpenSSH_9.9",
        b"-ERR unknown command 'GET'",
        b"<html>",
        b"{}",
    ];
    for line in lines {
        let rest = b"\r\nContent-Length: 5\r\n\r\nhello";
        hostile.check_refused(&[*line, &rest[..]].concat());
    }
    let fields: &[&[u8]] = &[
        b"X",
        b": y",
        b"X : y",
        b"X\t: y",
        b" X: y",
        b"X: y\r\n z",
        b"X: y\r\n\tz",
        b"X Y: z",
        b"X@: y",
        b"X\0: y",
        b"X\xff: y",
        b"X: \0",
        b"X: \x01",
        b"X: \x1b",
        b"X: \x7f",
        b"X: y\rz",
        b"X: y\nZ: z",
        b"X: y\r",
        b"HTTP/1.1 200 OK",
    ];
    for field in fields {
        let head = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", *field].concat();
        hostile.check_refused(&[&head, &b"\r\n\r\nhello"[..]].concat());
    }
    for response in [
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello",
        "\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        hostile.check_refused(response.as_bytes());
    }
}

#[test]
fn a_head_without_end_is_a_502() {
    let hostile = Hostile::new(Then::WaitsForClose);
    let field = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(80 << 10));
    hostile.check_refused(field.as_bytes());
    hostile.check_refused(format!("{field}\r\n\r\n").as_bytes());
    let reason = format!("HTTP/1.1 200 {}", "y".repeat(80 << 10));
    hostile.check_refused(reason.as_bytes());
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(300));
    hostile.check_refused(fields.as_bytes());
}

#[test]
fn a_head_that_breaks_off_is_a_502() {
    for then in [Then::Closes, Then::Resets] {
        let hostile = Hostile::new(then);
        for response in [
            "",
            "H",
            "HTTP/1.1",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r",
            "HTTP/1.1 103 Early Hints\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200",
        ] {
            hostile.check_refused(response.as_bytes());
        }
    }
}

#[test]
fn interim_responses_are_bounded_and_frame_nothing() {
    let hostile = Hostile::new(Then::WaitsForClose);
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    hostile.check_refused(format!("{}{}", interim.repeat(100), ok("final")).as_bytes());
    hostile.check_refused("HTTP/1.1 100 Continue\r\n\r\n".repeat(50_000).as_bytes());
    let broken = "HTTP/1.1 100 Continue\r\nX : y\r\n\r\n";
    hostile.check_refused(format!("{broken}{}", ok("final")).as_bytes());

    let hostile = Hostile::new(Then::GoesOn);
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        "HTTP/1.1 199 Own\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nConnection: close\r\nX-Interim: y\r\nSet-Cookie: a=b\r\n\r\n",
        "HTTP/1.0 100 Continue\r\n\r\n",
    ] {
        let mut caller = hostile.ask("GET", 1, format!("{interim}{}", ok("final")).as_bytes());
        let reply = caller.reply().expect(200);
        assert_eq!(reply.text(), "final", "{interim}");
        assert_eq!(reply.field("X-Interim"), None);
        assert_eq!(reply.field("Set-Cookie"), None);
        hostile.front.serves_another_over(&mut caller);
    }
}

#[test]
fn a_switch_that_nobody_asked_for_is_a_502() {
    let hostile = Hostile::new(Then::WaitsForClose);
    for lines in [
        "",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        let head = format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n");
        hostile.check_refused(&[head.as_bytes(), POISON].concat());
    }
}

#[test]
fn a_switch_to_something_else_than_asked_for_is_a_502() {
    let hostile = Hostile::new(Then::WaitsForClose);
    let ask = |response: &str| {
        *hostile.response.lock().unwrap() = response.as_bytes().to_vec();
        let mut caller = hostile.front.ingress.caller();
        caller.send(format!(
            "GET /attack HTTP/1.1\r\nHost: {BLOG}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        caller
    };
    for lines in [
        "",
        "Connection: Upgrade\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocketx\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
    ] {
        let mut caller = ask(&format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n"));
        check_error(&caller.reply(), &[502], lines);
        hostile.front.serves_another_over(&mut caller);
        hostile.is_let_go(lines);
    }
    let old =
        "HTTP/1.0 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    check_error(&ask(old).reply(), &[502], old);
    // Lengths mean nothing in a 101, and nobody after us may think they do.
    for lines in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut caller = ask(&format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{lines}\r\nhello"
        ));
        let head = caller.head();
        assert_eq!(head.status(), 101);
        assert_eq!(head.field("Content-Length"), None);
        assert_eq!(head.field("Transfer-Encoding"), None);
        assert_eq!(caller.exactly(5), b"hello");
    }
}

#[test]
fn of_both_lengths_the_chunks_count_and_the_connection_is_not_used_again() {
    let hostile = Hostile::new(Then::WaitsForClose);
    for lines in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 300",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\nContent-Length: 0",
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let mut caller = hostile.ask("GET", 1, response.as_bytes());
        let reply = caller.reply().expect(200);
        assert_eq!(reply.text(), "hello", "{lines}");
        assert_eq!(reply.field("Content-Length"), None, "{lines}");
        hostile.front.serves_another_over(&mut caller);
        hostile.is_let_go(lines);

        // Nor is the dead length passed on where there is no body.
        let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
        let mut caller = hostile.ask("HEAD", 1, head.as_bytes());
        let reply = caller.reply_to("HEAD").expect(200);
        assert_eq!(reply.field("Content-Length"), None, "{lines}");
        hostile.front.serves_another_over(&mut caller);
        hostile.is_let_go(lines);
    }
}

#[test]
fn equal_lengths_become_one() {
    let hostile = Hostile::new(Then::GoesOn);
    let lines = "Content-Length: 5\r\nX: y\r\nContent-Length: 5";
    for (method, status, body) in [
        ("GET", "200 OK", "hello"),
        ("HEAD", "200 OK", ""),
        ("GET", "304 Not Modified", ""),
    ] {
        let response = format!("HTTP/1.1 {status}\r\n{lines}\r\n\r\n{body}");
        let mut caller = hostile.ask(method, 1, response.as_bytes());
        let reply = caller.reply_to(method);
        assert_eq!(
            reply.field("Content-Length"),
            Some("5"),
            "{method} {status}"
        );
        assert_eq!(reply.text(), body);
        hostile.front.serves_another_over(&mut caller);
    }
}

#[test]
fn a_faulty_chunk_of_a_backend_is_a_cut() {
    let hostile = Hostile::new(Then::WaitsForClose);
    let bodies: &[&[u8]] = &[
        b"5\r\nhello\r\nx\r\n",
        b"5\r\nhello\r\n-1\r\n",
        b"5\r\nhello\r\n 0\r\n\r\n",
        b"5\r\nhello\r\n0 \r\n\r\n",
        b"5\r\nhello\r\n0x0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5;\0\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello\r\n10000000000000000\r\n",
        b"5\r\nhello\r\n00000000000000000\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        b"5\r\nhello\r\n0\r\n X: y\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\n\r\n",
        b"5\r\nhello\r\n0\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    ];
    for body in bodies {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        hostile.check_cut(1, &[&head[..], body].concat());
        hostile.check_cut(0, &[&head[..], body].concat());
    }
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = format!("{head}5\r\nhello\r\n1;{}", "x".repeat(20 << 10));
    hostile.check_cut(1, long.as_bytes());
    let trailers = format!("{head}5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(300));
    hostile.check_cut(1, trailers.as_bytes());
}

#[test]
fn a_response_that_breaks_off_has_no_clean_end_for_any_client() {
    for then in [Then::Closes, Then::Resets] {
        let hostile = Hostile::new(then);
        for minor in [0, 1] {
            for response in [
                "Content-Length: 10\r\n\r\nhalf",
                "Content-Length: 10\r\n\r\n",
                "Transfer-Encoding: chunked\r\n\r\n",
                "Transfer-Encoding: chunked\r\n\r\n4",
                "Transfer-Encoding: chunked\r\n\r\n4\r\n",
                "Transfer-Encoding: chunked\r\n\r\n8\r\nhalf",
                "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf",
                "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0",
                "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
                "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX: y\r\n",
            ] {
                let response = format!("HTTP/1.1 200 OK\r\n{response}");
                hostile.check_cut(minor, response.as_bytes());
            }
        }
    }
    // With no length at all a close is the end, but a reset is none.
    let hostile = Hostile::new(Then::Resets);
    for minor in [0, 1] {
        hostile.check_cut(minor, b"HTTP/1.1 200 OK\r\n\r\nhalf");
        hostile.check_cut(minor, b"HTTP/1.0 200 OK\r\n\r\nhalf");
    }
}

#[test]
fn a_response_that_stops_has_no_clean_end_for_an_old_client() {
    let gate = Gate::default();
    let held = gate.clone();
    let front = Front::scripted_with(
        |config| config.timeouts.response = Duration::from_millis(150),
        move |answering| {
            answering.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
            held.wait();
            answering.close();
        },
    );
    let mut caller = front.ingress.caller();
    caller.send(format!("GET /attack HTTP/1.0\r\nHost: {BLOG}\r\n\r\n"));
    let head = caller.head();
    let error = caller.try_body(&head).unwrap_err();
    assert!(!timed_out(&error), "{error}");
    gate.open();
}

#[test]
fn what_a_backend_sends_unasked_is_nobodys_answer() {
    // Whether it comes in one piece with the answer or later.
    for at_once in [true, false] {
        let written = Arc::new(Mutex::new(Gate::default()));
        let response = Arc::new(Mutex::new(String::new()));
        let (told, given) = (Arc::clone(&written), Arc::clone(&response));
        let front = Front::scripted(move |answering: &mut Answering| {
            answering.body();
            let response = given.lock().unwrap().clone();
            if at_once {
                answering.write([response.as_bytes(), POISON].concat());
            } else {
                answering.write(response);
                answering.write(POISON);
            }
            told.lock().unwrap().open();
        });
        let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        for (method, head) in [
            ("GET", "200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned()),
            ("GET", "200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()),
            ("GET", format!("200 OK\r\n{chunks}")),
            ("GET", "204 No Content\r\n\r\n".to_owned()),
            (
                "GET",
                "204 No Content\r\nContent-Length: 51\r\n\r\n".to_owned(),
            ),
            (
                "GET",
                "204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            ),
            ("GET", "304 Not Modified\r\n\r\n".to_owned()),
            (
                "GET",
                "304 Not Modified\r\nContent-Length: 51\r\n\r\n".to_owned(),
            ),
            ("HEAD", "200 OK\r\nContent-Length: 51\r\n\r\n".to_owned()),
            (
                "HEAD",
                "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            ),
            ("HEAD", "200 OK\r\n\r\n".to_owned()),
            (
                "POST",
                "200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            ),
        ] {
            *response.lock().unwrap() = format!("HTTP/1.1 {head}");
            let gate = Gate::default();
            *written.lock().unwrap() = gate.clone();
            let what = format!("{method} {head:?} {at_once}");
            let mut caller = front.ingress.caller();
            caller.ask(method, "/attack", BLOG, "");
            gate.wait();
            front.serves_another_over(&mut caller);
            for _ in 0..3 {
                front.serves_others();
            }
            let backend = &front.backend;
            eventually(&what, || backend.opened() - backend.closed() <= 1);
        }
    }
}

#[test]
fn a_second_final_response_or_a_late_interim_one_is_dropped() {
    for extra in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "\r\n",
        "x",
        "\0",
        "0\r\n\r\n",
    ] {
        let front = Front::scripted(move |answering| {
            answering.body();
            answering.write(format!("{}{extra}", ok("hello")));
        });
        let mut caller = front.ingress.caller();
        let reply = caller.get(BLOG, "/attack").expect(200);
        assert_eq!(reply.text(), "hello");
        front.serves_another_over(&mut caller);
        front.serves_others();
        assert_eq!(front.backend.opened(), 2, "{extra:?}");
    }
}

#[test]
fn a_server_that_speaks_first_on_a_kept_connection_is_not_believed() {
    let answered = Gate::default();
    let spoken = Gate::default();
    let (go_on, done) = (answered.clone(), spoken.clone());
    let front = Front::scripted(move |answering| {
        answering.write(ok("hello"));
        go_on.wait();
        answering.write(POISON);
        done.open();
    });
    front.ingress.get(BLOG, "/attack").expect(200);
    answered.open();
    spoken.wait();
    for _ in 0..3 {
        front.serves_others();
    }
    assert_eq!(front.backend.opened(), 2);
}

#[test]
fn every_way_to_end_a_response_is_understood() {
    let hostile = Hostile::new(Then::Closes);
    let check = |method: &str, minor: u8, response: &str, expected: &str| {
        let mut caller = hostile.ask(method, minor, response.as_bytes());
        let reply = caller.reply_to(method);
        assert_eq!(reply.text(), expected, "{response:?}");
        // A length that the backend did not give is not made up.
        let length = reply.field("Content-Length");
        let told = method != "HEAD" || response.contains("Content-Length");
        assert!(told || length.is_none(), "{response:?}: {length:?}");
        if minor == 1 {
            hostile.front.serves_another_over(&mut caller);
        } else {
            assert_eq!(reply.field("Transfer-Encoding"), None);
            assert_eq!(caller.rest(), b"");
        }
        hostile.front.serves_others();
    };
    for minor in [0, 1] {
        let length = "Content-Length: 5\r\n\r\nhello";
        let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        check(
            "GET",
            minor,
            &format!("HTTP/1.1 200 OK\r\n{length}"),
            "hello",
        );
        check(
            "GET",
            minor,
            &format!("HTTP/1.0 200 OK\r\n{length}"),
            "hello",
        );
        check("GET", minor, &format!("HTTP/1.1 200\r\n{length}"), "hello");
        check("GET", minor, &format!("HTTP/1.1 200 \r\n{length}"), "hello");
        check(
            "GET",
            minor,
            &format!("HTTP/1.1 205 Reset\r\n{length}"),
            "hello",
        );
        check(
            "GET",
            minor,
            &format!("HTTP/1.1 799 Own\r\n{length}"),
            "hello",
        );
        check(
            "GET",
            minor,
            &format!("HTTP/1.1 200 OK\r\n{chunks}"),
            "hello",
        );
        check("GET", minor, "HTTP/1.1 200 OK\r\n\r\nhello", "hello");
        check("GET", minor, "HTTP/1.0 200 OK\r\n\r\nhello", "hello");
        check("GET", minor, "HTTP/1.1 200 OK\r\n\r\n", "");
        check(
            "GET",
            minor,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n\
             05;a=\"b\"\r\nhello\r\n000;c\r\nX: y\r\n\r\n",
            "hello",
        );
        check("GET", minor, "HTTP/1.1 204 No Content\r\n\r\n", "");
        check(
            "HEAD",
            minor,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "",
        );
        check("HEAD", minor, "HTTP/1.1 200 OK\r\n\r\n", "");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check("HEAD", minor, chunked, "");
    }
}
