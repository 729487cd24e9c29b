//! Requests that could be read in two ways: each is refused and its connection closed, nothing of it
//! comes whole to the backend, and nobody else notices.

use std::io::Read;
use std::net::Shutdown;

use crate::harness::front::{BLOG, Front, check_error};
use crate::harness::{TestApi, TestIngress};

/// What an attacker would like somebody to take for a request of its own.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n";

/// A POST with these lines in its head and this after it.
fn post(lines: &[u8], rest: &[u8]) -> Vec<u8> {
    let head = format!("POST /attack HTTP/1.1\r\nHost: {BLOG}\r\n");
    [head.as_bytes(), lines, b"\r\n\r\n", rest].concat()
}

/// A POST with a chunked body of these bytes.
fn chunked(body: &[u8]) -> Vec<u8> {
    post(b"Transfer-Encoding: chunked", body)
}

/// How the bytes of a request come.
#[derive(Debug, Clone, Copy)]
enum Way {
    AtOnce,
    ByteByByte,
    BehindAnother,
}

/// Refused, whichever way it comes: an error of our own, and the connection closed.
#[track_caller]
fn check(front: &Front, request: &[u8], statuses: &[u16]) {
    for way in [Way::AtOnce, Way::ByteByByte, Way::BehindAnother] {
        let what = format!("{} {way:?}", request.escape_ascii());
        let mut caller = front.ingress.caller();
        match way {
            Way::AtOnce => drop(caller.try_send(request)),
            Way::ByteByByte if request.len() > 1000 => continue,
            Way::ByteByByte => {
                for byte in request {
                    let _refused_already = caller.try_send([*byte]);
                }
            }
            Way::BehindAnother => {
                let (other, answer) = front.other();
                let _refused_already = caller.try_send([other.as_bytes(), request].concat());
                assert_eq!(caller.reply().expect(200).text(), answer, "{what}");
            }
        }
        let reply = caller.reply();
        check_error(&reply, statuses, &what);
        assert_eq!(reply.field("Connection"), Some("close"), "{what}");
        assert_eq!(caller.rest().escape_ascii().to_string(), "", "{what}");
        front.serves_others();
    }
}

/// Taken: it comes whole to the backend with `body`, and the connection is still in step.
#[track_caller]
fn check_taken(front: &Front, request: &[u8], body: &str) {
    let what = request.escape_ascii().to_string();
    let mut caller = front.ingress.caller();
    caller.send(request);
    let reply = caller.reply();
    assert_eq!(reply.status(), 200, "{what}: {}", reply.text());
    assert_eq!(front.backend.last().text(), body, "{what}");
    front.serves_another_over(&mut caller);
    front.serves_others();
}

#[test]
fn a_request_with_both_lengths_is_refused_in_either_order() {
    let front = Front::new();
    let rest = [b"0\r\n\r\n", SMUGGLED].concat();
    for lines in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "content-length:6\r\ntransfer-encoding:chunked",
        "CONTENT-LENGTH: 6\r\nTRANSFER-ENCODING: CHUNKED",
        "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 6\r\nContent-Length: 6",
        "Content-Length: 6\r\nTransfer-Encoding: identity",
        "Content-Length: 6\r\nTransfer-Encoding: xchunked",
        "Content-Length: 6\r\nTransfer-Encoding:",
        "Content-Length: x\r\nTransfer-Encoding: chunked",
        "Content-Length:\r\nTransfer-Encoding: chunked",
        "Content-Length: 6\r\nConnection: Content-Length\r\nTransfer-Encoding: chunked",
        "Content-Length: 6\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    ] {
        check(&front, &post(lines.as_bytes(), &rest), &[400]);
    }
    let both = "Content-Length: 6\r\nTransfer-Encoding: chunked";
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "X-OWN"] {
        let head = format!("{method} /attack HTTP/1.1\r\nHost: {BLOG}\r\n{both}\r\n\r\n");
        check(&front, &[head.as_bytes(), &rest].concat(), &[400]);
    }
    let old = format!("POST /attack HTTP/1.0\r\nHost: {BLOG}\r\n{both}\r\n\r\n");
    check(&front, &[old.as_bytes(), &rest].concat(), &[400]);
    front.nothing_arrived_whole();
}

