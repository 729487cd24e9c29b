//! The configuration, read again while the ingress runs: who asks for it, and what is said of it.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::running::Running;
use super::watch::Watch;
use super::{Secrets, dials};
use crate::config::{Change, Config, Problem};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::reloads::Reload;

/// Where a configuration is read from again.
pub struct Source {
    watch: Watch,
    read: Arc<Read>,
}

type Read = dyn Fn() -> Result<(Config, Secrets), Vec<Problem>> + Send + Sync;

impl Source {
    /// What `read` gives each time, on a thread that may block. `file` is the one that is watched where
    /// `[reload]` says so: whatever changes from here on is a change.
    pub fn new(
        file: &Path,
        read: impl Fn() -> Result<(Config, Secrets), Vec<Problem>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            watch: Watch::new(file),
            read: Arc::new(read),
        }
    }

    /// Reads, on this thread.
    ///
    /// # Errors
    /// For every mistake in what is read.
    pub fn read(&self) -> Result<(Config, Secrets), Vec<Problem>> {
        (self.read)()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = out.debug_struct("Source");
        out.field("watch", &self.watch).finish_non_exhaustive()
    }
}

/// Has a running ingress read its configuration again. Clones ask the same ingress.
#[derive(Debug, Clone)]
pub struct Reloader {
    asks: mpsc::Sender<Ask>,
    nudge: Arc<Notify>,
}

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The keys that have another value now.
    pub changed: Vec<Change>,
    /// The keys of secrets, and of files, that are the same but lead to something else now.
    pub renewed: Vec<&'static str>,
    /// Addresses that are listened on since.
    pub opened: Vec<SocketAddr>,
    /// Addresses that are not any more.
    pub closed: Vec<SocketAddr>,
    /// What is configured, and takes effect at a restart or an upgrade only.
    pub restart: Vec<Change>,
    /// What else the operator may want to know.
    pub notes: Vec<String>,
    /// Connections of clients that stayed open.
    pub connections: usize,
    /// WebSockets and other tunnels among them.
    pub tunnels: usize,
}

impl Report {
    /// Whether anything is different now.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !self.changed.is_empty() || !self.renewed.is_empty()
    }
}

/// Why the configuration stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// As in `dev`, which reads none.
    #[error("this process has no file to read its configuration from again")]
    NoSource,
    /// It does not serve, or not any more.
    #[error("this ingress does not serve")]
    Ended,
    /// What was read cannot be taken over; every reason.
    #[error("{}", .0.join("\n"))]
    Problems(Vec<String>),
}

/// Somebody who waits for a reload.
#[derive(Debug)]
struct Ask(oneshot::Sender<Result<Report, Refused>>);

/// Who has asked.
#[derive(Debug)]
pub(super) struct Asks {
    asks: mpsc::Receiver<Ask>,
    nudge: Arc<Notify>,
}

/// Those who wait for a reload at once; others wait to be heard.
const QUEUE: usize = 16;

/// How long reading may take: a file may be on a disk that does not answer.
const READING: Duration = Duration::from_secs(30);

/// So many problems are told about in the log.
const MOST_TOLD: usize = 20;

/// A reloader, and what hears it.
pub(super) fn reloader() -> (Reloader, Asks) {
    let nudge = Arc::new(Notify::new());
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reloader = Reloader {
        asks: sender,
        nudge: Arc::clone(&nudge),
    };
    let asks = Asks {
        asks: receiver,
        nudge,
    };
    (reloader, asks)
}

impl Reloader {
    /// Has it done, and waits: the next request meets what the report says.
    ///
    /// # Errors
    /// When everything stays as it was, and why.
    pub async fn reload(&self) -> Result<Report, Refused> {
        let (answer, answered) = oneshot::channel();
        let asked = self.asks.send(Ask(answer)).await;
        asked.map_err(|_| Refused::Ended)?;
        answered.await.unwrap_or(Err(Refused::Ended))
    }

    /// Has it done once, however often this was called before it begins. The log says what came of it.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }
}

/// The reloads of an ingress that serves.
#[derive(Debug)]
pub(super) struct Reloads {
    asks: Asks,
    source: Option<Source>,
    /// Those who wait for the next one.
    waiting: Vec<Ask>,
}

impl Reloads {
    pub(super) fn new(asks: Asks, source: Option<Source>) -> Self {
        Self {
            asks,
            source,
            waiting: Vec::new(),
        }
    }

    /// Reloads whenever it is asked to, one after the other.
    pub(super) async fn serve(&mut self, running: &mut Running) -> Infallible {
        loop {
            self.asked(running.config()).await;
            self.answer(running).await;
        }
    }

