//! From an app's id to its backend: what the API is asked, what is remembered, what its failures do.

use std::time::Duration;

use crate::harness::api::{error, json_response};
use crate::harness::backend::{ok, response};
use crate::harness::{Gate, TestApi, TestBackend, TestIngress, eventually};

const APP: &str = "app/Resolve";

#[test]
fn an_app_is_resolved_with_our_own_token_and_its_id_alone() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);

    let fields = "Authorization: Bearer of-the-client\r\nCookie: a=b\r\n";
    let reply = ingress.caller().ask("GET", "/", "blog.m3o.app", fields);
    assert_eq!(reply.expect(200).text(), "hello");

    let call = api.only();
    assert_eq!(call.head.first, "POST /v1/app/Resolve HTTP/1.1");
    assert_eq!(call.field("Authorization"), Some("Bearer own-token"));
    assert_eq!(call.field("Content-Type"), Some("application/json"));
    assert_eq!(call.field("Host"), Some(&*api.address().to_string()));
    assert_eq!(call.field("Cookie"), None);
    assert_eq!(call.text(), r#"{"id":"blog"}"#);
}

#[test]
fn the_token_reaches_nobody_but_the_api() {
    let backend = TestBackend::answering(ok(""));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    let reply = ingress.get("blog.m3o.app", "/").expect(200);
    assert!(!String::from_utf8_lossy(&reply.head.raw).contains("own-token"));
    let seen = String::from_utf8_lossy(&backend.only().head.raw).into_owned();
    assert!(!seen.contains("own-token"), "{seen}");
    eventually("the request is logged", || !ingress.log().is_empty());
    assert!(!ingress.log().contains("own-token"));
}

