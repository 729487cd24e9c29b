//! The order in which an ingress ends.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::Error;
use crate::admin::Readiness;
use crate::server::shutdown::{Stage, Stop, Stopper};

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

/// Waits for the end of all `tasks`, for as long as `patience` lasts.
pub(super) async fn all_of(tasks: &mut JoinSet<()>, patience: Duration) {
    let _late = tokio::time::timeout(patience, async {
        while let Some(ended) = tasks.join_next().await {
            if ended.is_err() {
                tracing::error!("what goes on beside the workers ended badly");
            }
        }
    })
    .await;
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
