//! One custom domain from its claim to its end: proven, given a certificate at its first handshake,
//! served, let go of.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use rustls::AlertDescription;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::authority::Authority;
use crate::directory::Thread;
use crate::running::{eventually, loopback};
use crate::whole::Whole;

const KEY: &str = "the-key";

/// An app that says who it is, wherever it is asked.
struct Backend {
    url: String,
    _thread: Thread,
}

impl Backend {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = Thread::start(move || async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(answer(stream));
            }
        });
        Self {
            url,
            _thread: thread,
        }
    }
}

async fn answer(stream: tokio::net::TcpStream) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await.ok()? > 2 {
        line.clear();
    }
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nthe app";
    stream.write_all(text.as_bytes()).await.ok()
}

/// The whole, with two apps, where all but the API are sent to HTTPS.
fn start(challenge: &str) -> (Whole, Backend) {
    let backend = Backend::start();
    let whole = Whole::start(
        |http| {
            format!(
                "[platform]\nstore = 'memory'\nkey_env = 'M3O_PLATFORM_KEY'\npublic = 'http:{http}'\n\
                 [https]\nredirect = true\n[https.domains.localhost]\nredirect = false\n"
            )
        },
        &format!(
            "challenge = '{challenge}'\non_demand = true\non_demand_certificates = 1\n\
             names = ['a.ours.test']"
        ),
    );
    for app in ["blog", "other"] {
        call(&whole, "Run", &json!({"name": app, "backend": backend.url}));
    }
    (whole, backend)
}

/// Calls the API over plain HTTP.
#[track_caller]
fn call(whole: &Whole, endpoint: &str, body: &Value) -> Value {
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "POST /v1/app/{endpoint} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n"
    );
    let answer = plain(whole, &head, &body);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).unwrap()
}

/// What a request over plain HTTP is answered.
fn plain(whole: &Whole, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(loopback(whole.http)).unwrap();
    let message = format!("{head}Connection: close\r\n\r\n{body}");
    stream.write_all(message.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn claim(whole: &Whole, app: &str, domains: &[&str]) -> Value {
    let update = json!({"name": app, "custom_domains": domains});
    call(whole, "Update", &update)["service"]["domain_proofs"].clone()
}

fn is_verified(whole: &Whole, app: &str) -> bool {
    let service = call(whole, "Get", &json!({"name": app}));
    service["service"]["domain_proofs"][0]["verified"] == true
}

fn publish(authority: &Authority, proof: &Value) {
    let text = |field: &str| proof[field].as_str().unwrap().to_owned();
    let hook = Command::new(authority.hook())
        .args(["present", &text("txt_name"), &text("txt_value")])
        .status();
    assert!(hook.unwrap().success());
}

#[track_caller]
fn refused(whole: &Whole, name: &str) {
    let refusal = whole.get(name, "/").unwrap_err();
    assert_eq!(refusal, Some(AlertDescription::UnrecognisedName), "{name}");
}

#[test]
fn a_proven_domain_gets_its_certificate_at_the_first_handshake_and_no_other_name_does() {
    for challenge in ["tls-alpn-01", "http-01"] {
        let (whole, _backend) = start(challenge);
        let orders = || whole.authority.directory.asked("order-plz");
        eventually("a certificate", || whole.get("a.ours.test", "/").ok());
        assert_eq!(orders(), 1);

        // It would prove itself by leading here, before the other app claims it.
        whole.authority.lead_elsewhere("shop.ours.test");
        let proof = claim(&whole, "blog", &["shop.ours.test"]);
        claim(&whole, "other", &["shop.ours.test"]);
        for name in ["shop.ours.test", "www.shop.ours.test", "unknown.test"] {
            refused(&whole, name);
        }
        assert_eq!(orders(), 1, "an authority is asked for what is proven");

        publish(&whole.authority, &proof[0]);
        eventually("the domain is verified", || {
            is_verified(&whole, "blog").then_some(())
        });
        whole.authority.lead_here("shop.ours.test");
        let (names, answer) = whole.get("shop.ours.test", "/any").unwrap();
        assert_eq!(names, ["DNSName(shop.ours.test)"]);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("the app"));
        assert!(
            answer
                .to_ascii_lowercase()
                .contains("strict-transport-security: ")
        );
        assert_eq!(orders(), 2);
        let answer = plain(&whole, "GET /a HTTP/1.1\r\nHost: shop.ours.test\r\n", "");
        assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
        refused(&whole, "www.shop.ours.test");

        claim(&whole, "blog", &[]);
        claim(&whole, "other", &[]);
        let (_, answer) = whole.get("shop.ours.test", "/").unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 404"),
            "it leads nowhere at once: {answer}"
        );

        // There is room for one certificate: nobody's makes way. This domain proves itself.
        claim(&whole, "blog", &["next.ours.test"]);
        eventually("the domain is verified", || {
            is_verified(&whole, "blog").then_some(())
        });
        let (_, answer) = whole.get("next.ours.test", "/").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        refused(&whole, "shop.ours.test");
        assert_eq!(orders(), 3);
    }
}
