//! What goes on beside the workers, on the control thread.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::api::Api;
use super::background::Background;
use super::demo::Demo;
use super::listening::{Listening, Sockets};
use super::watchdog;
use super::workers::{Orders, Thread, Workers, way};
use crate::admin::Admin;
use crate::otlp::Exporter;
use crate::platform::demo::{DemoApp, DemoFunction};
use crate::pool::{Dialer, Pool, PoolLimits};
use crate::server::door::Guests;
use crate::server::listener::Listeners;
use crate::server::notify::Notifier;
use crate::server::permits::Permits;
use crate::server::pulse::Pulse;
use crate::server::settings::ConnectionSettings;
use crate::server::shutdown::{Stage, Stop};
use crate::server::worker::{Place, Worker};
use crate::telemetry::metrics::Metrics;
use crate::wire::Handler;

/// Serves a handler of its own for each order, until `stop`.
fn serve<P, H>(
    side: &mut JoinSet<()>,
    name: &'static str,
    guests: Guests,
    mut first: Orders<P>,
    build: impl Fn(P, &Place<'_, H>) -> H + 'static,
    (metrics, stop): (Arc<Metrics>, Stop),
) -> Workers<P>
where
    P: Clone + 'static,
    H: Handler + 'static,
{
    let (way, orders) = way();
    let first = first.for_one(1, None);
    side.spawn_local(async move {
        let worker = Worker {
            name: name.to_owned(),
            guests,
            metrics,
            // Its own: whoever fills the front door must not shut out the operator.
            permits: Permits::new(SIDE_CONNECTIONS, SIDE_CONNECTIONS),
            pulse: Pulse::default(),
        };
        if let Err(error) = worker.serve(first, orders, build, stop).await {
            tracing::error!(%error, name, "a side listener ended");
        }
    });
    Workers::new(vec![way])
}

/// Health and metrics, wherever they are served.
pub(super) fn serve_admin(
    side: &mut JoinSet<()>,
    first: Orders<Admin>,
    metrics: &Arc<Metrics>,
    stop: &Stop,
) -> Workers<Admin> {
    let with = (Arc::clone(metrics), stop.clone());
    let build = |admin: Admin, _: &Place<'_, Admin>| admin;
    serve(side, "admin", Guests::Operator, first, build, with)
}

/// The backends of `dev`.
pub(super) fn serve_demo(
    side: &mut JoinSet<()>,
    demo: Demo,
    settings: &ConnectionSettings,
    metrics: &Arc<Metrics>,
    stop: &Stop,
) {
    let with = || (Arc::clone(metrics), stop.clone());
    let first = |listeners: Listeners| side_orders((), settings.clone(), listeners);
    let guests = Guests::Strangers;
    let app = |(), _: &Place<'_, DemoApp>| DemoApp;
    serve(side, "demo app", guests, first(demo.app), app, with());
    let function = |(), _: &Place<'_, DemoFunction>| DemoFunction;
    let first = first(demo.function);
    serve(side, "demo function", guests, first, function, with());
}

/// What the worker of the admin address is told.
pub(super) fn admin_orders(
    admin: Admin,
    settings: &ConnectionSettings,
    listening: &Listening,
    sockets: Sockets,
) -> Orders<Admin> {
    Orders {
        parts: admin,
        settings: settings.clone(),
        entrances: listening.plain(),
        sockets,
        most: usize::MAX,
        drain: SIDE_DRAIN,
    }
}

/// What a side listener is told first.
fn side_orders<P>(parts: P, settings: ConnectionSettings, listeners: Listeners) -> Orders<P> {
    let entrance = listeners.entrance;
    Orders {
        parts,
        settings,
        sockets: [(entrance.id, listeners.sockets)].into(),
        entrances: vec![entrance],
        most: usize::MAX,
        drain: SIDE_DRAIN,
    }
}

/// The connections of this thread itself: to the web servers of custom domains.
pub(super) fn pool(dialer: &Dialer, idle: Duration, metrics: &Arc<Metrics>) -> Rc<Pool> {
    let limits = PoolLimits { idle, ..SIDE_POOL };
    Pool::new(dialer.clone(), limits, Arc::clone(metrics))
}

/// What the embedded platform does beside the calls, over `pool`: begun.
pub(super) fn background(api: &Api, pool: &Rc<Pool>, metrics: &Arc<Metrics>) -> Option<Background> {
    let Api::Local(platform) = api else {
        return None;
    };
    let (platform, metrics) = (Arc::clone(platform), Arc::clone(metrics));
    let mut background = Background::new(platform, Rc::clone(pool), metrics);
    background.start();
    Some(background)
}

/// Signs of life of `threads`, where systemd waits for them, until `stop`. Once the `workers` drain, they are
/// given anyhow.
pub(super) fn run_watchdog(
    side: &mut JoinSet<()>,
    notifier: &Notifier,
    threads: &[Thread],
    workers: &Stop,
    stop: &Stop,
) {
    if let Some(every) = notifier.watchdog() {
        let pulses = threads.iter().map(|thread| thread.pulse.clone()).collect();
        let (workers, stop) = (workers.clone(), stop.clone());
        side.spawn_local(watchdog::feed(
            notifier.clone(),
            every,
            pulses,
            workers,
            stop,
        ));
    }
}

/// Tells spans, until `stop`.
pub(super) fn run_exporter(side: &mut JoinSet<()>, exporter: Exporter, stop: &Stop) {
    let mut stop = stop.clone();
    side.spawn_local(async move { exporter.run(stop.reached(Stage::Draining)).await });
}

/// Connections to the admin address, and to each demo backend.
const SIDE_CONNECTIONS: usize = 1024;

/// What a pool of this thread may keep.
pub(super) const SIDE_POOL: PoolLimits = PoolLimits {
    connections: 8,
    per_backend: 1,
    idle: Duration::from_secs(60),
};

/// How long the admin address may take to finish: a scrape, not a stream.
const SIDE_DRAIN: Duration = Duration::from_secs(1);
