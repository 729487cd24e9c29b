//! No secret is written down: canaries go in wherever a secret can, and must not come out in a log,
//! a metric, an error or any other answer.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use memchr::memmem;
use serde_json::json;

use crate::caller::{self, Answer};
use crate::process::{Ingress, command, dev_command, ended, run_command};
use crate::server::{self, Server};

mod panics;
mod places;
mod statuses;

use places::{from_a_client, get};

/// Canaries by the place where they go in, and what came back.
struct Planted {
    http: SocketAddr,
    canaries: Vec<(String, String)>,
    /// The heads and bodies that came back, with what was asked.
    answers: Vec<(String, Answer)>,
    /// What backends say themselves: it passes, but never as an error of ours.
    of_backends: Vec<String>,
}

impl Planted {
    fn new(ingress: &Ingress) -> Self {
        Self {
            http: ingress.http,
            canaries: Vec::new(),
            answers: Vec::new(),
            of_backends: Vec::new(),
        }
    }

    /// A secret that nobody else could have written, for `place`.
    fn canary(&mut self, place: &str) -> String {
        let canary = format!("zq{}canaryqz", self.canaries.len());
        self.canaries.push((place.to_owned(), canary.clone()));
        canary
    }

    /// A canary that a backend says.
    fn canary_of_a_backend(&mut self, place: &str) -> String {
        let canary = self.canary(place);
        self.of_backends.push(canary.clone());
        canary
    }

    /// Sends a request with a canary in `place`; `make` makes its bytes. It is sent once more as a
    /// browser would, that wants a page.
    #[track_caller]
    fn send(&mut self, place: &str, make: impl FnOnce(&str) -> String) -> Answer {
        let canary = self.canary(place);
        let request = make(&canary);
        let answer = self.note(place, &request);
        let wants_page = request.replacen("\r\nHost:", "\r\nAccept: text/html\r\nHost:", 1);
        if wants_page != request {
            self.note(place, &wants_page);
        }
        answer
    }

    fn note(&mut self, place: &str, request: &str) -> Answer {
        // A refusal may come as a closed connection.
        let answer = caller::send(self.http, request.as_bytes()).unwrap_or_default();
        self.answers.push((place.to_owned(), answer.clone()));
        answer
    }

    /// How many were refused.
    fn refused(&self) -> usize {
        let refused = |answer: &Answer| answer.status >= 400;
        self.answers
            .iter()
            .filter(|(_, said)| refused(said))
            .count()
    }

    /// Every status that came back.
    fn statuses(&self) -> BTreeSet<u16> {
        self.answers.iter().map(|(_, said)| said.status).collect()
    }

