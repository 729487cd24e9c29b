//! Requests that are not to the letter of RFC 9113: what is said to them, and that nothing of them goes
//! further.

use crate::harness::backend::ok;
use crate::harness::front::{BLOG, Front};
use crate::harness::http2::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PROTOCOL_ERROR, RST_STREAM, WHOLE,
    block, frame, request,
};

use crate::harness::message::Arrival;

/// A request after which its stream is reset with this code, and the connection goes on.
#[track_caller]
fn check_stream(front: &Front, what: &str, expected: u32, bytes: &[u8]) {
    let mut frames = Frames::connect(front.ingress.address);
    frames.send_bytes(bytes);
    assert_eq!(frames.reset(1), expected, "{what}");
    frames.get(3, BLOG, "/other/x");
    assert_eq!(frames.status(3), 200, "{what}");
}

fn whole(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(fields))
}

/// A request with one more field.
fn with(name: &str, value: &str) -> Vec<u8> {
    let mut fields = request("GET", BLOG, "/");
    fields.push((name, value));
    whole(&fields)
}

#[test]
fn a_malformed_request_over_http2_is_reset_and_goes_no_further() {
    let front = Front::new();
    let check = |what: &str, bytes: &[u8]| check_stream(&front, what, PROTOCOL_ERROR, bytes);
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        check(name, &with(name, "x"));
    }
    check("te", &with("te", "gzip"));
    check("te", &with("te", "trailers, deflate"));
    for value in [" x", "x ", "\tx"] {
        check("white space", &with("x", value));
    }
    let all = request("GET", BLOG, "/");
    let trailers = |fields: &[(&str, &str)], flags| {
        let open = frame(HEADERS, END_HEADERS, 1, &block(&request("POST", BLOG, "/")));
        [open, frame(HEADERS, flags, 1, &block(fields))].concat()
    };
    check(
        "trailers that end nothing",
        &trailers(&[("x", "y")], END_HEADERS),
    );
    check(
        "trailers of a connection",
        &trailers(&[("connection", "close")], WHOLE),
    );
    for missing in [0, 1, 3] {
        let mut fields = all.clone();
        fields.remove(missing);
        check("a pseudo-field is missing", &whole(&fields));
    }
    for twice in 0..4 {
        let mut fields = all.clone();
        fields.push(all[twice]);
        check("a pseudo-field is there twice", &whole(&fields));
    }
    let mut late = request("GET", BLOG, "/");
    late.insert(0, ("x", "y"));
    check("a pseudo-field comes late", &whole(&late));
    check(":status", &with(":status", "200"));
    for path in ["", "no-slash", "*", "?x"] {
        check(path, &whole(&request("GET", BLOG, path)));
    }
    let no_path = [(":method", "CONNECT"), (":authority", BLOG), (":path", "/")];
    check("CONNECT with a path", &whole(&no_path));
    let no_connect = with(":protocol", "websocket");
    check(":protocol without CONNECT", &no_connect);
    check("two lengths", &{
        let mut fields = request("POST", BLOG, "/");
        fields.extend([("content-length", "1"), ("content-length", "2")]);
        whole(&fields)
    });
    check("a length without a body", &with("content-length", "3"));
    check("a name that is no token", &with("x\"y", "1"));
    for bad in ["", "-1", "+1", "0x1", "1,1", " 1"] {
        check("a length that is none", &with("content-length", bad));
    }
    for seen in front.backend.seen() {
        let is_ours = seen.target() == "/other/x" || seen.arrival != Arrival::Whole;
        assert!(is_ours, "{seen:?}");
    }
}

