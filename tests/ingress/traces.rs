//! Traces: what a collector hears of a request, and what a backend is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use m3o_ingress::config::Config;
use m3o_ingress::server::shutdown::Stage;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::harness::backend::{ok, response};
use super::harness::collector::{Collector, attributes};
use super::harness::front::BLOG;
use super::harness::{Seen, TestApi, TestBackend, TestIngress, eventually, http2};

const THEIR_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const THEIR_SPAN: &str = "00f067aa0ba902b7";
const SAMPLED: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
const NOT_SAMPLED: &str =
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n";

const ALL: &[(&str, &str)] = &[("OTEL_TRACES_SAMPLER", "parentbased_always_on")];
const NONE: &[(&str, &str)] = &[("OTEL_TRACES_SAMPLER", "parentbased_always_off")];

/// An ingress before one app, whose spans are told.
struct Traced {
    collector: Collector,
    backend: TestBackend,
    _api: TestApi,
    ingress: TestIngress,
}

impl Traced {
    fn new(variables: &'static [(&'static str, &'static str)]) -> Self {
        Self::before(Collector::new(), variables, |_| {})
    }

    fn before(
        collector: Collector,
        variables: &'static [(&'static str, &'static str)],
        adjust: impl FnOnce(&mut Config),
    ) -> Self {
        let backend = TestBackend::scripted(|answering| {
            answering.body();
            match answering.target().as_str() {
                "/broken" => answering.reset(),
                "/missing" => answering.write(response("404 Not Found", "", "")),
                _ => answering.write(ok("fine")),
            }
        });
        let api = TestApi::with_app("blog", &backend.url());
        let ingress = TestIngress::before_told(&api, collector.told(variables), |config| {
            config.tracing.delay = Duration::from_millis(20);
            adjust(config);
        });
        Self {
            collector,
            backend,
            _api: api,
            ingress,
        }
    }

