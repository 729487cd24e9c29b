//! The order in which an ingress ends.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::Error;
use super::background::Background;
use crate::admin::Readiness;
use crate::server::pulse::Pulse;
use crate::server::shutdown::{Stage, Stop, Stopper, stop_signal};

/// A worker that was started.
pub(super) struct Running {
    pub(super) thread: JoinHandle<io::Result<()>>,
    pub(super) pulse: Pulse,
}

/// What goes on beside the workers, on the control thread.
pub(super) struct Beside {
    /// What another process takes over at once: the admin address, and orders for certificates.
    pub(super) first: JoinSet<()>,
    pub(super) first_stop: Stop,
    first_stopper: Stopper,
    /// The rest.
    pub(super) side: JoinSet<()>,
    pub(super) side_stop: Stop,
    side_stopper: Stopper,
    pub(super) background: Option<Background>,
}

/// How long what another process has taken over may take to end here.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

impl Beside {
    /// Nothing yet but the background.
    pub(super) fn new(mut background: Option<Background>) -> Self {
        if let Some(background) = &mut background {
            background.start();
        }
        let (first_stopper, first_stop) = stop_signal();
        let (side_stopper, side_stop) = stop_signal();
        Self {
            first: JoinSet::new(),
            first_stop,
            first_stopper,
            side: JoinSet::new(),
            side_stop,
            side_stopper,
            background,
        }
    }

    /// Ends what another process takes over at once.
    pub(super) async fn end_first(&mut self) {
        self.first_stopper.advance(Stage::Draining);
        all_of(&mut self.first, FIRST_PATIENCE).await;
    }

    /// Ends all of it, within `patience`.
    pub(super) async fn end(mut self, patience: Duration) {
        self.side_stopper.advance(Stage::Draining);
        self.first_stopper.advance(Stage::Draining);
        let background = async {
            if let Some(background) = &mut self.background {
                let _late = tokio::time::timeout(patience, background.end()).await;
            }
        };
        tokio::join!(
            all_of(&mut self.side, patience),
            all_of(&mut self.first, patience),
            background
        );
    }
}

async fn all_of(tasks: &mut JoinSet<()>, patience: Duration) {
    let _late = tokio::time::timeout(patience, async {
        while let Some(ended) = tasks.join_next().await {
            if ended.is_err() {
                tracing::error!("what goes on beside the workers ended badly");
            }
        }
    })
    .await;
}

/// Follows the signal: not ready at once, draining after `delay`, or at once when told to hurry.
pub(super) async fn drained(
    stop: &mut Stop,
    workers: &Stopper,
    readiness: &Readiness,
    delay: Duration,
) {
    stop.reached(Stage::Draining).await;
    readiness.set(false);
    tokio::select! {
        () = tokio::time::sleep(delay) => workers.advance(Stage::Draining),
        () = stop.reached(Stage::Stopping) => workers.advance(Stage::Stopping),
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