#[test]
fn pseudo_fields_in_trailers_go_no_further() {
    let front = Front::new();
    let fields = block(&request("POST", BLOG, "/"));
    let path = [&[0x44, 2][..], b"/x"].concat();
    for pseudo in [&[0x83][..], &path, &block(&[(":path", "/x")])] {
        let mut frames = Frames::connect(front.ingress.address);
        frames.send(HEADERS, END_HEADERS, 1, &fields);
        let trailers = [&block(&[("x", "y")])[..], pseudo].concat();
        frames.send(HEADERS, WHOLE, 1, &trailers);
        assert_eq!(frames.end(), Some(PROTOCOL_ERROR));
    }
    // One that the head of the request has left in the table.
    let mut frames = Frames::connect(front.ingress.address);
    let kept = [
        &[0x83, 0x86, 0x84, 0x41, BLOG.len() as u8][..],
        BLOG.as_bytes(),
    ]
    .concat();
    frames.send(HEADERS, END_HEADERS, 1, &kept);
    frames.send(HEADERS, WHOLE, 1, &[0xbe]);
    assert_eq!(frames.end(), Some(PROTOCOL_ERROR));
    front.nothing_arrived_whole();
}

#[test]
fn a_trailer_whose_name_is_no_token_goes_no_further() {
    let front = Front::new();
    let mut frames = Frames::connect(front.ingress.address);
    let fields = block(&request("POST", BLOG, "/"));
    frames.send(HEADERS, END_HEADERS, 1, &fields);
    frames.send(HEADERS, WHOLE, 1, &block(&[("x\"y", "1"), ("x-sum", "7")]));
    assert_eq!(frames.status(1), 200);
    let seen = front.backend.only();
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_never_arrives_whole() {
    let front = Front::scripted(|answering| {
        answering.body();
        answering.write(ok("attacked"));
    });
    for body in [&b"12"[..], b"1234"] {
        let mut fields = request("POST", BLOG, "/");
        fields.push(("content-length", "3"));
        let bytes = [
            frame(HEADERS, END_HEADERS, 1, &block(&fields)),
            frame(DATA, END_STREAM, 1, body),
        ]
        .concat();
        check_stream(&front, "a wrong length", PROTOCOL_ERROR, &bytes);
    }
    front.nothing_arrived_whole();
}

#[test]
fn a_name_or_value_that_no_field_has_ends_the_connection_and_goes_no_further() {
    let front = Front::new();
    for (name, value) in [
        ("Upper", "x"),
        ("na me", "x"),
        ("na\nme", "x"),
        ("x:y", "x"),
        ("", "x"),
        ("x", "a\r\nb"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        (":unknown", "x"),
    ] {
        let mut frames = Frames::connect(front.ingress.address);
        frames.send_bytes(&with(name, value));
        // `h2` may take it for a fault of the connection, which RFC 9113, 5.4 allows.
        let (mut code, mut is_over) = (None, false);
        while let Some(frame) = frames.next() {
            if matches!(frame.kind, GOAWAY | RST_STREAM) {
                is_over = frame.kind == GOAWAY;
                let at = if is_over { 4 } else { 0 };
                code = frame.payload[at..]
                    .first_chunk()
                    .map(|code| u32::from_be_bytes(*code));
                break;
            }
        }
        assert_eq!(code, Some(PROTOCOL_ERROR), "{name:?}: {value:?} {is_over}");
    }
    assert!(front.backend.seen().is_empty());
    front.serves_others();
}

#[test]
fn two_hosts_or_a_bad_one_are_a_400() {
    let front = Front::new();
    let status = |fields: &[(&str, &str)]| {
        let mut frames = Frames::connect(front.ingress.address);
        frames.send_bytes(&whole(fields));
        frames.status(1)
    };
    let with_host = |authority, host| {
        let mut fields = request("GET", authority, "/");
        fields.push(("host", host));
        fields
    };
    assert_eq!(status(&with_host(BLOG, "other.m3o.app")), 400);
    assert_eq!(status(&with_host(BLOG, "blog.m3o.app:81")), 400);
    assert_eq!(status(&with_host(BLOG, "a b")), 400);
    assert_eq!(status(&with_host(BLOG, "BLOG.m3o.app.")), 200);
    assert_eq!(status(&with_host(BLOG, "blog.m3o.app:80")), 200);
    assert_eq!(status(&request("GET", "user@blog.m3o.app", "/")), 400);
    let mut alone = with_host(BLOG, BLOG);
    alone.remove(2);
    assert_eq!(status(&alone), 200);
    alone.push(("host", BLOG));
    assert_eq!(status(&alone), 400);
    alone.truncate(3);
    assert_eq!(status(&alone), 400);
    assert_eq!(front.backend.seen().len(), 3);
}
