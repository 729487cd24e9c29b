//! Frames that are not to the letter of RFC 9113, section by section, and what is said to them.

use crate::harness::Answering;
use crate::harness::front::{BLOG, Front};
use crate::harness::http2::{
    self, ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, Frames, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PROTOCOL_ERROR,
    PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, WHOLE, WINDOW_UPDATE, block,
    frame, request,
};

/// Frames after which the connection ends, with one of these codes.
#[track_caller]
fn check(front: &Front, codes: &[u32], what: &str, bytes: &[u8]) {
    let mut frames = Frames::connect(front.ingress.address);
    frames.send_bytes(bytes);
    let code = frames.end();
    let is_expected = code.is_some_and(|code| codes.contains(&code));
    assert!(is_expected, "{what}: {code:?}");
}

/// A whole request on a stream.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &block(&request("GET", BLOG, "/")))
}

/// A request whose body is still to come.
fn open() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &block(&request("POST", BLOG, "/")))
}

fn setting(id: u8, value: u32) -> Vec<u8> {
    let payload = [&[0, id][..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &payload)
}

#[test]
fn a_frame_of_the_wrong_size_ends_the_connection() {
    let front = Front::new();
    for (what, bytes) in [
        ("PING", frame(PING, 0, 0, b"short")),
        ("SETTINGS", frame(SETTINGS, 0, 0, b"12345")),
        ("SETTINGS ACK", frame(SETTINGS, ACK, 0, &[0; 6])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        (
            "RST_STREAM",
            [get(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
        ),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0; 4])),
        ("GOAWAY", frame(GOAWAY, 0, 0, &[0; 7])),
        ("over the limit", frame(99, 0, 0, &[0; 16_385])),
        (
            "DATA over the limit",
            [open(), frame(DATA, 0, 1, &[0; 16_385])].concat(),
        ),
    ] {
        check(&front, &[FRAME_SIZE_ERROR], what, &bytes);
    }
    front.serves_others();
}

#[test]
fn a_fault_of_the_connection_ends_it_with_its_code() {
    let front = Front::new();
    let promise = [&[0, 0, 0, 2][..], &block(&request("GET", BLOG, "/"))].concat();
    let begun = frame(HEADERS, END_STREAM, 1, &block(&request("GET", BLOG, "/")));
    for (what, bytes) in [
        // 5.1, 5.1.1: streams that are idle, even, or gone by.
        ("DATA, idle", frame(DATA, END_STREAM, 1, b"x")),
        ("RST_STREAM, idle", frame(RST_STREAM, 0, 1, &[0; 4])),
        (
            "WINDOW_UPDATE, idle",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        ),
        (
            "CONTINUATION, idle",
            frame(CONTINUATION, END_HEADERS, 1, b""),
        ),
        ("an even stream", get(2)),
        ("a stream gone by", [get(3), get(1)].concat()),
        // 6.1 to 6.10: frames that need a stream, and frames that have none.
        ("DATA of none", frame(DATA, 0, 0, b"x")),
        ("HEADERS of none", frame(HEADERS, WHOLE, 0, b"x")),
        ("PRIORITY of none", frame(PRIORITY, 0, 0, &[0; 5])),
        ("RST_STREAM of none", frame(RST_STREAM, 0, 0, &[0; 4])),
        (
            "CONTINUATION of none",
            frame(CONTINUATION, END_HEADERS, 0, b"x"),
        ),
        ("SETTINGS of one", frame(SETTINGS, 0, 1, b"")),
        ("PING of one", frame(PING, 0, 1, &[0; 8])),
        ("GOAWAY of one", frame(GOAWAY, 0, 1, &[0; 8])),
        // 6.1, 6.2: more padding than frame.
        (
            "padding of HEADERS",
            frame(HEADERS, WHOLE | PADDED, 1, &[200, 0]),
        ),
        (
            "padding of DATA",
            [open(), frame(DATA, PADDED, 1, &[5, 1, 2])].concat(),
        ),
        // 6.5.2: values of settings.
        ("ENABLE_PUSH", setting(2, 2)),
        ("MAX_FRAME_SIZE", setting(5, 16_383)),
        ("MAX_FRAME_SIZE", setting(5, 1 << 24)),
        // 6.6, 8.4: clients push nothing.
        (
            "PUSH_PROMISE",
            [open(), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)].concat(),
        ),
        // 6.9: a window that grows by nothing.
        ("no increment", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "no increment of a stream",
            [open(), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
        ),
        // 6.10: nothing comes between the parts of a block.
        (
            "PING in a block",
            [&begun[..], &frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        (
            "DATA in a block",
            [&begun[..], &frame(DATA, 0, 1, b"x")].concat(),
        ),
        ("HEADERS in a block", [&begun[..], &get(3)].concat()),
        (
            "an unknown frame in a block",
            [&begun[..], &frame(99, 0, 1, b"x")].concat(),
        ),
        (
            "another's CONTINUATION",
            [&begun[..], &frame(CONTINUATION, 4, 3, b"")].concat(),
        ),
    ] {
        check(&front, &[PROTOCOL_ERROR], what, &bytes);
    }
    front.serves_others();
}

#[test]
fn a_window_that_grows_too_large_is_an_error_of_whose_it_is() {
    let front = Front::scripted(Answering::wait_for_close);
    let most = [0x7f, 0xff, 0xff, 0xff];
    let twice = frame(WINDOW_UPDATE, 0, 0, &most).repeat(2);
    check(&front, &[FLOW_CONTROL_ERROR], "of the connection", &twice);
    let initial = setting(4, 1 << 31);
    check(
        &front,
        &[FLOW_CONTROL_ERROR],
        "INITIAL_WINDOW_SIZE",
        &initial,
    );
    let mut frames = Frames::connect(front.ingress.address);
    frames.send_bytes(&open());
    frames.send_bytes(&frame(WINDOW_UPDATE, 0, 1, &most).repeat(2));
    assert_eq!(frames.reset(1), FLOW_CONTROL_ERROR);
    frames.is_alive();
}

#[test]
fn of_a_message_that_has_ended_no_more_is_taken() {
    let front = Front::scripted(Answering::wait_for_close);
    let data = frame(DATA, END_STREAM, 1, b"x");
    let closed = [STREAM_CLOSED];
    check(&front, &closed, "DATA", &[get(1), data.clone()].concat());
    check(&front, &closed, "HEADERS", &get(1).repeat(2));
    check(
        &front,
        &closed,
        "DATA twice",
        &[open(), data.repeat(2)].concat(),
    );
    let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let again = [open(), reset.clone(), get(1)].concat();
    check(&front, &closed, "HEADERS after a reset", &again);
    // Data may have left before the reset was sent.
    let mut frames = Frames::connect(front.ingress.address);
    frames.send_bytes(&[open(), reset, data].concat());
    assert_eq!(frames.reset(1), STREAM_CLOSED);
    frames.is_alive();
}

#[test]
fn a_block_that_cannot_be_read_ends_the_connection() {
    let front = Front::new();
    for (what, bad) in [
        ("an index without an entry", &[0xff, 0xff, 0x03][..]),
        ("index zero", &[0x80]),
        ("a table too large", &[0x3f, 0xff, 0xff, 0x7f]),
        ("a size of the table after a field", &[0x20]),
        ("an integer without end", &[0xff; 9]),
        ("an integer cut off", &[0xff, 0x80]),
        ("a string cut off", &[0x10, 0x05, b'a']),
    ] {
        let block = [&block(&request("GET", BLOG, "/"))[..], bad].concat();
        check(
            &front,
            &[COMPRESSION_ERROR],
            what,
            &frame(HEADERS, WHOLE, 1, &block),
        );
    }
    let too_large = [&[0x3f, 0xe2, 0x1f][..], &block(&request("GET", BLOG, "/"))].concat();
    let bytes = frame(HEADERS, WHOLE, 1, &too_large);
    check(&front, &[COMPRESSION_ERROR], "a table too large", &bytes);
    let coded = [
        &block(&request("GET", BLOG, "/"))[..],
        &[0x10, 0x81, 0x00, 0x01, b'a'],
    ]
    .concat();
    // RFC 9113, 4.3 names the second; `h2`, which reads the code, has the first.
    let codes = [PROTOCOL_ERROR, COMPRESSION_ERROR];
    let bytes = frame(HEADERS, WHOLE, 1, &coded);
    check(&front, &codes, "padding of Huffman", &bytes);
    assert!(front.backend.seen().is_empty());
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
        Answering::wait_for_close,
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