#[test]
fn only_exactly_chunked_is_a_transfer_coding() {
    let front = Front::new();
    let rest = [b"0\r\n\r\n", SMUGGLED].concat();
    let lines: &[&[u8]] = &[
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunkedx",
        b"Transfer-Encoding: chunk",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: chunked, gzip",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked,",
        b"Transfer-Encoding: ,chunked",
        b"Transfer-Encoding: , chunked",
        b"Transfer-Encoding: chunked gzip",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding: chunked;",
        b"Transfer-Encoding: \"chunked\"",
        b"Transfer-Encoding: 'chunked'",
        b"Transfer-Encoding: [chunked]",
        b"Transfer-Encoding: chu\tnked",
        b"Transfer-Encoding: chu nked",
        b"Transfer-Encoding: chunked\x0b",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: \x0cchunked",
        b"Transfer-Encoding: chunked\x08",
        b"Transfer-Encoding: chunked\0",
        b"Transfer-Encoding: \0chunked",
        b"Transfer-Encoding: chunked\x7f",
        b"Transfer-Encoding: \xa0chunked",
        b"Transfer-Encoding: chunked\x85",
        b"Transfer-Encoding: \xc2\xa0chunked",
        b"Transfer-Encoding: \xef\xbb\xbfchunked",
        b"Transfer-Encoding: chun\xc4\xb7ed",
        b"Transfer-Encoding: chunked\r",
        b"Transfer-Encoding: \rchunked",
        b"Transfer-Encoding:",
        b"Transfer-Encoding: ",
        b"Transfer-Encoding: none",
        b"Transfer-Encoding: null",
        b"Transfer-Encoding: 1",
        b"Transfer-Encoding: trailers",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding:",
        b"Transfer-Encoding:\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nX: y\r\ntransfer-encoding: identity",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t: chunked",
        b"Transfer-Encoding\x0b: chunked",
        b"Transfer-Encoding\0: chunked",
        b" Transfer-Encoding: chunked",
        b"\tTransfer-Encoding: chunked",
        b"\0Transfer-Encoding: chunked",
        b"X: y\r\n Transfer-Encoding: chunked",
        b"X: y\r\n\tTransfer-Encoding: chunked",
        b"X: y\nTransfer-Encoding: chunked",
        b"X: y\rTransfer-Encoding: chunked",
        b"X: y\r\r\nTransfer-Encoding: chunked",
        b"X: y\0Transfer-Encoding: chunked",
        b"Transfer-Encoding\r\n: chunked",
        b"Transfer-Encoding\r\n : chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding:\n chunked",
        b"Transfer-Encoding: chunked\r\n ",
        b"Transfer-Encoding: chunked\r\n\t, gzip",
        b"Transfer-Encoding=chunked",
        b"Transfer-Encoding chunked",
        b"Transfer-Encoding;: chunked",
        b"Transfer-Enc\xf6ding: chunked",
        b"Transfer Encoding: chunked",
        b"\"Transfer-Encoding\": chunked",
        b"Transfer-Encoding: chunked\nX: y",
    ];
    for line in lines {
        check(&front, &post(line, &rest), &[400, 501]);
        // With a length beside it, which one of two readers might believe.
        let both = [line, &b"\r\nContent-Length: 5"[..]].concat();
        check(&front, &post(&both, &rest), &[400, 501]);
    }
    front.nothing_arrived_whole();
}

#[test]
fn a_length_is_digits_and_nothing_else() {
    let front = Front::new();
    let rest = [b"hello", SMUGGLED].concat();
    let values: &[&[u8]] = &[
        b"",
        b" ",
        b"+5",
        b"-5",
        b"-0",
        b"--5",
        b"5-",
        b"5+",
        b"0x5",
        b"0b101",
        b"5h",
        b"5.0",
        b"5,0",
        b"5e0",
        b"1_0",
        b"1'0",
        b"5 5",
        b"5\t5",
        b"5,5",
        b"5, 5",
        b"5, 6",
        b",5",
        b"5,",
        b"5;",
        b"5;q=1",
        b"a5",
        b"five",
        b"NaN",
        b"null",
        b"\"5\"",
        b"(5)",
        b"5\0",
        b"\x005",
        b"5\x0b",
        b"\x0c5",
        b"5\r",
        b"\r5",
        b"5\x7f",
        b"\xa05",
        b"\xd9\xa5",
        b"\xef\xbc\x95",
        b"\xc2\xb2",
        b"18446744073709551616",
        b"18446744073709551621",
        b"99999999999999999999999999999999",
        b"-18446744073709551611",
        b"5\r\n 6",
        b"5\r\n\t",
        b"\r\n 5",
        b"5\nX: y",
        b"5\r\nContent-Length: 5",
        b"5\r\nContent-Length: 6",
        b"6\r\nContent-Length: 5",
        b"0\r\nContent-Length: 5",
        b"5\r\nContent-Length: 0",
        b"5\r\nContent-Length: 05",
        b"5\r\nContent-Length:",
        b"\r\nContent-Length: 5",
        b"5\r\ncontent-length: 4",
        b"5\r\nX: y\r\nCONTENT-LENGTH: 4",
    ];
    for value in values {
        let line = [b"Content-Length: ", *value].concat();
        check(&front, &post(&line, &rest), &[400]);
    }
    for line in [
        "Content-Length : 5",
        "Content-Length\t: 5",
        " Content-Length: 5",
        "X: y\r\n Content-Length: 5",
        "Content-Length",
        "Content-Length 5",
        "Content-Length=5",
        "Content Length: 5",
    ] {
        check(&front, &post(line.as_bytes(), &rest), &[400]);
    }
    front.nothing_arrived_whole();
}

