//! Backends that speak HTTP/2: in the clear by `h2c://`, over TLS by agreement.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Response};
use m3o_ingress::config::Config;
use tokio::time::Instant;

use crate::harness::http2::{
    self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, frame,
};
use crate::harness::http2_backend::{
    Asked, Frames, Http2Backend, Offers, greet, head, next_request,
};
use crate::harness::{Caller, Gate, TestApi, TestIngress, eventually, settles};

const BLOG: &str = "blog.m3o.app";

const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: blog.m3o.app\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn before(url: &str) -> (TestApi, TestIngress) {
    before_with(url, |_| {})
}

fn before_with(url: &str, adjust: impl FnOnce(&mut Config)) -> (TestApi, TestIngress) {
    let api = TestApi::with_app("blog", url);
    let ingress = TestIngress::before_with(&api, adjust);
    (api, ingress)
}

fn retries(ingress: &TestIngress, reason: &str) -> f64 {
    ingress.metric(&format!(
        r#"m3o_ingress_backend_retries_total{{reason="{reason}"}}"#
    ))
}

fn get(ingress: &TestIngress, target: &str) -> Caller {
    let mut caller = ingress.caller();
    caller.send(format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    caller
}

#[test]
fn a_request_and_its_answer_go_over_http2() {
    let backend = Http2Backend::scripted(async |mut asked: Asked| {
        let (body, _) = asked.body().await;
        let mut response = Response::new(());
        let location = format!("http://{}/next", asked.request.uri().authority().unwrap());
        let headers = response.headers_mut();
        headers.insert("location", HeaderValue::try_from(location).unwrap());
        headers.insert("x-said", HeaderValue::from_static("hello"));
        let mut stream = asked.respond.send_response(response, false).unwrap();
        stream.send_data(Bytes::from(body), true).unwrap();
    });
    let (_api, ingress) = before(&format!("{}/base", backend.url()));
    let mut caller = ingress.caller();
    let fields =
        "Keep-Alive: timeout=5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-Keep: 2\r\n";
    let reply = caller.post(BLOG, "/a?b=c", fields, b"a body").expect(200);
    assert_eq!(reply.text(), "a body");
    assert_eq!(reply.field("x-said"), Some("hello"));
    // Its own origin is that of http.
    let location = reply.field("location").unwrap();
    assert!(location.starts_with("http://blog.m3o.app"), "{location}");

    let seen = backend.seen();
    assert_eq!(seen[0].method(), "POST");
    assert_eq!(seen[0].uri().path_and_query().unwrap(), "/base/a?b=c");
    assert_eq!(seen[0].uri().scheme_str(), Some("http"));
    let authority = seen[0].uri().authority().unwrap();
    assert_eq!(authority.as_str(), backend.address.to_string());
    let headers = seen[0].headers();
    assert_eq!(headers["content-length"], "6");
    assert_eq!(headers["x-keep"], "2");
    assert_eq!(headers["x-forwarded-host"], BLOG);
    for gone in [
        "host",
        "connection",
        "keep-alive",
        "x-hop",
        "transfer-encoding",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(caller.get(BLOG, "/").expect(200).text(), "");
    let reply = caller.ask("HEAD", "/", BLOG, "");
    assert_eq!((reply.status(), reply.body.len()), (200, 0));
    assert_eq!(backend.opened(), 1, "the connection is used again");
}

fn trailers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.insert(*name, HeaderValue::from_static(value));
    }
    map
}

