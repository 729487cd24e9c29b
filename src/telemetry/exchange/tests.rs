//! Whatever a client sends is one line, and can be read again.

use std::net::SocketAddr;

use http::{Uri, header};
use proptest::prelude::*;
use regex::Regex;

use super::*;
use crate::telemetry::Config;
use crate::telemetry::client::Side;
use crate::telemetry::log::Layout;
use crate::wire::timer::Timer;
use crate::wire::{Body, Scheme};

fn telemetry(metrics: Arc<Metrics>) -> Arc<Telemetry> {
    Arc::new(Telemetry {
        log: Log::start(
            super::super::log::Style::Json,
            Arc::clone(&metrics),
            Vec::new(),
        )
        .unwrap()
        .log(),
        metrics,
        access: Access::of(&Config::default()),
        tracer: None,
    })
}

/// What a client may send, as far as lines show it.
#[derive(Debug, Clone)]
struct Sent {
    method: String,
    target: Uri,
    fields: Vec<(http::HeaderName, HeaderValue)>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let method = prop_oneof![Just("GET".to_owned()), "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,30}"];
    let target =
        "/[ -~é\u{85}]{0,60}".prop_filter_map("no target", |text| Uri::try_from(text).ok());
    let value = prop_oneof!["[ -~]{0,40}", "https?://m3o\\.app[ -~]{0,40}", ".{0,40}",]
        .prop_map(String::into_bytes);
    let value = prop_oneof![value, proptest::collection::vec(any::<u8>(), 0..40)]
        .prop_filter_map("no value", |bytes| HeaderValue::from_bytes(&bytes).ok());
    let values = proptest::collection::vec(value, 3);
    (method, target, values).prop_map(|(method, target, values)| Sent {
        method,
        target,
        fields: [header::USER_AGENT, header::REFERER, header::HOST]
            .into_iter()
            .zip(values)
            .collect(),
    })
}

fn line(telemetry: &Arc<Telemetry>, sent: &Sent, cause: &str, layout: Layout) -> String {
    let mut request = Request::new(Body::Empty);
    *request.method_mut() = sent.method.parse().unwrap();
    *request.uri_mut() = sent.target.clone();
    request.headers_mut().extend(sent.fields.iter().cloned());
    let address = SocketAddr::from(([192, 0, 2, 1], 1));
    let peer = Peer::new(address, Scheme::Http, Timer::new());
    let id = RequestId::default();
    let mut exchange = Exchange::begin(telemetry, &request, &peer, Trust::Stranger, id);
    exchange.cause = Some(cause.to_owned());
    let backend = HeaderValue::from_static("127.0.0.1:1");
    let asking = exchange.asks(Side::Backend, &backend, 1, &mut request);
    asking.answered(StatusCode::OK);
    // As it would be for this layout alone.
    let line = Line::of(&request, &peer, layout);
    let mut out = Vec::new();
    let call = exchange.line.as_mut().and_then(|line| line.call.take());
    let line = Line { call, ..line };
    let entry = exchange.entry(&line, 200, Duration::from_micros(1234));
    entry.write(layout, &mut out);
    String::from_utf8(out).unwrap()
}

#[track_caller]
fn check_one(line: &str) {
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    assert!(line.ends_with('\n'), "{line:?}");
    assert!(!line.trim_end().contains(char::is_control), "{line:?}");
}

proptest! {
    #[test]
    fn whatever_is_sent_is_one_object(sent in sent(), cause in ".{0,30}") {
        let telemetry = telemetry(Metrics::new());
        let line = line(&telemetry, &sent, &cause, Layout::Json);
        assert_eq!(line.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(&object["http.response.status_code"], 200);
        prop_assert_eq!(&object["duration_ms"], 1.234);
        prop_assert_eq!(&object["backend.address"], "127.0.0.1:1");
        prop_assert!(object["backend.duration_ms"].is_number());
        prop_assert!(object["url.path"].as_str().unwrap().starts_with('/'));
        let agent = String::from_utf8_lossy(sent.fields[0].1.as_bytes());
        if redact::scrub(&agent) == agent {
            prop_assert_eq!(&object["user_agent.original"], &*agent);
        }
    }

    #[test]
    fn whatever_is_sent_is_one_line_for_people(sent in sent(), cause in ".{0,30}") {
        check_one(&line(&telemetry(Metrics::new()), &sent, &cause, Layout::Human));
    }

    #[test]
    fn whatever_is_sent_is_one_line_that_tools_for_combined_split(sent in sent()) {
        let line = line(&telemetry(Metrics::new()), &sent, "", Layout::Combined);
        check_one(&line);
        prop_assert!(line.is_ascii());
        let text = r#"((?:[^"\\]|\\x[0-9A-F]{2})*)"#;
        let request = r#"(\S+ /[^"]* HTTP/\d\.\d)"#;
        let pattern = format!(
            r#"^(\S+) - - \[(\d\d/[A-Z][a-z]{{2}}/\d{{4}}(?::\d\d){{3}} \+0000)\] "{request}" (\d{{3}}) (\d+) "{text}" "{text}"\n$"#
        );
        let parts = Regex::new(&pattern).unwrap();
        let parts = parts.captures(&line);
        prop_assert!(parts.is_some(), "{}", line);
        let parts = parts.unwrap();
        prop_assert_eq!(&parts[1], "192.0.2.1");
        prop_assert_eq!(&parts[4], "200");
        // What is plain is there as it is.
        let agent = sent.fields[0].1.as_bytes();
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !b"\"\\".contains(byte);
        if let Ok(agent) = std::str::from_utf8(agent)
            && agent.bytes().all(|byte| is_plain(&byte))
            && redact::scrub(agent) == agent
            && !agent.is_empty()
        {
            prop_assert_eq!(&parts[7], agent);
        }
    }
}

#[test]
fn what_was_no_request_has_a_line_too() {
    let telemetry = telemetry(Metrics::new());
    let peer = Peer::new(
        SocketAddr::from(([192, 0, 2, 1], 1)),
        Scheme::Http,
        Timer::new(),
    );
    let asked = requests::Asked::badly(Scheme::Http);
    let exchange = Exchange::new(
        &telemetry,
        Instant::now(),
        RequestId::default(),
        None,
        asked,
    );
    let line = Line::of_none(&peer);
    let written = |layout| {
        let mut out = Vec::new();
        let entry = exchange.entry(&line, 400, Duration::ZERO);
        entry.write(layout, &mut out);
        String::from_utf8(out).unwrap()
    };
    let combined = written(Layout::Combined);
    assert!(
        combined.ends_with(" \"-\" 400 0 \"-\" \"-\"\n"),
        "{combined}"
    );
    let json: serde_json::Value = serde_json::from_str(&written(Layout::Json)).unwrap();
    assert_eq!(json["http.request.method"], "_OTHER");
    for unknown in ["url.path", "url.query", "network.protocol.version"] {
        assert_eq!(json.get(unknown), None, "{unknown}");
    }
    check_one(&written(Layout::Human));
}