#[test]
fn a_length_that_no_body_can_have_is_refused_before_the_backend_is_asked() {
    let front = Front::new();
    for length in ["9223372036854775808", "18446744073709551615", "1073741825"] {
        let line = format!("Content-Length: {length}");
        check(&front, &post(line.as_bytes(), b"hello"), &[413]);
    }
    assert!(
        !front
            .backend
            .seen()
            .iter()
            .any(|seen| seen.target() == "/attack"),
        "the backend was asked"
    );
}

#[test]
fn an_answer_that_leaves_a_body_unread_says_that_the_connection_ends() {
    let front = Front::new();
    let mut caller = front.ingress.caller();
    caller.send("POST / HTTP/1.1\r\nHost: nobody.example\r\nContent-Length: 1000\r\n\r\nsome");
    let reply = caller.reply().expect(404);
    assert_eq!(reply.field("Connection"), Some("close"));
    caller.rest();
}

#[test]
fn a_refusal_ends_in_order_although_more_was_sent() {
    let front = Front::new();
    let mut caller = front.ingress.caller();
    caller.send([&b"GET  / HTTP/1.1\r\n"[..], &[b'x'; 300_000]].concat());
    caller.reply().expect(400);
    // A reset could overtake the answer.
    let mut stream = caller.stream();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    for _ in 0..20 {
        caller.send([b'x'; 10_000]);
    }
}

#[test]
fn a_faulty_chunk_is_refused_and_nothing_after_it_is_read() {
    let front = Front::new();
    let bodies: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b" \r\n",
        b"g\r\n",
        b"5g\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"0X5\r\nhello\r\n0\r\n\r\n",
        b"5_\r\nhello\r\n0\r\n\r\n",
        b"5.\r\nhello\r\n0\r\n\r\n",
        b"5,5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\t5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\t\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"5 a\r\nhello\r\n0\r\n\r\n",
        b"5\0\r\nhello\r\n0\r\n\r\n",
        b"\x005\r\nhello\r\n0\r\n\r\n",
        b"5\x0b\r\nhello\r\n0\r\n\r\n",
        b"5\xa0\r\nhello\r\n0\r\n\r\n",
        b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\r\nhello\r\n0\r\n\r\n",
        b"5\n\rhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n",
        b"5\r\nhello\n\r0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloxx0\r\n\r\n",
        b"5\r\nhello \r\n0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"5\r\nhello\r\nx\r\n\r\n",
        b"5\r\nhello\r\n;a\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\r\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello\r\n0\r\n\rX",
        b"5\r\nhello\r\n00000000000000000\r\n\r\n",
        b"10000000000000000\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"99999999999999999999999999\r\nhello\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for body in bodies {
        check(&front, &chunked(&[body, SMUGGLED].concat()), &[400]);
    }
    // What is larger than any body may be is refused before it comes.
    for size in ["ffffffffffffffff", "7fffffffffffffff", "8000000000000000"] {
        let body = format!("{size}\r\nhello\r\n0\r\n\r\n");
        check(&front, &chunked(body.as_bytes()), &[413]);
    }
    front.nothing_arrived_whole();
}