#[test]
fn trailers_pass_behind_a_body_whose_length_was_said() {
    let gate = Gate::default();
    let held = gate.clone();
    let frames = Frames::scripted(move |stream, _| {
        let Some(id) = greet(stream) else { return };
        let begun = [
            frame(HEADERS, END_HEADERS, id, &head(&[("content-length", "5")])),
            frame(DATA, 0, id, b"hello"),
        ];
        stream.write_all(&begun.concat()).unwrap();
        held.wait();
        let block = http2::block(&[("grpc-status", "0")]);
        let flags = END_HEADERS | END_STREAM;
        stream
            .write_all(&frame(HEADERS, flags, id, &block))
            .unwrap();
        while next_request(stream).is_some() {}
    });
    let (_api, ingress) = before(&frames.url());
    let trailers = http2::run(async {
        let client = http2::connect(ingress.address).await;
        let mut client = client.ready().await.unwrap();
        let (response, _) = client.send_request(http2::get(BLOG, "/"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello");
        // All of it is with the client, and what comes behind it is not yet.
        gate.open();
        body.trailers().await.unwrap()
    });
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
}

#[test]
fn a_call_of_grpc_passes_with_its_trailers() {
    let backend = Http2Backend::scripted(async |mut asked: Asked| {
        let (body, sum) = asked.body().await;
        assert_eq!(sum.unwrap()["x-sum"], "7");
        if body == b"only trailers" {
            let mut response = Response::new(());
            *response.headers_mut() = trailers(&[("grpc-status", "5")]);
            asked.respond.send_response(response, true).unwrap();
            return;
        }
        let mut stream = asked.begin();
        stream.send_data(Bytes::from(body), false).unwrap();
        let fields = [("grpc-status", "0"), ("content-length", "7")];
        stream.send_trailers(trailers(&fields)).unwrap();
    });
    let (_api, ingress) = before(&backend.url());
    let mut caller = ingress.caller();
    let mut call = |message: &str| {
        let length = message.len();
        caller.send(format!(
            "POST /grpc.Service/Method HTTP/1.1\r\nHost: {BLOG}\r\nTE: trailers\r\nConnection: TE\r\n\
             Content-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n\
             {length:x}\r\n{message}\r\n0\r\nX-Sum: 7\r\nHost: evil\r\n\r\n"
        ));
        caller.reply().expect(200)
    };
    let reply = call("a message");
    assert_eq!(reply.text(), "a message");
    assert_eq!(reply.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    let reply = call("only trailers");
    assert_eq!(
        (reply.text().as_str(), reply.field("grpc-status")),
        ("", Some("5"))
    );
    let seen = backend.seen();
    assert_eq!(seen[0].headers()["te"], "trailers");
    assert_eq!(seen[0].headers()["content-type"], "application/grpc");
}

#[test]
fn messages_stream_both_ways_at_once() {
    let backend = Http2Backend::scripted(async |mut asked: Asked| {
        let mut stream = asked.begin();
        while let Some(piece) = asked.piece().await {
            stream.send_data(piece, false).unwrap();
        }
        stream
            .send_trailers(trailers(&[("grpc-status", "0")]))
            .unwrap();
    });
    let (_api, ingress) = before(&backend.url());
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    assert_eq!(caller.head().status(), 200);
    for message in ["one", "two", "three"] {
        caller.send(format!("{:x}\r\n{message}\r\n", message.len()));
        assert_eq!(caller.chunk().unwrap(), message.as_bytes());
    }
    caller.send("0\r\n\r\n");
    assert_eq!(caller.chunk(), None);
}

#[test]
fn a_hundred_requests_at_once_share_a_connection() {
    let (arrived, gate) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(tokio::sync::Notify::new()),
    );
    let (counted, opened) = (Arc::clone(&arrived), Arc::clone(&gate));
    let backend = Http2Backend::scripted(move |asked: Asked| {
        let (counted, opened) = (Arc::clone(&counted), Arc::clone(&opened));
        async move {
            let all = opened.notified();
            if counted.fetch_add(1, Ordering::SeqCst) + 1 == 100 {
                opened.notify_waiters();
            } else {
                all.await;
            }
            let target = asked.target();
            asked.answer(target);
        }
    });
    let (_api, ingress) = before(&backend.url());
    let callers: Vec<_> = (0..100)
        .map(|number| get(&ingress, &format!("/{number}")))
        .collect();
    for (number, mut caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.reply().expect(200).text(), format!("/{number}"));
    }
    assert_eq!(backend.opened(), 1);
    drop(gate);
}

#[test]
fn where_the_server_takes_few_requests_at_once_there_are_more_connections() {
    let places = Arc::new(tokio::sync::Semaphore::new(0));
    let given = Arc::clone(&places);
    let offers = Offers {
        streams: 1,
        ..Offers::default()
    };
    let backend = Http2Backend::offering(&offers, move |asked: Asked| {
        let given = Arc::clone(&given);
        async move {
            given.acquire().await.unwrap().forget();
            asked.answer("at last");
        }
    });
    let (_api, ingress) = before_with(&backend.url(), |config| config.backends.per_backend = 2);
    let callers: Vec<_> = (0..3).map(|_| get(&ingress, "/")).collect();
    eventually("two are asked, each on its own", || {
        backend.seen().len() == 2
    });
    // The third waits for one of them.
    places.add_permits(3);
    for mut caller in callers {
        assert_eq!(caller.reply().expect(200).text(), "at last");
    }
    assert_eq!(backend.opened(), 2);
}

#[test]
fn what_the_server_refuses_is_sent_once_more_and_not_twice() {
    let backend = Http2Backend::scripted(async |mut asked: Asked| {
        if asked.target() == "/never" || asked.number == 1 {
            asked.respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let (body, _) = asked.body().await;
        asked.answer(body);
    });
    let (_api, ingress) = before(&backend.url());
    let mut caller = ingress.caller();
    // A refusal says that nothing was done: also a POST may go again.
    let reply = caller.post(BLOG, "/", "", b"precious").expect(200);
    assert_eq!(reply.text(), "precious");
    assert_eq!(retries(&ingress, "unsent"), 1.0);
    caller.get(BLOG, "/never").expect(502);
    assert_eq!(backend.seen().len(), 4);
    assert_eq!(backend.opened(), 1);
}

#[test]
fn what_may_have_arrived_is_not_sent_twice() {
    let cutting = Arc::new(tokio::sync::Notify::new());
    let cut = Arc::clone(&cutting);
    let backend = Http2Backend::scripted(move |asked: Asked| {
        let cut = Arc::clone(&cut);
        async move {
            match (asked.target().as_str(), asked.number) {
                ("/post", _) | ("/get", 3) => cut.notified().await,
                _ => asked.answer("fine"),
            }
        }
    });
    let (_api, ingress) = before(&backend.url());
    let fine = |ingress: &TestIngress| ingress.get(BLOG, "/").expect(200);
    fine(&ingress);
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST /post HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 1\r\n\r\nx"
    ));
    eventually("it arrives", || backend.seen().len() == 2);
    backend.cut();
    caller.reply().expect(502);
    assert_eq!(backend.seen().len(), 2, "it is not sent again");

    // The third request is the first on its connection, so its end is the server's answer.
    let mut caller = get(&ingress, "/get");
    eventually("it arrives", || backend.seen().len() == 3);
    backend.cut();
    caller.reply().expect(502);
    fine(&ingress);
    drop(cutting);
}