    /// Searches what was written and answered, and shows all that was found.
    #[track_caller]
    fn check(&self, written: &str, metrics: &str) {
        let mut found = Vec::new();
        for (place, canary) in &self.canaries {
            for secret in disguises(canary) {
                if let Some(at) = find(written, &secret) {
                    found.push(format!("{place}: in the log: {}", line_at(written, at)));
                }
                if let Some(at) = find(metrics, &secret) {
                    found.push(format!("{place}: in the metrics: {}", line_at(metrics, at)));
                }
                for (asked, answer) in &self.answers {
                    if answer.status < 400 && self.of_backends.contains(canary) {
                        continue;
                    }
                    if find(&answer.head, &secret)
                        .or_else(|| find(&answer.body, &secret))
                        .is_some()
                    {
                        found.push(format!("{place}: in the answer to {asked}: {answer:?}"));
                    }
                }
            }
        }
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// A secret as it is, and as base64 and a dump of bytes would hold it.
fn disguises(secret: &str) -> Vec<String> {
    let mut disguises = vec![secret.to_owned()];
    // Up to two bytes before it shift its letters. Those at the ends depend on what is beside it.
    for before in ["", "-", "--"] {
        let encoded = STANDARD_NO_PAD.encode(format!("{before}{secret}"));
        disguises.push(encoded[4..encoded.len() - 4].to_owned());
    }
    let numbers: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
    disguises.push(numbers.join(", "));
    disguises
}

fn line_at(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text[start..].lines().next().unwrap_or_default()
}

fn find(text: &str, secret: &str) -> Option<usize> {
    memmem::find(text.as_bytes(), secret.as_bytes())
}

/// Apps and a function whose backends speak of secrets, cut off, or are not there.
fn register_backends(planted: &mut Planted, key: &str) {
    let set = planted.canary_of_a_backend("Set-Cookie of a backend");
    let page = planted.canary_of_a_backend("the head of a backend's answer");
    let secretive = Server::start(move |_| {
        format!(
            "HTTP/1.1 200 OK\r\nSet-Cookie: id={set}\r\nX-Token: {page}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        )
    });
    let said = planted.canary("an answer that is none");
    let cut = Server::start(move |_| format!("HTTP/1.1 {said}\r\n\r\n"));
    let apps = [
        ("app/run", "secretive", secretive.url()),
        ("app/run", "cut", cut.url()),
        ("app/run", "gone", "http://127.0.0.1:1".to_owned()),
        ("function/deploy", "secretive", secretive.url()),
        ("function/deploy", "cut", cut.url()),
    ];
    let http = planted.http;
    for (endpoint, name, backend) in apps {
        let body = json!({"name": name, "backend": backend});
        caller::api(http, key, endpoint, &body).fine();
    }
    let call = json!({"name": "cut", "request": {}});
    assert_eq!(caller::api(http, key, "function/call", &call).status, 502);
}

/// The metrics, then the end of the process and all that it wrote.
#[track_caller]
fn finish(ingress: Ingress) -> (String, String) {
    let metrics = caller::get(ingress.admin, "localhost", "/metrics").body;
    assert!(metrics.contains("http_server_request_duration_seconds"));
    (ingress.stop(), metrics)
}

/// Runs `dev`, and gives what was planted, for whoever else may have heard of it.
fn check_dev(format: &str, variables: &[(&str, &str)]) -> Planted {
    let folder = tempfile::tempdir().unwrap();
    let mut command = dev_command(folder.path());
    command.args(["--log-level", "trace", "--log-format", format]);
    command.envs(variables.iter().copied());
    let ingress = Ingress::start(&mut command);
    let mut planted = Planted::new(&ingress);
    register_backends(&mut planted, "dev");
    from_a_client(&mut planted);
    let token = caller::api(
        ingress.http,
        "dev",
        "user/sendVerificationEmail",
        &json!({"email": "alice@example.com", "subject": "Hello",
                "textContent": "$micro_verification_link"}),
    );
    token.fine();
    let mailbox = caller::get(ingress.admin, "localhost", "/mail").body;
    let (_, from) = mailbox.split_once("/?token=").unwrap();
    let token = from.split(['"', '<', '&']).next().unwrap().to_owned();
    planted
        .canaries
        .push(("a real token".to_owned(), token.clone()));
    let verify = format!("/?token={token}");
    assert_eq!(
        caller::get(ingress.http, "user.m3o.com", &verify).status,
        200
    );
    assert_eq!(
        caller::get(ingress.http, "user.m3o.com", &verify).status,
        400
    );
    let refused = planted.refused();
    assert!(refused > 200, "most of it is refused: {refused}");
    let (written, metrics) = finish(ingress);
    assert!(written.contains("/api/helloworld/call"), "the log is on");
    for (name, value) in variables {
        if name.ends_with("_HEADERS") {
            let secret = value.split_once('=').unwrap().1.to_owned();
            planted.canaries.push(((*name).to_owned(), secret));
        }
    }
    planted.check(&written, &metrics);
    planted
}

#[test]
fn no_secret_of_a_client_is_written_down_for_people() {
    check_dev("human", &[]);
}

#[test]
fn no_secret_of_a_client_is_written_down_as_json() {
    check_dev("json", &[]);
}

#[test]
fn no_secret_of_a_client_is_written_down_in_combined() {
    check_dev("combined", &[]);
}

#[test]
fn no_secret_of_a_client_is_told_to_a_collector_nor_that_of_the_collector_to_the_log() {
    let told = Arc::new(Mutex::new(String::new()));
    let collector = {
        let told = Arc::clone(&told);
        Server::start(move |arrived| {
            // What it gets itself it is meant to have.
            let text = String::from_utf8_lossy(&arrived.body).into_owned();
            told.lock().unwrap().push_str(&text);
            server::ok("application/x-protobuf", "")
        })
    };
    let planted = check_dev(
        "json",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "x-api-key=zqthe-key-of-the-collectorqz",
            ),
            ("OTEL_TRACES_SAMPLER", "always_on"),
        ],
    );
    let told = told.lock().unwrap();
    assert!(told.contains("/api/helloworld/call"), "spans are told");
    planted.check(&told, "");
}

#[test]
fn no_secret_of_a_client_is_written_down_when_every_library_speaks() {
    check_dev("json", &[("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")]);
}

/// Variables that hold secrets, and are never printed.
const VARIABLES: [&str; 4] = [
    "M3O_API_TOKEN",
    "M3O_PLATFORM_KEY",
    "SMTP_URL",
    "OTEL_EXPORTER_OTLP_HEADERS",
];

#[test]
fn an_api_that_is_not_there_does_not_bring_its_token_into_the_log() {
    for format in ["human", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let config = "
            listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0' }
            api.address = 'http://127.0.0.1:1'
            hosts.app = ['m3o.app', 'app.localhost']
            index.enabled = true
        ";
        let token = "zqthe-token-of-the-ingressqz";
        let mut run = run_command(folder.path(), config);
        run.args(["--log-level", "trace", "--log-format", format]);
        let ingress = Ingress::start(run.env("M3O_API_TOKEN", token));
        let mut planted = Planted::new(&ingress);
        planted
            .canaries
            .push(("M3O_API_TOKEN".to_owned(), token.to_owned()));
        from_a_client(&mut planted);
        for (host, target) in [("m3o.app", "/"), ("m3o.one", "/x"), ("a.m3o.sh", "/")] {
            let answer = planted.send("a query", |key| {
                get(host, &format!("{target}?a={key}"), &[])
            });
            assert_eq!(answer.status, 503, "{answer:?}");
        }
        let (written, metrics) = finish(ingress);
        planted.check(&written, &metrics);
    }
}

#[test]
fn an_api_that_refuses_our_token_does_not_bring_it_into_the_log() {
    let folder = tempfile::tempdir().unwrap();
    // Says back what it was sent, as careless servers do.
    let api = Server::start(|arrived| {
        let body = format!("{:?}", arrived.head);
        format!(
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    });
    let config = format!(
        "listen = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0' }}
         api.address = '{}'
         index.enabled = true",
        api.url()
    );
    let token = "zqthe-token-of-the-ingressqz";
    let mut run = run_command(folder.path(), &config);
    run.args(["--log-level", "trace"]);
    let ingress = Ingress::start(run.env("M3O_API_TOKEN", token));
    let mut planted = Planted::new(&ingress);
    planted
        .canaries
        .push(("M3O_API_TOKEN".to_owned(), token.to_owned()));
    for (host, target) in [
        ("a.m3o.app", "/"),
        ("a.m3o.sh", "/"),
        ("m3o.app", "/"),
        ("m3o.one", "/x"),
        ("user.m3o.com", "/?token=x"),
    ] {
        let answer = planted.send("a cookie", |key| {
            get(host, target, &[&format!("Cookie: a={key}")])
        });
        assert!(answer.status >= 400, "{answer:?}");
    }
    let (written, metrics) = finish(ingress);
    planted.check(&written, &metrics);
}

#[test]
fn an_api_that_answers_with_our_token_does_not_bring_it_into_the_log() {
    let token = "zqthe-token-of-the-ingressqz";
    for body in [
        r#""{}""#,
        r#"["{}"]"#,
        r#"{"{}"#,
        r#"{"url":{"{}":1},"destinationURL":["{}"],"services":"{}"}"#,
        r#"{"url":"{}","destinationURL":"{}","services":["{}"]}"#,
        r#"{"url":"http://u:{}@[","destinationURL":"http://u:{}@example.com"}"#,
        r#"{"url":"http://u:{}@example.com","destinationURL":"javascript:{}"}"#,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let body = body.replace("{}", token);
        let api = Server::start(move |_| server::ok("application/json", &body));
        let config = format!(
            "listen = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0' }}
             api.address = '{}'
             index.enabled = true",
            api.url()
        );
        let mut run = run_command(folder.path(), &config);
        run.args(["--log-level", "trace", "--log-format", "json"]);
        let ingress = Ingress::start(run.env("M3O_API_TOKEN", token));
        let mut planted = Planted::new(&ingress);
        planted
            .canaries
            .push(("M3O_API_TOKEN".to_owned(), token.to_owned()));
        for host in [
            "a.m3o.app",
            "a.m3o.sh",
            "m3o.app",
            "m3o.one",
            "user.m3o.com",
        ] {
            planted.send("a cookie", |key| {
                get(host, "/x", &[&format!("Cookie: a={key}")])
            });
        }
        let (written, metrics) = finish(ingress);
        planted.check(&written, &metrics);
    }
}

#[test]
fn the_secrets_of_the_platform_are_not_written_down() {
    for format in ["human", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let config = "
            [listen]
            http = '127.0.0.1:0'
            admin = '127.0.0.1:0'
            [platform]
            store = 'store'
            [platform.mail]
            smtp_url_env = 'SMTP_URL'
            from = 'noreply@m3o.one'
        ";
        let (key, password) = ("zqthe-platform-keyqz", "zqthe-smtp-passwordqz");
        let mut run = run_command(folder.path(), config);
        run.args(["--log-level", "trace", "--log-format", format]);
        let url = format!("smtp://zqthe-smtp-userqz:{password}@127.0.0.1:1");
        let ingress = Ingress::start(run.env("M3O_PLATFORM_KEY", key).env("SMTP_URL", url));
        let mut planted = Planted::new(&ingress);
        for secret in [key, password, "zqthe-smtp-userqz"] {
            planted
                .canaries
                .push(("a variable".to_owned(), secret.to_owned()));
        }
        let text = planted.canary("the text of a mail");
        let mail = json!({"email": "alice@example.com", "subject": "Hello",
                          "textContent": format!("{text} $micro_verification_link")});
        caller::api(ingress.http, key, "user/sendVerificationEmail", &mail).fine();
        ingress.process.wrote("that the mail waits", |text| {
            text.contains("waits until").then_some(())
        });
        from_a_client(&mut planted);
        let (written, metrics) = finish(ingress);
        planted.check(&written, &metrics);
        let store = std::fs::read(folder.path().join("store")).unwrap();
        let kept = store
            .windows(key.len())
            .any(|window| window == key.as_bytes());
        assert!(!kept, "keys are stored hashed");
    }
}

#[test]
fn a_secret_that_is_unusable_is_refused_without_being_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let listen = "listen.http = '127.0.0.1:0'\n";
    let api = format!("{listen}api.address = 'http://127.0.0.1:1'\n");
    let mail = format!(
        "{listen}[platform]\nstore = 'store'\n[platform.mail]\nsmtp_url_env = 'SMTP_URL'\nfrom = 'a@b.example'\n"
    );
    for (config, value) in [
        (&api, "zq secret\nqz".to_owned()),
        (&mail, "zq secretqz".to_owned()),
        (&mail, "smtps://user:zqsecretqz@".to_owned()),
        (&mail, "https://user:zqsecretqz@example.com".to_owned()),
        (&api, "zqsecretqz".to_owned()),
    ] {
        for verb in ["run", "check"] {
            let mut run = run_command(folder.path(), config);
            let file = folder.path().join("ingress.toml");
            if verb == "check" {
                run = command(&["check", "--config", file.to_str().unwrap()]);
            }
            run.envs(VARIABLES.map(|name| (name, &value)));
            run.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
            let ended = ended(&mut run);
            assert!(
                verb == "check" || ended.status.code() != Some(0),
                "{}",
                ended.text
            );
            assert!(!ended.text.contains("secret"), "{}", ended.text);
        }
    }
    // In the file, where secrets do not belong, and where a mistake is pointed at.
    for line in [
        "api.address = 'http://u:zqsecretqz@example.com'",
        "api.address = 'http://u:zqsecretqz@exa mple.com'",
        "api.address = 'http://example.com/?api_key=zqsecretqz'",
        "api.address = 'http://exa mple.com/?api_key=zqsecretqz'",
        "api.address = 'http://example.com/#zqsecretqz'",
        "api = { address = 'http://127.0.0.1:1', token = 'zqsecretqz' }",
        "api.token = 'zqsecretqz",
        "platform = { store = 'memory', key = 'zqsecretqz' }",
        "platform.mail = { from = 'a@b.example', smtp_url = 'smtps://u:zqsecretqz@example.com' }",
    ] {
        let config = format!("{listen}{line}\n");
        let ended = ended(&mut run_command(folder.path(), &config));
        assert_eq!(ended.status.code(), Some(2), "{}", ended.text);
        assert!(!ended.text.contains("secretqz"), "{line}: {}", ended.text);
    }
}