    fn trusting(variables: &'static [(&'static str, &'static str)]) -> Self {
        Self::before(Collector::new(), variables, |config| {
            config.backends.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Trace, span and flags of what a backend was told.
#[track_caller]
fn told(seen: &Seen) -> (String, String, String) {
    let value = seen.field("traceparent").unwrap();
    let parts: Vec<&str> = value.split('-').collect();
    let [version, trace, span, flags] = parts.as_slice() else {
        panic!("{value}");
    };
    assert_eq!(*version, "00");
    ((*trace).to_owned(), (*span).to_owned(), (*flags).to_owned())
}

#[track_caller]
fn server_and_client(spans: &[Span]) -> (&Span, &Span) {
    let of = |kind| spans.iter().find(|span| span.kind == kind).unwrap();
    (of(2), of(3))
}

#[test]
fn a_request_is_a_span_and_so_is_what_its_backend_was_asked() {
    let traced = Traced::new(ALL);
    let mut caller = traced.ingress.caller();
    let fields = "User-Agent: curl/8\r\n";
    let reply = caller
        .post(BLOG, "/posts?page=2", fields, b"12345")
        .expect(200);
    let spans = traced.collector.wait_for(2);
    let (server, client) = server_and_client(&spans);

    let (trace, span, flags) = told(&traced.backend.only());
    assert_eq!(hex(&server.trace_id), trace);
    assert_eq!(hex(&client.trace_id), trace);
    assert_eq!(hex(&client.span_id), span);
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(flags, "03");
    assert_eq!(hex(&server.parent_span_id), "");
    assert_eq!(server.name, "POST app");
    assert_eq!(client.name, "POST app");
    assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
    assert!(client.start_time_unix_nano < client.end_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    assert_eq!((&server.status, &client.status), (&None, &None));

    let of_server = attributes(&server.attributes);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("url.path", "/posts"),
        ("url.query", "page=[hidden]"),
        ("url.scheme", "http"),
        ("server.address", BLOG),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "curl/8"),
        ("network.protocol.version", "1.1"),
        ("http.route", "app"),
        ("http.response.status_code", "200"),
        ("http.request.body.size", "5"),
        ("http.response.body.size", "4"),
        ("m3o.app", "blog"),
        ("m3o.outcome", "complete"),
        ("m3o.request_id", reply.field("X-Request-Id").unwrap()),
    ] {
        assert_eq!(of_server[key], value, "{key}");
    }
    let of_client = attributes(&client.attributes);
    let port = traced.backend.address.port().to_string();
    for (key, value) in [
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("http.response.status_code", "200"),
        ("m3o.side", "backend"),
    ] {
        assert_eq!(of_client[key], value, "{key}");
    }
    // The line says where to look.
    eventually("the line is there", || {
        !traced.ingress.access_lines().is_empty()
    });
    let lines = traced.ingress.access_lines();
    let line = lines.iter().find(|line| line["type"] == "access").unwrap();
    assert_eq!(line["trace_id"], trace);
}

#[test]
fn a_resource_says_which_process_it_was_and_the_fields_of_an_export_are_sent() {
    let variables = &[
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_SERVICE_NAME", "edge"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=a%20key,x-other=b"),
    ];
    let traced = Traced::new(variables);
    traced.ingress.get(BLOG, "/").expect(200);
    traced.collector.wait_for(2);
    let exports = traced.collector.exports();
    let of = &exports[0].resource_spans[0];
    let resource = attributes(&of.resource.as_ref().unwrap().attributes);
    assert_eq!(resource["service.name"], "edge");
    assert_eq!(resource["deployment.environment.name"], "test");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(resource.contains_key("service.instance.id"));
    assert_eq!(
        of.scope_spans[0].scope.as_ref().unwrap().name,
        "m3o-ingress"
    );
    let seen = &traced.collector.server.seen()[0];
    assert_eq!(seen.field("x-api-key"), Some("a key"));
    assert_eq!(seen.field("x-other"), Some("b"));
}

#[test]
fn a_trace_of_a_stranger_is_linked_and_not_continued() {
    let traced = Traced::new(ALL);
    let fields = format!("{NOT_SAMPLED}tracestate: a=1\r\n");
    let mut caller = traced.ingress.caller();
    caller.ask("GET", "/", BLOG, &fields).expect(200);
    let spans = traced.collector.wait_for(2);
    let (server, client) = server_and_client(&spans);
    assert_ne!(hex(&server.trace_id), THEIR_TRACE);
    let [link] = server.links.as_slice() else {
        panic!("{server:?}");
    };
    assert_eq!(hex(&link.trace_id), THEIR_TRACE);
    assert_eq!(hex(&link.span_id), THEIR_SPAN);
    assert_eq!(client.links, []);
    let seen = traced.backend.only();
    assert_eq!(told(&seen).0, hex(&server.trace_id));
    assert_eq!(seen.field("tracestate"), None);
}

#[test]
fn a_trace_of_a_trusted_peer_is_continued_as_it_was_decided_there() {
    let traced = Traced::trusting(NONE);
    let mut caller = traced.ingress.caller();
    let fields = format!("{SAMPLED}tracestate: a=1,b=2\r\n");
    caller.ask("GET", "/", BLOG, &fields).expect(200);
    let spans = traced.collector.wait_for(2);
    let (server, client) = server_and_client(&spans);
    assert_eq!(hex(&server.trace_id), THEIR_TRACE);
    assert_eq!(hex(&server.parent_span_id), THEIR_SPAN);
    assert_eq!(server.trace_state, "a=1,b=2");
    assert_eq!(server.links, []);
    // Known to be somebody else's.
    assert_eq!(server.flags, 0x301);
    let seen = traced.backend.only();
    assert_eq!(
        told(&seen),
        (
            THEIR_TRACE.to_owned(),
            hex(&client.span_id),
            "01".to_owned()
        )
    );
    assert_eq!(seen.field("tracestate"), Some("a=1,b=2"));

    let traced = Traced::trusting(ALL);
    let mut caller = traced.ingress.caller();
    caller.ask("GET", "/", BLOG, NOT_SAMPLED).expect(200);
    let (trace, span, flags) = told(&traced.backend.only());
    assert_eq!((trace.as_str(), flags.as_str()), (THEIR_TRACE, "00"));
    assert_ne!(span, THEIR_SPAN);
    caller.ask("GET", "/", BLOG, SAMPLED).expect(200);
    assert_eq!(traced.collector.wait_for(2).len(), 2);
}

#[test]
fn a_malformed_traceparent_begins_a_trace_without_a_link() {
    let traced = Traced::trusting(ALL);
    let mut caller = traced.ingress.caller();
    let bad = SAMPLED.replace("4bf9", "4BF9") + "tracestate: a=1\r\n";
    caller.ask("GET", "/", BLOG, &bad).expect(200);
    let spans = traced.collector.wait_for(2);
    let (server, _) = server_and_client(&spans);
    assert_eq!((server.parent_span_id.len(), server.links.len()), (0, 0));
    let seen = traced.backend.only();
    assert_eq!(told(&seen).0, hex(&server.trace_id));
    assert_eq!(seen.field("tracestate"), None);
}

#[test]
fn what_is_not_recorded_is_told_to_the_backend_alone() {
    let traced = Traced::new(NONE);
    let mut caller = traced.ingress.caller();
    for _ in 0..20 {
        caller.get(BLOG, "/").expect(200);
    }
    let mut traces: Vec<_> = traced.backend.seen().iter().map(told).collect();
    assert!(traces.iter().all(|(_, _, flags)| flags == "02"));
    traces.sort();
    traces.dedup_by(|one, other| one.0 == other.0 || one.1 == other.1);
    assert_eq!(traces.len(), 20);
    assert_eq!(traced.collector.server.seen().len(), 0);
}

#[test]
fn without_a_collector_the_fields_of_a_client_pass() {
    let backend = TestBackend::answering(ok("fine"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller
        .ask("GET", "/", BLOG, &format!("{SAMPLED}tracestate: a=1\r\n"))
        .expect(200);
    let (trace, span, _) = told(&backend.only());
    assert_eq!((trace.as_str(), span.as_str()), (THEIR_TRACE, THEIR_SPAN));
    assert_eq!(backend.only().field("tracestate"), Some("a=1"));
    eventually("the line is there", || !ingress.access_lines().is_empty());
    assert!(
        ingress
            .access_lines()
            .iter()
            .all(|line| line["trace_id"].is_null())
    );
}

#[test]
fn a_failure_is_one_in_its_spans() {
    let traced = Traced::new(ALL);
    traced.ingress.get(BLOG, "/broken").expect(502);
    let spans = traced.collector.wait_for(2);
    let (server, client) = server_and_client(&spans);
    for span in [server, client] {
        assert_eq!(span.status.as_ref().unwrap().code, 2, "{span:?}");
    }
    let kind = &attributes(&server.attributes)["error.type"];
    assert_eq!(&attributes(&client.attributes)["error.type"], kind);
    assert_eq!(kind, "http_protocol_error");

    // The answer of an app is no failure of the ingress, but one of the app.
    let traced = Traced::new(ALL);
    traced.ingress.get(BLOG, "/missing").expect(404);
    let spans = traced.collector.wait_for(2);
    let (server, client) = server_and_client(&spans);
    assert_eq!(server.status, None);
    assert_eq!(attributes(&client.attributes)["error.type"], "404");
}

#[test]
fn a_call_of_the_api_is_part_of_the_trace_too() {
    let collector = Collector::new();
    let api = TestApi::new();
    api.says("helloworld/call", ok("{}"));
    let ingress = TestIngress::before_told(&api, collector.told(ALL), |config| {
        config.tracing.delay = Duration::from_millis(20);
    });
    let target = "/api/helloworld/call?api_key=zqsecretqz";
    let mut caller = ingress.caller();
    caller.ask("GET", target, "localhost", "").expect(200);
    let spans = collector.wait_for(2);
    let (server, client) = server_and_client(&spans);
    assert_eq!(server.name, "GET api");
    // What was sent, and not what the client sent.
    assert_eq!(client.name, "POST api");
    let of_client = attributes(&client.attributes);
    assert_eq!(of_client["http.request.method"], "POST");
    assert_eq!(of_client["server.port"], api.address().port().to_string());
    assert_eq!(of_client["m3o.side"], "upstream");
    let (trace, span, _) = told(&api.calls("helloworld/call")[0]);
    assert_eq!((trace, span), (hex(&client.trace_id), hex(&client.span_id)));
    assert!(!format!("{spans:?}").contains("zqsecretqz"));
}

#[test]
fn what_the_api_is_asked_for_one_request_is_part_of_its_trace() {
    let collector = Collector::new();
    let api = TestApi::new();
    api.gives("url/Resolve", r#"{"destinationURL":"https://a.example/"}"#);
    api.gives("user/VerifyEmail", "{}");
    api.gives("app/List", r#"{"services":[]}"#);
    let ingress = TestIngress::before_told(&api, collector.told(ALL), |config| {
        config.tracing.delay = Duration::from_millis(20);
        config.index.enabled = true;
    });
    let asked = [
        ("link", "url/Resolve", "localhost", "/u/abc"),
        (
            "verify",
            "user/VerifyEmail",
            "user.m3o.com",
            "/?token=zqsecretqz",
        ),
        ("index", "app/List", "m3o.app", "/"),
    ];
    for (_, _, host, target) in asked {
        ingress.get(host, target);
    }
    let spans = collector.wait_for(6);
    eventually("the lines are there", || ingress.access_lines().len() == 3);
    let lines = ingress.access_lines();
    for (route, endpoint, _, _) in asked {
        let named = |name: String| spans.iter().find(|span| span.name == name).unwrap();
        let server = named(format!("GET {route}"));
        let client = named(format!("POST {route}"));
        assert_eq!(client.parent_span_id, server.span_id, "{route}");
        let (trace, span, _) = told(&api.calls(endpoint)[0]);
        assert_eq!((trace, span), (hex(&server.trace_id), hex(&client.span_id)));
        let line = lines.iter().find(|line| line["route"] == route).unwrap();
        assert_eq!(line["upstream.address"], api.address().to_string());
        assert!(line["upstream.duration_ms"].is_number(), "{line}");
    }
    assert!(!format!("{spans:?}{lines:?}").contains("zqsecretqz"));
}

#[test]
fn requests_over_http2_are_spans_alike() {
    let traced = Traced::new(ALL);
    let address = traced.ingress.address;
    http2::run(async move {
        let client = http2::connect(address).await;
        for _ in 0..2 {
            let answer = http2::ask(&client, http2::get(BLOG, "/")).await;
            assert_eq!(answer.status(), 200);
        }
    });
    let spans = traced.collector.wait_for(4);
    for span in spans.iter().filter(|span| span.kind == 2) {
        assert_eq!(
            attributes(&span.attributes)["network.protocol.version"],
            "2"
        );
    }
    let told: Vec<_> = traced.backend.seen().iter().map(told).collect();
    for span in spans.iter().filter(|span| span.kind == 3) {
        let both = (hex(&span.trace_id), hex(&span.span_id), "03".to_owned());
        assert!(told.contains(&both), "{span:?}");
    }
}

#[test]
fn a_collector_that_is_busy_is_told_again() {
    let asked = AtomicUsize::new(0);
    let collector = Collector::scripted(move |answering| {
        let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => answering.write(busy),
            _ => answering.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        }
    });
    let traced = Traced::before(collector, ALL, |_| {});
    traced.ingress.get(BLOG, "/").expect(200);
    let exported = || traced.ingress.metric("m3o_ingress_spans_exported_total");
    eventually("they are taken", || exported() == 2.0);
    assert_eq!(traced.collector.exports().len(), 2);
    assert_eq!(
        traced.ingress.metric("m3o_ingress_spans_dropped_total"),
        0.0
    );
    let complaints = traced.ingress.log().matches("does not take them").count();
    assert_eq!(complaints, 0, "a test has no sink of events");
}

#[test]
fn what_a_collector_refuses_is_dropped_and_counted() {
    let collector =
        Collector::scripted(|answering| answering.write(response("400 Bad Request", "", "no")));
    let traced = Traced::before(collector, ALL, |_| {});
    traced.ingress.get(BLOG, "/").expect(200);
    let dropped = || traced.ingress.metric("m3o_ingress_spans_dropped_total");
    eventually("they are dropped", || dropped() == 2.0);
    assert_eq!(traced.collector.exports().len(), 1);
}

#[test]
fn a_collector_that_is_down_costs_spans_beyond_the_queue_and_no_request() {
    let collector = Collector::scripted(|answering| answering.wait_for_close());
    let traced = Traced::before(collector, ALL, |config| {
        config.tracing.queue = 10;
        config.tracing.batch = 4;
    });
    let mut caller = traced.ingress.caller();
    for _ in 0..20 {
        caller.get(BLOG, "/").expect(200);
    }
    // Ten wait, four are being told, all others are gone.
    let dropped = || traced.ingress.metric("m3o_ingress_spans_dropped_total");
    eventually("they are counted", || dropped() >= 26.0);
    assert!(dropped() <= 30.0, "{}", dropped());
}

#[test]
fn the_last_spans_are_told_before_the_end() {
    let mut traced = Traced::before(Collector::new(), ALL, |config| {
        config.tracing.delay = Duration::from_secs(3600);
    });
    traced.ingress.get(BLOG, "/").expect(200);
    assert_eq!(traced.collector.server.seen().len(), 0);
    traced.ingress.advance(Stage::Draining);
    traced.ingress.join().unwrap();
    assert_eq!(traced.collector.spans().len(), 2);
}

#[test]
fn a_batch_is_told_before_its_time() {
    let traced = Traced::before(Collector::new(), ALL, |config| {
        config.tracing.delay = Duration::from_secs(3600);
        config.tracing.batch = 4;
    });
    let mut caller = traced.ingress.caller();
    caller.get(BLOG, "/").expect(200);
    caller.get(BLOG, "/").expect(200);
    traced.collector.wait_for(4);
}

#[test]
fn a_collector_may_be_where_backends_may_not() {
    let traced = Traced::before(Collector::new(), ALL, |config| {
        config.backends.allow_private = false;
    });
    traced.ingress.get(BLOG, "/").expect(502);
    traced.collector.wait_for(2);
}

#[test]
fn spans_are_told_by_the_authorities_of_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let server = TestBackend::secure_scripted(&path("right.pem"), |answering| {
        answering.body();
        answering.write(ok(""));
    });
    let _other = TestBackend::secure(&path("wrong.pem"), "");
    let authority = |name: &str| path(name).to_str().unwrap().to_owned();
    let traced = Traced::before(Collector { server }, ALL, |config| {
        config.backends.ca = authority("wrong.pem");
    });
    traced.ingress.get(BLOG, "/").expect(200);
    eventually("it is not trusted", || traced.collector.server.opened() > 0);
    assert!(traced.collector.exports().is_empty());
    traced
        .ingress
        .reload(|config| config.backends.ca = authority("right.pem"))
        .unwrap();
    traced.ingress.get(BLOG, "/").expect(200);
    eventually("it is told", || !traced.collector.exports().is_empty());
}
