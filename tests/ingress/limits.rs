//! Every limit in size, number and time, and what happens at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::backend::ok;
use crate::harness::{Answering, Caller, TestApi, TestBackend, TestIngress, eventually};
use m3o_ingress::config::Config;

const BLOG: &str = "blog.m3o.app";

struct Blog {
    backend: TestBackend,
    _api: TestApi,
    ingress: TestIngress,
}

fn blog(adjust: impl FnOnce(&mut Config)) -> Blog {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, adjust);
    Blog {
        backend,
        _api: api,
        ingress,
    }
}

#[test]
fn a_target_over_the_limit_is_a_414() {
    let blog = blog(|config| config.limits.uri = 1000);
    let long = |length: usize| format!("/{}", "x".repeat(length - 1));
    blog.ingress.get(BLOG, &long(1000)).expect(200);
    blog.ingress.get(BLOG, &long(1001)).expect(414);
    let with_query = format!("/?{}", "x".repeat(999));
    blog.ingress.get(BLOG, &with_query).expect(414);
    assert_eq!(blog.backend.seen().len(), 1);
}

#[test]
fn a_target_of_8000_bytes_is_taken_by_default() {
    let blog = blog(|_| {});
    let target = format!("/{}", "x".repeat(7999));
    blog.ingress.get(BLOG, &target).expect(200);
}

#[test]
fn a_head_over_the_limit_is_a_431() {
    let blog = blog(|config| config.limits.header = 4096);
    let field = |length: usize| format!("X-Long: {}\r\n", "x".repeat(length));
    let mut caller = blog.ingress.caller();
    caller.ask("GET", "/", BLOG, &field(3500)).expect(200);
    let mut caller = blog.ingress.caller();
    caller.ask("GET", "/", BLOG, &field(5000)).expect(431);
    assert_eq!(blog.backend.seen().len(), 1);
}

#[test]
fn too_many_fields_are_a_431() {
    let blog = blog(|config| config.limits.headers = 20);
    let fields = |count: usize| "X-A: b\r\n".repeat(count);
    blog.ingress
        .caller()
        .ask("GET", "/", BLOG, &fields(19))
        .expect(200);
    blog.ingress
        .caller()
        .ask("GET", "/", BLOG, &fields(20))
        .expect(431);
    assert_eq!(blog.backend.seen().len(), 1);
}

#[test]
fn a_body_that_is_declared_too_large_is_a_413_before_the_backend_is_asked() {
    let blog = blog(|config| config.limits.body = 10);
    let mut caller = blog.ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 11\r\n\r\n"
    ));
    caller.reply().expect(413);
    caller.rest();
    assert_eq!(blog.backend.opened(), 0);
    let mut caller = blog.ingress.caller();
    caller.post(BLOG, "/", "", &[b'x'; 10]).expect(200);
}

#[test]
fn a_body_that_becomes_too_large_is_a_413_and_never_whole_at_the_backend() {
    let whole = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&whole);
    let backend = TestBackend::scripted(move |answering| {
        while let Ok(chunk) = answering.chunk() {
            if chunk.is_none() {
                ended.store(true, Ordering::SeqCst);
                break;
            }
        }
        answering.close();
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| config.limits.body = 10);
    let mut caller = ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n\
         8\r\nxxxxxxxx\r\n8\r\nxxxxxxxx\r\n0\r\n\r\n"
    ));
    caller.reply().expect(413);
    caller.rest();
    eventually("the backend is let go", || {
        backend.closed() == backend.opened()
    });
    assert!(
        !whole.load(Ordering::SeqCst),
        "it looks whole to the backend"
    );
}

#[test]
fn a_chunk_that_is_announced_larger_than_the_limit_is_a_413_at_once() {
    let blog = blog(|config| config.limits.body = 10);
    for sent in ["b\r\n", "ffffffffffffffff\r\nx", "8\r\nxxxxxxxx\r\n3\r\n"] {
        let mut caller = blog.ingress.caller();
        caller.send(format!(
            "POST / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n{sent}"
        ));
        caller.reply().expect(413);
        caller.rest();
    }
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    let backend = TestBackend::scripted(|answering| {
        answering.write("HTTP/1.1 200 OK\r\n\r\n");
        while answering.try_write([b'x'; 64 << 10]).is_ok() {}
        answering.close();
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.response = Duration::from_millis(150);
    });
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("the backend is let go", || backend.closed() == 1);
}

