//! One platform in memory, called as the ingress calls it.

use std::path::Path;

use http::{HeaderValue, header};
use serde_json::Value;

use super::*;
use crate::mail::Mailbox;

/// A platform that knows the key `dev` and keeps its mail.
pub(super) struct TestPlatform {
    platform: Platform,
    mailbox: Mailbox,
    pool: Rc<Pool>,
    tasks: TaskTracker,
}

/// Expects a status and an object.
pub(super) async fn check(call: impl Future<Output = (u16, Value)>, status: u16, answer: Value) {
    assert_eq!(call.await, (status, answer));
}

/// Opens a platform as assembly does, with the rules of an empty configuration.
pub(super) fn open(store: &Path, extras: &Extras) -> Result<Platform, OpenError> {
    open_with(store, Rules::default(), extras)
}

fn open_with(store: &Path, rules: Rules, extras: &Extras) -> Result<Platform, OpenError> {
    let config = Config {
        store: store.to_owned(),
        key_env: "KEY_ENV".to_owned(),
        public: PublicScheme::default(),
        mail: None,
    };
    Platform::open(&config, rules, extras)
}

impl TestPlatform {
    pub(super) fn new() -> Self {
        Self::with_rules(Rules::default())
    }

    pub(super) fn with_rules(rules: Rules) -> Self {
        let mailbox = Mailbox::default();
        Self::with(rules, mailbox.clone(), Some(mailbox))
    }

    /// As the operator has it.
    pub(super) fn platform(&self) -> &Platform {
        &self.platform
    }

    pub(super) fn without_mail() -> Self {
        Self::with(Rules::default(), Mailbox::default(), None)
    }

    fn with(rules: Rules, mailbox: Mailbox, used: Option<Mailbox>) -> Self {
        let extras = Extras {
            key: Some(Secret::new("dev")),
            mailbox: used,
            ..Extras::default()
        };
        Self {
            platform: open_with(Path::new("memory"), rules, &extras).unwrap(),
            mailbox,
            pool: Pool::for_tests(),
            tasks: TaskTracker::new(),
        }
    }

    /// A call as a client with the key makes it.
    pub(super) fn request(endpoint: &str, body: &Value) -> Request {
        let mut request = Request::new(Body::from(body.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("/v1/{endpoint}").parse().unwrap();
        let key = HeaderValue::from_static("Bearer dev");
        request.headers_mut().insert(header::AUTHORIZATION, key);
        request
    }

    pub(super) async fn send(&self, request: Request) -> Response {
        LocalApi::call(&self.platform, request, &self.pool, &self.tasks).await
    }

    /// Status and JSON of a call.
    pub(super) async fn call(&self, endpoint: &str, body: Value) -> (u16, Value) {
        let response = self.send(Self::request(endpoint, &body)).await;
        let status = response.status().as_u16();
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect(1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    pub(super) fn generation(&self) -> u64 {
        self.platform.generation()
    }

    pub(super) fn store(&self) -> &Store {
        &self.platform.store
    }

    pub(super) fn domains(&self) -> Domains {
        self.platform.domains()
    }

    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    pub(super) async fn register_demo(&self, app: &str, function: &str) -> Result<(), OpenError> {
        self.platform.register_demo(app, function).await
    }
}
