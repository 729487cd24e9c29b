//! Frames and requests that are not to the letter of RFC 9113: what is said to them, and that nothing
//! of them goes further.

use crate::harness::backend::ok;
use crate::harness::front::{BLOG, Front};
use crate::harness::http2::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR,
    Frames, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM,
    RST_STREAM, SETTINGS, STREAM_CLOSED, WHOLE, WINDOW_UPDATE, block, frame, request,
};

use crate::harness::message::Arrival;

/// Frames after which the connection ends, with one of these codes.
#[track_caller]
fn check_connection(front: &Front, what: &str, codes: &[u32], bytes: &[u8]) {
    let mut frames = Frames::connect(front.ingress.address);
    frames.send_bytes(bytes);
    let code = frames.end();
    assert!(
        code.is_some_and(|code| codes.contains(&code)),
        "{what}: {code:?}"
    );
}

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
    for bad in ["-1", "+1", "0x1", "1,1", " 1"] {
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
    let mut frames = Frames::connect(front.ingress.address);
    let fields = block(&request("POST", BLOG, "/"));
    frames.send(HEADERS, END_HEADERS, 1, &fields);
    let trailers = [
        (":path", "/other"),
        (":authority", "other.m3o.app"),
        ("x", "y"),
    ];
    frames.send(HEADERS, WHOLE, 1, &block(&trailers));
    // RFC 9113, 8.1 would have it reset; `h2` drops them, and only them.
    assert_eq!(frames.status(1), 200);
    let seen = front.backend.only();
    assert_eq!(seen.target(), "/");
    assert_eq!(seen.trailers, [("x".to_owned(), "y".to_owned())]);
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
    assert_eq!(status(&request("GET", "user@blog.m3o.app", "/")), 400);
    let mut alone = with_host(BLOG, BLOG);
    alone.remove(2);
    assert_eq!(status(&alone), 200);
    alone.push(("host", BLOG));
    assert_eq!(status(&alone), 400);
    alone.truncate(3);
    assert_eq!(status(&alone), 400);
    assert_eq!(front.backend.seen().len(), 2);
}

#[test]
fn a_frame_of_the_wrong_size_ends_the_connection() {
    let front = Front::new();
    let check = |what: &str, bytes: &[u8]| {
        check_connection(&front, what, &[FRAME_SIZE_ERROR], bytes);
    };
    check("PING", &frame(PING, 0, 0, b"short"));
    check("SETTINGS", &frame(SETTINGS, 0, 0, b"12345"));
    check("SETTINGS ACK", &frame(SETTINGS, ACK, 0, &[0; 6]));
    check("WINDOW_UPDATE", &frame(WINDOW_UPDATE, 0, 0, &[0; 3]));
    check(
        "RST_STREAM",
        &[with("x", "y"), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
    );
    check("PRIORITY", &frame(PRIORITY, 0, 1, &[0; 4]));
    check("GOAWAY", &frame(GOAWAY, 0, 0, &[0; 7]));
    check("a frame over the limit", &frame(99, 0, 0, &[0; 16_385]));
    let open = frame(HEADERS, END_HEADERS, 1, &block(&request("POST", BLOG, "/")));
    check(
        "DATA over the limit",
        &[open, frame(DATA, 0, 1, &[0; 16_385])].concat(),
    );
    front.serves_others();
}

#[test]
fn a_fault_of_the_connection_ends_it_with_its_code() {
    let front = Front::new();
    let check = |what: &str, codes: &[u32], bytes: &[u8]| {
        check_connection(&front, what, codes, bytes);
    };
    let protocol = &[PROTOCOL_ERROR];
    let get = whole(&request("GET", BLOG, "/"));
    let begun = frame(HEADERS, END_STREAM, 1, &block(&request("GET", BLOG, "/")));
    // 5.1, 5.1.1: streams that are idle, even, or gone by.
    check(
        "DATA on an idle stream",
        protocol,
        &frame(DATA, END_STREAM, 1, b"x"),
    );
    check(
        "RST_STREAM on an idle stream",
        protocol,
        &frame(RST_STREAM, 0, 1, &[0; 4]),
    );
    check(
        "WINDOW_UPDATE on an idle stream",
        protocol,
        &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
    );
    check(
        "CONTINUATION on an idle stream",
        protocol,
        &frame(CONTINUATION, 4, 1, b""),
    );
    let even = frame(HEADERS, WHOLE, 2, &block(&request("GET", BLOG, "/")));
    check("HEADERS on an even stream", protocol, &even);
    let third = frame(HEADERS, WHOLE, 3, &block(&request("GET", BLOG, "/")));
    check(
        "HEADERS on a stream gone by",
        &[PROTOCOL_ERROR, STREAM_CLOSED],
        &[third, get.clone()].concat(),
    );
    // 6.1 to 6.10: frames on the wrong stream.
    for (what, kind, payload) in [
        ("DATA", DATA, &b"x"[..]),
        ("HEADERS", HEADERS, b"x"),
        ("PRIORITY", PRIORITY, &[0; 5]),
        ("RST_STREAM", RST_STREAM, &[0; 4]),
        ("CONTINUATION", CONTINUATION, b"x"),
    ] {
        check(what, protocol, &frame(kind, END_HEADERS, 0, payload));
    }
    check(
        "SETTINGS on a stream",
        protocol,
        &frame(SETTINGS, 0, 1, b""),
    );
    check("PING on a stream", protocol, &frame(PING, 0, 1, &[0; 8]));
    check(
        "GOAWAY on a stream",
        protocol,
        &frame(GOAWAY, 0, 1, &[0; 8]),
    );
    // 6.1, 6.2: more padding than frame.
    let padded = frame(HEADERS, WHOLE | PADDED, 1, &[200, 0]);
    check("padding of HEADERS", protocol, &padded);
    let open = frame(HEADERS, END_HEADERS, 1, &block(&request("POST", BLOG, "/")));
    check(
        "padding of DATA",
        protocol,
        &[open.clone(), frame(DATA, PADDED, 1, &[5, 1, 2])].concat(),
    );
    // 6.5.2: values of settings.
    let setting = |id: u8, value: u32| {
        frame(
            SETTINGS,
            0,
            0,
            &[&[0, id][..], &value.to_be_bytes()].concat(),
        )
    };
    check("ENABLE_PUSH", protocol, &setting(2, 2));
    let too_large = &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR];
    check("INITIAL_WINDOW_SIZE", too_large, &setting(4, 1 << 31));
    check("MAX_FRAME_SIZE", protocol, &setting(5, 16_383));
    check("MAX_FRAME_SIZE", protocol, &setting(5, 1 << 24));
    // 6.9: windows.
    check(
        "no increment",
        protocol,
        &frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
    );
    let most = [0x7f, 0xff, 0xff, 0xff];
    check(
        "a window too large",
        &[FLOW_CONTROL_ERROR],
        &[
            frame(WINDOW_UPDATE, 0, 0, &most),
            frame(WINDOW_UPDATE, 0, 0, &most),
        ]
        .concat(),
    );
    // 6.6, 8.4: clients push nothing.
    let promise = [&[0, 0, 0, 2][..], &block(&request("GET", BLOG, "/"))].concat();
    check(
        "PUSH_PROMISE",
        protocol,
        &[open.clone(), frame(PUSH_PROMISE, 4, 1, &promise)].concat(),
    );
    // 6.10: nothing comes between the parts of a block.
    for (what, between) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("DATA", frame(DATA, 0, 1, b"x")),
        ("an unknown frame", frame(99, 0, 1, b"x")),
        ("CONTINUATION of another", frame(CONTINUATION, 4, 3, b"")),
    ] {
        check(what, protocol, &[begun.clone(), between].concat());
    }
    // 5.1: of a message that has ended nothing more comes.
    let closed = &[STREAM_CLOSED];
    check(
        "DATA after the end",
        closed,
        &[get.clone(), frame(DATA, END_STREAM, 1, b"x")].concat(),
    );
    check(
        "HEADERS after the end",
        closed,
        &[get.clone(), get.clone()].concat(),
    );
    // RFC 7541: blocks that cannot be read. `h2` has one code for all of them.
    for (what, bad) in [
        ("an index without an entry", &[0xff, 0xff, 0x03][..]),
        ("index zero", &[0x80]),
        ("a table too large", &[0x3f, 0xff, 0xff, 0x7f]),
        (
            "an integer without end",
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("a string cut off", &[0x10, 0x05, b'a']),
        ("padding of Huffman", &[0x10, 0x81, 0x00, 0x01, b'a']),
    ] {
        let block = [&block(&request("GET", BLOG, "/"))[..], bad].concat();
        let bytes = frame(HEADERS, WHOLE, 1, &block);
        check(what, &[PROTOCOL_ERROR, http2::COMPRESSION_ERROR], &bytes);
    }
    front.serves_others();
}

