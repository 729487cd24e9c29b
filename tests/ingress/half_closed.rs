//! Clients that ask and then close their half of the connection, as many simple ones do: they wait for
//! the answer, and look like those that have left (RFC 9112, 9.6; RFC 9293, 3.6).

use std::net::Shutdown;
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::backend::ok;
use crate::harness::front::{BLOG, Front};
use crate::harness::message::Arrival;
use crate::harness::{Caller, eventually};

/// Sends `bytes` and closes the half of the client.
fn send_all(front: &Front, bytes: impl AsRef<[u8]>) -> Caller {
    let mut caller = front.ingress.caller();
    caller.send(bytes);
    caller.stream().shutdown(Shutdown::Write).unwrap();
    caller
}

/// The bodies of the answers to so many requests; fewer, where the machine is so busy that the client
/// is taken to have left.
fn answers(front: &Front, requests: &str, count: usize) -> Vec<Vec<u8>> {
    let mut caller = send_all(front, requests);
    let replies = (0..count).map_while(|_| caller.try_reply().ok());
    replies.map(|reply| reply.expect(200).body).collect()
}

#[test]
fn a_client_that_asks_and_closes_its_half_gets_its_answer() {
    let front = Front::new();
    for request in [
        "GET / HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: blog.m3o.app\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: blog.m3o.app\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: blog.m3o.app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        eventually(request, || answers(&front, request, 1) == [b"attacked"]);
    }
}

#[test]
fn every_request_before_the_end_of_a_half_is_answered() {
    let front = Front::new();
    let request = format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 2\r\n\r\nhi");
    let requests = request.repeat(20);
    eventually("all are answered", || {
        answers(&front, &requests, 20).len() == 20
    });
}

#[test]
fn an_answer_that_moves_reaches_a_client_that_closed_its_half() {
    let body = "x".repeat(8 << 20);
    let front = Front::scripted(move |answering| answering.write(ok(&body)));
    let request = format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
    eventually("it is here whole", || {
        let bodies = answers(&front, &request, 1);
        bodies.first().is_some_and(|body| body.len() == 8 << 20)
    });
}

#[test]
fn an_upload_behind_which_a_half_was_closed_arrives_whole() {
    let front = Front::new();
    let body = "x".repeat(200_000);
    let length = body.len();
    let request =
        format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {length}\r\n\r\n{body}");
    eventually("it is answered", || {
        answers(&front, &request, 1) == [b"attacked"]
    });
    assert_eq!(front.backend.last().body.len(), length);
}

#[test]
fn a_client_that_closed_its_half_and_waits_for_long_has_left() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    ] {
        let front = Front::scripted(move |answering| {
            answering.write(answer);
            answering.wait_for_close();
        });
        let request = format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
        let mut caller = send_all(&front, request);
        let left = Instant::now();
        eventually("the backend is let go", || front.backend.closed() == 1);
        assert!(left.elapsed() < Duration::from_secs(1));
        let rest = String::from_utf8(caller.rest()).unwrap();
        assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
        eventually("it is logged", || !front.ingress.access_lines().is_empty());
        front.serves_others();
    }
}

#[test]
fn an_upload_that_is_cut_short_by_closing_a_half_never_looks_whole() {
    let front = Front::new();
    for framing in [
        "Content-Length: 10\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "Transfer-Encoding: chunked\r\n\r\n8\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\n{framing}");
        let mut caller = send_all(&front, request);
        let rest = String::from_utf8(caller.rest()).unwrap();
        assert!(!rest.contains("attacked"), "{framing}: {rest}");
    }
    eventually("the backend knows of each that it was cut", || {
        let seen = front.backend.seen();
        seen.len() == 4 && seen.iter().all(|seen| seen.arrival == Arrival::Cut)
    });
    front.serves_others();
}