#[test]
fn chunk_extensions_are_bounded_and_hide_no_line_end() {
    let front = Front::new();
    let bodies: &[&[u8]] = &[
        b"5;\nhello\r\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5;a=b\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\n\"\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\r\r\nhello\r\n0\r\n\r\n",
        b"5;a\0b\r\nhello\r\n0\r\n\r\n",
        b"5;a\x7f\r\nhello\r\n0\r\n\r\n",
        b"5;a\x0b\r\nhello\r\n0\r\n\r\n",
        b"5;a\x1b\r\nhello\r\n0\r\n\r\n",
        b"5 a;b\r\nhello\r\n0\r\n\r\n",
        b"5=a\r\nhello\r\n0\r\n\r\n",
        b"5\x0b;a\r\nhello\r\n0\r\n\r\n",
        b"5:a\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0;\n\r\n",
        b"5\r\nhello\r\n0;a\n\r\nX: y\r\n\r\n",
    ];
    for body in bodies {
        check(&front, &chunked(&[body, SMUGGLED].concat()), &[400]);
    }
    let long = |count| format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(count));
    check(&front, &chunked(long(17 << 10).as_bytes()), &[400]);
    let endless = format!("5;{}", "x".repeat(20 << 10));
    check(&front, &chunked(endless.as_bytes()), &[400]);
    let many = format!("{}0\r\n\r\n", "1;abcdefg\r\nx\r\n".repeat(2100));
    check(&front, &chunked(many.as_bytes()), &[400]);
    front.nothing_arrived_whole();

    check_taken(&front, &chunked(long(15 << 10).as_bytes()), "hello");
    for body in [
        "5;a\r\nhello\r\n0\r\n\r\n",
        "5;a=b;c=\"d;e\"\r\nhello\r\n0;f\r\n\r\n",
        "5 ;a = b\r\nhello\r\n0\r\n\r\n",
        "5\t; a\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0;\r\n\r\n",
    ] {
        check_taken(&front, &chunked(body.as_bytes()), "hello");
    }
}

#[test]
fn faulty_trailers_are_refused() {
    let front = Front::new();
    let trailers: &[&[u8]] = &[
        b"X\r\n\r\n",
        b": y\r\n\r\n",
        b"X : y\r\n\r\n",
        b"X\t: y\r\n\r\n",
        b" X: y\r\n\r\n",
        b"X: y\r\n z\r\n\r\n",
        b"X: y\n\r\n",
        b"X: y\r\n\n",
        b"X: y\rz\r\n\r\n",
        b"X: \0\r\n\r\n",
        b"X: \x7f\r\n\r\n",
        b"X@: y\r\n\r\n",
        b"X\xff: y\r\n\r\n",
        b"GET /smuggled HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n",
    ];
    for trailer in trailers {
        let body = [b"5\r\nhello\r\n0\r\n", *trailer, SMUGGLED].concat();
        check(&front, &chunked(&body), &[400]);
    }
    let many = format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(200));
    check(&front, &chunked(many.as_bytes()), &[400, 431]);
    let long = format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "y".repeat(40 << 10));
    check(&front, &chunked(long.as_bytes()), &[400, 431]);
    front.nothing_arrived_whole();
}

#[test]
fn a_faulty_body_closes_the_connection_whoever_was_asked() {
    let front = Front::new();
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let bodies: &[&[u8]] = &[
        b"x\r\n",
        b"5\r\nhello",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\nX: y\n\r\n",
    ];
    let asks = [
        ("any.example", "/", "", 404),
        ("any.example", "/u/abc", "", 405),
        ("gone.m3o.app", "/", "", 404),
        ("any.example", "/api/a/b", "", 401),
        (
            "any.example",
            "/api/a/b",
            "Authorization: Bearer k\r\nContent-Type: application/x-www-form-urlencoded\r\n",
            400,
        ),
    ];
    for body in bodies {
        for (host, target, fields, status) in asks {
            let head = format!(
                "POST {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"
            );
            let request = [head.as_bytes(), body, SMUGGLED].concat();
            let mut caller = ingress.caller();
            caller.send(&request);
            let reply = caller.reply();
            check_error(&reply, &[status], &request.escape_ascii().to_string());
            assert_eq!(reply.field("Connection"), Some("close"), "{target}");
            assert_eq!(caller.rest(), b"", "{}", request.escape_ascii());
        }
    }
    assert!(api.calls("a/b").is_empty());
    front.serves_others();
}

