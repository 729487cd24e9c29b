//! What belongs to one connection: nothing of it reaches the next one, whatever its sender names.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::backend::ok;
use crate::harness::front::{BLOG, Front};
use crate::harness::{Seen, TestApi, TestBackend, TestIngress};

/// A front whose backend answers with fields that the client gave it in the body.
fn mirror() -> Front {
    Front::scripted(|answering| {
        let fields = answering.body();
        let head = [
            b"HTTP/1.1 200 OK\r\n",
            &fields[..],
            b"Content-Length: 5\r\n\r\nhello",
        ];
        answering.write(head.concat());
    })
}

/// The request as it came to the backend.
#[track_caller]
fn forwarded(front: &Front, fields: &str) -> Seen {
    let mut caller = front.ingress.caller();
    let reply = caller.post(BLOG, "/attack", fields, b"");
    assert_eq!(reply.status(), 200, "{fields:?}: {}", reply.text());
    front.backend.last()
}

#[test]
fn fields_that_connection_names_go_no_further_however_it_is_written() {
    let front = mirror();
    for connection in [
        "Connection: X-Secret",
        "Connection: x-secret",
        "Connection:X-SECRET",
        "Connection: close, X-Secret",
        "Connection: keep-alive,X-Secret",
        "Connection: ,, X-Secret ,",
        "Connection:\tX-Secret\t",
        "Connection: a\r\nConnection: X-Secret",
        "Connection: X-Secret\r\nConnection: close",
        "connection: \"x\", X-Secret",
        "Connection: Upgrade, X-Secret",
    ] {
        let seen = forwarded(
            &front,
            &format!("{connection}\r\nX-Secret: 1\r\nX-Kept: 1\r\n"),
        );
        assert_eq!(seen.field("X-Secret"), None, "{connection}");
        assert_eq!(seen.field("Connection"), None, "{connection}");
        assert_eq!(seen.field("X-Kept"), Some("1"), "{connection}");
    }
}

#[test]
fn what_makes_a_request_ours_cannot_be_named_away() {
    let front = mirror();
    let backend = front.backend.address.to_string();
    for name in [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Request-Id",
        "Via",
        "CDN-Loop",
        "Connection",
        "close, Host, Content-Length, X-Forwarded-For, Via, CDN-Loop, X-Request-Id",
    ] {
        let fields = format!("Connection: {name}\r\nX-Forwarded-For: 1.2.3.4\r\n");
        let seen = forwarded(&front, &fields);
        assert_eq!(seen.field("Host"), Some(&*backend), "{name}");
        assert_eq!(seen.field("Content-Length"), Some("0"), "{name}");
        assert_eq!(seen.field("X-Forwarded-For"), Some("127.0.0.1"), "{name}");
        assert_eq!(seen.field("X-Forwarded-Host"), Some(BLOG), "{name}");
        assert_eq!(seen.field("X-Forwarded-Proto"), Some("http"), "{name}");
        assert_eq!(seen.field("X-Forwarded-Port"), Some("80"), "{name}");
        assert!(seen.field("X-Request-Id").is_some(), "{name}");
        assert_eq!(seen.field("Via"), Some("1.1 m3o-ingress"), "{name}");
        assert_eq!(seen.field("CDN-Loop"), Some("m3o-ingress"), "{name}");
    }
}

#[test]
fn a_body_arrives_whole_whatever_connection_names() {
    let front = mirror();
    for connection in ["Content-Length", "Transfer-Encoding", "Trailer", "TE, Host"] {
        for rest in [
            "Content-Length: 9\r\n\r\nX-A: yes\n",
            "Transfer-Encoding: chunked\r\n\r\n9\r\nX-A: yes\n\r\n0\r\n\r\n",
        ] {
            // The backend's answer is malformed by it, which shows that it was read.
            let mut caller = front.ingress.caller();
            caller.send(format!(
                "POST /attack HTTP/1.1\r\nHost: {BLOG}\r\nConnection: {connection}\r\n{rest}"
            ));
            caller.reply().expect(502);
            assert_eq!(front.backend.last().text(), "X-A: yes\n", "{connection}");
        }
    }
}

#[test]
fn names_with_underscores_that_shadow_ours_are_dropped() {
    let front = mirror();
    for name in [
        "Transfer_Encoding",
        "transfer_encoding",
        "Content_Length",
        "Content_Type",
        "Connection_",
        "X_Forwarded_For",
        "X-Forwarded_For",
        "X_Forwarded-For",
        "X_Forwarded_Host",
        "X_Forwarded_Proto",
        "X_Forwarded_Anything",
        "X_Real_IP",
        "X_Request_Id",
        "X_Request-ID",
        "CDN_Loop",
        "Proxy_Authorization",
        "Proxy_Connection",
        "Keep_Alive",
    ] {
        let seen = forwarded(&front, &format!("{name}: 1\r\nMy_Own: 1\r\n"));
        if name != "Connection_" {
            assert_eq!(seen.field(name), None, "{name}");
        }
        assert_eq!(seen.field("My_Own"), Some("1"), "{name}");
    }
}

