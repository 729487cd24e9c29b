//! The order in which an ingress ends.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::JoinError;

use super::Error;
use crate::admin::Readiness;
use crate::server::notify::Notifier;
use crate::server::shutdown::{Stage, Stop};

/// What an ingress ends by when it is told to.
pub(super) struct Ending {
    pub(super) stop: Stop,
    pub(super) readiness: Arc<Readiness>,
    pub(super) notifier: Notifier,
    /// Between the signal and the drain.
    pub(super) delay: Rc<Cell<Duration>>,
}

impl Ending {
    /// Follows the signal: not ready at once, draining after the delay, or at once when told to hurry. Gives
    /// what the workers are to be told now.
    pub(super) async fn begins(&mut self) -> Stage {
        self.stop.reached(Stage::Draining).await;
        self.readiness.set(false);
        self.notifier.stopping();
        tokio::select! {
            () = tokio::time::sleep(self.delay.get()) => Stage::Draining,
            () = self.stop.reached(Stage::Stopping) => Stage::Stopping,
        }
    }
}

/// Waits for a worker's end.
pub(super) fn join(worker: JoinHandle<io::Result<()>>) -> Result<(), Error> {
    let name = worker.thread().name().unwrap_or("worker").to_owned();
    match worker.join() {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(Error::Worker(format!("{name} panicked"))),
    }
}

/// How what was waited for has ended.
pub(super) fn flatten(ended: Result<Result<(), Error>, JoinError>) -> Result<(), Error> {
    // Its own words would repeat what it panicked with, which may be anything.
    ended.unwrap_or_else(|_| Err(Error::Worker("a task panicked".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_task_panicked_with_is_not_repeated() {
        let ended: Result<(), _> = tokio::spawn(async { panic!("canary") }).await;
        let error = flatten(ended.map(Ok)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a worker ended on its own: a task panicked"
        );
    }
}