#[test]
fn a_get_whose_kept_connection_breaks_goes_once_over_a_fresh_one() {
    let backend = Http2Backend::scripted(async |asked: Asked| {
        if asked.number == 2 {
            std::future::pending::<()>().await;
        }
        asked.answer("fine");
    });
    let (_api, ingress) = before(&backend.url());
    ingress.get(BLOG, "/").expect(200);
    let mut caller = get(&ingress, "/");
    eventually("it arrives", || backend.seen().len() == 2);
    backend.cut();
    assert_eq!(caller.reply().expect(200).text(), "fine");
    assert_eq!(retries(&ingress, "broken_off"), 1.0);
    assert_eq!(backend.opened(), 2);
}

#[test]
fn what_a_goaway_leaves_out_goes_over_another_connection_and_the_rest_is_finished() {
    let frames = Frames::scripted(|stream, number| {
        let Some(first) = greet(stream) else { return };
        if number == 1 {
            // It answers the first request, and has not looked at the second.
            stream
                .write_all(&frame(HEADERS, END_HEADERS, first, &head(&[])))
                .unwrap();
            let Some(_second) = next_request(stream) else {
                return;
            };
            let last = [first.to_be_bytes(), 0_u32.to_be_bytes()].concat();
            stream.write_all(&frame(GOAWAY, 0, 0, &last)).unwrap();
            stream
                .write_all(&frame(DATA, END_STREAM, first, b"first"))
                .unwrap();
        } else {
            stream
                .write_all(&frame(HEADERS, END_HEADERS, first, &head(&[])))
                .unwrap();
            stream
                .write_all(&frame(DATA, END_STREAM, first, b"second"))
                .unwrap();
        }
        while next_request(stream).is_some() {}
    });
    let (_api, ingress) = before(&frames.url());
    let mut one = get(&ingress, "/one");
    let head = one.head();
    let mut two = ingress.caller();
    assert_eq!(
        two.post(BLOG, "/two", "", b"precious").expect(200).text(),
        "second"
    );
    assert_eq!(one.try_body(&head).unwrap(), b"first");
    assert_eq!(retries(&ingress, "unsent"), 1.0);
    assert_eq!(frames.opened(), 2);
}

