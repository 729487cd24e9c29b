//! One app behind an ingress: attacked by one client, or by its own backend, while others use it.

use std::sync::atomic::{AtomicUsize, Ordering};

use m3o_ingress::config::Config;

use super::backend::ok;
use super::message::Arrival;
use super::{Answering, Caller, Reply, TestApi, TestBackend, TestIngress, eventually};

/// An ingress before one app, and what the others ask it.
pub(crate) struct Front {
    pub(crate) backend: TestBackend,
    pub(crate) ingress: TestIngress,
    _api: TestApi,
    others: AtomicUsize,
}

/// The host of the app.
pub(crate) const BLOG: &str = "blog.m3o.app";

/// Where the requests of other clients go; their answer is their target.
const OTHERS: &str = "/other/";

impl Front {
    /// The backend reads each request whole and answers with `attacked`.
    pub(crate) fn new() -> Self {
        Self::scripted(|answering| {
            answering.body();
            answering.write(ok("attacked"));
        })
    }

    /// The backend answers as `script` does, but the others honestly.
    pub(crate) fn scripted(script: impl Fn(&mut Answering) + Send + Sync + 'static) -> Self {
        Self::scripted_with(|_| {}, script)
    }

    pub(crate) fn scripted_with(
        adjust: impl FnOnce(&mut Config),
        script: impl Fn(&mut Answering) + Send + Sync + 'static,
    ) -> Self {
        let backend = TestBackend::scripted(move |answering| {
            let target = answering.target();
            if target.starts_with(OTHERS) {
                answering.body();
                answering.write(ok(&target));
            } else {
                script(answering);
            }
        });
        let api = TestApi::with_app("blog", &backend.url());
        let ingress = TestIngress::before_with(&api, adjust);
        Self {
            backend,
            ingress,
            _api: api,
            others: AtomicUsize::new(0),
        }
    }

    /// A request of another client, and the answer that it must get.
    pub(crate) fn other(&self) -> (String, String) {
        let number = self.others.fetch_add(1, Ordering::SeqCst);
        let target = format!("{OTHERS}{number}");
        let request = format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
        (request, target)
    }

    /// Asserts that other clients, over the same pool, get their own answers.
    #[track_caller]
    pub(crate) fn serves_others(&self) {
        self.serves_another_over(&mut self.ingress.caller());
    }

    /// Asserts that a connection is still in step: the next request gets its own answer.
    #[track_caller]
    pub(crate) fn serves_another_over(&self, caller: &mut Caller) {
        let (request, answer) = self.other();
        caller.send(request);
        assert_eq!(caller.reply().expect(200).text(), answer);
    }

    /// Asserts that of all but the others' requests none came whole to the backend.
    #[track_caller]
    pub(crate) fn nothing_arrived_whole(&self) {
        eventually("the backend knows how each request ends", || {
            let mut seen = self.backend.seen();
            seen.retain(|seen| !seen.target().starts_with(OTHERS));
            for seen in &seen {
                assert_ne!(seen.arrival, Arrival::Whole, "{seen:#?}");
            }
            seen.iter().all(|seen| seen.arrival == Arrival::Cut)
        });
    }
}

/// Asserts that a reply is an error of our own, in full.
#[track_caller]
pub(crate) fn check_error(reply: &Reply, statuses: &[u16], what: &str) {
    let status = reply.status();
    assert!(
        statuses.contains(&status),
        "{status} to {what}: {}",
        reply.text()
    );
    let id = reply.field("X-Request-Id").unwrap_or_default();
    assert!(uuid::Uuid::parse_str(id).is_ok(), "{id:?} after {what}");
    let proxy_status = reply.field("Proxy-Status").unwrap_or_default();
    assert!(
        proxy_status.starts_with("m3o-ingress; error="),
        "{proxy_status:?} after {what}"
    );
    assert!(reply.field("Date").is_some(), "{what}");
    assert_eq!(
        reply.field("Content-Type"),
        Some("application/json"),
        "{what}"
    );
    assert_eq!(reply.json()["code"], status, "{what}");
}