#[test]
fn of_te_only_trailers_pass() {
    let front = mirror();
    for (fields, expected) in [
        ("TE: trailers\r\n", Some("trailers")),
        ("TE: Trailers\r\nConnection: TE\r\n", Some("trailers")),
        ("TE: gzip, trailers;q=0.5\r\n", None),
        ("TE: trailers, deflate;q=0.5\r\n", Some("trailers")),
        ("TE: gzip\r\nTE: trailers\r\n", Some("trailers")),
        ("TE: chunked\r\n", None),
        ("TE:\r\n", None),
    ] {
        let seen = forwarded(&front, fields);
        assert_eq!(seen.field("TE"), expected, "{fields:?}");
    }
}

#[test]
fn an_upgrade_passes_only_if_it_is_asked_for_in_full() {
    let front = mirror();
    let asked = |head: &str| {
        let mut caller = front.ingress.caller();
        caller.send(head);
        caller.reply().expect(200);
        front.backend.last()
    };
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let head = |method: &str, version: &str, fields: &str| {
        format!("{method} /attack HTTP/{version}\r\nHost: {BLOG}\r\n{fields}\r\n")
    };
    let seen = asked(&head("GET", "1.1", websocket));
    assert_eq!(seen.field("Upgrade"), Some("websocket"));
    assert_eq!(seen.field("Connection"), Some("Upgrade"));
    for ignored in [
        head("GET", "1.0", websocket),
        head("POST", "1.1", websocket),
        head("GET", "1.1", "Upgrade: websocket\r\n"),
        head("GET", "1.1", "Upgrade: websocket\r\nConnection: close\r\n"),
        head("GET", "1.1", "Connection: Upgrade\r\n"),
        head("GET", "1.1", "Connection: Upgrade\r\nUpgrade:\r\n"),
        head("GET", "1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        head("GET", "1.1", "Connection: Upgrade\r\nUpgrade: H2C\r\n"),
        head(
            "GET",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n",
        ),
        head(
            "GET",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        ),
        head(
            "GET",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
        ),
        head(
            "GET",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        ),
        head("GET", "1.1", &format!("{websocket}Content-Length: 6\r\n")) + "A: b\r\n",
    ] {
        let seen = asked(&ignored);
        assert_eq!(seen.field("Upgrade"), None, "{ignored}");
        assert_eq!(seen.field("Connection"), None, "{ignored}");
    }
}

#[test]
fn fields_that_a_backend_names_stay_between_it_and_us() {
    let front = mirror();
    for fields in [
        "Connection: X-Secret\r\nX-Secret: 1\r\n",
        "X-Secret: 1\r\nConnection: close, x-secret\r\n",
        "Connection: a\r\nX-Secret: 1\r\nConnection: X-SECRET\r\n",
    ] {
        for name in [
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authenticate",
            "Upgrade",
        ] {
            let fields = format!("{fields}{name}: x\r\nX-Kept: 1\r\n");
            let mut caller = front.ingress.caller();
            let reply = caller
                .post(BLOG, "/attack", "", fields.as_bytes())
                .expect(200);
            assert_eq!(reply.text(), "hello");
            for gone in ["X-Secret", "Connection", name] {
                assert_eq!(reply.field(gone), None, "{gone} of {fields:?}");
            }
            assert_eq!(reply.field("X-Kept"), Some("1"));
            front.serves_another_over(&mut caller);
        }
    }
    // What frames and names our answer is ours.
    let fields = "Connection: Content-Length, X-Request-Id, Date\r\nX-Request-Id: theirs\r\n";
    let mut caller = front.ingress.caller();
    let reply = caller
        .post(BLOG, "/attack", "", fields.as_bytes())
        .expect(200);
    assert_eq!(reply.text(), "hello");
    assert!(uuid::Uuid::parse_str(reply.field("X-Request-Id").unwrap()).is_ok());
    front.serves_another_over(&mut caller);
}

/// Names that mean something to us or to others, and some that mean nothing.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z][A-Za-z0-9_-]{0,10}",
        prop::sample::select(vec![
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authorization",
            "TE",
            "Trailer",
            "Upgrade",
            "HTTP2-Settings",
            "Via",
            "CDN-Loop",
            "Forwarded",
            "X-Real-IP",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X_Forwarded_For",
            "Content_Length",
            "Transfer_Encoding",
            "X-Request-Id",
            "Cookie",
            "Accept",
        ])
        .prop_map(str::to_owned),
    ]
}