#[test]
fn a_server_that_leaves_is_let_go_and_found_again() {
    let backend = Http2Backend::scripted(async |asked: Asked| asked.answer("fine"));
    let (_api, ingress) = before(&backend.url());
    for round in 1..=3 {
        ingress.get(BLOG, "/").expect(200);
        backend.leave();
        eventually("it is closed", || backend.closed() == round);
    }
    assert_eq!(backend.opened(), 3);
}

#[test]
fn an_answer_that_is_reset_is_a_cut() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let frames = Frames::scripted(move |stream, _| {
            let Some(id) = greet(stream) else { return };
            stream
                .write_all(&frame(HEADERS, END_HEADERS, id, &head(&[])))
                .unwrap();
            stream.write_all(&frame(DATA, 0, id, b"half")).unwrap();
            let code = u32::from(reason).to_be_bytes();
            stream.write_all(&frame(RST_STREAM, 0, id, &code)).unwrap();
            while next_request(stream).is_some() {}
        });
        let (_api, ingress) = before(&frames.url());
        let mut caller = get(&ingress, "/");
        let head = caller.head();
        assert_eq!(head.status(), 200);
        caller.try_body(&head).unwrap_err();
    }
}

#[test]
fn a_reset_harms_no_other_request_on_the_connection() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Http2Backend::scripted(move |mut asked: Asked| {
        let held = held.clone();
        async move {
            let mut stream = asked.begin();
            stream.send_data(Bytes::from("half"), false).unwrap();
            if asked.target() == "/reset" {
                stream.send_reset(Reason::INTERNAL_ERROR);
                held.open();
                return;
            }
            while asked.piece().await.is_some() {}
            stream.send_data(Bytes::from(" and half"), true).unwrap();
        }
    });
    let (_api, ingress) = before(&backend.url());
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    caller.head();
    let mut other = get(&ingress, "/reset");
    gate.wait();
    // Whether its head was passed on before the reset is a matter of time.
    if let Ok(reply) = other.try_reply() {
        assert_eq!(reply.status(), 502);
    }
    caller.send("0\r\n\r\n");
    let mut whole = Vec::new();
    while let Some(chunk) = caller.chunk() {
        whole.extend(chunk);
    }
    assert_eq!(whole, b"half and half");
    assert_eq!(backend.opened(), 1);
}

