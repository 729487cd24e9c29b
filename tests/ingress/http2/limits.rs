//! The limits and timeouts of the house, over HTTP/2.

use std::time::Duration;

use bytes::Bytes;

use crate::harness::backend::ok;
use crate::harness::front::{BLOG, Front};
use crate::harness::http2::{
    self, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, HEADERS, NO_ERROR, ask, block,
    connect, get, post, request, run, send_all, whole,
};
use crate::harness::{TestApi, TestIngress};

const SOON: Duration = Duration::from_millis(200);

#[test]
fn limits_of_requests_over_http2_are_those_over_http1() {
    let front = Front::scripted_with(
        |config| config.limits.body = 10,
        |answering| {
            answering.body();
            answering.write(ok("attacked"));
        },
    );
    run(async {
        let client = connect(front.ingress.address).await;
        let long = format!("/{}", "x".repeat(17_000));
        assert_eq!(ask(&client, get(BLOG, &long)).await.status(), 414);
        let mut wide = get(BLOG, "/");
        wide.headers_mut()
            .insert("x", "y".repeat(40_000).parse().unwrap());
        assert_eq!(ask(&client, wide).await.status(), 431);
        let mut many = get(BLOG, "/");
        for _ in 0..129 {
            many.headers_mut().append("x", "y".parse().unwrap());
        }
        let answer = ask(&client, many).await;
        assert_eq!(answer.status(), 431);
        assert_eq!(
            answer.field("proxy-status"),
            Some("m3o-ingress; error=http_request_error")
        );
        assert!(answer.text().contains("\"code\":431"), "{}", answer.text());
        assert!(front.backend.seen().is_empty());
        // Declared, and only sent.
        for declared in [true, false] {
            let mut upload = post(BLOG, "/");
            if declared {
                upload
                    .headers_mut()
                    .insert("content-length", "11".parse().unwrap());
            }
            let mut client = client.clone().ready().await.unwrap();
            let (answer, mut body) = client.send_request(upload, false).unwrap();
            let _it_may_be_refused_before = send_all(&mut body, b"12345678901", true).await;
            let answer = whole(answer.await.unwrap()).await.unwrap();
            assert_eq!(answer.status(), 413, "{declared}");
        }
        let mut other = get(BLOG, "/");
        other
            .headers_mut()
            .insert("expect", "the best".parse().unwrap());
        assert_eq!(ask(&client, other).await.status(), 417);
    });
    front.serves_others();
}

#[test]
fn a_frame_or_block_that_stays_half_sent_ends_the_connection() {
    let front = Front::scripted_with(
        |config| {
            config.timeouts.header = SOON;
            config.timeouts.body = SOON;
        },
        |answering| answering.wait_for_close(),
    );
    let fields = block(&request("POST", BLOG, "/"));
    let begun = http2::frame(HEADERS, 0, 1, &fields);
    let whole = http2::frame(HEADERS, END_HEADERS, 1, &fields);
    let data = http2::frame(DATA, END_STREAM, 1, b"body");
    for (what, bytes) in [
        ("a block", begun.clone()),
        ("a head of a frame", begun[..5].to_vec()),
        ("a frame", begun[..20].to_vec()),
        ("a piece of a body", [&whole[..], &data[..11]].concat()),
    ] {
        let mut frames = Frames::connect(front.ingress.address);
        frames.send_bytes(&bytes);
        assert_eq!(frames.end(), Some(ENHANCE_YOUR_CALM), "{what}");
    }
    front.serves_others();
}

#[test]
fn a_request_body_over_http2_that_stops_is_a_408_and_costs_no_other_request() {
    let front = Front::scripted_with(
        |config| config.timeouts.body = SOON,
        |answering| {
            answering.body();
            answering.write(ok("whole"));
        },
    );
    run(async {
        let client = connect(front.ingress.address).await;
        let mut sending = client.clone().ready().await.unwrap();
        let (answer, mut body) = sending.send_request(post(BLOG, "/"), false).unwrap();
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 408);
        assert_eq!(ask(&client, get(BLOG, "/other/x")).await.status(), 200);
    });
}

#[test]
fn a_connection_without_requests_is_told_to_go() {
    let api = TestApi::with_app("blog", "http://127.0.0.1:9");
    let ingress = TestIngress::before_with(&api, |config| config.timeouts.idle = SOON);
    let mut frames = Frames::connect(ingress.address);
    assert_eq!(frames.end(), Some(NO_ERROR));
    let mut frames = Frames::connect(ingress.address);
    frames.get(1, "nobody.m3o.app", "/");
    assert_eq!(frames.status(1), 404);
    assert_eq!(frames.end(), Some(NO_ERROR));
}

#[test]
fn an_answer_whose_window_stays_closed_is_reset() {
    let front = Front::scripted_with(
        |config| config.timeouts.response = SOON,
        |answering| {
            answering.body();
            answering.write(ok(&"x".repeat(1 << 20)));
        },
    );
    let mut frames = Frames::connect(front.ingress.address);
    frames.get(1, BLOG, "/");
    assert_eq!(frames.status(1), 200);
    let code = frames.reset(1);
    assert!(
        [http2::CANCEL, http2::INTERNAL_ERROR].contains(&code),
        "{code}"
    );
    frames.is_alive();
    front.serves_others();
}

#[test]
fn a_slow_reader_over_http2_stops_its_backend() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let written = Arc::new(AtomicUsize::new(0));
    let front = {
        let written = Arc::clone(&written);
        Front::scripted(move |answering| {
            answering.body();
            answering.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 1 << 16], b"\r\n".to_vec()].concat();
            while answering.try_write(&chunk).is_ok() {
                written.fetch_add(1 << 16, Ordering::SeqCst);
            }
            answering.close();
        })
    };
    let mut frames = Frames::connect(front.ingress.address);
    frames.get(1, BLOG, "/");
    assert_eq!(frames.status(1), 200);
    // All that the window allows, and nothing after it.
    let mut got = 0;
    while got < 65_535 {
        got += frames.until(DATA, 1).payload.len();
    }
    assert_eq!(got, 65_535);
    frames.is_alive();
    // What is written is bounded by the buffers of two sockets, and then it stands still.
    let mut last = usize::MAX;
    crate::harness::eventually("the backend waits", || {
        std::thread::park_timeout(Duration::from_millis(50));
        let now = written.load(Ordering::SeqCst);
        now == std::mem::replace(&mut last, now)
    });
    assert!(last < 16 << 20, "{last}");
    drop(frames);
    crate::harness::eventually("the backend is let go", || {
        front.backend.closed() == front.backend.opened()
    });
}
