//! What a running ingress says of requests, and that it then does so.

use std::time::Duration;

use m3o_ingress::rates::Rate;
use serde_json::{Value, json};

use crate::harness::backend::{ok, response};
use crate::harness::operator::Operator;
use crate::harness::{TestApi, TestBackend, TestIngress, eventually};

/// What is told of a question.
#[track_caller]
fn told(operator: &Operator, question: &Value) -> Value {
    operator.does("/explain", &question.to_string())
}

/// Every step of a name, and the keys that decided.
fn steps(told: &Value, name: &str) -> Vec<(String, String)> {
    let steps = told["steps"].as_array().unwrap().iter();
    let found = steps.filter(|step| step["name"] == name);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    found
        .map(|step| (text(&step["what"]), text(&step["by"][0])))
        .collect()
}

#[track_caller]
fn step(told: &Value, name: &str) -> String {
    let found = steps(told, name);
    let [(what, _)] = &found[..] else {
        panic!("{name} in {told:#}")
    };
    what.clone()
}

fn url(host: &str, target: &str) -> Value {
    json!({ "url": format!("http://{host}{target}") })
}

#[test]
fn the_cache_is_shown_and_nothing_is_asked_or_counted() {
    let operator = Operator::new();
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &format!("{}/canary?key=canary", backend.url()));
    let ingress = TestIngress::before_with(&api, |config| operator.runs(config));
    let asked = || told(&operator, &url("blog.m3o.app", "/a?b=canary"));

    let before = asked();
    let would = format!(
        "nothing: would ask POST /v1/app/Resolve of http://{}",
        api.address()
    );
    assert_eq!(step(&before, "cache"), would);
    assert!(api.calls("app/Resolve").is_empty());

    ingress.get("blog.m3o.app", "/").expect(200);
    let after = asked();
    assert!(
        step(&after, "cache").starts_with("fresh, 0s old, for "),
        "{after:#}"
    );
    assert_eq!(step(&after, "closed"), "no");
    eventually("the request has ended", || {
        step(&asked(), "limits") == "0 requests and 0 tunnels in flight"
    });
    assert_eq!(
        step(&after, "backend"),
        format!("{}/[hidden]", backend.url())
    );
    assert_eq!(step(&after, "address"), "127.0.0.1: permitted");
    assert_eq!(after["answer"]["text"], "what the app answers, streamed");
    assert_eq!(after["request"], "GET http://blog.m3o.app/a?b=[hidden]");
    assert!(!after.to_string().contains("canary"), "{after:#}");

    let missing = told(&operator, &url("nobody.m3o.app", "/"));
    assert!(step(&missing, "cache").starts_with("nothing"));
    ingress.get("nobody.m3o.app", "/").expect(404);
    let missing = told(&operator, &url("nobody.m3o.app", "/"));
    assert!(step(&missing, "cache").starts_with("that there is none, for "));
    assert_eq!(missing["answer"]["status"], 404);

    assert_eq!(api.calls("app/Resolve").len(), 2, "as many as requests");
    assert_eq!(backend.seen().len(), 1, "the request alone");
}

#[test]
fn the_guard_judges_every_address() {
    let operator = Operator::new();
    let ingress = TestIngress::embedded_with(|config| {
        config.backends.allow_private = false;
        operator.runs(config);
    });
    ingress.run_app("inside", "http://169.254.169.254/latest");
    let private = told(&operator, &url("inside.m3o.app", "/"));
    assert_eq!(
        steps(&private, "address"),
        [(
            "169.254.169.254: refused: it is private".to_owned(),
            "backends.allow_private".to_owned()
        )]
    );
    assert_eq!(private["answer"]["status"], 502);
    assert_eq!(private["answer"]["error"], "destination_ip_prohibited");

    let open = Operator::new();
    let ingress = TestIngress::embedded_with(|config| open.runs(config));
    ingress.run_app("loop", &format!("http://{}", ingress.address));
    let own = told(&open, &url("loop.m3o.app", "/"));
    let refused = "127.0.0.1: refused: we listen there ourselves";
    assert_eq!(step(&own, "address"), refused);
    assert_eq!(own["answer"]["error"], "destination_ip_prohibited");
    ingress.run_app("gone", "http://no-such-name.invalid");
    let gone = told(&open, &url("gone.m3o.app", "/"));
    assert_eq!(gone["answer"]["error"], "dns_error");
}