#[test]
fn a_client_that_reads_slowly_holds_its_stream_back_and_no_other() {
    const WHOLE: usize = 64 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let backend = Http2Backend::scripted(move |mut asked: Asked| {
        let counted = Arc::clone(&counted);
        async move {
            if asked.target() != "/slow" {
                return asked.answer("quick");
            }
            let mut stream = asked.begin();
            let mut left = WHOLE;
            while left > 0 {
                stream.reserve_capacity(left.min(64 << 10));
                let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
                let Some(Ok(room)) = room else { return };
                let piece = room.min(left);
                stream.send_data(vec![b'x'; piece].into(), false).unwrap();
                left -= piece;
                counted.fetch_add(piece, Ordering::SeqCst);
            }
            stream.send_data(Bytes::new(), true).unwrap();
        }
    });
    let (_api, ingress) = before(&backend.url());
    let mut slow = ingress.caller();
    let socket = socket2::SockRef::from(slow.stream());
    socket.set_recv_buffer_size(64 << 10).unwrap();
    slow.send(format!("GET /slow HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let head = slow.head();
    let stuck = settles(&sent);
    assert!(
        stuck < WHOLE / 2,
        "{stuck} bytes were taken from the backend"
    );
    assert_eq!(ingress.get(BLOG, "/").expect(200).text(), "quick");
    assert_eq!(backend.opened(), 1);
    assert_eq!(slow.try_body(&head).unwrap().len(), WHOLE);
}

#[test]
fn an_answer_comes_through_before_the_end_of_the_upload() {
    let backend = Http2Backend::scripted(async |mut asked: Asked| {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::FORBIDDEN;
        let mut stream = asked.respond.send_response(response, false).unwrap();
        stream.send_data(Bytes::from("no"), true).unwrap();
        drop(stream);
        // The body of the request is left where it is, and the stream reset.
    });
    let (_api, ingress) = before(&backend.url());
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 1000000\r\n\r\nsome of it"
    ));
    assert_eq!(caller.reply().expect(403).text(), "no");
}