#[test]
fn a_faulty_body_never_becomes_a_whole_call_of_the_api() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    for body in [
        "x\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
    ] {
        let mut caller = ingress.caller();
        caller.send(format!(
            "POST /v1/a/b HTTP/1.1\r\nHost: any.example\r\nAuthorization: Bearer k\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        check_error(&caller.reply(), &[400], body);
        assert_eq!(caller.rest(), b"", "{body:?}");
    }
    for seen in api.server().seen() {
        assert_ne!(seen.arrival, crate::harness::message::Arrival::Whole);
    }
}

#[test]
fn trailers_that_frame_route_or_vouch_go_no_further() {
    let front = Front::new();
    for name in [
        "Transfer-Encoding",
        "Content-Length",
        "Host",
        "Connection",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Range",
        "If-Match",
        "Max-Forwards",
        "Cache-Control",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X_Forwarded_For",
        "X-Real-IP",
        "Forwarded",
        "X-Request-Id",
        "Via",
        "CDN-Loop",
        "Transfer_Encoding",
    ] {
        let body = format!("5\r\nhello\r\n0\r\n{name}: 1\r\nX-Sum: 7\r\n\r\n");
        let value = |seen: &crate::harness::Seen| seen.head.all(name).join(", ");
        check_taken(&front, &chunked(body.as_bytes()), "hello");
        let seen = front.backend.seen();
        let seen = seen
            .iter()
            .rfind(|seen| seen.target() == "/attack")
            .unwrap();
        assert!(!value(seen).split(", ").any(|value| value == "1"), "{name}");
        let names: Vec<_> = seen
            .trailers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["x-sum"], "{name}");
    }
}

#[test]
fn other_versions_are_refused() {
    let front = Front::new();
    for version in [
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/1.9",
        "HTTP/2.0",
        "HTTP/2",
        "HTTP/3.0",
        "HTTP/9.9",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/1.10",
        "HTTP/1.01",
        "HTTP/01.1",
        "HTTP/11",
        "HTTP/1,1",
        "HTTP/1.1.1",
        "HTTP/-1.1",
        "HTTP/+1.1",
        "HTTP/1.a",
        "HTTP/1.1x",
        "http/1.1",
        "Http/1.1",
        "HTTPS/1.1",
        "HTP/1.1",
        "XHTTP/1.1",
        "HTTP 1.1",
        "HTTP/ 1.1",
        "HTTP /1.1",
        "HTTP/1.1 ",
        "HTTP/1.1\t",
        "HTTP/1.1\0",
        "HTTP\\1.1",
        "RTSP/1.0",
        "SIP/2.0",
        "ICY",
        "1.1",
    ] {
        let request = format!("GET /attack {version}\r\nHost: {BLOG}\r\n\r\n");
        check(&front, request.as_bytes(), &[400, 505]);
    }
    for request in [
        "GET /attack\r\n\r\n",
        "GET /attack\r\n",
        "GET /attack \r\n",
        "GET\r\n",
        "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n",
    ] {
        check(&front, request.as_bytes(), &[400, 505]);
    }
    front.nothing_arrived_whole();
}

#[test]
fn chunks_over_http_1_0_are_refused() {
    let front = Front::new();
    for lines in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nConnection: keep-alive",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ] {
        let head = format!("POST /attack HTTP/1.0\r\nHost: {BLOG}\r\n{lines}\r\n\r\n");
        let request = [head.as_bytes(), b"0\r\n\r\n", SMUGGLED].concat();
        check(&front, &request, &[400, 501]);
    }
    front.nothing_arrived_whole();
}

