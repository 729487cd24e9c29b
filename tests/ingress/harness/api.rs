//! A remote M3O API that answers as it is told, honestly or not.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::backend::{Answering, TestBackend, response};
use super::message::Seen;

/// The API, and every call it got.
pub(crate) struct TestApi {
    server: TestBackend,
    answers: Answers,
}

type Answers = Arc<Mutex<HashMap<String, Arc<Answer>>>>;
type Answer = dyn Fn(&mut Answering) + Send + Sync;

/// The ingress's own token.
pub(crate) const OWN_TOKEN: &str = "own-token";

impl TestApi {
    /// An API that knows nothing: every call is `404`.
    pub(crate) fn new() -> Self {
        let answers = Answers::default();
        let known = Arc::clone(&answers);
        let server = TestBackend::scripted(move |answering| {
            let target = answering.target();
            let path = target.split('?').next().unwrap_or_default();
            let answer = known.lock().unwrap().get(path).cloned();
            match answer {
                Some(answer) => answer(answering),
                None => {
                    answering.body();
                    answering.write(error("404 Not Found", "there is no such thing"));
                }
            }
        });
        Self { server, answers }
    }

    /// An API that knows one app.
    pub(crate) fn with_app(id: &str, url: &str) -> Self {
        let api = Self::new();
        api.resolves("app/Resolve", &[(id, url)]);
        api
    }

    /// Answers `endpoint` as `answer` does, from now on.
    pub(crate) fn on(
        &self,
        endpoint: &str,
        answer: impl Fn(&mut Answering) + Send + Sync + 'static,
    ) {
        let path = format!("/v1/{endpoint}");
        self.answers.lock().unwrap().insert(path, Arc::new(answer));
    }

    /// Answers `endpoint` with the same bytes, from now on.
    pub(crate) fn says(&self, endpoint: &str, bytes: impl Into<String>) {
        let bytes = bytes.into();
        self.on(endpoint, move |answering| {
            answering.body();
            answering.write(&bytes);
        });
    }

    /// Answers `endpoint` with `200` and JSON, from now on.
    pub(crate) fn gives(&self, endpoint: &str, json: &str) {
        self.says(endpoint, json_response(json));
    }

    /// Gives the `url` of each id, from now on; `404` for every other.
    pub(crate) fn resolves(&self, endpoint: &str, known: &[(&str, &str)]) {
        let known: HashMap<String, String> = known
            .iter()
            .map(|(id, url)| ((*id).to_owned(), (*url).to_owned()))
            .collect();
        self.on(endpoint, move |answering| {
            let asked: serde_json::Value = serde_json::from_slice(&answering.body()).unwrap();
            let url = known.get(asked["id"].as_str().unwrap());
            answering.write(match url {
                Some(url) => json_response(&serde_json::json!({ "url": url }).to_string()),
                None => error("404 Not Found", "there is no such thing"),
            });
        });
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(crate) fn server(&self) -> &TestBackend {
        &self.server
    }

    /// The calls of `endpoint` so far.
    pub(crate) fn calls(&self, endpoint: &str) -> Vec<Seen> {
        let path = format!("/v1/{endpoint}");
        let is_asked = |seen: &Seen| seen.target().split('?').next() == Some(&path);
        self.server.seen().into_iter().filter(is_asked).collect()
    }

    /// The only call of all.
    #[track_caller]
    pub(crate) fn only(&self) -> Seen {
        self.server.only()
    }
}

/// `200` with JSON.
pub(crate) fn json_response(json: &str) -> String {
    response("200 OK", "Content-Type: application/json\r\n", json)
}

/// An error in the M3O shape.
pub(crate) fn error(status: &str, detail: &str) -> String {
    let (code, reason) = status.split_once(' ').unwrap();
    let json =
        format!(r#"{{"id":"test.api","code":{code},"detail":"{detail}","status":"{reason}"}}"#);
    response(status, "Content-Type: application/json\r\n", &json)
}