#[test]
fn no_limit_on_a_body_is_none() {
    let blog = blog(|config| config.limits.body = 0);
    let body = vec![b'x'; 3 << 20];
    blog.ingress.caller().post(BLOG, "/", "", &body).expect(200);
    assert_eq!(blog.backend.only().body.len(), body.len());
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_a_408() {
    let blog = blog(|config| config.timeouts.header = Duration::from_millis(150));
    for begun in ["G", "GET / HTTP/1.1\r\nHost: blog.m3o.app\r\n"] {
        let mut caller = blog.ingress.caller();
        caller.send(begun);
        let reply = caller.reply().expect(408);
        assert!(reply.field("X-Request-Id").is_some());
        assert_eq!(reply.json()["code"], 408);
        assert_eq!(caller.rest(), b"");
    }
    let mut caller = blog.ingress.caller();
    caller.get(BLOG, "/").expect(200);
    caller.send("GET / HT");
    caller.reply().expect(408);
}

#[test]
fn what_was_no_request_is_logged_and_counted_all_the_same() {
    let blog = blog(|config| config.timeouts.header = Duration::from_millis(150));
    for (bytes, status) in [("nonsense\r\n\r\n", 400), ("GET / HT", 408)] {
        let mut caller = blog.ingress.caller();
        caller.send(bytes);
        let reply = caller.reply().expect(status);
        let id = reply.field("X-Request-Id").map(str::to_owned);
        eventually("it is logged", || {
            let lines = blog.ingress.access_lines();
            lines.iter().any(|line| {
                line["request_id"].as_str() == id.as_deref()
                    && line["http.response.status_code"] == status
                    && line.get("url.path").is_none()
            })
        });
    }
    for status in [400, 408] {
        let counted = format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"_OTHER\",\
             http_response_status_code=\"{status}\",http_route=\"unknown\",\
             network_protocol_version=\"\",url_scheme=\"http\"}}"
        );
        assert_eq!(blog.ingress.metric(&counted), 1.0);
    }
}

#[test]
fn a_head_that_comes_drop_by_drop_is_a_408_all_the_same() {
    let blog = blog(|config| config.timeouts.header = Duration::from_millis(300));
    let mut caller = blog.ingress.caller();
    caller.send("GET / HTTP/1.1\r\nX-Slow: ");
    caller
        .stream()
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    eventually("the ingress has had enough", || {
        let _refused = caller.try_send("x");
        match caller.try_reply() {
            Ok(reply) => reply.status() == 408,
            Err(error) => !crate::harness::caller::timed_out(&error),
        }
    });
    assert!(blog.backend.seen().is_empty());
}

#[test]
fn a_body_that_stops_moving_is_a_408() {
    let blog = blog(|config| config.timeouts.body = Duration::from_millis(150));
    let mut caller = blog.ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 100\r\n\r\nstart"
    ));
    caller.reply().expect(408);
    caller.rest();
    eventually("the backend is let go", || blog.backend.closed() == 1);
}

#[test]
fn a_form_that_stops_moving_is_a_408() {
    let api = TestApi::new();
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.body = Duration::from_millis(150);
    });
    let mut caller = ingress.caller();
    caller.send(
        "POST /api/a/b HTTP/1.1\r\nHost: any.example\r\nAuthorization: Bearer k\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\na=b",
    );
    caller.reply().expect(408);
    assert!(api.server().seen().is_empty());
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let blog = blog(|config| config.timeouts.idle = Duration::from_millis(150));
    let mut fresh = blog.ingress.caller();
    assert_eq!(fresh.rest(), b"");
    let mut used = blog.ingress.caller();
    used.get(BLOG, "/").expect(200);
    assert_eq!(used.rest(), b"");
}

