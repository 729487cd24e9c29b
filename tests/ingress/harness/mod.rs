//! What the tests share: an ingress, a caller, a backend, an API, and waiting for a fact.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) mod api;
pub(crate) mod backend;
pub(crate) mod caller;
pub(crate) mod collector;
pub(crate) mod front;
pub(crate) mod http2;
pub(crate) mod http2_backend;
pub(crate) mod ingress;
pub(crate) mod message;
pub(crate) mod names;
pub(crate) mod operator;
pub(crate) mod secure;

pub(crate) use api::TestApi;
pub(crate) use backend::{Answering, TestBackend};
pub(crate) use caller::Caller;
pub(crate) use ingress::TestIngress;
pub(crate) use message::{Reply, Seen};
pub(crate) use names::TestNames;

/// How long a fact may take to come true on a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `fact` is true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let began = Instant::now();
    while !fact() {
        assert!(began.elapsed() < PATIENCE, "it never came true: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Waits until `counter` has not moved for a while, and gives its value.
#[track_caller]
pub(crate) fn settles(counter: &AtomicUsize) -> usize {
    let mut last = (usize::MAX, Instant::now());
    eventually("nothing moves any more", || {
        let now = counter.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(300)
    });
    last.0
}

/// A door between threads: closed until opened, and then open for ever.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open. Never for longer than a test's patience.
    #[track_caller]
    pub(crate) fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        let (open, _) = self
            .0
            .1
            .wait_timeout_while(open, PATIENCE, |open| !*open)
            .unwrap();
        assert!(*open, "nobody opened the gate");
    }
}
