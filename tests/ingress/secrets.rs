//! Secrets reach who is to have them and nobody else, and no type of ours prints one.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use m3o_ingress::config::{Config, Environment};
use m3o_ingress::credentials::{Credentials, Secret};
use m3o_ingress::destination::Destination;
use m3o_ingress::id::RequestId;
use m3o_ingress::ingress::Secrets;
use m3o_ingress::mail::Message;
use m3o_ingress::otlp::Export;
use m3o_ingress::proxy::parameters::Parameters;
use m3o_ingress::resolve::Backend;
use m3o_ingress::telemetry::access::Access;
use m3o_ingress::telemetry::exchange::{Exchange, Telemetry};
use m3o_ingress::telemetry::log::{Capture, Log, Style};
use m3o_ingress::telemetry::metrics::Metrics;
use m3o_ingress::units::Share;
use m3o_ingress::upstream::{self, Remote, ShortLink, messages};
use m3o_ingress::wire::framing::Found;
use m3o_ingress::wire::head::{self, HeadLimits, Scan};
use m3o_ingress::wire::link::Link;
use m3o_ingress::wire::timer::Timer;
use m3o_ingress::wire::{Body, Peer, Request, Scheme, Trust};

use super::harness::api::OWN_TOKEN;
use super::harness::{Seen, TestApi, TestBackend, TestIngress};

const SECRET: &str = "zqsecretqz";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// Where it stands in all of a request: lines of the head, the body, the trailers.
fn places(seen: &Seen, secret: &str) -> Vec<String> {
    let head = String::from_utf8_lossy(&seen.head.raw).into_owned();
    head.lines()
        .map(str::to_owned)
        .chain([seen.text(), format!("{:?}", seen.trailers)])
        .filter(|place| place.contains(secret))
        .collect()
}

/// Calls the API with a key wherever one may stand, and gives what arrived there.
#[track_caller]
fn called(head: &str, body: &str) -> Seen {
    let api = TestApi::new();
    api.says("helloworld/call", OK);
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.send(format!(
        "{head}\r\nHost: localhost\r\nContent-Length: {}\r\nCookie: session={SECRET}\r\n\
         Referer: http://localhost/?api_key={SECRET}\r\n\
         Proxy-Authorization: Basic {SECRET}\r\n\r\n{body}",
        body.len()
    ));
    let reply = caller.reply().expect(200);
    let answered = String::from_utf8_lossy(&reply.head.raw).into_owned() + &reply.text();
    assert!(!answered.contains(SECRET), "{answered}");
    let calls = api.calls("helloworld/call");
    assert_eq!(calls.len(), 1);
    calls.into_iter().next().unwrap()
}

#[test]
fn the_api_gets_the_key_of_a_client_as_authorization_and_nowhere_else() {
    const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
    const MULTIPART: &str = "Content-Type: multipart/form-data; boundary=b";
    let part = format!(
        "--b\r\nContent-Disposition: form-data; name=\"api_key\"\r\n\r\n{SECRET}\r\n--b--\r\n"
    );
    for (target, field, body) in [
        ("?name=a", "Authorization: Bearer zqsecretqz", ""),
        ("?api_key=zqsecretqz&name=a", "X: y", ""),
        ("?name=a&api%5Fkey=zqsecretqz", "X: y", ""),
        ("?%61pi_key=zqsecretqz&api_key=zqsecretqz", "X: y", ""),
        (
            "?api_key=zqsecretqz",
            "Content-Type: application/json",
            "{}",
        ),
        ("?api_key=zqsecretqz", FORM, "{}"),
        ("?api_key=zqsecretqz", FORM, "api_key=zqsecretqz&a=b"),
        ("", FORM, "a=b&api_key=zqsecretqz"),
        ("", FORM, "a=b&api%5Fkey=zqsecretqz&api_key=zqsecretqz"),
        ("", MULTIPART, &part),
        ("?api_key=zqsecretqz", MULTIPART, &part),
    ] {
        let seen = called(
            &format!("POST /api/helloworld/call{target} HTTP/1.1\r\n{field}"),
            body,
        );
        let found = places(&seen, SECRET);
        let [authorization] = found.as_slice() else {
            panic!("{target} {field} {body}: {found:?}");
        };
        assert!(
            authorization.eq_ignore_ascii_case(&format!("authorization: Bearer {SECRET}")),
            "{authorization}"
        );
        assert_eq!(places(&seen, OWN_TOKEN), [""; 0], "{target} {field}");
    }
}