#[test]
fn a_first_line_has_two_spaces_and_no_more() {
    let front = Front::new();
    let lines: &[&[u8]] = &[
        b"GET  /attack HTTP/1.1",
        b"GET /attack  HTTP/1.1",
        b"GET\t/attack HTTP/1.1",
        b"GET /attack\tHTTP/1.1",
        b" GET /attack HTTP/1.1",
        b"\tGET /attack HTTP/1.1",
        b"GET /attack HTTP/1.1 HTTP/1.1",
        b"GET /attack x HTTP/1.1",
        b"GET /attack\x0bx HTTP/1.1",
        b"GET /attack\0 HTTP/1.1",
        b"GET /attack\rx HTTP/1.1",
        b"GET /attack\x7f HTTP/1.1",
        b"GET /attack#fragment HTTP/1.1",
        b"GET attack HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET HTTP/1.1",
        b"GET ?a HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET blog.m3o.app:80 HTTP/1.1",
        b"GET http:// HTTP/1.1",
        b"GET http:///attack HTTP/1.1",
        b"GET http:/attack HTTP/1.1",
        b"GET //\xff\\@ HTTP/1.1 x",
        b"CONNECT /attack HTTP/1.1",
        b"CONNECT * HTTP/1.1",
        b"G(T /attack HTTP/1.1",
        b"G:T /attack HTTP/1.1",
        b"G\0T /attack HTTP/1.1",
        b"G\xcbT /attack HTTP/1.1",
        b"\"GET\" /attack HTTP/1.1",
        b"/attack GET HTTP/1.1",
        b"HTTP/1.1 200 OK",
        b"\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x80\x2e\x01\x00\x02",
    ];
    for line in lines {
        let request = [line, &b"\r\nHost: blog.m3o.app\r\n\r\n"[..]].concat();
        check(&front, &request, &[400]);
    }
    for request in [
        "GET /attack HTTP/1.1\nHost: blog.m3o.app\n\n",
        "GET /attack HTTP/1.1\nHost: blog.m3o.app\r\n\r\n",
        "GET /attack HTTP/1.1\r\nHost: blog.m3o.app\n\r\n",
        "GET /attack HTTP/1.1\r\nHost: blog.m3o.app\r\n\n",
        "GET /attack HTTP/1.1\rHost: blog.m3o.app\r\r\n\r\n",
        "GET /attack HTTP/1.1\r\r\nHost: blog.m3o.app\r\n\r\n",
        "\nGET /attack HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n",
        "\r\n\nGET /attack HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n",
        "\rGET /attack HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n",
        "\r\n GET /attack HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n",
    ] {
        check(&front, request.as_bytes(), &[400]);
    }
    front.nothing_arrived_whole();
}

#[test]
fn a_field_is_a_name_a_colon_and_a_value_without_controls() {
    let front = Front::new();
    let get = |line: &[u8]| {
        let head = format!("GET /attack HTTP/1.1\r\nHost: {BLOG}\r\n");
        [head.as_bytes(), line, b"\r\n\r\n"].concat()
    };
    for byte in (0..=0x20).chain(0x7f..=0xff).chain(*b"\"(),/;<=>?@[\\]{}") {
        check(&front, &get(&[b'X', byte, b'Y', b':', b'z']), &[400]);
    }
    for byte in (0..=0x1f).chain([0x7f]).filter(|byte| *byte != b'\t') {
        // A line feed ends the line, and what follows is none.
        check(&front, &get(&[b'X', b':', b'y', byte, b'z']), &[400]);
        check(&front, &get(&[b'X', b':', byte, b'z']), &[400]);
    }
    let lines: &[&[u8]] = &[
        b"X",
        b":",
        b": y",
        b" : y",
        b" X: y",
        b"\tX: y",
        b"X : y",
        b"X\t: y",
        b"X  : y",
        b"X: y\r\n z",
        b"X: y\r\n\tz",
        b"X: y\r\n ",
        b"X:\r\n y",
        b"X: y\r\n \r\nZ: z",
        b"Host : blog.m3o.app",
        b"X: y\r\n: z",
        b"X: y\r\nz",
        b"GET /smuggled HTTP/1.1",
    ];
    for line in lines {
        check(&front, &get(line), &[400]);
    }
    // A line that goes on from nothing.
    let first = format!("GET /attack HTTP/1.1\r\n X: y\r\nHost: {BLOG}\r\n\r\n");
    check(&front, first.as_bytes(), &[400]);
    front.nothing_arrived_whole();
}

#[test]
fn what_is_to_the_letter_is_taken_however_unusual() {
    let front = Front::new();
    for (request, body) in [
        (post(b"Content-Length: 5", b"hello"), "hello"),
        (post(b"Content-Length:5", b"hello"), "hello"),
        (post(b"Content-Length: \t 5 \t", b"hello"), "hello"),
        (post(b"cONTENT-lENGTH: 0005", b"hello"), "hello"),
        (post(b"Content-Length: 0", b""), ""),
        (post(b"Transfer-Encoding:chunked", b"0\r\n\r\n"), ""),
        (
            post(
                b"TRANSFER-ENCODING: \tCHUNKED \t",
                b"5\r\nhello\r\n0\r\n\r\n",
            ),
            "hello",
        ),
        (chunked(b"00005\r\nhello\r\n000\r\n\r\n"), "hello"),
        (
            chunked(b"1\r\nh\r\n4\r\nello\r\n0000000000000000\r\n\r\n"),
            "hello",
        ),
        (chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), "0123456789"),
        (chunked(b"9\r\n0\r\n\r\nGET \r\n0\r\n\r\n"), "0\r\n\r\nGET "),
        (chunked(b"5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n"), "hello"),
        // What looks like a length is none, and goes no further.
        (
            post(b"Content_Length: 3\r\nContent-Length: 5", b"hello"),
            "hello",
        ),
        (
            post(b"Transfer_Encoding: chunked\r\nContent-Length: 5", b"hello"),
            "hello",
        ),
        (
            post(
                b"Content-Length: 5\r\nConnection: Content-Length, Host",
                b"hello",
            ),
            "hello",
        ),
        (
            [b"\r\n\r\n", &post(b"Content-Length: 5", b"hello")[..]].concat(),
            "hello",
        ),
    ] {
        check_taken(&front, &request, body);
        for seen in front.backend.seen() {
            let lengths = seen.head.all("Content-Length").len();
            let codings = seen.head.all("Transfer-Encoding").len();
            assert!(lengths + codings <= 1, "{seen:#?}");
            assert!(seen.head.all("Content_Length").is_empty());
            assert!(seen.head.all("Transfer_Encoding").is_empty());
        }
    }
}

