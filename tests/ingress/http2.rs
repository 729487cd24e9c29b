//! Clients that speak HTTP/2: the same house through another door.

use bytes::Bytes;

use crate::harness::backend::{ok, response};
use crate::harness::front::{BLOG, Front, check_error};
use crate::harness::http2::{self, Frames, Whole, ask, connect, get, post, run, send_all, whole};
use crate::harness::{Caller, TestApi, TestBackend, TestIngress, eventually};

mod faults;
mod floods;
mod limits;
mod malformed;
mod streams;
mod tunnels;

#[test]
fn http2_with_prior_knowledge_is_served_beside_http1_on_one_port() {
    let front = Front::scripted(|answering| {
        answering.body();
        answering.write(response(
            "200 OK",
            "X-Backend: yes\r\nKeep-Alive: timeout=5\r\n",
            "hello",
        ));
    });
    let answer = run(async {
        let client = connect(front.ingress.address).await;
        ask(&client, get(BLOG, "/a?b=c")).await
    });
    assert_eq!((answer.status(), answer.text()), (200, "hello"));
    assert_eq!(answer.field("x-backend"), Some("yes"));
    assert_eq!(answer.field("content-length"), Some("5"));
    assert_eq!(answer.field("keep-alive"), None);
    assert!(answer.field("date").is_some());
    assert!(answer.field("x-request-id").is_some());

    let seen = front.backend.only();
    assert_eq!(seen.head.first, "GET /a?b=c HTTP/1.1");
    assert_eq!(seen.field("Via"), Some("2 m3o-ingress"));
    assert_eq!(seen.field("X-Forwarded-Host"), Some(BLOG));
    assert_eq!(seen.field("X-Forwarded-Proto"), Some("http"));
    let host = front.backend.address.to_string();
    assert_eq!(seen.field("Host"), Some(&*host));
    front.serves_others();
    eventually("both are logged with their versions", || {
        let lines = front.ingress.access_lines();
        ["2", "1.1"].iter().all(|version| {
            lines
                .iter()
                .any(|line| line["network.protocol.version"] == *version)
        })
    });
}

#[test]
fn cookies_that_came_in_crumbs_are_one_field() {
    let front = Front::new();
    run(async {
        let client = connect(front.ingress.address).await;
        let mut request = get(BLOG, "/");
        for crumb in ["a=1", "b=2", "c=3"] {
            request
                .headers_mut()
                .append("cookie", crumb.parse().unwrap());
        }
        assert_eq!(ask(&client, request).await.status(), 200);
    });
    assert_eq!(front.backend.only().field("Cookie"), Some("a=1; b=2; c=3"));
}

#[test]
fn what_we_answer_ourselves_is_the_same_over_http2() {
    let front = Front::new();
    run(async {
        let client = connect(front.ingress.address).await;
        let missing = ask(&client, get("nobody.m3o.app", "/")).await;
        let reply = reply_of(&missing);
        check_error(&reply, &[404], "an app that is not there");
        let connect = http::Request::builder()
            .method("CONNECT")
            .uri(BLOG)
            .body(())
            .unwrap();
        check_error(
            &reply_of(&ask(&client, connect).await),
            &[501],
            "a plain CONNECT",
        );
        let trace = http::Request::builder()
            .method("TRACE")
            .uri(format!("http://{BLOG}/"));
        let trace = ask(&client, trace.body(()).unwrap()).await;
        check_error(&reply_of(&trace), &[501], "TRACE");
    });
    assert!(front.backend.seen().is_empty());
}

/// The same as an answer over HTTP/1.1.
fn reply_of(answer: &Whole) -> crate::harness::Reply {
    let mut reply = crate::harness::Reply {
        body: answer.body.clone(),
        ..Default::default()
    };
    reply.head.first = format!("HTTP/1.1 {} x", answer.status());
    for (name, value) in answer.head.headers() {
        let value = value.to_str().unwrap().to_owned();
        reply.head.fields.push((name.to_string(), value));
    }
    reply
}

#[test]
fn an_answer_without_a_body_ends_with_its_head() {
    let front = Front::scripted(|answering| {
        answering.body();
        let answer = match &*answering.target() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
        };
        answering.write(answer);
    });
    run(async {
        let client = connect(front.ingress.address).await;
        for (method, path, status, length) in [
            ("HEAD", "/", 200, Some("7")),
            ("GET", "/204", 204, None),
            ("GET", "/304", 304, Some("7")),
        ] {
            let request = http::Request::builder()
                .method(method)
                .uri(format!("http://{BLOG}{path}"));
            let mut client = client.clone().ready().await.unwrap();
            let (answer, _) = client
                .send_request(request.body(()).unwrap(), true)
                .unwrap();
            let answer = answer.await.unwrap();
            assert!(answer.body().is_end_stream(), "{path}");
            let answer = whole(answer).await.unwrap();
            assert_eq!(answer.status(), status);
            assert_eq!(answer.field("content-length"), length, "{path}");
        }
    });
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    let front = Front::scripted(|answering| {
        answering.body();
        answering.write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n\
             5\r\nhello\r\n0\r\ngrpc-status: 0\r\nContent-Length: 9\r\n\r\n",
        );
    });
    run(async {
        let client = connect(front.ingress.address).await;
        let mut request = post(BLOG, "/pkg.Service/Call");
        let headers = request.headers_mut();
        headers.insert("content-type", "application/grpc".parse().unwrap());
        headers.insert("te", "trailers".parse().unwrap());
        let mut client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(request, false).unwrap();
        send_all(&mut body, &[b'x'; 300_000], false).await.unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        trailers.insert("x-forwarded-for", "9.9.9.9".parse().unwrap());
        body.send_trailers(trailers).unwrap();
        let answer = whole(answer.await.unwrap()).await.unwrap();
        assert_eq!(answer.text(), "hello");
        assert_eq!(answer.trailers.get("grpc-status").unwrap(), "0");
        assert_eq!(answer.trailers.len(), 1, "{:?}", answer.trailers);
    });
    let seen = front.backend.only();
    assert_eq!(seen.body.len(), 300_000);
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    assert_eq!(seen.field("TE"), Some("trailers"));
}

