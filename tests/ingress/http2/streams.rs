//! Requests that end before their end: by their client, their backend, or the drain.

use bytes::Bytes;
use m3o_ingress::server::shutdown::Stage;

use crate::harness::backend::{ok, response};
use crate::harness::front::{BLOG, Front};
use crate::harness::http2::{
    self, CANCEL, DATA, END_HEADERS, Frames, GOAWAY, HEADERS, NO_ERROR, RST_STREAM, ask, block,
    connect, get, is_over, post, request, run, send_all, whole,
};
use crate::harness::{Gate, eventually};

/// Resets stream 1 with CANCEL.
fn cancel(frames: &mut Frames) {
    frames.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
}

#[track_caller]
fn is_let_go(front: &Front) {
    eventually("the backend is let go", || {
        front.backend.closed() == front.backend.opened()
    });
}

#[test]
fn a_reset_cancels_the_backend_at_every_stage() {
    let front = Front::scripted(|answering| {
        if answering.target() == "/stream" {
            answering.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n");
        }
        answering.wait_for_close();
    });
    // Waiting for an answer.
    let mut frames = Frames::connect(front.ingress.address);
    frames.get(1, BLOG, "/wait");
    eventually("it waits", || front.backend.seen().len() == 1);
    cancel(&mut frames);
    is_let_go(&front);
    frames.is_alive();
    // In the middle of an upload.
    let mut frames = Frames::connect(front.ingress.address);
    let fields = block(&request("POST", BLOG, "/upload"));
    frames.send(HEADERS, END_HEADERS, 1, &fields);
    frames.send(DATA, 0, 1, b"half");
    eventually("it waits", || front.backend.seen().len() == 2);
    cancel(&mut frames);
    is_let_go(&front);
    frames.is_alive();
    // In the middle of an answer.
    let mut frames = Frames::connect(front.ingress.address);
    frames.get(1, BLOG, "/stream");
    assert_eq!(frames.until(DATA, 1).payload, b"event");
    cancel(&mut frames);
    is_let_go(&front);
    frames.is_alive();
    // And a client that goes altogether.
    let mut frames = Frames::connect(front.ingress.address);
    frames.get(1, BLOG, "/wait");
    frames.get(3, BLOG, "/stream");
    assert_eq!(frames.until(DATA, 3).payload, b"event");
    drop(frames);
    is_let_go(&front);
    eventually(
        "each of them is logged as one whose client has left",
        || {
            let lines = front.ingress.access_lines();
            let left = |line: &&serde_json::Value| line["outcome"] == "client_left";
            lines.iter().filter(left).count() == 5
        },
    );
}

#[test]
fn an_answer_over_http2_before_the_end_of_the_upload_arrives_whole() {
    let front = Front::scripted(|answering| {
        answering.write(response("403 Forbidden", "", "no"));
        answering.close();
    });
    let mut frames = Frames::connect(front.ingress.address);
    let fields = block(&request("POST", BLOG, "/"));
    frames.send(HEADERS, END_HEADERS, 1, &fields);
    frames.send(DATA, 0, 1, b"half");
    assert_eq!(frames.status(1), 403);
    let data = frames.until(DATA, 1);
    assert_eq!(data.payload, b"no");
    // RFC 9113, 8.1: the rest is not wanted, and that is no error.
    assert_eq!(frames.reset(1), NO_ERROR);
    frames.get(3, BLOG, "/other/x");
    assert_eq!(frames.status(3), 200);
}

#[test]
fn an_upload_goes_on_beside_its_answer() {
    let front = Front::scripted(|answering| {
        answering.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while let Ok(Some(chunk)) = answering.chunk() {
            let length = chunk.len();
            answering.write(format!("{length:x}\r\n"));
            answering.write(chunk);
            answering.write("\r\n");
        }
        answering.write("0\r\n\r\n");
    });
    run(async {
        let mut client = connect(front.ingress.address).await;
        let (answer, mut body) = client.send_request(post(BLOG, "/"), false).unwrap();
        body.send_data(Bytes::from_static(b"one "), false).unwrap();
        let mut answer = answer.await.unwrap().into_body();
        assert_eq!(answer.data().await.unwrap().unwrap(), "one ");
        body.send_data(Bytes::from_static(b"two"), true).unwrap();
        assert_eq!(answer.data().await.unwrap().unwrap(), "two");
        assert!(is_over(&mut answer).await);
    });
}

#[test]
fn a_large_body_passes_both_ways_at_once() {
    let front = Front::scripted(|answering| {
        let body = answering.body();
        answering.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        answering.write(body);
    });
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    run(async {
        let mut client = connect(front.ingress.address).await;
        let (answer, mut body) = client.send_request(post(BLOG, "/"), false).unwrap();
        send_all(&mut body, &sent, true).await.unwrap();
        let answer = whole(answer.await.unwrap()).await.unwrap();
        assert!(answer.body == sent);
    });
}

#[test]
fn what_is_in_flight_over_http2_is_answered_in_the_drain() {
    let gate = Gate::default();
    let mut front = {
        let gate = gate.clone();
        Front::scripted(move |answering| {
            answering.body();
            gate.wait();
            answering.write(ok("late"));
        })
    };
    let mut frames = Frames::connect(front.ingress.address);
    let mut idle = Frames::connect(front.ingress.address);
    idle.is_alive();
    frames.get(1, BLOG, "/");
    eventually("it is in flight", || front.backend.seen().len() == 1);
    front.ingress.advance(Stage::Draining);
    // No new streams, but the last one is not named yet.
    let first = loop {
        let frame = frames.next().unwrap();
        if frame.kind == GOAWAY {
            break frame;
        }
    };
    assert_eq!(
        first.payload,
        [&i32::MAX.to_be_bytes()[..], &[0; 4]].concat()
    );
    let ping = frames.until(http2::PING, 0);
    frames.send(http2::PING, http2::ACK, 0, &ping.payload);
    assert_eq!(idle.end(), Some(NO_ERROR));
    gate.open();
    let (mut status, mut last) = (None, None);
    while let Some(frame) = frames.next() {
        match frame.kind {
            HEADERS => status = Some(frame.payload[0]),
            GOAWAY => last = Some(frame.payload),
            _ => {}
        }
    }
    assert_eq!(status, Some(0x88));
    assert_eq!(last.unwrap(), [0, 0, 0, 1, 0, 0, 0, 0]);
    drop((frames, idle));
    assert!(front.ingress.join().is_ok());
}

#[test]
fn one_connection_of_http2_carries_requests_of_many_apps_at_their_own_pace() {
    let gate = Gate::default();
    let front = {
        let gate = gate.clone();
        Front::scripted(move |answering| {
            answering.body();
            gate.wait();
            answering.write(ok("slow"));
        })
    };
    run(async {
        let client = connect(front.ingress.address).await;
        let mut slow = client.clone().ready().await.unwrap();
        let (slow, _) = slow.send_request(get(BLOG, "/slow"), true).unwrap();
        for _ in 0..3 {
            assert_eq!(
                ask(&client, get(BLOG, "/other/fast")).await.text(),
                "/other/fast"
            );
        }
        gate.open();
        assert_eq!(whole(slow.await.unwrap()).await.unwrap().text(), "slow");
    });
}
