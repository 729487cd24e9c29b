//! What a panic leaves behind: where it happened, and nothing of what was in its hands.

use std::io::stdout;
use std::process::Command;

use http::header::{AUTHORIZATION, COOKIE};
use m3o_ingress::telemetry::Level;
use m3o_ingress::telemetry::log::{Log, Style};
use m3o_ingress::telemetry::metrics::Metrics;
use m3o_ingress::wire::{Body, Request};

use super::{disguises, find};
use crate::process::ended;

/// In the process that panics: the style of its log.
const STYLE: &str = "TEST_PANICS_IN";
const CANARY: &str = "zqsecret-of-a-requestqz";

#[test]
fn a_panic_says_where_it_was_and_nothing_of_the_request() {
    if let Some(style) = std::env::var_os(STYLE) {
        return panic_with_a_request(style == "human");
    }
    for style in ["human", "json"] {
        let name = "secrets::panics::a_panic_says_where_it_was_and_nothing_of_the_request";
        let ended = ended(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .envs([
                    (STYLE, style),
                    ("RUST_BACKTRACE", "full"),
                    ("RUST_LOG", "trace"),
                ]),
        );
        assert_eq!(ended.status.code(), Some(0), "{}", ended.text);
        let told = ended.text.matches("a task panicked").count();
        assert_eq!(told, 3, "{}", ended.text);
        assert!(ended.text.contains("panics.rs:"), "{}", ended.text);
        for secret in disguises(CANARY) {
            assert_eq!(find(&ended.text, &secret), None, "{}", ended.text);
        }
    }
}

/// Panics on threads and in a task, as a handler would that has a request in its hands.
fn panic_with_a_request(human: bool) {
    let style = if human { Style::Human } else { Style::Json };
    let writer = Log::start(style, Metrics::new(), stdout()).unwrap();
    writer.log().take_events(Level::Trace);
    let spawned = std::thread::spawn(|| panic!("cannot answer {:?}", request()));
    assert!(spawned.join().is_err());
    let spawned = std::thread::spawn(|| {
        let key: Result<(), &str> = std::hint::black_box(Err(CANARY));
        key.unwrap();
    });
    assert!(spawned.join().is_err());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let task = async { panic!("{:?}", request().headers()[AUTHORIZATION].to_str()) };
    let task: Result<(), _> = runtime.block_on(async { tokio::spawn(task).await });
    assert!(task.is_err());
    writer.finish();
}

fn request() -> Request {
    let mut request = Request::new(Body::from(CANARY.to_owned()));
    *request.uri_mut() = format!("/api/a/b?api_key={CANARY}").parse().unwrap();
    for name in [AUTHORIZATION, COOKIE] {
        request.headers_mut().insert(name, CANARY.parse().unwrap());
    }
    request
}
