//! What goes on beside the workers, on the control thread: admin, demo backends, certificates, mail.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::api::Api;
use super::background::Background;
use super::ending::{Beside, Running};
use super::{Ingress, watchdog};
use crate::admin::{Admin, Readiness};
use crate::platform::demo::{DemoApp, DemoFunction};
use crate::pool::{Dialer, Pool, PoolLimits};
use crate::server::connection::ConnectionSettings;
use crate::server::door::Guests;
use crate::server::listener::Listeners;
use crate::server::permits::Permits;
use crate::server::pulse::Pulse;
use crate::server::shutdown::{Stage, Stop};
use crate::server::worker::Worker;
use crate::wire::Handler;

impl Ingress {
    /// Health and metrics, on this thread.
    pub(super) fn start_admin(
        &mut self,
        first: &mut JoinSet<()>,
        permits: &Arc<Permits>,
        readiness: &Arc<Readiness>,
        stop: &Stop,
    ) {
        if let Some(listeners) = self.admin.take() {
            let admin = Admin::new(
                Arc::clone(&self.metrics),
                Arc::clone(permits),
                Arc::clone(readiness),
                Arc::clone(&self.certificates.keyring),
                self.mailbox.clone(),
            );
            self.serve_beside(first, "admin", Guests::Operator, listeners, admin, stop);
        }
    }

    /// What goes on beside the workers, on this thread.
    pub(super) fn start_side(&mut self, side: &mut JoinSet<()>, stop: &Stop) {
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
    }

    /// Signs of life, where systemd waits for them.
    pub(super) fn start_watchdog(&self, beside: &mut Beside, workers: &[Running], drain: &Stop) {
        if let Some(every) = self.notifier.watchdog() {
            let pulses = workers.iter().map(|worker| worker.pulse.clone()).collect();
            let (drain, end) = (drain.clone(), beside.side_stop.clone());
            let feeding = watchdog::feed(self.notifier.clone(), every, pulses, drain, end);
            beside.side.spawn_local(feeding);
        }
    }

    /// What the embedded platform does beside the calls.
    pub(super) fn background(&self, dialer: Dialer) -> Option<Background> {
        let Api::Local(platform) = &self.api else {
            return None;
        };
        let limits = PoolLimits {
            idle: self.config.timeouts.pool,
            ..SIDE_POOL
        };
        let metrics = Arc::clone(&self.metrics);
        let pool = Pool::new(dialer, limits, Arc::clone(&metrics));
        Some(Background::new(Arc::clone(platform), pool, metrics))
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
                pulse: Pulse::default(),
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
const SIDE_POOL: PoolLimits = PoolLimits {
    connections: 8,
    per_backend: 1,
    idle: Duration::from_secs(60),
};

/// How long the admin address may take to finish: a scrape, not a stream.
const SIDE_DRAIN: Duration = Duration::from_secs(1);
