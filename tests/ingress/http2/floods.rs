//! Floods over HTTP/2: whoever sends one is sent away, and the others notice nothing.

use crate::harness::backend::ok;
use crate::harness::eventually;
use crate::harness::front::{BLOG, Front};
use crate::harness::http2::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, HEADERS, PING,
    PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, request,
};

/// Sends `flood` again and again until the connection ends, and gives with what code.
#[track_caller]
fn flooded(front: &Front, opening: &[u8], flood: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let mut frames = Frames::connect(front.ingress.address);
    frames.send_bytes(opening);
    let mut reader = Frames {
        stream: frames.stream.try_clone().unwrap(),
    };
    let reading = std::thread::spawn(move || reader.end());
    for number in 0..100_000 {
        if !frames.try_send(&flood(number)) {
            break;
        }
    }
    reading.join().unwrap()
}

#[track_caller]
fn check(front: &Front, what: &str, opening: &[u8], flood: impl Fn(u32) -> Vec<u8>) {
    let code = flooded(front, opening, flood);
    // The reset of the connection may overtake what was said last.
    assert!(
        matches!(code, Some(ENHANCE_YOUR_CALM) | None),
        "{what}: {code:?}"
    );
    front.serves_others();
}

#[test]
fn floods_of_frames_that_carry_nothing_are_ended() {
    let front = Front::new();
    let open = frame(HEADERS, END_HEADERS, 1, &block(&request("POST", BLOG, "/")));
    check(&front, "PING", &[], |_| frame(PING, 0, 0, &[0; 8]));
    check(&front, "SETTINGS", &[], |_| frame(SETTINGS, 0, 0, &[]));
    // Of what was never sent: that is a fault, before it is a flood.
    let code = flooded(&front, &[], |_| frame(SETTINGS, 1, 0, &[]));
    assert!(
        matches!(code, Some(http2::PROTOCOL_ERROR) | None),
        "{code:?}"
    );
    check(&front, "PRIORITY", &[], |_| {
        frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])
    });
    check(&front, "WINDOW_UPDATE", &open, |_| {
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])
    });
    check(&front, "unknown frames", &[], |_| frame(77, 0, 0, &[]));
    check(&front, "empty DATA", &open, |_| frame(DATA, 0, 1, &[]));
    check(&front, "padded DATA", &open, |_| {
        frame(DATA, http2::PADDED, 1, &[1, 0])
    });
}

#[test]
fn a_block_of_fields_without_end_is_ended() {
    let front = Front::new();
    let begun = frame(HEADERS, END_STREAM, 1, &block(&request("GET", BLOG, "/")));
    check(&front, "empty CONTINUATION", &begun, |_| {
        frame(CONTINUATION, 0, 1, &[])
    });
    let field = block(&[("x", "y")]);
    check(&front, "small CONTINUATION", &begun, |_| {
        frame(CONTINUATION, 0, 1, &field)
    });
    let large = block(&[("x", &"y".repeat(16_000))]);
    check(&front, "large CONTINUATION", &begun, |_| {
        frame(CONTINUATION, 0, 1, &large)
    });
}

#[test]
fn resets_over_budget_end_the_connection_and_leave_no_request_behind() {
    let front = Front::scripted(|answering| {
        answering.wait_for_close();
    });
    let fields = block(&request("GET", BLOG, "/"));
    let code = flooded(&front, &[], |number| {
        let stream = 2 * number + 1;
        let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        [frame(HEADERS, http2::WHOLE, stream, &fields), reset].concat()
    });
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
    eventually("no request is left", || {
        front.backend.closed() == front.backend.opened()
    });
    assert!(front.backend.opened() < 1000, "{}", front.backend.opened());
    front.serves_others();
}

#[test]
fn resets_that_we_are_led_to_end_the_connection_too() {
    let front = Front::scripted(|answering| {
        answering.body();
        answering.write(ok("attacked"));
    });
    let fields = block(&request("GET", BLOG, "/"));
    // Each request is whole, and then its stream gets what it must not (CVE-2025-8671).
    let code = flooded(&front, &[], |number| {
        let stream = 2 * number + 1;
        let after = frame(DATA, 0, stream, b"x");
        [frame(HEADERS, http2::WHOLE, stream, &fields), after].concat()
    });
    assert!(code.is_none_or(|code| code != http2::NO_ERROR), "{code:?}");
    let malformed = block(&[(":method", "GET")]);
    check(&front, "malformed requests", &[], |number| {
        frame(HEADERS, http2::WHOLE, 2 * number + 1, &malformed)
    });
}

#[test]
fn a_small_block_that_grows_is_a_431_or_the_end() {
    let front = Front::new();
    // One entry of the table, and then an octet for each time that it is meant again.
    let bomb = |times: usize| {
        let mut fields = block(&request("GET", BLOG, "/"));
        fields.extend([0x40, 1, b'x', 0]);
        fields.resize(fields.len() + times, 0xbe);
        frame(HEADERS, http2::WHOLE, 1, &fields)
    };
    for (times, statuses) in [(100, [200, 200]), (200, [431, 431]), (2000, [431, 431])] {
        let mut frames = Frames::connect(front.ingress.address);
        frames.send_bytes(&bomb(times));
        let status = frames.status(1);
        assert!(statuses.contains(&status), "{times}: {status}");
    }
    let mut frames = Frames::connect(front.ingress.address);
    frames.send_bytes(&bomb(16_000));
    assert_eq!(frames.end(), Some(ENHANCE_YOUR_CALM));
    assert_eq!(front.backend.seen().len(), 1);
    front.serves_others();
}

#[test]
fn crumbs_of_cookies_are_fields_like_others() {
    let front = Front::new();
    for (method, crumbs, status) in [("GET", 128, 200), ("GET", 129, 431), ("HEAD", 129, 431)] {
        let mut fields = request(method, BLOG, "/");
        fields.extend((0..crumbs).map(|_| ("cookie", "a=b")));
        let mut frames = Frames::connect(front.ingress.address);
        frames.send(HEADERS, http2::WHOLE, 1, &block(&fields));
        let head = frames.until(HEADERS, 1);
        assert_eq!(http2::status(&head.payload), status, "{crumbs}");
        assert_eq!(head.ends(), method == "HEAD");
    }
}