#[test]
fn bytes_after_a_body_are_the_next_request_or_refused() {
    let front = Front::new();
    for body in ["5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\nX: y\r\n\r\n"] {
        let (other, answer) = front.other();
        let mut caller = front.ingress.caller();
        caller.send([&chunked(body.as_bytes()), other.as_bytes()].concat());
        assert_eq!(caller.reply().expect(200).text(), "attacked");
        assert_eq!(caller.reply().expect(200).text(), answer);
        for garbage in ["garbage\r\n\r\n", "x", "0\r\n\r\n"] {
            let request = [chunked(body.as_bytes()), garbage.as_bytes().to_vec()].concat();
            let mut caller = front.ingress.caller();
            caller.send([&request[..], b"\n"].concat());
            assert_eq!(caller.reply().expect(200).text(), "attacked");
            check_error(&caller.reply(), &[400], garbage);
            assert_eq!(caller.rest(), b"");
        }
    }
}

#[test]
fn nothing_is_answered_behind_the_last_request() {
    let front = Front::new();
    let last = |version: &str, fields: &str| {
        let head = format!("GET /other/last HTTP/{version}\r\nHost: {BLOG}\r\n{fields}\r\n");
        [head.as_bytes(), SMUGGLED].concat()
    };
    for request in [
        last("1.1", "Connection: close\r\n"),
        last("1.1", "Connection: keep-alive, Close\r\n"),
        last("1.1", "Connection: x\r\nConnection: close\r\n"),
        last("1.0", ""),
        last("1.0", "Connection: close\r\n"),
        last("1.0", "Connection: keep-alive, close\r\n"),
    ] {
        let what = request.escape_ascii().to_string();
        let mut caller = front.ingress.caller();
        caller.send(&request);
        let reply = caller.reply().expect(200);
        assert_eq!(reply.text(), "/other/last", "{what}");
        assert_eq!(reply.field("Connection"), Some("close"), "{what}");
        assert_eq!(caller.rest(), b"", "{what}");
    }
    front.nothing_arrived_whole();
    // A client of HTTP/1.0 that asks for it is kept, and is told so.
    let mut caller = front.ingress.caller();
    caller.send(last("1.0", "Connection: Keep-Alive\r\n"));
    let reply = caller.reply().expect(200);
    assert_eq!(reply.field("Connection"), Some("keep-alive"));
    assert_eq!(caller.reply().expect(200).text(), "attacked");
}

#[test]
fn a_body_that_its_client_ends_early_is_never_whole() {
    let front = Front::new();
    for rest in [
        "Content-Length: 10\r\n\r\n",
        "Content-Length: 10\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
    ] {
        let mut caller = front.ingress.caller();
        caller.send(format!("POST /attack HTTP/1.1\r\nHost: {BLOG}\r\n{rest}"));
        caller.stream().shutdown(Shutdown::Write).unwrap();
        let answer = caller.rest();
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{rest:?}");
        front.serves_others();
    }
    front.nothing_arrived_whole();
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let front = Front::new();
    for (line, status) in [
        ("Content-Length: 1\r\nContent-Length: 2", 400),
        ("Content-Length: x", 400),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("X : y", 400),
    ] {
        let mut caller = front.ingress.caller();
        caller.send(format!(
            "HEAD /attack HTTP/1.1\r\nHost: {BLOG}\r\n{line}\r\n\r\n"
        ));
        let reply = caller.reply_to("HEAD").expect(status);
        assert_eq!(reply.field("Connection"), Some("close"), "{line}");
        assert_ne!(reply.field("Content-Length"), Some("0"), "{line}");
        assert_eq!(caller.rest(), b"", "{line}");
    }
}