#[test]
fn the_first_frame_is_settings() {
    let front = Front::new();
    for (kind, flags, payload) in [(PING, 0, &[0; 8][..]), (SETTINGS, ACK, b"")] {
        let mut frames = Frames::silent(front.ingress.address);
        frames.send_bytes(http2::PREFACE);
        frames.send(kind, flags, 0, payload);
        assert_eq!(frames.end(), Some(PROTOCOL_ERROR));
    }
}

#[test]
fn what_is_unusual_and_to_the_letter_is_taken() {
    let front = Front::new();
    let mut frames = Frames::connect(front.ingress.address);
    // Frames, flags and settings that nobody knows; priorities of every kind; a reserved bit.
    frames.send(99, 0xff, 0, b"unknown");
    frames.send(PRIORITY, 0, 5, &[0, 0, 0, 3, 200]);
    frames.send(SETTINGS, 0, 0, &[0xff, 0xff, 1, 2, 3, 4]);
    frames.send(PING, 0xfe, 0, b"reserved");
    while frames.until(PING, 0).payload != b"reserved" {}
    let fields = block(&request("GET", BLOG, "/other/padded"));
    let padded = [&[3, 0, 0, 0, 0, 7][..], &fields, &[0; 3]].concat();
    frames.send(HEADERS, WHOLE | PADDED | 0x20, 1, &padded);
    assert_eq!(frames.status(1), 200);
    // A block in pieces of an octet, as far as a bounded number of them goes.
    let fields = block(&request("GET", BLOG, "/other/pieces"));
    let (first, rest) = fields.split_at(4);
    let (second, third) = rest.split_at(1);
    frames.send(HEADERS, END_STREAM, 3, first);
    frames.send(CONTINUATION, 0, 3, second);
    frames.send(CONTINUATION, END_HEADERS, 3, third);
    assert_eq!(frames.status(3), 200);
    // What comes late on a stream that has ended.
    frames.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    frames.send(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    frames.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
    frames.is_alive();
}

#[test]
fn more_requests_at_once_than_allowed_are_refused_and_can_be_sent_again() {
    let front = Front::scripted_with(
        |config| config.limits.streams = 2,
        super::super::harness::Answering::wait_for_close,
    );
    let mut frames = Frames::connect(front.ingress.address);
    for stream in [1, 3, 5] {
        frames.get(stream, BLOG, "/");
    }
    assert_eq!(frames.reset(5), REFUSED_STREAM);
    frames.send(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    frames.get(7, BLOG, "/other/x");
    assert_eq!(frames.status(7), 200);
}