#[test]
fn a_client_that_waits_for_leave_to_send_over_http2_gets_it() {
    let front = Front::new();
    let mut frames = Frames::connect(front.ingress.address);
    let mut fields = http2::request("POST", BLOG, "/");
    fields.extend([("expect", "100-continue"), ("content-length", "4")]);
    frames.send(
        http2::HEADERS,
        http2::END_HEADERS,
        1,
        &http2::block(&fields),
    );
    assert_eq!(frames.status(1), 100);
    frames.send(http2::DATA, http2::END_STREAM, 1, b"body");
    assert_eq!(frames.status(1), 200);
    let seen = front.backend.only();
    assert_eq!((&*seen.body, seen.field("Expect")), (&b"body"[..], None));
}

#[test]
fn a_call_of_the_api_over_http2_is_one_of_the_platform() {
    let ingress = TestIngress::embedded();
    run(async {
        let client = connect(ingress.address).await;
        let mut request = post("localhost", "/v1/helloworld/Call");
        let headers = request.headers_mut();
        headers.insert("authorization", "Bearer dev".parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        let mut client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(request, false).unwrap();
        body.send_data(Bytes::from(r#"{"name":"Ann"}"#), true)
            .unwrap();
        let answer = whole(answer.await.unwrap()).await.unwrap();
        assert_eq!(answer.text(), r#"{"message":"Hello Ann"}"#);
    });
}

#[test]
fn a_slow_or_partial_preface_is_a_head_that_does_not_come() {
    let api = TestApi::with_app("blog", "http://127.0.0.1:9");
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.header = std::time::Duration::from_millis(200);
    });
    for part in [1, 3, 14, 18, 23] {
        let mut caller = Caller::connect(ingress.address);
        caller.send(&http2::PREFACE[..part]);
        assert_eq!(caller.reply().status(), 408, "{part}");
        caller.rest();
    }
    let mut frames = Frames::silent(ingress.address);
    frames.send_bytes(http2::PREFACE);
    assert_eq!(frames.end(), Some(http2::ENHANCE_YOUR_CALM));
}

#[test]
fn what_only_begins_like_a_preface_is_http1() {
    let front = Front::new();
    let mut caller = front.ingress.caller();
    caller.send("P");
    caller.send("OST / HTTP/1.1\r\nHost: blog.m3o.app\r\nContent-Length: 0\r\n\r\n");
    caller.reply().expect(200);
    for bad in [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PRI * HTTP/2.0\r\nHost: blog.m3o.app\r\n\r\n",
    ] {
        let mut caller = front.ingress.caller();
        caller.send(bad);
        assert_eq!(caller.reply().status(), 505, "{bad:?}");
    }
    // After a request of HTTP/1.1 the preface is none.
    let mut caller = front.ingress.caller();
    caller.get(BLOG, "/");
    caller.send(http2::PREFACE);
    assert_eq!(caller.reply().status(), 505);
    front.serves_others();
}

#[test]
fn a_backend_that_breaks_off_resets_its_stream_alone() {
    let front = Front::scripted(|answering| {
        answering.body();
        answering.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        answering.close();
    });
    let mut frames = Frames::connect(front.ingress.address);
    frames.get(1, BLOG, "/");
    assert_eq!(frames.status(1), 200);
    assert_eq!(frames.until(http2::DATA, 1).payload, b"half");
    assert_eq!(frames.reset(1), http2::INTERNAL_ERROR);
    frames.get(3, BLOG, "/other/x");
    assert_eq!(frames.status(3), 200);
}

#[test]
fn a_hundred_requests_at_once_get_their_own_answers() {
    let backend = TestBackend::scripted(|answering| {
        answering.body();
        let target = answering.target();
        answering.write(ok(&target));
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    run(async {
        let client = connect(ingress.address).await;
        ask(&client, get(BLOG, "/first")).await;
        let mut answers = Vec::new();
        for number in 0..100 {
            let mut client = client.clone().ready().await.unwrap();
            let (answer, _) = client
                .send_request(get(BLOG, &format!("/{number}")), true)
                .unwrap();
            answers.push(answer);
        }
        for (number, answer) in answers.into_iter().enumerate() {
            let answer = whole(answer.await.unwrap()).await.unwrap();
            assert_eq!(answer.text(), format!("/{number}"));
        }
    });
}