#[test]
fn our_own_calls_carry_nothing_of_the_client() {
    let backend = TestBackend::answering(OK);
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    let fields = format!(
        "Authorization: Bearer {SECRET}\r\nCookie: a={SECRET}\r\nX-Api-Key: {SECRET}\r\n\
         Proxy-Authorization: Basic {SECRET}\r\nReferer: http://x/?{SECRET}\r\n"
    );
    let query = format!("/?api_key={SECRET}&a={SECRET}");
    let mut caller = ingress.caller();
    caller
        .ask("GET", &query, "blog.m3o.app", &fields)
        .expect(200);
    caller.ask("GET", &query, "user.m3o.com", &fields);
    caller.ask(
        "GET",
        &format!("/u/x?api_key={SECRET}"),
        "localhost",
        &fields,
    );
    for endpoint in ["app/Resolve", "url/Resolve"] {
        let calls = api.calls(endpoint);
        assert_eq!(calls.len(), 1, "{endpoint}");
        assert_eq!(places(&calls[0], SECRET), [""; 0], "{endpoint}");
        assert_eq!(places(&calls[0], OWN_TOKEN).len(), 1, "{endpoint}");
    }
    // An app has the credentials of its clients, but neither ours nor those for a proxy.
    let seen = backend.only();
    assert_eq!(places(&seen, OWN_TOKEN), [""; 0]);
    assert_eq!(seen.field("Proxy-Authorization"), None);
    assert_eq!(seen.field("Authorization"), Some("Bearer zqsecretqz"));
    assert_eq!(seen.field("Cookie"), Some("a=zqsecretqz"));
}

#[test]
fn a_function_that_the_platform_calls_gets_nothing_of_the_caller() {
    let backend = TestBackend::answering(OK);
    let ingress = TestIngress::embedded();
    let deploy = serde_json::json!({"name": "f", "backend": backend.url()});
    ingress
        .post_json("function/Deploy", &deploy.to_string())
        .expect(200);
    let fields =
        format!("Content-Type: application/json\r\nCookie: a={SECRET}\r\nX-Api-Key: {SECRET}\r\n");
    let key = super::harness::ingress::KEY;
    let target = format!("/v1/function/Call?api_key={key}&a={SECRET}");
    let call = br#"{"name": "f", "request": {}}"#;
    ingress
        .caller()
        .post("localhost", &target, &fields, call)
        .expect(200);
    let seen = backend.only();
    assert_eq!(places(&seen, SECRET), [""; 0]);
    assert_eq!(places(&seen, key), [""; 0]);
}

/// Asserts that neither form of `Debug` shows the secret, as text or as numbers.
#[track_caller]
fn check_printed(what: &str, value: &impl Debug) {
    let numbers: Vec<String> = SECRET.bytes().map(|byte| byte.to_string()).collect();
    for printed in [format!("{value:?}"), format!("{value:#?}")] {
        assert!(!printed.contains(SECRET), "{what}: {printed}");
        let line = printed.replace(char::is_whitespace, "");
        assert!(!line.contains(&numbers.join(",")), "{what}: {printed}");
    }
}

