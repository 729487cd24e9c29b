//! Metrics as Prometheus and Grafana take them: a scrape, the alerts and the dashboard, judged by promtool.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::caller::{self, api, get, request};
use crate::process::{Ingress, eventually};
use crate::server::{Server, ok};
use crate::tools::{self, promtool};

/// Every series of an ingress that has seen requests of every kind.
#[track_caller]
fn scrape_after_traffic(folder: &Path) -> String {
    let ingress = Ingress::dev(folder);
    let http = ingress.http;
    let server = Server::start(|arrived| match arrived.head.contains("/broken") {
        true => "nonsense".to_owned(),
        false => ok("text/plain", "hello"),
    });
    let app = json!({"name": "blog", "backend": server.url()});
    api(http, "dev", "app/Run", &app).fine();
    let link = json!({"id": "here", "destinationURL": "https://example.com/"});
    api(http, "dev", "url/Create", &link).fine();
    for (method, host, target) in [
        ("GET", "blog.app.localhost", "/"),
        ("POST", "blog.app.localhost", "/form"),
        ("BREW", "blog.app.localhost", "/coffee"),
        ("GET", "blog.app.localhost", "/broken"),
        ("GET", "helloworld.app.localhost", "/"),
        ("GET", "helloworld.fn.localhost", "/"),
        ("GET", "canary.app.localhost", "/"),
        ("GET", "app.localhost", "/"),
        ("GET", "localhost", "/u/here"),
        (
            "GET",
            "localhost",
            "/api/helloworld/call?api_key=dev&name=canary",
        ),
        ("GET", "user.localhost", "/?token=canary"),
        ("GET", "canary.example", "/canary"),
        ("TRACE", "blog.app.localhost", "/"),
    ] {
        let sent = request(method, host, target, &["X-Test: canary"], "");
        caller::send(http, sent.as_bytes()).unwrap();
    }
    caller::send(http, b"canary\r\n\r\n").unwrap();
    for version in ["--http2-prior-knowledge", "--http1.1"] {
        let port = http.port();
        let url = format!("http://blog.app.localhost:{port}/");
        curl(&[version, &url]);
    }
    let port = ingress.https_port();
    curl(&["--insecure", &format!("https://blog.app.localhost:{port}/")]);
    get(ingress.admin, "localhost", "/metrics");
    get(http, "blog.app.localhost", "/");
    let text = eventually("all that was asked has ended", || {
        let text = get(ingress.admin, "localhost", "/metrics").body;
        text.contains("http_server_active_requests 0\n")
            .then_some(text)
    });
    ingress.stop();
    text
}

