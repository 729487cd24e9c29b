//! What is counted, under which labels, and that nobody outside can make them many.

use std::time::Duration;

use crate::harness::api::json_response;
use crate::harness::backend::{ok, response};
use crate::harness::front::{BLOG, Front};
use crate::harness::http2::{Frames, PING, PRIORITY, frame};
use crate::harness::operator::Operator;
use crate::harness::{Gate, TestApi, TestBackend, TestIngress, eventually};

const APP: &str = "app/Resolve";

/// The labels of a request in plain HTTP/1.1.
fn duration(method: &str, status: u16, route: &str, version: &str) -> String {
    format!(
        "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",\
         http_response_status_code=\"{status}\",http_route=\"{route}\",\
         network_protocol_version=\"{version}\",url_scheme=\"http\"}}"
    )
}

#[test]
fn a_request_is_told_by_what_it_was_and_what_became_of_it() {
    let backend = TestBackend::answering(response("201 Created", "", "new"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    ingress.caller().post(BLOG, "/", "", b"x").expect(201);
    ingress.get("www.example.com", "/").expect(404);
    let mut caller = ingress.caller();
    caller.send(format!("BREW / HTTP/1.0\r\nHost: {BLOG}\r\n\r\n"));
    caller.reply().expect(201);
    let mut frames = Frames::connect(ingress.address);
    frames.get(1, BLOG, "/");
    assert_eq!(frames.status(1), 201);
    for series in [
        duration("POST", 201, "app", "1.1"),
        duration("GET", 404, "unknown", "1.1"),
        duration("_OTHER", 201, "app", "1.0"),
        duration("GET", 201, "app", "2"),
    ] {
        eventually(&series, || {
            ingress.metrics().contains(&format!("{series} 1\n"))
        });
    }
    let found = r#"m3o_ingress_resolve_cache_total{kind="app",result="miss"}"#;
    assert_eq!(ingress.metric(found), 1.0);
    assert_eq!(
        ingress.metric(r#"m3o_ingress_errors_total{error="destination_not_found"}"#),
        1.0
    );
}

/// A backend that answers with the status that is asked for in the path.
fn obliging() -> TestBackend {
    TestBackend::scripted(|answering| {
        answering.body();
        let status = answering.target()[1..4].to_owned();
        answering.write(response(&format!("{status} Whatever"), "", ""));
    })
}

/// Samples of series that nobody outside has an influence on: those of the process, of TLS and so on.
const OTHERS: usize = 250;

#[test]
fn whatever_clients_and_backends_send_the_series_are_few_and_name_nothing_of_it() {
    let backend = obliging();
    let api = TestApi::new();
    let ids: Vec<String> = (0..20).map(|number| format!("app{number}")).collect();
    let known: Vec<(&str, String)> = ids.iter().map(|id| (&**id, backend.url())).collect();
    let known: Vec<(&str, &str)> = known.iter().map(|(id, url)| (*id, &**url)).collect();
    api.resolves(APP, &known);
    let (combinations, apps) = (20, 2);
    let ingress = TestIngress::before_with(&api, |config| {
        config.metrics.combinations = combinations;
        config.metrics.apps = apps;
    });
    let mut caller = ingress.caller();
    let mut sent = 0;
    for status in (200..600).step_by(3) {
        let method = match status % 4 {
            0 => "GET",
            1 => "PUT",
            2 => "CANARYMETHOD",
            _ => "DELETE",
        };
        let host = format!("app{}.m3o.app", status % 20);
        let target = format!("/{status}/canarypath?token=canaryquery");
        caller.ask(method, &target, &host, "");
        sent += 1;
    }
    for number in 0..100 {
        let host = format!("canaryapp{number}.m3o.app");
        caller.ask("GET", "/", &host, "").expect(404);
        let host = format!("canaryhost{number}.example");
        caller.ask("POST", "/u/canarylink", &host, "X-Canary: canaryfield\r\n");
        sent += 2;
    }
    ingress.metrics();
    let text = ingress.metrics();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    // A histogram is 17 samples. The coarse ones are those of a scheme, a route and a class.
    let most = 17 * (combinations + 2 * 8 * 5) + 17 * (2 * 8 + 2 * 7) + 8 * (apps + 2) + OTHERS;
    let number = samples.count();
    assert!(
        number <= most,
        "{number} samples are more than {most}:\n{text}"
    );
    assert!(!text.to_ascii_lowercase().contains("canary"), "{text}");
    let all: f64 = text
        .lines()
        .filter(|line| line.starts_with("http_server_request_duration_seconds_count{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(all, f64::from(sent), "none is lost");
}

#[test]
fn the_busiest_apps_and_those_that_are_named_have_series_and_only_those_that_exist() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::new();
    let url = backend.url();
    api.resolves(APP, &["busy", "calm", "quiet"].map(|id| (id, &*url)));
    let ingress = TestIngress::before_with(&api, |config| {
        config.metrics.apps = 2;
        config.metrics.always = vec!["quiet".to_owned().try_into().unwrap()];
    });
    let ask = |app: &str, times: usize| {
        let mut caller = ingress.caller();
        for _time in 0..times {
            caller.get(&format!("{app}.m3o.app"), "/").expect(200);
        }
    };
    ask("busy", 5);
    ask("calm", 3);
    ask("quiet", 1);
    ingress.get("madeup.m3o.app", "/").expect(404);
    // Who is the busiest is decided by what ended before a scrape.
    eventually("all have ended", || ingress.access_lines().len() == 10);
    ingress.metrics();
    ask("busy", 4);
    ask("calm", 2);
    ask("quiet", 1);
    let requests = |app: &str| {
        let labels = format!("app=\"{app}\",class=\"2xx\",http_route=\"app\"");
        ingress.metric(&format!("m3o_ingress_app_requests_total{{{labels}}}"))
    };
    eventually("all are counted", || requests("quiet") == 1.0);
    assert_eq!(requests("busy"), 4.0);
    assert_eq!(requests("other"), 11.0);
    let sent = r#"m3o_ingress_app_response_body_bytes_total{app="busy",http_route="app"}"#;
    assert_eq!(ingress.metric(sent), 20.0);
    let text = ingress.metrics();
    for app in ["calm", "madeup"] {
        assert!(!text.contains(&format!("app=\"{app}\"")), "{text}");
    }
}

#[test]
fn an_app_that_is_full_has_its_refusals_counted_too() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = TestBackend::scripted(move |answering| {
        answering.body();
        if answering.target() == "/slow" {
            held.wait();
        }
        answering.write(ok("late"));
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| config.limits.per_workload = 1);
    ingress.get(BLOG, "/").expect(200);
    // Its line comes after it was counted, and the scrape gives series to who was busy before.
    eventually("it has ended", || ingress.access_lines().len() == 1);
    ingress.metrics();
    let mut slow = ingress.caller();
    slow.send(format!("GET /slow HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("it is there", || backend.seen().len() == 2);
    ingress.get(BLOG, "/").expect(503);
    gate.open();
    slow.reply().expect(200);
    let requests = |class: &str| {
        let labels = format!("app=\"blog\",class=\"{class}\",http_route=\"app\"");
        ingress.metric(&format!("m3o_ingress_app_requests_total{{{labels}}}"))
    };
    eventually("both are counted", || requests("2xx") == 1.0);
    assert_eq!(requests("5xx"), 1.0);
}

#[test]
fn an_app_that_is_closed_is_as_busy_as_any() {
    let operator = Operator::new();
    let ingress = TestIngress::embedded_with(|config| {
        operator.runs(config);
        config.metrics.apps = 1;
    });
    ingress.run_app("blog", "http://127.0.0.1:1");
    operator.does("/apps/blog/pause", "");
    let ended = || {
        let lines = ingress.access_lines();
        lines.iter().filter(|line| line["app"] == "blog").count()
    };
    for _time in 0..5 {
        ingress.get(BLOG, "/").expect(503);
    }
    eventually("they have ended", || ended() == 5);
    ingress.metrics();
    ingress.get(BLOG, "/").expect(503);
    eventually("it has ended", || ended() == 6);
    let refused = r#"m3o_ingress_app_requests_total{app="blog",class="5xx",http_route="app"}"#;
    assert_eq!(ingress.metric(refused), 1.0);
}

#[test]
fn bodies_are_counted_by_the_octets_that_moved() {
    let backend = TestBackend::scripted(|answering| {
        answering.body();
        answering.write(ok("12345"));
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    ingress.get(BLOG, "/").expect(200);
    ingress
        .caller()
        .post(BLOG, "/", "", &[b'x'; 3000])
        .expect(200);
    let mut caller = ingress.caller();
    let head = format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 1000\r\n\r\n");
    caller.send(head + &"x".repeat(100));
    drop(caller);
    let size = |what: &str| {
        let name = format!("http_server_{what}_body_size_bytes");
        let value = |part: &str| ingress.metric(&format!("{name}_{part}{{http_route=\"app\"}}"));
        (value("count"), value("sum"))
    };
    eventually("the one that was broken off is counted", || {
        size("request") == (2.0, 3100.0)
    });
    assert_eq!(size("response"), (3.0, 10.0));
}

#[test]
fn the_upstream_and_backends_are_timed_apart() {
    let backend = TestBackend::answering(response("404 Not Found", "", ""));
    let api = TestApi::with_app("blog", &backend.url());
    let gone = "http://127.0.0.1:1";
    api.resolves(APP, &[("blog", &backend.url()), ("gone", gone)]);
    api.gives("helloworld/call", r#"{"message":"hello"}"#);
    let ingress = TestIngress::before(&api);
    ingress.get(BLOG, "/").expect(404);
    ingress.get("gone.m3o.app", "/").expect(502);
    let count = |class: &str, side: &str| {
        let labels = format!("class=\"{class}\",side=\"{side}\"");
        let name = "http_client_request_duration_seconds_count";
        ingress.metric(&format!("{name}{{{labels}}}"))
    };
    assert_eq!(count("4xx", "backend"), 1.0);
    assert_eq!(count("none", "backend"), 1.0);
    assert_eq!(count("2xx", "upstream"), 2.0);
}

#[test]
fn a_client_that_leaves_is_no_fault_of_its_backend() {
    let gate = Gate::default();
    let held = gate.clone();
    let front = Front::scripted(move |answering| {
        held.wait();
        answering.write(ok("late"));
    });
    let mut caller = front.ingress.caller();
    caller.send(format!("GET /slow HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("it is there", || front.backend.seen().len() == 1);
    drop(caller);
    let left = r#"http_client_request_duration_seconds_count{class="left",side="backend"}"#;
    eventually("it is counted", || front.ingress.metric(left) == 1.0);
    assert_eq!(
        front.ingress.metric(&duration("GET", 499, "app", "1.1")),
        1.0
    );
    gate.open();
}

#[test]
fn connections_are_told_by_what_is_spoken_over_them() {
    let backend = TestBackend::scripted(|answering| {
        answering.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n",
        );
        answering.wait_for_close();
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    let open = |version: &str| {
        let labels = format!("network_protocol_version=\"{version}\",url_scheme=\"http\"");
        ingress.metric(&format!("m3o_ingress_protocol_connections{{{labels}}}"))
    };
    let tunnels = || ingress.metric("m3o_ingress_tunnels");
    let mut one = ingress.caller();
    one.send(format!(
        "GET / HTTP/1.1\r\nHost: {BLOG}\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
    ));
    assert_eq!(one.head().status(), 101);
    let mut two = Frames::connect(ingress.address);
    two.get(1, "www.example.com", "/");
    assert_eq!(two.status(1), 404);
    eventually("both are counted", || {
        (open("1.1"), open("2")) == (1.0, 1.0)
    });
    eventually("one is a tunnel", || tunnels() == 1.0);
    let accepted = r#"m3o_ingress_connections_accepted_total{url_scheme="http"}"#;
    assert_eq!(ingress.metric(accepted), 2.0);
    drop((one, two));
    eventually("none is left", || (open("1.1"), open("2")) == (0.0, 0.0));
    eventually("none is a tunnel", || tunnels() == 0.0);
}

#[test]
fn connections_of_http2_that_are_ended_are_counted_by_reason() {
    let front = Front::scripted_with(
        |config| config.timeouts.header = Duration::from_millis(200),
        |answering| answering.write(ok("")),
    );
    let ended = |reason: &str| {
        let series = format!("m3o_ingress_http2_ended_total{{reason=\"{reason}\"}}");
        front.ingress.metric(&series)
    };
    let mut frames = Frames::connect(front.ingress.address);
    for _time in 0..100_000 {
        if !frames.try_send(&frame(PING, 0, 0, &[0; 8])) {
            break;
        }
    }
    eventually("the flood is counted", || ended("flood") == 1.0);
    let mut frames = Frames::connect(front.ingress.address);
    frames.send(PRIORITY, 0, 0, &[0; 5]);
    eventually("the fault is counted", || ended("malformed") == 1.0);
    let mut frames = Frames::connect(front.ingress.address);
    frames.send_bytes(&[0, 0, 9]);
    eventually("what does not go on is counted", || ended("late") == 1.0);
    assert_eq!(ended("stuck"), 0.0);
}

#[test]
fn the_platform_counts_what_it_writes_and_what_waits() {
    let ingress = TestIngress::embedded();
    let written = r#"m3o_ingress_store_writes_total{result="done"}"#;
    let before = ingress.metric(written);
    ingress.run_app("blog", "http://127.0.0.1:1");
    assert!(ingress.metric(written) > before);
    assert_eq!(ingress.metric("m3o_ingress_store_open"), 1.0);
    let link = r#"{"id":"a","destinationURL":"https://a.example/"}"#;
    ingress.post_json("url/Create", link).expect(200);
    ingress.get("localhost", "/u/a").expect(302);
    eventually("its hit is written", || {
        ingress.metric("m3o_ingress_link_hits_pending") == 0.0
    });
    assert_eq!(ingress.metric("m3o_ingress_mail_queue_length"), 0.0);
    let api = TestApi::new();
    api.says("app/List", json_response("{}"));
    let remote = TestIngress::before(&api);
    assert!(!remote.metrics().contains("m3o_ingress_store_open"));
}

#[test]
fn a_scrape_says_that_it_is_the_text_format() {
    let ingress = TestIngress::embedded();
    let reply = crate::harness::Caller::connect(ingress.admin).get("localhost", "/metrics");
    assert_eq!(
        reply.field("Content-Type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
}
