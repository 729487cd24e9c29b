//! Where we and hyper differ: every class of bytes that only one of the two takes, and why.

use http::Method;

use crate::checks::wire::ours::Bodies;
use crate::checks::wire::{End, Reading, ours, theirs};

#[test]
fn what_hyper_takes_of_requests_and_we_refuse_is_known() {
    let head = |first: &str, fields: &str| format!("{first} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let get = |target: &str| head(&format!("GET {target}"), "");
    let lengths = |fields: &str| head("POST /", fields) + "0\r\n\r\n";
    let chunks = |body: &str| head("POST /", "Transfer-Encoding: chunked\r\n") + body;
    let many = "X: y\r\n".repeat(ours::LIMITS.fields + 1);
    let large = format!("X: {}\r\n", "y".repeat(ours::LIMITS.bytes));
    for (why, bytes) in [
        // RFC 9112, 2.2: a recipient MAY take a bare LF. Whoever does not sees other lines than who does.
        (
            "a line ends with LF alone",
            "GET / HTTP/1.1\nHost: a\n\n".to_owned(),
        ),
        (
            "so does an empty line before a request",
            "\n".to_owned() + &get("/"),
        ),
        // RFC 9112, 6.1 and 6.3: what may be an attempt at smuggling.
        (
            "the length, and then a coding",
            lengths("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            "a coding, and then the length",
            lengths("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ),
        (
            "the same length twice",
            lengths("Content-Length: 5\r\nContent-Length: 5\r\n"),
        ),
        (
            "a coding before chunked",
            lengths("Transfer-Encoding: gzip, chunked\r\n"),
        ),
        (
            "chunked twice",
            lengths("Transfer-Encoding: chunked, chunked\r\n"),
        ),
        (
            "an empty coding",
            lengths("Transfer-Encoding: ,chunked\r\n"),
        ),
        (
            "codings in two fields",
            lengths("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
        ),
        // RFC 9112, 3.2: each form of a target belongs to some methods.
        ("a fragment, which hyper cuts off", get("/a#b")),
        ("a target without a slash", get("a")),
        ("an authority, but no CONNECT", get("a:80")),
        ("an asterisk, but no OPTIONS", get("*")),
        ("CONNECT without a port", head("CONNECT a", "")),
        ("CONNECT with a URL", head("CONNECT http://a/", "")),
        // RFC 9112, 7.1: the grammar has no space before the CR LF, no controls, and we take 16 digits.
        (
            "a space after a chunk's size",
            chunks("1 \r\na\r\n0\r\n\r\n"),
        ),
        (
            "a control character in an extension",
            chunks("1;\0\r\na\r\n0\r\n\r\n"),
        ),
        (
            "zeros before a chunk's size without end",
            chunks("00000000000000001\r\na\r\n0\r\n\r\n"),
        ),
        // Limits are settings of ours; hyper was given others.
        ("more fields than the limit", head("GET /", &many)),
        ("a larger head than the limit", head("GET /", &large)),
        (
            "more trailers than the limit",
            chunks(&format!("0\r\n{many}\r\n")),
        ),
        (
            "larger trailers than the limit",
            chunks(&format!("0\r\n{large}\r\n")),
        ),
    ] {
        let ours = ours::requests(&[bytes.as_bytes()], Bodies::Read);
        let theirs = theirs::requests(&[bytes.as_bytes()]);
        only_theirs(why, &ours, &theirs);
    }
}

#[test]
fn what_hyper_takes_of_responses_and_we_refuse_is_known() {
    let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let coded = |fields: &str| ok(fields) + "0\r\n\r\n";
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17);
    let many = "X: y\r\n".repeat(257);
    let large = format!("X: {}\r\n", "y".repeat(64 << 10));
    for (why, method, bytes) in [
        (
            "a line ends with LF alone",
            Method::GET,
            "HTTP/1.1 204 No\n\n".to_owned(),
        ),
        (
            "a line of an interim one does",
            Method::GET,
            "HTTP/1.1 100 A\n\n".to_owned() + &ok(""),
        ),
        (
            "an empty line before it",
            Method::GET,
            "\r\n".to_owned() + &ok(""),
        ),
        // RFC 9112, 6.3: what is coded in a way that is not known here has no end that is known here.
        (
            "a coding alone",
            Method::GET,
            ok("Transfer-Encoding: gzip\r\n"),
        ),
        (
            "a coding before chunked",
            Method::GET,
            coded("Transfer-Encoding: gzip, chunked\r\n"),
        ),
        (
            "codings in two fields",
            Method::GET,
            coded("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            "a list of equal lengths",
            Method::GET,
            ok("Content-Length: 0, 0\r\n"),
        ),
        (
            "equal lengths that are not written alike",
            Method::GET,
            ok("Content-Length: 0\r\nContent-Length: 00\r\n"),
        ),
        (
            "a faulty length beside a coding",
            Method::GET,
            coded("Content-Length: x\r\nTransfer-Encoding: chunked\r\n"),
        ),
        // Framing that is faulty is so where there is no body, too.
        (
            "a faulty length to HEAD",
            Method::HEAD,
            ok("Content-Length: x\r\n"),
        ),
        (
            "an unknown coding to HEAD",
            Method::HEAD,
            ok("Transfer-Encoding: gzip\r\n"),
        ),
        (
            "a coding of HTTP/1.0 to HEAD",
            Method::HEAD,
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        ),
        (
            "a faulty length of what never has a body",
            Method::GET,
            "HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n".to_owned(),
        ),
        // Limits.
        (
            "interim responses without end",
            Method::GET,
            interim + &ok(""),
        ),
        ("more fields than the limit", Method::GET, ok(&many)),
        ("a larger head than the limit", Method::GET, ok(&large)),
    ] {
        let ours = ours::responses(&[bytes.as_bytes()], std::slice::from_ref(&method));
        let theirs = theirs::responses(&[bytes.as_bytes()], &[method]);
        only_theirs(why, &ours, &theirs);
    }
}

#[track_caller]
fn only_theirs(why: &str, ours: &Reading, theirs: &Reading) {
    assert!(ours.is_refused(), "{why}: {ours:#?}");
    assert!(
        !ours.messages.iter().any(|message| message.whole),
        "{why}: {ours:#?}"
    );
    assert!(
        theirs.messages.iter().any(|message| message.whole),
        "{why}: {theirs:#?}"
    );
}

#[test]
fn we_take_lengths_up_to_the_last_number_and_hyper_keeps_two_for_itself() {
    for length in [u64::MAX, u64::MAX - 1] {
        let bytes = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\nabc");
        let ours = ours::requests(&[bytes.as_bytes()], Bodies::Read);
        assert_eq!(ours.messages[0].body, b"abc");
        assert_eq!(ours.end, End::Bytes, "the rest of the body has not come");
        let theirs = theirs::requests(&[bytes.as_bytes()]);
        assert!(
            theirs.is_refused() && theirs.messages.is_empty(),
            "{theirs:#?}"
        );
    }
}

#[test]
fn we_take_trailers_as_large_as_a_head_and_hyper_16_kib_of_them() {
    let value = "y".repeat(20 << 10);
    let bytes =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {value}\r\n\r\n");
    let ours = ours::responses(&[bytes.as_bytes()], &[Method::GET]);
    assert_eq!(ours.messages[0].trailers["x"], value);
    let theirs = theirs::responses(&[bytes.as_bytes()], &[Method::GET]);
    assert!(
        theirs.is_refused() && !theirs.messages[0].whole,
        "{theirs:#?}"
    );
}

#[test]
fn a_connection_ends_for_us_where_hyper_overlooks_that_it_was_asked_to() {
    // hyper reads no option of a value that is not ASCII.
    let bytes = "GET / HTTP/1.1\r\nConnection: \u{e9}, close\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    let ours = ours::requests(&[bytes.as_bytes()], Bodies::Read);
    assert_eq!((ours.messages.len(), ours.end), (1, End::Connection));
    assert_eq!(theirs::requests(&[bytes.as_bytes()]).messages.len(), 2);
}

#[test]
fn what_follows_a_response_is_never_the_next_one() {
    let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na".repeat(2);
    let asked = [Method::GET, Method::GET];
    for read in [ours::responses, theirs::responses] {
        let reading = read(&[bytes.as_bytes()], &asked);
        assert_eq!(reading.messages.len(), 1, "{reading:#?}");
    }
}

#[test]
fn a_connection_is_not_trusted_after_a_response_with_two_lengths_and_hyper_trusts_it() {
    let both =
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let next = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let pieces = [both.as_bytes(), next.as_bytes()];
    let asked = [Method::GET, Method::GET];
    let ours = ours::responses(&pieces, &asked);
    assert_eq!((ours.messages.len(), ours.end), (1, End::Connection));
    assert_eq!(theirs::responses(&pieces, &asked).messages.len(), 2);
}