#[test]
fn a_client_that_leaves_resets_its_stream_within_a_second() {
    let resets = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&resets);
    let backend = Http2Backend::scripted(move |mut asked: Asked| {
        let counted = Arc::clone(&counted);
        async move {
            match asked.target().as_str() {
                "/fine" => return asked.answer("fine"),
                "/stream" => {
                    let mut stream = asked.begin();
                    stream.send_data(Bytes::from("x"), false).unwrap();
                    let reset = std::future::poll_fn(|context| stream.poll_reset(context));
                    assert_eq!(reset.await.unwrap(), Reason::CANCEL);
                }
                _ => assert_eq!(asked.reset().await, Reason::CANCEL),
            }
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (_api, ingress) = before(&backend.url());
    for (index, target) in ["/wait", "/stream", "/upload"].into_iter().enumerate() {
        let mut caller = ingress.caller();
        let length = if target == "/upload" { 100 } else { 0 };
        caller.send(format!(
            "POST {target} HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {length}\r\n\r\n"
        ));
        eventually("it arrives", || backend.seen().len() == index + 1);
        if target == "/stream" {
            caller.head();
        }
        let left = Instant::now();
        drop(caller);
        eventually("the backend sees it", || {
            resets.load(Ordering::SeqCst) == index + 1
        });
        assert!(left.elapsed() < Duration::from_secs(1), "{target}");
    }
    assert_eq!(ingress.get(BLOG, "/fine").expect(200).text(), "fine");
    assert_eq!(backend.opened(), 1, "the connection was not harmed");
}

#[test]
fn a_server_that_speaks_no_http2_is_a_502_and_a_silent_one_a_504() {
    let garbage = Frames::scripted(|stream, _| {
        let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        while next_request(stream).is_some() {}
    });
    let (_api, ingress) = before(&garbage.url());
    ingress.get(BLOG, "/").expect(502);

    let silent = Frames::scripted(|stream, _| while next_request(stream).is_some() {});
    let (_api, ingress) = before_with(&silent.url(), |config| {
        config.timeouts.connect = Duration::from_millis(100);
    });
    ingress.get(BLOG, "/").expect(504);
    ingress.get(BLOG, "/").expect(504);
}

#[test]
fn whoever_waits_for_a_connection_that_fails_learns_of_it_with_the_first() {
    let silent = Frames::scripted(|stream, _| while next_request(stream).is_some() {});
    let (_api, ingress) = before_with(&silent.url(), |config| {
        config.timeouts.connect = Duration::from_secs(1);
    });
    let callers: Vec<_> = (0..10).map(|_| get(&ingress, "/")).collect();
    for mut caller in callers {
        caller.reply().expect(504);
    }
    assert!(silent.opened() < 10, "{} connections", silent.opened());
}

#[test]
fn a_response_that_is_none_of_http2_is_a_502() {
    for (fields, flags) in [
        (&[("connection", "close")][..], END_STREAM),
        (&[("transfer-encoding", "chunked")], END_STREAM),
        (&[("content-length", "5")], END_STREAM),
        (&[("content-length", "x")], END_STREAM),
        (&[("content-length", "5"), ("content-length", "6")], 0),
        (&[("Upper", "x")], END_STREAM),
        (&[("x\"y", "x")], END_STREAM),
    ] {
        let block = head(fields);
        let frames = Frames::scripted(move |stream, _| {
            let Some(id) = greet(stream) else { return };
            let _gone = stream.write_all(&frame(HEADERS, END_HEADERS | flags, id, &block));
            while next_request(stream).is_some() {}
        });
        let (_api, ingress) = before(&frames.url());
        let reply = ingress.get(BLOG, "/");
        assert_eq!(reply.status(), 502, "{fields:?}");
    }
}

#[test]
fn too_many_fields_over_http2_are_a_502() {
    let backend = Http2Backend::scripted(async |mut asked: Asked| {
        let mut response = Response::new(());
        for number in 0..300 {
            let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static("x"));
        }
        asked.respond.send_response(response, true).unwrap();
    });
    let (_api, ingress) = before(&backend.url());
    ingress.get(BLOG, "/").expect(502);
}

#[test]
fn a_body_of_another_length_than_said_is_a_cut() {
    for body in ["four", "sixsix"] {
        let frames = Frames::scripted(move |stream, _| {
            let Some(id) = greet(stream) else { return };
            let block = head(&[("content-length", "5")]);
            let _gone = stream.write_all(&frame(HEADERS, END_HEADERS, id, &block));
            let _gone = stream.write_all(&frame(DATA, END_STREAM, id, body.as_bytes()));
            while next_request(stream).is_some() {}
        });
        let (_api, ingress) = before(&frames.url());
        let mut caller = get(&ingress, "/");
        // Whether the head was passed on before the body was seen to be wrong is a matter of time.
        if let Ok(reply) = caller.try_reply() {
            assert_eq!(reply.status(), 502, "{body}");
        }
    }
}

#[test]
fn interim_responses_stay_here_and_have_an_end() {
    let frames = Frames::scripted(|stream, number| {
        let Some(id) = greet(stream) else { return };
        // `:status` as a literal.
        let early = [&[0x08, 3][..], b"103"].concat();
        let interim = if number == 1 { 3 } else { 20 };
        for _ in 0..interim {
            stream
                .write_all(&frame(HEADERS, END_HEADERS, id, &early))
                .unwrap();
        }
        let flags = END_HEADERS | END_STREAM;
        let _gone = stream.write_all(&frame(HEADERS, flags, id, &head(&[("x-said", "hello")])));
    });
    let (_api, ingress) = before(&frames.url());
    let reply = ingress.get(BLOG, "/").expect(200);
    assert_eq!(reply.field("x-said"), Some("hello"));
    // That to the API is idle at the most.
    eventually("the connection is gone", || {
        ingress.metric("m3o_ingress_pool_idle") <= 1.0
    });
    ingress.get(BLOG, "/").expect(502);
}

#[test]
fn a_flood_of_frames_ends_the_connection_alone() {
    let frames = Frames::scripted(|stream, number| {
        let Some(id) = greet(stream) else { return };
        if number == 1 {
            let pings = frame(PING, 1, 0, &[0; 8]).repeat(1000);
            while stream.write_all(&pings).is_ok() {}
            return;
        }
        let flags = END_HEADERS | END_STREAM;
        let _gone = stream.write_all(&frame(HEADERS, flags, id, &head(&[])));
        while next_request(stream).is_some() {}
    });
    let (_api, ingress) = before(&frames.url());
    ingress.get(BLOG, "/").expect(502);
    ingress.get(BLOG, "/").expect(200);
}

#[test]
fn a_server_that_does_not_answer_any_more_is_noticed_while_a_request_waits() {
    let frames = Frames::scripted(|stream, number| {
        let Some(id) = greet(stream) else { return };
        let flags = END_HEADERS | END_STREAM;
        let _gone = stream.write_all(&frame(HEADERS, flags, id, &head(&[])));
        if number == 1 {
            // Requests and pings arrive, and nothing comes back.
            while next_request(stream).is_some() {}
            return;
        }
        while next_request(stream).is_some() {}
    });
    let (_api, ingress) = before_with(&frames.url(), |config| {
        config.timeouts.connect = Duration::from_millis(200);
    });
    ingress.get(BLOG, "/").expect(200);
    // The kept one is dead: that is found out, and the request goes over another.
    ingress.get(BLOG, "/").expect(200);
    assert_eq!(frames.opened(), 2);
}

#[test]
fn over_tls_the_server_picks_what_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    for (alpn, expected) in [
        (&["h2", "http/1.1"][..], "HTTP/2"),
        (&["http/1.1"], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let offers = Offers {
            ca: Some(&ca),
            alpn,
            ..Offers::default()
        };
        let backend = Http2Backend::offering(&offers, async |asked: Asked| asked.answer("HTTP/2"));
        let (_api, ingress) = before_with(&backend.url(), |config| {
            config.backends.ca = ca.to_str().unwrap().to_owned();
        });
        for _ in 0..2 {
            assert_eq!(
                ingress.get(BLOG, "/").expect(200).text(),
                expected,
                "{alpn:?}"
            );
        }
        if expected == "HTTP/2" {
            assert_eq!(backend.opened(), 1);
            assert_eq!(backend.seen()[0].uri().scheme_str(), Some("https"));
        }
    }
}

#[test]
fn a_websocket_to_a_server_that_speaks_both_goes_over_http1() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let offers = Offers {
        ca: Some(&ca),
        alpn: &["h2", "http/1.1"],
        ..Offers::default()
    };
    let backend = Http2Backend::offering(&offers, async |asked: Asked| asked.answer("HTTP/2"));
    let (_api, ingress) = before_with(&backend.url(), |config| {
        config.backends.ca = ca.to_str().unwrap().to_owned();
    });
    assert_eq!(ingress.get(BLOG, "/").expect(200).text(), "HTTP/2");
    let mut caller = ingress.caller();
    caller.send(WEBSOCKET);
    assert_eq!(caller.head().status(), 101);
    caller.send("echo");
    assert_eq!(caller.exactly(4), b"echo");
    assert_eq!(ingress.get(BLOG, "/").expect(200).text(), "HTTP/2");
    assert_eq!(backend.opened(), 2);
}