    /// Waits until one is due.
    pub(super) async fn asked(&mut self, config: &Config) {
        if !self.waiting.is_empty() {
            return;
        }
        let Asks { asks, nudge } = &mut self.asks;
        tokio::select! {
            Some(ask) = asks.recv() => self.waiting.push(ask),
            () = nudge.notified() => {}
            () = changed(&mut self.source, config) => {}
        }
    }

    /// Has it done, and tells whoever has asked.
    pub(super) async fn answer(&mut self, running: &mut Running) {
        // Whoever asked until now is answered by this one.
        while let Ok(ask) = self.asks.asks.try_recv() {
            self.waiting.push(ask);
        }
        let _nudged_as_well = self.asks.nudge.notified().now_or_never();
        running.notifier.reloading();
        let outcome = reload(running, self.source.as_mut()).await;
        tell(&outcome, running.metrics());
        let status = running.status();
        running.notifier.ready(&match outcome {
            Ok(_) => status,
            Err(_) => format!("{status}; the last reload was refused"),
        });
        for Ask(answer) in self.waiting.drain(..) {
            // Whoever has left reads the log.
            let _left = answer.send(outcome.clone());
        }
    }
}

async fn changed(source: &mut Option<Source>, config: &Config) {
    match source {
        Some(Source { watch, .. }) if config.reload.watch => {
            watch.changed(config.reload.every).await;
        }
        Some(_) | None => std::future::pending().await,
    }
}

async fn reload(running: &mut Running, source: Option<&mut Source>) -> Result<Report, Refused> {
    let Source { watch, read } = source.ok_or(Refused::NoSource)?;
    let refused = |problem: &str| Refused::Problems(vec![problem.to_owned()]);
    let read = Arc::clone(read);
    let reading = async {
        watch.look().await;
        let read = move || {
            let (config, secrets) = read()?;
            let authorities = dials::authorities(&config);
            Ok::<_, Vec<Problem>>((config, secrets, authorities))
        };
        tokio::task::spawn_blocking(read).await
    };
    let (config, secrets, authorities) = match timeout(READING, reading).await {
        Ok(Ok(read)) => read.map_err(|problems| {
            Refused::Problems(problems.iter().map(ToString::to_string).collect())
        })?,
        Ok(Err(_)) => return Err(refused("reading the configuration ended in a panic")),
        Err(_) => return Err(refused("the configuration could not be read in time")),
    };
    let metrics = Arc::clone(running.metrics());
    // Boxed: it is large, and seldom.
    let reloading = Box::pin(running.reload(config, secrets, authorities));
    let reloading = AssertUnwindSafe(reloading).catch_unwind();
    reloading
        .await
        .unwrap_or_else(|_panic| {
            metrics.panics.inc();
            Err(vec!["taking it over ended in a panic".to_owned()])
        })
        .map_err(Refused::Problems)
}

/// Says in the log and in the series what came of it.
fn tell(outcome: &Result<Report, Refused>, metrics: &Metrics) {
    let report = match outcome {
        Ok(report) => report,
        Err(Refused::Problems(problems)) => {
            metrics.reloads.ended(Reload::Refused);
            for problem in problems.iter().take(MOST_TOLD) {
                tracing::error!("the configuration is not reloaded and stays as it was: {problem}");
            }
            return;
        }
        Err(refused @ (Refused::NoSource | Refused::Ended)) => {
            tracing::warn!("nothing is reloaded: {refused}");
            return;
        }
    };
    metrics.reloads.ended(match report.is_change() {
        true => Reload::Applied,
        false => Reload::Unchanged,
    });
    for change in &report.restart {
        tracing::warn!(
            key = change.key,
            "{change} takes effect at a restart or an upgrade (SIGUSR2)"
        );
    }
    for note in &report.notes {
        tracing::warn!("{note}");
    }
    if !report.is_change() {
        tracing::info!("the configuration was read again: nothing is different");
        return;
    }
    let Report {
        connections,
        tunnels,
        ..
    } = *report;
    tracing::info!(
        changed = %list(&report.changed),
        renewed = %list(&report.renewed),
        opened = %list(&report.opened),
        closed = %list(&report.closed),
        connections,
        tunnels,
        "the configuration was reloaded; {connections} connections and {tunnels} tunnels stayed"
    );
}

fn list(all: &[impl ToString]) -> String {
    let shown = all.iter().take(MOST_TOLD).map(ToString::to_string);
    let shown: Vec<String> = shown.collect();
    match all.len().saturating_sub(MOST_TOLD) {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}