#[test]
fn no_type_that_holds_a_secret_prints_it() {
    let secret = Secret::new(SECRET);
    check_printed("Secret", &secret);
    check_printed("Credentials", &Credentials::bearer(SECRET).unwrap());
    let secrets = Secrets {
        api_token: Some(secret.clone()),
        platform_key: Some(secret.clone()),
        smtp_url: Some(secret.clone()),
        acme: m3o_ingress::acme::Secrets {
            eab_key: Some(secret.clone()),
            tsig_key: Some(secret.clone()),
        },
        traces: Export::read(
            |name| match name {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some("http://c/?key=zqsecretqz"),
                "OTEL_RESOURCE_ATTRIBUTES" => Some("a=zqsecretqz"),
                _ => None,
            },
            Some(&Secret::new(format!("x-key={SECRET}"))),
            Share::ALL,
        )
        .unwrap(),
    };
    assert!(secrets.traces.is_some());
    check_printed("Secrets", &secrets);
    let environment: Environment = [("SMTP_URL", SECRET)].into_iter().collect();
    check_printed("Environment", &environment);
    let config = "listen.http = '127.0.0.1:1'\napi.address = 'https://api.m3o.com'\n";
    let config = Config::parse("test", config, &environment).unwrap();
    check_printed("Config", &config);
    let remote = Remote::new(&config.api.unwrap(), &secret, std::time::Duration::ZERO);
    check_printed("Remote", &remote.unwrap());
    check_printed(
        "upstream::Config",
        &upstream::Config {
            address: "https://api.m3o.com".to_owned().try_into().unwrap(),
            token_env: String::new(),
        },
    );

    let url = format!("https://a.example/{SECRET}?token={SECRET}#{SECRET}");
    check_printed("Destination", &Destination::parse(&url).unwrap());
    check_printed("Backend", &Backend::parse(&url).unwrap());
    check_printed("ShortLink", &ShortLink::Url(url.clone()));
    check_printed(
        "ByShortUrl",
        &messages::ByShortUrl {
            short_url: (&*url).into(),
        },
    );
    check_printed(
        "ByToken",
        &messages::ByToken {
            token: SECRET.into(),
        },
    );
    check_printed(
        "Resolved",
        &messages::Resolved {
            url: url.clone(),
            closed: None,
        },
    );
    check_printed(
        "LinkResolved",
        &messages::LinkResolved {
            destination_url: url,
        },
    );
    check_printed(
        "Message",
        &Message {
            to: format!("{SECRET}@b.example"),
            from_name: SECRET.to_owned(),
            subject: SECRET.to_owned(),
            text: SECRET.to_owned(),
        },
    );
    let query = format!("api_key={SECRET}&password={SECRET}&{SECRET}");
    check_printed("Parameters", &Parameters::parse(query.as_bytes()));

    check_printed("Body", &Body::from(SECRET.to_owned()));
    check_printed("Found", &Found::Data(Bytes::from_static(SECRET.as_bytes())));
    let mut link = Link::new(tokio::io::duplex(1).0);
    link.input.extend_from_slice(SECRET.as_bytes());
    link.output.text().extend_from_slice(SECRET.as_bytes());
    check_printed("Link", &link);
}

/// A request as it comes from the wire, with secrets in its target and in every field that has any.
fn request() -> Request {
    let mut text = format!("GET /api/a/b?api_key={SECRET} HTTP/1.1\r\nHost: u:{SECRET}@x\r\n");
    for name in FIELDS {
        text.push_str(&format!("{name}: {SECRET}\r\n"));
    }
    text.push_str("\r\n");
    let limits = HeadLimits {
        bytes: 1 << 16,
        fields: 100,
    };
    let whole = Scan::default().advance(text.as_bytes(), &limits);
    let whole = whole.unwrap().unwrap();
    let request = head::request(&Bytes::from(text), &whole, HeaderMap::new());
    request.unwrap().map(|()| Body::from(SECRET.to_owned()))
}

const FIELDS: [&str; 8] = [
    "Authorization",
    "Cookie",
    "Location",
    "Proxy-Authorization",
    "Referer",
    "Sec-WebSocket-Protocol",
    "Set-Cookie",
    "X-Api-Key",
];

#[test]
fn a_request_prints_no_field_that_holds_a_secret() {
    let mut request = request();
    for name in FIELDS {
        check_printed(name, &request.headers()[name]);
    }
    let metrics = Metrics::new();
    let telemetry = Arc::new(Telemetry {
        metrics: Arc::clone(&metrics),
        log: Log::start(Style::Json, metrics, Capture::default())
            .unwrap()
            .log(),
        access: Access::of(&Default::default()),
        tracer: None,
    });
    let peer = Peer::new(
        SocketAddr::from(([192, 0, 2, 1], 1)),
        Scheme::Http,
        Timer::new(),
    );
    check_printed("Peer", &peer);
    let id = RequestId::default();
    let exchange = Exchange::begin(&telemetry, &request, &peer, Trust::Stranger, id);
    check_printed("Exchange", &exchange);
    request.headers_mut().remove("host");
    *request.uri_mut() = "/".parse().unwrap();
    check_printed("Request", &request);
}

#[test]
fn a_request_that_is_logged_all_the_same_is_scrubbed() {
    let mut request = request();
    request.headers_mut().remove("host");
    for style in [Style::Human, Style::Json] {
        let lines = Capture::default();
        let writer = Log::start(style, Metrics::new(), lines.clone()).unwrap();
        let line = match style {
            Style::Human => format!("{request:?}\n"),
            Style::Json => serde_json::json!({ "message": format!("{request:?}") }).to_string(),
        };
        writer.log().write(line.as_bytes());
        writer.finish();
        assert!(lines.text().contains("api_key"), "{}", lines.text());
        assert!(!lines.text().contains(SECRET), "{}", lines.text());
    }
}