#[test]
fn the_address_of_the_api_may_have_a_path() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestBackend::answering(json_response(&format!(r#"{{"url":"{}"}}"#, backend.url())));
    let ingress = TestIngress::before_address(&format!("{}/m3o/", api.url()), |_| {});
    ingress.get("blog.m3o.app", "/").expect(200);
    assert_eq!(api.only().target(), "/m3o/v1/app/Resolve");
}

#[test]
fn an_app_is_resolved_once_for_many_requests() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    for host in ["blog.m3o.app", "BLOG.m3o.app", "blog.m3o.app.:80"] {
        ingress.get(host, "/").expect(200);
    }
    assert_eq!(api.calls(APP).len(), 1);
    let series =
        |result| format!(r#"m3o_ingress_resolve_cache_total{{kind="app",result="{result}"}}"#);
    assert_eq!(ingress.metric(&series("fresh")), 2.0);
    assert_eq!(ingress.metric(&series("miss")), 1.0);
}

#[test]
fn a_missing_app_is_a_404_and_remembered() {
    for status in ["404 Not Found", "400 Bad Request"] {
        let api = TestApi::new();
        api.says(APP, error(status, "secret detail"));
        let ingress = TestIngress::before(&api);
        for _ in 0..3 {
            let reply = ingress.get("nothere.m3o.app", "/").expect(404);
            assert_eq!(reply.json()["id"], "ingress.app");
            assert!(!reply.text().contains("secret detail"));
        }
        assert_eq!(api.calls(APP).len(), 1, "{status}");
    }
}

#[test]
fn a_missing_app_is_asked_for_again_when_it_was_remembered_long_enough() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::new();
    let ingress = TestIngress::before_with(&api, |config| {
        config.cache.negative = Duration::ZERO;
    });
    ingress.get("new.m3o.app", "/").expect(404);
    api.resolves(APP, &[("new", &backend.url())]);
    ingress.get("new.m3o.app", "/").expect(200);
}

#[test]
fn an_answer_that_makes_no_sense_is_a_502() {
    let backend = TestBackend::answering(ok("hello"));
    let good = format!(r#"{{"url":"{}"}}"#, backend.url());
    let answers = [
        response("302 Found", "Content-Type: application/json\r\n", &good),
        response("201 Created", "Content-Type: application/json\r\n", &good),
        response("200 OK", "Content-Type: text/html\r\n", "<html>hi</html>"),
        json_response("{}"),
        json_response(r#"{"url":""}"#),
        json_response(r#"{"url":7}"#),
        json_response(r#"{"url":"#),
        json_response(r#"{"url":"/relative"}"#),
        json_response(r#"{"url":"ftp://127.0.0.1/"}"#),
        json_response(r#"{"url":"file:///etc/passwd"}"#),
        json_response(r#"{"url":"javascript:alert(1)"}"#),
        json_response(r#"{"url":"http://user:password@127.0.0.1/"}"#),
        json_response(r#"{"url":"http://"}"#),
        response("200 OK", "", ""),
        response("204 No Content", "", ""),
        error("401 Unauthorized", "who are you"),
        error("403 Forbidden", "not you"),
        response(
            "302 Found",
            "Location: http://127.0.0.1:1/elsewhere\r\n",
            "",
        ),
        response(
            "308 Permanent Redirect",
            "Location: /v2/app/Resolve\r\n",
            "",
        ),
    ];
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    for answer in answers {
        api.says(APP, answer.clone());
        let reply = ingress.get("blog.m3o.app", "/");
        assert_eq!(reply.status(), 502, "{answer}");
        assert_eq!(reply.json()["detail"], "the app cannot be reached");
    }
    for call in api.server().seen() {
        assert_eq!(call.target(), "/v1/app/Resolve", "a redirect was followed");
    }
}

#[test]
fn why_the_api_makes_no_sense_is_in_the_log_alone() {
    let api = TestApi::new();
    api.says(APP, error("401 Unauthorized", "who are you"));
    let ingress = TestIngress::before(&api);
    ingress.get("blog.m3o.app", "/").expect(502);
    eventually("the request is logged", || {
        !ingress.access_lines().is_empty()
    });
    let line = ingress.access_lines().remove(0);
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.contains("own token"), "{cause}");
}

#[test]
fn an_api_that_cannot_answer_is_a_503_that_says_when_to_come_back() {
    for status in [
        "429 Too Many Requests",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
    ] {
        let api = TestApi::new();
        api.says(APP, error(status, "secret detail"));
        let ingress = TestIngress::before(&api);
        let reply = ingress.get("blog.m3o.app", "/").expect(503);
        assert!(reply.field("Retry-After").is_some());
        assert!(!reply.text().contains("secret detail"));
    }
}

#[test]
fn an_api_that_is_not_there_is_a_503() {
    let nobody = {
        let gone = TestBackend::answering(ok(""));
        gone.url()
    };
    let ingress = TestIngress::before_address(&nobody, |_| {});
    let reply = ingress.get("blog.m3o.app", "/").expect(503);
    assert!(reply.field("Retry-After").is_some());
    assert!(!reply.text().contains("127.0.0.1"));
}

#[test]
fn an_api_that_hangs_or_breaks_off_is_a_503() {
    let api = TestApi::new();
    let ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.connect = Duration::from_millis(50);
        config.timeouts.response = Duration::from_millis(100);
    });
    api.on(APP, |answering| answering.wait_for_close());
    ingress.get("hangs.m3o.app", "/").expect(503);
    api.on(APP, |answering| answering.reset());
    ingress.get("resets.m3o.app", "/").expect(503);
    api.on(APP, |answering| {
        answering.body();
        answering.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"url\"");
        answering.close();
    });
    ingress.get("cut.m3o.app", "/").expect(503);
}

#[test]
fn a_known_app_goes_on_while_the_api_fails() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.cache.fresh = Duration::ZERO;
        config.cache.stale = Duration::ZERO;
        config.timeouts.connect = Duration::from_millis(50);
        config.timeouts.response = Duration::from_millis(100);
    });
    ingress.get("blog.m3o.app", "/").expect(200);
    let failures = [
        error("500 Internal Server Error", "no"),
        error("429 Too Many Requests", "no"),
        error("401 Unauthorized", "no"),
        response("200 OK", "", "<html>"),
    ];
    for failure in failures {
        api.says(APP, failure.clone());
        let reply = ingress.get("blog.m3o.app", "/");
        assert_eq!(reply.status(), 200, "{failure}");
    }
    api.on(APP, |answering| answering.wait_for_close());
    ingress.get("blog.m3o.app", "/").expect(200);
}

#[test]
fn a_known_app_goes_on_when_the_api_is_gone() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.cache.fresh = Duration::ZERO;
        config.cache.stale = Duration::ZERO;
    });
    ingress.get("blog.m3o.app", "/").expect(200);
    drop(api);
    ingress.get("blog.m3o.app", "/").expect(200);
    ingress.get("other.m3o.app", "/").expect(503);
}

#[test]
fn a_known_app_that_is_deleted_is_a_404_although_it_is_stale() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.cache.fresh = Duration::ZERO;
        config.cache.stale = Duration::ZERO;
    });
    ingress.get("blog.m3o.app", "/").expect(200);
    api.says(APP, error("404 Not Found", "gone"));
    ingress.get("blog.m3o.app", "/").expect(404);
}