#[test]
fn a_target_passes_to_the_byte_or_is_refused() {
    let front = Front::new();
    let mut targets: Vec<Vec<u8>> = (0x21..=0xff)
        .map(|byte| [&b"/other/"[..], &[byte], b"?", &[byte]].concat())
        .collect();
    targets.extend([
        b"/other/\xc3\xa9\xe2\x82\xac?\xf0\x9f\x98\x80".to_vec(),
        b"/other/\xc3".to_vec(),
        b"/other/\xff\xfe".to_vec(),
        b"/other/\xc0\xaf..".to_vec(),
        b"/other/%".to_vec(),
        b"/other/%00%0d%0a".to_vec(),
        b"/other/..\\..".to_vec(),
    ]);
    let mut taken = 0;
    for target in targets {
        let what = target.escape_ascii().to_string();
        let head = [
            &b"GET "[..],
            &target,
            b" HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n",
        ]
        .concat();
        let mut caller = front.ingress.caller();
        caller.send(head);
        let reply = caller.reply();
        if reply.status() != 200 {
            check_error(&reply, &[400], &what);
            continue;
        }
        taken += 1;
        let line = [&b"GET "[..], &target, b" HTTP/1.1\r\n"].concat();
        let seen = front.backend.last();
        assert!(
            seen.head.raw.starts_with(&line),
            "{what}: {}",
            seen.head.first
        );
    }
    assert!(taken > 80, "{taken}");
}

#[test]
fn no_byte_is_lost_between_leave_to_send_and_the_answer() {
    let front = Front::new();
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for (lines, body) in [
        ("Content-Length: 5", "hello"),
        ("Transfer-Encoding: chunked", chunks),
    ] {
        let lines = format!("{lines}\r\nExpect: 100-Continue");
        // It waits, or it does not: the next request is in step.
        for waits in [true, false] {
            let mut caller = front.ingress.caller();
            let whole = post(lines.as_bytes(), body.as_bytes());
            let (head, body) = whole.split_at(whole.len() - body.len());
            let (other, answer) = front.other();
            if waits {
                caller.send(head);
                assert_eq!(caller.head().status(), 100);
                caller.send([body, other.as_bytes()].concat());
            } else {
                caller.send([head, body, other.as_bytes()].concat());
            }
            let mut reply = caller.reply();
            if reply.status() == 100 {
                reply = caller.reply();
            }
            assert_eq!(reply.expect(200).text(), "attacked");
            assert_eq!(caller.reply().expect(200).text(), answer);
            let seen = front.backend.seen();
            let seen = seen
                .iter()
                .rfind(|seen| seen.target() == "/attack")
                .unwrap();
            assert_eq!(seen.text(), "hello");
            assert_eq!(seen.field("Expect"), None);
        }
    }
    // Nobody waits for a body that is not there, or who cannot hear it.
    let mut caller = front.ingress.caller();
    caller.send(post(b"Content-Length: 0\r\nExpect: 100-continue", b""));
    caller.reply().expect(200);
    let mut caller = front.ingress.caller();
    caller.send(format!(
        "POST /attack HTTP/1.0\r\nHost: {BLOG}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"
    ));
    caller.reply().expect(200);
}

#[test]
fn an_expectation_that_is_not_met_leaves_no_body_behind() {
    let front = Front::new();
    for expectation in [
        "x",
        "100-continue, x",
        "100-continue;a=b",
        "101-continue",
        "y 100-continue",
        "\"100-continue\"",
        "",
    ] {
        let lines = format!("Content-Length: 60\r\nExpect: {expectation}");
        let mut caller = front.ingress.caller();
        caller.send(post(lines.as_bytes(), SMUGGLED));
        check_error(&caller.reply(), &[417], expectation);
        assert_eq!(caller.rest(), b"", "{expectation}");
    }
    let mut caller = front.ingress.caller();
    let lines = "Expect: 100-continue\r\nExpect: x\r\nContent-Length: 60";
    caller.send(post(lines.as_bytes(), SMUGGLED));
    check_error(&caller.reply(), &[417], "two expectations");
    assert_eq!(caller.rest(), b"");
    front.serves_others();
    front.nothing_arrived_whole();
}
