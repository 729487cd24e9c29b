//! What the embedded platform does beside the calls: mail, hit counts, proofs. Ended and begun again.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use crate::platform::Platform;
use crate::pool::Pool;
use crate::server::shutdown::{Stage, Stop, Stopper, stop_signal};
use crate::telemetry::metrics::Metrics;

/// One task on the control thread, at most.
#[derive(Debug)]
pub(super) struct Background {
    platform: Arc<Platform>,
    pool: Rc<Pool>,
    metrics: Arc<Metrics>,
    running: Option<(Stopper, JoinHandle<()>)>,
}

/// Before what panicked begins anew.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

impl Background {
    /// Not begun yet.
    pub(super) fn new(platform: Arc<Platform>, pool: Rc<Pool>, metrics: Arc<Metrics>) -> Self {
        Self {
            platform,
            pool,
            metrics,
            running: None,
        }
    }

    /// Begins; what goes on from before ends first.
    pub(super) fn start(&mut self) {
        let before = self.running.take();
        let (stopper, stop) = stop_signal();
        let running = run(
            Arc::clone(&self.platform),
            Rc::clone(&self.pool),
            Arc::clone(&self.metrics),
            stop,
        );
        let task = tokio::task::spawn_local(async move {
            if let Some((stopper, before)) = before {
                stopper.advance(Stage::Draining);
                // It ends, however.
                let _ended = before.await;
            }
            running.await;
        });
        self.running = Some((stopper, task));
    }

    /// Ends it, and waits for that: a mail that is under way is sent to its end.
    pub(super) async fn end(&mut self) {
        if let Some((stopper, task)) = &mut self.running {
            stopper.advance(Stage::Draining);
            if task.await.is_err() {
                tracing::error!("what goes on beside the calls of the platform ended badly");
            }
        }
        self.running = None;
    }
}

async fn run(platform: Arc<Platform>, pool: Rc<Pool>, metrics: Arc<Metrics>, stop: Stop) {
    // Mail, hit counts and proofs go on after a panic in one of them.
    let run = || AssertUnwindSafe(platform.run_background(stop.clone(), &pool));
    while let Err(_panic) = run().catch_unwind().await {
        metrics.panics.inc();
        tokio::time::sleep(PANIC_PAUSE).await;
    }
}