#[test]
fn a_link_is_looked_at_which_is_no_visit() {
    let operator = Operator::new();
    let ingress = TestIngress::embedded_with(|config| operator.runs(config));
    let link = r#"{"id":"promo","destinationURL":"https://example.com/canary?a=canary"}"#;
    ingress.post_json("url/Create", link).expect(200);
    let link = told(&operator, &url("m3o.one", "/promo"));
    assert_eq!(step(&link, "leads to"), "example.com, its path not shown");
    assert_eq!(link["answer"]["status"], 302);
    assert!(!link.to_string().contains("canary"), "{link:#}");
    let listed = ingress.post_json("url/List", "{}").text();
    assert!(listed.contains(r#""hitCount":"0""#), "{listed}");
}

#[test]
fn a_closed_app_says_so() {
    let operator = Operator::new();
    let ingress = TestIngress::embedded_with(|config| operator.runs(config));
    ingress.run_app("blog", "http://127.0.0.1:1");
    operator.does("/apps/blog/maintenance", r#"{"retry_after":60}"#);
    let closed = told(&operator, &url("blog.m3o.app", "/"));
    assert_eq!(
        step(&closed, "closed"),
        "maintenance, come again after 60 s"
    );
    assert_eq!(closed["answer"]["status"], 503);
}

#[test]
fn what_is_no_question_is_refused_and_not_repeated() {
    let operator = Operator::new();
    let _ingress = TestIngress::embedded_with(|config| operator.runs(config));
    for (body, detail) in [
        ("", "no question, at column 0"),
        (r#"{"url":7,"x":"canary"}"#, "no question, at column 8"),
        (
            r#"{"url":"http://u:canary@m3o.app/"}"#,
            "user name or a password",
        ),
        (r#"{"url":"ftp://canary"}"#, "neither http:// nor https://"),
    ] {
        let (status, error) = operator.post("/explain", body);
        assert_eq!(status, 400, "{error}");
        let said = error["detail"].as_str().unwrap();
        assert!(said.contains(detail) && !said.contains("canary"), "{said}");
    }
}

#[test]
fn an_answer_that_cannot_be_asked_for_anew_stands_in() {
    let operator = Operator::new();
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        operator.runs(config);
        config.cache.fresh = Duration::ZERO;
        config.cache.stale = Duration::ZERO;
    });
    let cache = || step(&told(&operator, &url("blog.m3o.app", "/")), "cache");
    ingress.get("blog.m3o.app", "/").expect(200);
    let expired = cache();
    assert!(expired.contains("old: would ask POST"), "{expired}");
    api.says("app/Resolve", response("503 Service Unavailable", "", ""));
    ingress.get("blog.m3o.app", "/").expect(200);
    let standing = cache();
    assert!(
        standing.contains("old: served, as asking failed before"),
        "{standing}"
    );
}

#[test]
fn what_is_left_of_a_rate_is_told_and_not_spent() {
    let operator = Operator::new();
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        operator.runs(config);
        config.rates.peer = Some(Rate::try_from("2/h".to_owned()).unwrap());
    });
    let asked = || {
        let mut question = url("blog.m3o.app", "/");
        question["from"] = "127.0.0.1".into();
        let told = told(&operator, &question);
        (step(&told, "rates"), told["answer"]["status"].as_u64())
    };
    for left in [1, 0] {
        let expected = format!("counted for the client: {left} of 2 left then");
        for _ in 0..3 {
            assert_eq!(asked(), (expected.clone(), None));
        }
        ingress.get("blog.m3o.app", "/").expect(200);
    }
    let refused = "counted for the client: nothing is left".to_owned();
    assert_eq!(asked(), (refused, Some(429)));
    ingress.get("blog.m3o.app", "/").expect(429);
}

/// Each is explained and then asked, and both say the same.
#[test]
fn what_is_explained_is_what_is_answered() {
    let operator = Operator::new();
    let backend = TestBackend::answering(ok("hello"));
    let ingress = TestIngress::embedded_with(|config| {
        operator.runs(config);
        config.limits.uri = 64;
        config.https.domains.insert(
            "only.m3o.app".parse().unwrap(),
            toml::from_str("redirect = true").unwrap(),
        );
    });
    ingress.run_app("blog", &backend.url());
    ingress.run_app("paused", &backend.url());
    ingress.run_app("grpc", "h2c://127.0.0.1:1");
    ingress.run_app("loop", &format!("http://{}", ingress.address));
    operator.does("/apps/paused/pause", "");
    let link = r#"{"id":"promo","destinationURL":"https://example.com/"}"#;
    ingress.post_json("url/Create", link).expect(200);

    let long = format!("/{}", "x".repeat(100));
    let loops = "CDN-Loop: m3o-ingress, m3o-ingress, m3o-ingress";
    let switching = "Connection: Upgrade\r\nUpgrade: foo";
    for (method, host, target, field, expected) in [
        ("GET", "blog.m3o.app", "/", "", None),
        ("GET", "nobody.m3o.app", "/", "", Some(404)),
        ("GET", "evilm3o.app", "/", "", Some(404)),
        ("GET", "a.b.m3o.app", "/", "", Some(404)),
        ("GET", "a_b.m3o.app", "/", "", Some(404)),
        ("GET", "bad!host", "/", "", Some(400)),
        ("GET", "blog.m3o.app", &long, "", Some(414)),
        ("GET", "blog.m3o.app", "/", loops, Some(508)),
        ("GET", "blog.m3o.app", "/", "Expect: miracles", Some(417)),
        ("GET", "blog.m3o.app", "/", "no field", Some(400)),
        ("TRACE", "blog.m3o.app", "/", "", Some(501)),
        ("GET", "paused.m3o.app", "/", "", Some(503)),
        ("GET", "loop.m3o.app", "/", "", Some(502)),
        ("GET", "grpc.m3o.app", "/", switching, Some(502)),
        ("GET", "only.m3o.app", "/a?b=c", "", Some(308)),
        ("GET", "m3o.one", "/promo", "", Some(302)),
        ("HEAD", "m3o.one", "/u/promo", "", Some(302)),
        ("GET", "m3o.one", "/none", "", Some(404)),
        ("GET", "m3o.one", "/api/none", "", Some(404)),
        ("PUT", "m3o.one", "/promo", "", Some(405)),
        ("GET", "m3o.one", "/api/url/List", "", Some(401)),
        ("PUT", "m3o.one", "/api/url/List", "", Some(405)),
        ("GET", "m3o.one", "/v1/url/List", loops, Some(508)),
        ("GET", "user.m3o.com", "/", "", Some(400)),
        (
            "GET",
            "user.m3o.com",
            "/?token=t&redirectUrl=x",
            "",
            Some(400),
        ),
        ("POST", "user.m3o.com", "/?token=t", "", Some(405)),
        ("GET", "m3o.app", "/", "", Some(404)),
    ] {
        let question = json!({
            "url": format!("http://{host}{target}"),
            "method": method,
            "headers": field.split_terminator("\r\n").collect::<Vec<_>>(),
        });
        let told = told(&operator, &question);
        let line = if field.is_empty() {
            String::new()
        } else {
            format!("{field}\r\n")
        };
        let reply = ingress.caller().ask(method, target, host, &line);
        let status = told["answer"]["status"].as_u64();
        assert_eq!(
            status, expected,
            "{method} {host}{target} {field}: {told:#}"
        );
        assert_eq!(
            u64::from(reply.status()),
            expected.unwrap_or(200),
            "{method} {host}{target} {field}"
        );
        let kind = told["answer"]["error"]
            .as_str()
            .map(|error| format!("m3o-ingress; error={error}"));
        assert_eq!(
            reply.field("Proxy-Status"),
            kind.as_deref(),
            "{method} {host}{target}"
        );
    }
}