#[test]
fn a_stale_app_is_served_at_once_while_one_call_asks_again() {
    let old = TestBackend::answering(ok("old"));
    let new = TestBackend::answering(ok("new"));
    let api = TestApi::with_app("blog", &old.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.cache.fresh = Duration::ZERO;
    });
    ingress.get("blog.m3o.app", "/").expect(200);

    let gate = Gate::default();
    let answer = json_response(&format!(r#"{{"url":"{}"}}"#, new.url()));
    let held = gate.clone();
    api.on(APP, move |answering| {
        answering.body();
        held.wait();
        answering.write(&answer);
    });
    for _ in 0..5 {
        assert_eq!(ingress.get("blog.m3o.app", "/").text(), "old");
    }
    eventually("the app is asked for again", || api.calls(APP).len() == 2);
    gate.open();
    eventually("the new backend is served", || {
        ingress.get("blog.m3o.app", "/").text() == "new"
    });
}

#[test]
fn many_requests_for_one_app_wait_for_one_call() {
    check_one_call_for_fifty(
        |backend| json_response(&format!(r#"{{"url":"{backend}"}}"#)),
        200,
    );
}

#[test]
fn many_requests_for_a_missing_app_wait_for_one_call() {
    check_one_call_for_fifty(|_| error("404 Not Found", "no"), 404);
}

#[test]
fn many_requests_wait_for_one_call_also_when_it_fails() {
    check_one_call_for_fifty(|_| error("500 Internal Server Error", "no"), 503);
}

fn check_one_call_for_fifty(answer: impl Fn(&str) -> String, expected: u16) {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::new();
    let gate = Gate::default();
    let (held, answer) = (gate.clone(), answer(&backend.url()));
    api.on(APP, move |answering| {
        answering.body();
        held.wait();
        answering.write(&answer);
    });
    let ingress = TestIngress::before_with(&api, |config| config.listen.workers = 2);
    let mut callers: Vec<_> = (0..50)
        .map(|_| {
            let mut caller = ingress.caller();
            caller.send("GET / HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n");
            caller
        })
        .collect();
    eventually("all are being answered", || {
        ingress.metric("http_server_active_requests") == 50.0
    });
    gate.open();
    for caller in &mut callers {
        caller.reply().expect(expected);
    }
    assert_eq!(api.calls(APP).len(), 1);
}

#[test]
fn the_first_caller_may_leave_without_harm_to_the_others() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::new();
    let gate = Gate::default();
    let (held, answer) = (
        gate.clone(),
        json_response(&format!(r#"{{"url":"{}"}}"#, backend.url())),
    );
    api.on(APP, move |answering| {
        answering.body();
        held.wait();
        answering.write(&answer);
    });
    let ingress = TestIngress::before(&api);
    let active = || ingress.metric("http_server_active_requests");
    let ask = || {
        let mut caller = ingress.caller();
        caller.send("GET / HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n");
        caller
    };
    let first = ask();
    eventually("the app is asked for", || api.calls(APP).len() == 1);
    let mut second = ask();
    eventually("both wait", || active() == 2.0);
    drop(first);
    eventually("the first has left", || active() == 1.0);
    gate.open();
    second.reply().expect(200);
    assert_eq!(api.calls(APP).len(), 1);
}

#[test]
fn an_id_that_no_app_can_have_is_a_404_without_a_call() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let long = format!("{}.m3o.app", "x".repeat(64));
    for host in [
        "-a.m3o.app",
        "a-.m3o.app",
        "a_b.m3o.app",
        "a.b.m3o.app",
        "www.blog.m3o.app",
        "evilm3o.app",
        &long,
    ] {
        assert_eq!(ingress.get(host, "/").status(), 404, "{host}");
    }
    assert_eq!(api.server().seen().len(), 0);
}

#[test]
fn a_backend_on_a_private_address_is_refused_unless_allowed() {
    let backend = TestBackend::answering(ok("hello"));
    let local = format!("http://localhost:{}", backend.address.port());
    let mapped = format!("http://[::ffff:127.0.0.1]:{}", backend.address.port());
    let odd = format!("http://0x7f.1:{}", backend.address.port());
    for url in [&backend.url(), &local, &mapped, &odd] {
        let api = TestApi::with_app("blog", url);
        let ingress = TestIngress::before_with(&api, |config| {
            config.backends.allow_private = false;
        });
        let reply = ingress.get("blog.m3o.app", "/");
        assert_eq!(reply.status(), 502, "{url}");
        assert_eq!(
            reply.field("Proxy-Status"),
            Some("m3o-ingress; error=destination_ip_prohibited"),
        );
        assert!(!reply.text().contains("127.0.0.1"));
    }
    assert_eq!(backend.opened(), 0);
}

#[test]
fn our_own_listeners_are_no_backends() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    for (id, own) in [("front", ingress.address), ("admin", ingress.admin)] {
        api.resolves(APP, &[(id, &format!("http://{own}"))]);
        let reply = ingress.get(&format!("{id}.m3o.app"), "/metrics");
        assert_eq!(reply.status(), 502, "{id}");
    }
}

#[test]
fn an_app_with_too_many_requests_in_flight_turns_the_next_one_away() {
    let gate = Gate::default();
    let held = gate.clone();
    let slow = TestBackend::scripted(move |answering| {
        answering.body();
        held.wait();
        answering.write(ok("slow"));
    });
    let other = TestBackend::answering(ok("other"));
    let api = TestApi::new();
    api.resolves(APP, &[("slow", &slow.url()), ("other", &other.url())]);
    let ingress = TestIngress::before_with(&api, |config| config.limits.per_workload = 2);
    let mut callers = [ingress.caller(), ingress.caller()];
    for caller in &mut callers {
        caller.send("GET / HTTP/1.1\r\nHost: slow.m3o.app\r\n\r\n");
    }
    eventually("both are at the backend", || slow.seen().len() == 2);

    let reply = ingress.get("slow.m3o.app", "/").expect(503);
    assert!(reply.field("Retry-After").is_some());
    ingress.get("other.m3o.app", "/").expect(200);
    gate.open();
    for caller in &mut callers {
        caller.reply().expect(200);
    }
    eventually("their places are free again", || {
        ingress.get("slow.m3o.app", "/").status() == 200
    });
}

#[test]
fn the_answer_of_the_api_is_read_up_to_a_limit() {
    let api = TestApi::new();
    api.on(APP, |answering| {
        answering.body();
        answering.write("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{");
        answering.wait_for_close();
    });
    let ingress = TestIngress::before(&api);
    let status = ingress.get("blog.m3o.app", "/").status();
    assert!(matches!(status, 502 | 503), "{status}");
}