#[test]
fn a_slow_answer_is_not_an_idle_connection() {
    let gate = crate::harness::Gate::default();
    let held = gate.clone();
    let backend = TestBackend::scripted(move |answering| {
        held.wait();
        answering.write(ok("late"));
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.idle = Duration::from_millis(100);
        config.timeouts.header = Duration::from_millis(100);
    });
    let mut slow = ingress.caller();
    slow.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("the backend is asked", || backend.seen().len() == 1);
    // Another connection that is idle from now on shows that the limit has passed.
    assert_eq!(ingress.caller().rest(), b"");
    gate.open();
    assert_eq!(slow.reply().expect(200).text(), "late");
}

#[test]
fn a_backend_without_a_response_head_is_a_504() {
    let backend = TestBackend::scripted(Answering::wait_for_close);
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.response = Duration::from_millis(150);
    });
    ingress.get(BLOG, "/").expect(504);
}

#[test]
fn a_slow_upload_does_not_run_into_the_limit_of_the_response() {
    let blog = blog(|config| config.timeouts.response = Duration::from_millis(400));
    let mut caller = blog.ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 40\r\n\r\n"
    ));
    let began = tokio::time::Instant::now();
    let mut sent = 0;
    eventually(
        "the upload is whole, and took longer than the limit",
        || {
            let due = began.elapsed().as_millis() / 25;
            while sent < 39 && sent < due {
                caller.send("x");
                sent += 1;
            }
            due > 39
        },
    );
    caller.send("x");
    caller.reply().expect(200);
    assert_eq!(blog.backend.only().body.len(), 40);
}

#[test]
fn connections_over_the_limit_are_turned_away() {
    let blog = blog(|config| config.limits.connections = 3);
    check_turned_away(&blog);
}

#[test]
fn connections_of_one_address_over_the_limit_are_turned_away() {
    let blog = blog(|config| config.limits.per_peer = 3);
    check_turned_away(&blog);
}

fn check_turned_away(blog: &Blog) {
    let mut callers: Vec<Caller> = (0..3).map(|_| blog.ingress.caller()).collect();
    for caller in &mut callers {
        caller.get(BLOG, "/").expect(200);
    }
    let mut refused = blog.ingress.caller();
    let reply = refused.reply().expect(503);
    assert!(reply.field("Retry-After").is_some());
    assert!(reply.field("X-Request-Id").is_some());
    assert_eq!(reply.json()["code"], 503);
    assert_eq!(refused.rest(), b"");
    for caller in &mut callers {
        caller.get(BLOG, "/").expect(200);
    }
    assert_eq!(blog.ingress.metric("m3o_ingress_connections"), 3.0);
    callers.pop();
    eventually("its place is free", || {
        blog.ingress.metric("m3o_ingress_connections") == 2.0
    });
    blog.ingress.get(BLOG, "/").expect(200);
}

#[test]
fn a_full_front_door_does_not_shut_out_the_operator() {
    let blog = blog(|config| config.limits.connections = 1);
    let mut only = blog.ingress.caller();
    only.get(BLOG, "/").expect(200);
    blog.ingress.caller().reply().expect(503);
    assert_eq!(blog.ingress.metric("m3o_ingress_connections"), 1.0);
}

#[test]
fn an_upload_that_outlives_its_answer_is_no_head() {
    let backend = TestBackend::scripted(|answering| {
        answering.write(ok("early"));
        answering.wait_for_close();
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.header = Duration::from_millis(50);
        config.timeouts.body = Duration::from_millis(500);
    });
    let mut caller = ingress.caller();
    caller.send("POST / HTTP/1.1\r\nHost: blog.m3o.app\r\nContent-Length: 8\r\n\r\n1");
    assert_eq!(caller.reply().expect(200).text(), "early");
    // Whether it is still taken or not: it is body, and gets no second answer.
    let _ = caller.try_send("2");
    assert_eq!(String::from_utf8_lossy(&caller.rest()), "");
}
