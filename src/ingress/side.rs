//! What goes on beside the workers, on the control thread.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::Ingress;
use super::api::Api;
use crate::admin::{Admin, Readiness};
use crate::otlp::Exporter;
use crate::platform::demo::{DemoApp, DemoFunction};
use crate::pool::{Dialer, Pool, PoolLimits};
use crate::server::connection::ConnectionSettings;
use crate::server::door::Guests;
use crate::server::listener::Listeners;
use crate::server::permits::Permits;
use crate::server::shutdown::{Stage, Stop};
use crate::server::worker::Worker;
use crate::wire::Handler;

impl Ingress {
    /// What goes on beside the workers, on this thread.
    pub(super) fn start_side(
        &mut self,
        side: &mut JoinSet<()>,
        permits: &Arc<Permits>,
        readiness: &Arc<Readiness>,
        stop: &Stop,
        dialer: Dialer,
    ) {
        if let Some(listeners) = self.admin.take() {
            let admin = Admin::new(
                Arc::clone(&self.metrics),
                Arc::clone(permits),
                Arc::clone(readiness),
                Arc::clone(&self.certificates.keyring),
                self.mailbox.clone(),
            );
            self.serve_beside(side, "admin", Guests::Operator, listeners, admin, stop);
        }
        if let Some(demo) = self.demo.take() {
            let guests = Guests::Strangers;
            self.serve_beside(side, "demo app", guests, demo.app, DemoApp, stop);
            let listeners = demo.function;
            self.serve_beside(side, "demo function", guests, listeners, DemoFunction, stop);
        }
        if let Some(sources) = self.certificates.sources.take() {
            let keyring = Arc::clone(&self.certificates.keyring);
            let keeping = sources.keep_fresh(keyring, Arc::clone(&self.metrics));
            let mut stop = stop.clone();
            side.spawn_local(async move {
                tokio::select! {
                    () = keeping => {}
                    () = stop.reached(Stage::Draining) => {}
                }
            });
        }
        if let (Some(tracer), Some(export)) = (&self.tracer, self.export.take()) {
            let pool = Pool::new(dialer.clone(), SIDE_POOL, Arc::clone(&self.metrics));
            let (tracer, metrics) = (Arc::clone(tracer), Arc::clone(&self.metrics));
            let exporter = Exporter::new(export, tracer, pool, metrics, &self.config.tracing);
            let mut stop = stop.clone();
            side.spawn_local(async move { exporter.run(stop.reached(Stage::Draining)).await });
        }
        if let Api::Local(platform) = &self.api {
            let platform = Arc::clone(platform);
            let stop = stop.clone();
            let metrics = Arc::clone(&self.metrics);
            let limits = PoolLimits {
                idle: self.config.timeouts.pool,
                ..SIDE_POOL
            };
            let pool = Pool::new(dialer, limits, Arc::clone(&metrics));
            side.spawn_local(async move {
                // Mail, hit counts and proofs go on after a panic in one of them.
                let run = || AssertUnwindSafe(platform.run_background(stop.clone(), &pool));
                while let Err(_panic) = run().catch_unwind().await {
                    metrics.panics.inc();
                    tokio::time::sleep(PANIC_PAUSE).await;
                }
            });
        }
    }

    fn serve_beside<H: Handler + 'static>(
        &self,
        side: &mut JoinSet<()>,
        name: &'static str,
        guests: Guests,
        listeners: Listeners,
        handler: H,
        stop: &Stop,
    ) {
        let settings = ConnectionSettings::new(&self.config.timeouts, &self.config.limits);
        let metrics = Arc::clone(&self.metrics);
        let stop = stop.clone();
        side.spawn_local(async move {
            let worker = Worker {
                name: name.to_owned(),
                listeners: listeners.into_sockets().collect(),
                guests,
                settings,
                metrics,
                // Its own: whoever fills the front door must not shut out the operator.
                permits: Permits::new(SIDE_CONNECTIONS, SIDE_CONNECTIONS),
                drain: SIDE_DRAIN,
            };
            if let Err(error) = worker.serve(|_: &TaskTracker| handler, stop).await {
                tracing::error!(%error, name, "a side listener ended");
            }
        });
    }
}

/// Connections to the admin address, and to each demo backend.
const SIDE_CONNECTIONS: usize = 1024;

/// The connections of this thread itself: to the web servers of custom domains.
pub(super) const SIDE_POOL: PoolLimits = PoolLimits {
    connections: 8,
    per_backend: 1,
    idle: Duration::from_secs(60),
};

/// How long the admin address may take to finish: a scrape, not a stream.
const SIDE_DRAIN: Duration = Duration::from_secs(1);

/// Before what panicked beside the workers begins anew.
const PANIC_PAUSE: Duration = Duration::from_secs(1);