#[test]
fn a_websocket_to_an_h2c_backend_that_takes_some_goes_over_a_stream() {
    let offers = Offers {
        websockets: true,
        ..Offers::default()
    };
    let backend = Http2Backend::offering(&offers, async |mut asked: Asked| {
        let protocol = asked.request.extensions().get::<h2::ext::Protocol>();
        let Some(protocol) = protocol else {
            return asked.answer("no WebSocket");
        };
        assert_eq!(protocol.as_str(), "websocket");
        if asked.target() == "/refused" {
            let mut response = Response::new(());
            *response.status_mut() = http::StatusCode::FORBIDDEN;
            asked.respond.send_response(response, true).unwrap();
            return;
        }
        let mut stream = asked.begin();
        while let Some(piece) = asked.piece().await {
            stream.send_data(piece, false).unwrap();
        }
        stream.send_data(Bytes::from("bye"), true).unwrap();
    });
    let (_api, ingress) = before(&backend.url());
    assert_eq!(ingress.get(BLOG, "/").expect(200).text(), "no WebSocket");
    let mut caller = ingress.caller();
    caller.send(WEBSOCKET);
    let head = caller.head();
    assert_eq!(head.status(), 101);
    assert_eq!(head.field("upgrade"), Some("websocket"));
    let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    assert_eq!(head.field("sec-websocket-accept"), Some(accept));
    for message in ["one", "two"] {
        caller.send(message);
        assert_eq!(caller.exactly(3), message.as_bytes());
    }
    let seen = backend.seen().pop().unwrap();
    assert_eq!(
        (seen.method().as_str(), seen.uri().path()),
        ("CONNECT", "/ws")
    );
    assert!(!seen.headers().contains_key("sec-websocket-key"));
    assert_eq!(seen.headers()["sec-websocket-version"], "13");
    caller.stream().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(caller.rest(), b"bye");

    let mut caller = ingress.caller();
    caller.send(WEBSOCKET.replace("/ws", "/refused"));
    caller.reply().expect(403);
    assert_eq!(backend.opened(), 1);
}