/// Fields whose values often name other fields.
fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let value = prop_oneof![
        "[!-~]{0,12}",
        prop::collection::vec(name(), 1..4).prop_map(|names| names.join(", ")),
    ];
    let connection = prop::collection::vec(name(), 0..5)
        .prop_map(|names| ("Connection".to_owned(), names.join(",")));
    let any = (name(), value);
    prop::collection::vec(prop_oneof![3 => any, 1 => connection], 0..12).prop_filter(
        "these have rules of their own",
        |fields| {
            fields.iter().all(|(name, _)| {
                !["host", "expect", "content-length", "transfer-encoding"]
                    .contains(&&*name.to_ascii_lowercase())
            })
        },
    )
}

fn lines(fields: &[(String, String)]) -> String {
    let line = |(name, value): &(String, String)| format!("{name}: {value}\r\n");
    fields.iter().map(line).collect()
}

/// Whether a `Connection` field among `fields` names `name`.
fn names(fields: &[(String, String)], name: &str) -> bool {
    fields
        .iter()
        .filter(|(connection, _)| connection.eq_ignore_ascii_case("connection"))
        .flat_map(|(_, value)| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case(name))
}

const OURS: [&str; 10] = [
    "host",
    "content-length",
    "via",
    "cdn-loop",
    "te",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
];

#[test]
fn whatever_a_client_names_nothing_of_its_connection_reaches_the_backend() {
    let backend = TestBackend::answering(ok(""));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    let address = backend.address.to_string();
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(200)
    });
    let property = |fields: Vec<(String, String)>| {
        let mut caller = ingress.caller();
        let reply = caller.post(BLOG, "/", &lines(&fields), b"hello");
        prop_assume!(reply.status() != 508);
        prop_assert_eq!(reply.status(), 200);
        let seen = backend.last();
        prop_assert_eq!(seen.text(), "hello");
        prop_assert_eq!(seen.field("Host"), Some(&*address));
        prop_assert_eq!(seen.field("Content-Length"), Some("5"));
        prop_assert_eq!(seen.field("X-Forwarded-For"), Some("127.0.0.1"));
        prop_assert_eq!(seen.field("X-Forwarded-Host"), Some(BLOG));
        prop_assert!(uuid::Uuid::parse_str(seen.field("X-Request-Id").unwrap()).is_ok());
        prop_assert_eq!(*seen.head.all("Via").last().unwrap(), "1.1 m3o-ingress");
        prop_assert_eq!(*seen.head.all("CDN-Loop").last().unwrap(), "m3o-ingress");
        for (name, _) in &seen.head.fields {
            let name = name.to_ascii_lowercase();
            let gone = [
                "connection",
                "keep-alive",
                "proxy-connection",
                "proxy-authorization",
                "upgrade",
                "http2-settings",
                "forwarded",
                "x-real-ip",
                "transfer-encoding",
                "x_forwarded_for",
                "content_length",
                "transfer_encoding",
            ];
            prop_assert!(!gone.contains(&&*name), "{name}");
            let named = names(&fields, &name) && !OURS.contains(&&*name);
            prop_assert!(!named, "{name} was named");
        }
        // And nothing else is lost.
        for (name, value) in &fields {
            let lower = name.to_ascii_lowercase();
            let harmless = lower.starts_with("accept") && !names(&fields, name);
            prop_assert!(!harmless || seen.head.all(name).contains(&value.trim()));
        }
        Ok(())
    };
    runner.run(&fields(), property).unwrap();
}

#[test]
fn whatever_a_backend_names_nothing_of_its_connection_reaches_the_client() {
    let front = mirror();
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(200)
    });
    let property = |fields: Vec<(String, String)>| {
        let mut caller = front.ingress.caller();
        let reply = caller.post(BLOG, "/attack", "", lines(&fields).as_bytes());
        prop_assert_eq!(reply.status(), 200);
        prop_assert_eq!(reply.text(), "hello");
        for (name, _) in &reply.head.fields {
            let name = name.to_ascii_lowercase();
            let gone = ["connection", "keep-alive", "proxy-connection", "upgrade"];
            prop_assert!(!gone.contains(&&*name), "{name}");
            let ours = ["content-length", "x-request-id", "date"].contains(&&*name);
            prop_assert!(ours || !names(&fields, &name), "{name} was named");
        }
        let (request, answer) = front.other();
        caller.send(request);
        prop_assert_eq!(caller.reply().text(), answer);
        Ok(())
    };
    runner.run(&fields(), property).unwrap();
}
