//! The workers of an ingress: started once, and told what to serve by from now on.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::listening::{Listening, Sockets, of_one_worker};
use super::parts::Parts;
use crate::config::Config;
use crate::proxy::Proxy;
use crate::server::door::Guests;
use crate::server::listener::Entrance;
use crate::server::permits::Permits;
use crate::server::pulse::Pulse;
use crate::server::settings::ConnectionSettings;
use crate::server::shutdown::Stop;
use crate::server::worker::{Order, Place, Worker};
use crate::settings::Limits;
use crate::telemetry::metrics::Metrics;
use crate::tls::terms::Terms;

/// The ways to all workers of a kind.
#[derive(Debug)]
pub(super) struct Workers<P>(Vec<mpsc::Sender<Order<P>>>);

/// What all workers of a kind are told at once.
#[derive(Debug)]
pub(super) struct Orders<P> {
    pub(super) parts: P,
    pub(super) settings: ConnectionSettings,
    /// Those that stay, and those of `sockets`.
    pub(super) entrances: Vec<Entrance>,
    pub(super) sockets: Sockets,
    pub(super) most: usize,
    pub(super) drain: Duration,
}

/// What the workers of the proxy are told to serve by `config`. The listeners that are not in `sockets` they
/// have already.
pub(super) fn orders(
    config: &Config,
    limits: &Limits,
    parts: Parts,
    listening: &Listening,
    sockets: Sockets,
    terms: Option<&Arc<Terms>>,
) -> Orders<Parts> {
    let trusted = &config.backends.trusted_proxies;
    Orders {
        settings: ConnectionSettings::new(&config.timeouts, limits)
            .counted_in(&parts.telemetry.metrics),
        parts,
        entrances: listening.entrances(&config.listen, trusted, terms),
        sockets,
        most: limits.per_workload,
        drain: config.timeouts.drain,
    }
}

/// A place for one order in the hands of each worker.
#[derive(Debug)]
pub(super) struct Ready<'a, P>(Vec<mpsc::Permit<'a, Order<P>>>);

/// Orders that one worker has not followed. More than one is a worker that is stuck.
const QUEUE: usize = 2;

/// How long a worker may take: it does what it is told between two requests.
const PATIENCE: Duration = Duration::from_secs(10);

impl<P: Clone> Orders<P> {
    /// The part of the next worker, of `left` that have none yet.
    pub(super) fn for_one(&mut self, left: usize, done: Option<oneshot::Sender<()>>) -> Order<P> {
        Order {
            parts: self.parts.clone(),
            settings: self.settings.clone(),
            listeners: of_one_worker(&self.entrances, &mut self.sockets, left),
            most: self.most,
            drain: self.drain,
            done,
        }
    }
}

/// A way to a worker, and its end there.
pub(super) fn way<P>() -> (mpsc::Sender<Order<P>>, mpsc::Receiver<Order<P>>) {
    mpsc::channel(QUEUE)
}

impl<P: Clone> Workers<P> {
    pub(super) fn new(ways: Vec<mpsc::Sender<Order<P>>>) -> Self {
        Self(ways)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Sees that each of them can be told something; `None` where one is stuck, or gone.
    pub(super) fn ready(&self) -> Option<Ready<'_, P>> {
        let places = self.0.iter().map(|way| way.try_reserve().ok());
        places.collect::<Option<Vec<_>>>().map(Ready)
    }
}

impl<P: Clone> Ready<'_, P> {
    /// Tells all of them at once, and gives what waits until they have followed: whether all did in time.
    pub(super) fn tell(self, mut orders: Orders<P>) -> impl Future<Output = bool> + use<P> {
        let left = (1..=self.0.len()).rev();
        let tell = |(place, left): (mpsc::Permit<'_, Order<P>>, usize)| {
            let (done, followed) = oneshot::channel();
            place.send(orders.for_one(left, Some(done)));
            followed
        };
        let waiting: Vec<_> = self.0.into_iter().zip(left).map(tell).collect();
        async move {
            let all = async {
                let mut followed = true;
                for one in waiting {
                    followed &= one.await.is_ok();
                }
                followed
            };
            timeout(PATIENCE, all).await.unwrap_or(false)
        }
    }
}

/// A thread that has ended, or will.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) handle: JoinHandle<io::Result<()>>,
    /// Beats while it gets round to its work.
    pub(super) pulse: Pulse,
}

/// Starts `count` workers of the proxy.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(
    count: usize,
    mut first: Orders<Parts>,
    permits: &Arc<Permits>,
    metrics: &Arc<Metrics>,
    stop: &Stop,
) -> io::Result<(Workers<Parts>, Vec<Thread>)> {
    let mut threads = Vec::with_capacity(count);
    let mut ways = Vec::with_capacity(count);
    for index in 0..count {
        let pulse = Pulse::default();
        let worker = Worker {
            name: format!("worker-{index}"),
            guests: Guests::Strangers,
            permits: Arc::clone(permits),
            metrics: Arc::clone(metrics),
            pulse: pulse.clone(),
        };
        let (way, orders) = way();
        let build = |parts: Parts, place: &Place<'_, Proxy>| parts.build(place);
        let first = first.for_one(count - index, None);
        let handle = worker.spawn(first, orders, build, stop.clone())?;
        threads.push(Thread { handle, pulse });
        ways.push(way);
    }
    Ok((Workers::new(ways), threads))
}
