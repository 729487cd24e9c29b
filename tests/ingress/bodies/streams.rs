//! Bodies as they move: piece by piece, held back by whoever reads slowly, let go with the client.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{BLOG, scripted};
use crate::harness::backend::ok;
use crate::harness::caller::timed_out;
use crate::harness::{Gate, eventually, settles};

#[test]
fn server_sent_events_arrive_one_by_one() {
    let gates = [Gate::default(), Gate::default()];
    let held = gates.clone();
    let (_backend, _api, ingress) = scripted(move |answering| {
        answering.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        answering.write("9\r\ndata: 1\n\n\r\n");
        held[0].wait();
        answering.write("9\r\ndata: 2\n\n\r\n");
        held[1].wait();
        answering.write("0\r\n\r\n");
    });
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let head = caller.head();
    assert_eq!(head.field("Content-Type"), Some("text/event-stream"));
    assert_eq!(caller.chunk().unwrap(), b"data: 1\n\n");
    gates[0].open();
    assert_eq!(caller.chunk().unwrap(), b"data: 2\n\n");
    gates[1].open();
    assert_eq!(caller.chunk(), None);
}

#[test]
fn the_backend_sees_the_start_of_an_upload_before_its_end_is_sent() {
    let first = Gate::default();
    let arrived = first.clone();
    let (backend, _api, ingress) = scripted(move |answering| {
        assert_eq!(answering.chunk().unwrap().unwrap(), b"hello");
        arrived.open();
        while answering.chunk().unwrap().is_some() {}
        answering.write(ok("done"));
        answering.close();
    });
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    ));
    first.wait();
    caller.send("1\r\n!\r\n0\r\n\r\n");
    assert_eq!(caller.reply().expect(200).text(), "done");
    assert_eq!(backend.opened(), 1);
}

#[test]
fn a_client_that_reads_slowly_holds_the_backend_back() {
    const PIECE: usize = 64 << 10;
    let whole = system_buffers() + (8 << 20);
    let pieces = whole / PIECE;
    let whole = pieces * PIECE;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let (_backend, _api, ingress) = scripted(move |answering| {
        answering.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {whole}\r\n\r\n"
        ));
        let socket = socket2::SockRef::from(answering.tcp());
        socket.set_send_buffer_size(LITTLE).unwrap();
        let piece = vec![b'x'; PIECE];
        for _ in 0..pieces {
            if answering.try_write(&piece).is_err() {
                return;
            }
            counted.fetch_add(PIECE, Ordering::SeqCst);
        }
    });
    let mut caller = ingress.caller();
    let socket = socket2::SockRef::from(caller.stream());
    socket.set_recv_buffer_size(LITTLE).unwrap();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let head = caller.head();
    assert_eq!(head.status(), 200);

    let stuck = settles(&sent);
    assert!(
        stuck < system_buffers(),
        "{stuck} bytes were taken from the backend"
    );
    assert_eq!(caller.try_body(&head).unwrap().len(), whole);
    assert_eq!(sent.load(Ordering::SeqCst), whole);
}

#[test]
fn a_backend_that_reads_slowly_holds_the_client_back() {
    let whole = system_buffers() + (8 << 20);
    let gate = Gate::default();
    let held = gate.clone();
    let (backend, _api, ingress) = scripted(move |answering| {
        let socket = socket2::SockRef::from(answering.tcp());
        socket.set_recv_buffer_size(LITTLE).unwrap();
        held.wait();
        let length = answering.body().len();
        answering.write(ok(&length.to_string()));
    });
    let mut caller = ingress.caller();
    let socket = socket2::SockRef::from(caller.stream());
    socket.set_send_buffer_size(LITTLE).unwrap();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {whole}\r\n\r\n"
    ));
    eventually("the request is at the backend", || {
        backend.seen().len() == 1
    });
    let stream = caller.stream();
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    let stopped = loop {
        match (&mut &*stream).write(&piece[..piece.len().min(whole - sent)]) {
            Ok(0) => break false,
            Ok(count) => sent += count,
            Err(error) => break timed_out(&error),
        }
    };
    assert!(stopped, "the client could send all");
    assert!(
        sent < system_buffers(),
        "{sent} bytes were taken from the client"
    );
    gate.open();
    stream.set_write_timeout(None).unwrap();
    while sent < whole {
        let count = piece.len().min(whole - sent);
        (&mut &*stream).write_all(&piece[..count]).unwrap();
        sent += count;
    }
    assert_eq!(caller.reply().expect(200).text(), whole.to_string());
}

/// What the ends of both connections hold that are not the ingress's: little, so that what is on its way
/// is what the ingress has taken.
const LITTLE: usize = 64 << 10;

/// What the system itself may hold for the ingress of a body on its way in and out, and a little for
/// its own buffers and for the other ends.
fn system_buffers() -> usize {
    let largest = |name: &str| -> usize {
        let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        limits.split_whitespace().last().unwrap().parse().unwrap()
    };
    largest("tcp_rmem") + largest("tcp_wmem") + (2 << 20)
}

#[test]
fn when_the_client_leaves_the_backend_is_let_go_within_a_second() {
    let (backend, _api, ingress) = scripted(|answering| {
        if answering.target() == "/stream" {
            answering.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        }
        answering.wait_for_close();
    });
    for (index, target) in ["/wait", "/stream", "/upload"].into_iter().enumerate() {
        let mut caller = ingress.caller();
        let framing = match target {
            "/upload" => "Content-Length: 100\r\n",
            _ => "",
        };
        caller.send(format!(
            "POST {target} HTTP/1.1\r\nHost: {BLOG}\r\n{framing}\r\n"
        ));
        if target == "/stream" {
            caller.head();
        }
        eventually("the backend is asked", || backend.seen().len() == index + 1);
        let left = Instant::now();
        drop(caller);
        eventually("the backend is let go", || backend.closed() == index + 1);
        assert!(left.elapsed() < Duration::from_secs(1), "{target}");
    }
    eventually("all are logged", || ingress.access_lines().len() == 3);
    for line in ingress.access_lines() {
        assert_eq!(line["outcome"], "client_left", "{line}");
        let status = match line["url.path"].as_str() {
            Some("/stream") => 200,
            _ => 499,
        };
        assert_eq!(line["http.response.status_code"], status, "{line}");
    }
}