#[track_caller]
fn curl(arguments: &[&str]) {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--output",
            "/dev/null",
        ])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn promtool_has_nothing_to_say_about_a_scrape_and_nothing_of_a_request_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = scrape_after_traffic(folder.path());
    promtool(&["check", "metrics"], &text);
    assert!(!text.contains("canary"), "{text}");
    for (labels, what) in [
        (r#"http_route="app",network_protocol_version="2""#, "HTTP/2"),
        (r#"network_protocol_version="2",url_scheme="https""#, "TLS"),
        (
            r#"http_request_method="_OTHER""#,
            "a method that nobody knows",
        ),
        (r#"http_route="function""#, "a function"),
        (r#"http_route="index""#, "the list of apps"),
        (r#"http_route="verify""#, "a link of a mail"),
        (r#"app="blog",class="2xx",http_route="app""#, "an app"),
    ] {
        assert!(text.contains(labels), "{what} is not in\n{text}");
    }
}

#[test]
fn the_alerts_and_the_dashboard_ask_for_series_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let scraped = scrape_after_traffic(folder.path());
    let mut known = BTreeSet::new();
    for line in scraped.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(typed) => known.extend(typed.split(' ').next()),
            None => known.extend(line.split(['{', ' ']).next()),
        }
    }
    let mut asked = 0;
    for expression in expressions(&dashboard()).iter().chain(&[alerts()]) {
        for name in names(expression) {
            assert!(
                known.contains(&*name),
                "{name} of {expression} is not there"
            );
            asked += 1;
        }
    }
    assert!(asked > 100, "{asked} names were read");
    // And nothing is counted that nobody looks at.
    let looked_at: BTreeSet<String> = expressions(&dashboard())
        .iter()
        .flat_map(|expression| names(expression))
        .collect();
    for line in scraped.lines() {
        let Some(typed) = line.strip_prefix("# TYPE ") else {
            continue;
        };
        let name = typed.split(' ').next().unwrap();
        let is_shown = looked_at.iter().any(|shown| shown.starts_with(name));
        let is_ours = name.starts_with("m3o_") || name.starts_with("http_");
        assert!(is_shown || !is_ours, "{name} is not on the dashboard");
    }
}

#[test]
fn every_alert_leads_to_its_paragraph() {
    let pages = read("docs/operations.md");
    let headings: BTreeSet<String> = pages
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|heading| heading.to_lowercase().replace(':', "").replace(' ', "-"))
        .collect();
    let alerts = alerts();
    let led = alerts
        .lines()
        .filter_map(|line| line.split_once("docs/operations.md#"));
    let led: BTreeSet<&str> = led.map(|(_, rest)| rest.trim_end_matches('"')).collect();
    assert!(led.len() > 20, "{led:?}");
    for anchor in led {
        assert!(headings.contains(anchor), "{anchor}");
    }
}

#[test]
fn promtool_reads_every_expression_of_the_dashboard() {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, expression) in expressions(&dashboard()).iter().enumerate() {
        let expression = expression
            .replace("$__rate_interval", "1m")
            .replace("$job", "m3o-ingress")
            .replace("$instance", ".*");
        assert!(!expression.contains('$'), "{expression}");
        let expression = json!(expression);
        rules.push_str(&format!(
            "      - record: panel:{number}\n        expr: {expression}\n"
        ));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}

#[test]
fn the_alerts_fire_when_they_should_and_not_before() {
    promtool(&["check", "config", "prometheus.yml"], "");
    promtool(&["check", "rules", "--lint-fatal", "alerts.yml"], "");
    let said = promtool(&["test", "rules", "alerts_test.yml"], "");
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn every_alert_says_how_bad_it_is_and_where_to_read_what_to_do_and_has_a_test() {
    let alerts = alerts();
    let tests = read("deploy/prometheus/alerts_test.yml");
    let mut number = 0;
    for alert in alerts.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap();
        let words = name.chars().flat_map(|letter| {
            let dash = letter.is_uppercase().then_some('-');
            dash.into_iter().chain([letter.to_ascii_lowercase()])
        });
        let anchor: String = words.collect();
        let runbook = format!("runbook_url: \"docs/operations.md#alert{anchor}\"");
        for needed in [&*runbook, "summary: \"", "description: \""] {
            assert!(alert.contains(needed), "{name} has no {needed}");
        }
        let severities = ["severity: critical\n", "severity: warning\n"];
        assert!(
            severities.iter().any(|severity| alert.contains(severity)),
            "{name}"
        );
        assert!(
            tests.contains(&format!("alertname=\"{name}\"")),
            "{name} has no test"
        );
        number += 1;
    }
    assert!(number > 20, "{number} alerts were read");
}

#[track_caller]
fn read(path: &str) -> String {
    std::fs::read_to_string(tools::folder(path)).unwrap()
}

fn alerts() -> String {
    read("deploy/prometheus/alerts.yml")
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/m3o-ingress.json")).unwrap()
}

/// Every expression below a value.
fn expressions(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, field)| match (name.as_str(), field) {
                ("expr", Value::String(expression)) => vec![expression.clone()],
                _ => expressions(field),
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(expressions).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// The names of series in a text: words that begin as those do.
fn names(text: &str) -> Vec<String> {
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter: char| !is_of_name(letter));
    let begins = ["m3o_ingress_", "http_server_", "http_client_", "process_"];
    words
        .filter(|word| begins.iter().any(|begin| word.starts_with(begin)))
        .map(str::to_owned)
        .collect()
}