#[test]
fn a_websocket_to_an_h2c_backend_that_takes_none_is_a_502_that_says_why() {
    let backend = Http2Backend::scripted(async |asked: Asked| asked.answer("HTTP/2"));
    let (_api, ingress) = before(&backend.url());
    let mut caller = ingress.caller();
    caller.send(WEBSOCKET);
    let reply = caller.reply().expect(502);
    assert!(reply.text().contains("HTTP/2"), "{}", reply.text());
    caller.send(WEBSOCKET.replace("websocket\r", "my-protocol\r"));
    caller.reply().expect(502);
    assert_eq!(backend.seen().len(), 0);
}

#[test]
fn a_shared_connection_that_is_idle_is_closed_in_time_and_counted_until_then() {
    let backend = Http2Backend::scripted(async |asked: Asked| asked.answer("fine"));
    let (_api, ingress) = before_with(&backend.url(), |config| {
        config.timeouts.pool = Duration::from_millis(300);
    });
    let idle = || ingress.metric("m3o_ingress_pool_idle");
    ingress.get(BLOG, "/").expect(200);
    eventually("it is closed", || backend.closed() == 1);
    // That to the API is idle at the most.
    eventually("it is not counted", || idle() <= 1.0);
    ingress.get(BLOG, "/").expect(200);
    assert_eq!(backend.opened(), 2);
}

#[test]
fn beyond_the_cap_in_all_a_shared_connection_is_closed_too() {
    let one = Http2Backend::scripted(async |asked: Asked| asked.answer("one"));
    let two = Http2Backend::scripted(async |asked: Asked| asked.answer("two"));
    let api = TestApi::new();
    api.resolves("app/Resolve", &[("one", &one.url()), ("two", &two.url())]);
    let ingress = TestIngress::before_with(&api, |config| config.backends.connections = 1);
    ingress.get("one.m3o.app", "/").expect(200);
    ingress.get("two.m3o.app", "/").expect(200);
    eventually("the older one is closed", || one.closed() == 1);
    assert_eq!(ingress.metric("m3o_ingress_pool_idle"), 1.0);
}
