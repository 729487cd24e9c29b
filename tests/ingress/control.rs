//! The control socket, and what the operator does over it.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use serde_json::json;

use crate::harness::backend::ok;
use crate::harness::operator::Operator;
use crate::harness::{Answering, Reply, TestApi, TestBackend, TestIngress, eventually};

fn embedded(operator: &Operator) -> TestIngress {
    TestIngress::embedded_with(|config| operator.runs(config))
}

fn asks_for_a_page(ingress: &TestIngress, host: &str) -> Reply {
    ingress
        .caller()
        .ask("GET", "/", host, "Accept: text/html\r\n")
}

#[test]
fn the_operator_asks_how_the_ingress_is() {
    let operator = Operator::new();
    let ingress = embedded(&operator);
    eventually("it is ready", || operator.get("/status").1["ready"] == true);
    let (_, status) = operator.get("/status");
    assert_eq!(status["http"], json!([ingress.address]));
    assert_eq!(status["admin"], json!(ingress.admin));
    assert_eq!(status["workers"], 1);
    assert_eq!(status["api"], "store memory");
    let mode = std::fs::metadata(operator.socket()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(ingress);
    assert!(!operator.socket().exists());
}

#[test]
fn what_is_no_question_has_an_error_for_an_answer() {
    let operator = Operator::new();
    let _ingress = embedded(&operator);
    let check = |(status, error): (u16, serde_json::Value), expected, detail: &str| {
        assert_eq!(status, expected, "{error}");
        assert_eq!(error["id"], "ingress.control");
        assert!(
            error["detail"].as_str().unwrap().contains(detail),
            "{error}"
        );
    };
    check(operator.get("/"), 404, "nothing here");
    check(operator.get("/apps/"), 405, "use POST");
    check(operator.get("/reload"), 405, "use POST");
    check(operator.post("/status", ""), 405, "use GET");
    check(operator.post("/apps/blog/stop", ""), 404, "nothing here");
    check(operator.post("/apps/blog", ""), 404, "nothing here");
    check(operator.post("/apps/blog/pause", ""), 404, "no such app");
    check(
        operator.post("/functions/blog/pause", ""),
        404,
        "no such function",
    );
    check(operator.post("/apps/A_b/pause", ""), 400, "an id has");
    check(operator.post("/apps/blog/pause", "{"), 400, "EOF");
    check(
        operator.post("/apps/blog/pause", r#"{"mesage":""}"#),
        400,
        "unknown field",
    );
    let long = json!({ "message": "x".repeat(501) }).to_string();
    check(
        operator.post("/apps/blog/pause", &long),
        400,
        "at most 500 bytes",
    );
    let control = json!({ "message": "a\u{1b}[0m" }).to_string();
    check(operator.post("/apps/blog/pause", &control), 400, "control");
    check(
        operator.post("/apps/blog/pause", r#"{"retry_after":0}"#),
        400,
        "1 second",
    );
    let large = "x".repeat(300_000);
    check(operator.post("/apps/blog/pause", &large), 400, "");
}

#[test]
fn connections_that_say_nothing_leave_room_and_end_with_the_ingress() {
    let operator = Operator::new();
    let mut ingress = embedded(&operator);
    let silent: Vec<UnixStream> = (0..8)
        .map(|_| UnixStream::connect(operator.socket()).unwrap())
        .collect();
    assert_eq!(operator.get("/status").0, 200);
    ingress.advance(m3o_ingress::server::shutdown::Stage::Draining);
    ingress.join().unwrap();
    drop(silent);
}

#[test]
fn a_paused_app_is_a_503_from_the_very_next_request_on_until_it_is_resumed() {
    let operator = Operator::new();
    let ingress = embedded(&operator);
    let backend = TestBackend::answering(ok("hello"));
    ingress.run_app("blog", &backend.url());
    ingress.run_app("shop", &backend.url());
    ingress.get("blog.m3o.app", "/").expect(200);

    let done = operator.does("/apps/blog/pause", "");
    assert_eq!(done, json!({"name": "blog", "status": "paused"}));
    let reply = ingress.get("blog.m3o.app", "/").expect(503);
    assert_eq!(reply.field("Retry-After"), Some("300"));
    assert_eq!(
        reply.field("Proxy-Status"),
        Some("m3o-ingress; error=destination_unavailable")
    );
    let error: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(error["detail"], "this app is paused");
    let page = asks_for_a_page(&ingress, "blog.m3o.app").expect(503).text();
    assert!(page.contains("this app is paused"), "{page}");
    ingress.get("shop.m3o.app", "/").expect(200);
    let status = ingress.post_json("app/Status", r#"{"name":"blog"}"#).text();
    assert!(status.contains(r#""status":"paused""#), "{status}");

    let (_, listed) = operator.get("/apps");
    let rows: Vec<_> = listed.as_array().unwrap().iter().collect();
    let [first, second] = rows[..] else {
        panic!("{listed}")
    };
    assert_eq!(first["name"], "blog");
    assert_eq!(first["status"], "paused");
    assert_eq!(first["url"], "https://blog.m3o.app");
    assert_eq!(first["backend"], backend.url());
    assert_eq!(second["status"], "running");

    operator.does("/apps/blog/resume", "");
    ingress.get("blog.m3o.app", "/").expect(200);
}

#[test]
fn visitors_of_what_is_maintained_read_the_operators_words_escaped() {
    let operator = Operator::new();
    let ingress = embedded(&operator);
    ingress.run_app("blog", "http://127.0.0.1:1");
    operator.does("/apps/blog/maintenance", "");
    let page = asks_for_a_page(&ingress, "blog.m3o.app").expect(503).text();
    assert!(
        page.contains("this app is being maintained, back soon"),
        "{page}"
    );
    let words = r#"{"message":"<b>noon</b> & later","retry_after":600}"#;
    operator.does("/apps/blog/maintenance", words);
    let reply = asks_for_a_page(&ingress, "blog.m3o.app").expect(503);
    assert_eq!(reply.field("Retry-After"), Some("600"));
    let page = reply.text();
    assert!(!page.contains("<b>"), "{page}");
    assert!(page.contains("noon"), "{page}");
    let json = ingress.get("blog.m3o.app", "/").expect(503).text();
    assert!(json.contains("<b>noon</b> & later"), "{json}");
}

#[test]
fn a_function_is_closed_like_an_app() {
    let operator = Operator::new();
    let ingress = embedded(&operator);
    let backend = TestBackend::answering(ok("{}"));
    let deploy = json!({ "name": "greet", "backend": backend.url() }).to_string();
    ingress.post_json("function/Deploy", &deploy).expect(200);
    ingress.get("greet.m3o.sh", "/").expect(200);
    operator.does("/functions/greet/pause", "");
    let text = ingress.get("greet.m3o.sh", "/").expect(503).text();
    assert!(text.contains("this function is paused"), "{text}");
    assert_eq!(operator.get("/functions").1[0]["status"], "paused");
    operator.does("/functions/greet/resume", "");
    ingress.get("greet.m3o.sh", "/").expect(200);
}

#[test]
fn what_is_under_way_when_an_app_is_paused_goes_on() {
    fn echo(answering: &mut Answering) {
        answering.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        let bytes = answering.some();
        answering.write(&bytes);
        answering.close();
    }
    let operator = Operator::new();
    let ingress = embedded(&operator);
    let backend = TestBackend::scripted(echo);
    ingress.run_app("blog", &backend.url());
    let handshake =
        "GET / HTTP/1.1\r\nHost: blog.m3o.app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut caller = ingress.caller();
    caller.send(handshake);
    assert_eq!(caller.head().status(), 101);
    operator.does("/apps/blog/pause", "");
    caller.send("still here");
    assert_eq!(caller.exactly(10), b"still here");
    let mut late = ingress.caller();
    late.send(handshake);
    assert_eq!(late.head().status(), 503);
}

#[test]
fn a_remote_api_says_itself_that_an_app_is_closed() {
    let operator = Operator::new();
    let api = TestApi::new();
    api.gives(
        "app/Resolve",
        r#"{"url":"http://127.0.0.1:1","closed":{"status":"maintenance","retry_after":60}}"#,
    );
    let ingress = TestIngress::before_with(&api, |config| operator.runs(config));
    let reply = ingress.get("blog.m3o.app", "/").expect(503);
    assert_eq!(reply.field("Retry-After"), Some("60"));
    assert!(reply.text().contains("being maintained"));
    for answer in [operator.post("/apps/blog/pause", ""), operator.get("/apps")] {
        let (status, error) = answer;
        assert_eq!(status, 501, "{error}");
        assert!(error["detail"].as_str().unwrap().contains("remote API"));
    }
}
