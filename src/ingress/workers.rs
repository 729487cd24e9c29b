//! The workers of an ingress, and what they are started with.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Handle;

use super::parts::Parts;
use super::{Error, Ingress};
use crate::pool::{Dialer, Guard, PoolLimits};
use crate::resolve::Cache;
use crate::server::connection::ConnectionSettings;
use crate::server::door::Guests;
use crate::server::listener::Listeners;
use crate::server::permits::Permits;
use crate::server::shutdown::Stop;
use crate::server::worker::Worker;
use crate::telemetry::access::Access;
use crate::telemetry::exchange::Telemetry;

/// The thread of a worker.
type Running = JoinHandle<io::Result<()>>;

impl Ingress {
    /// What all pools dial with; names are looked up on this thread.
    pub(super) fn dialer(&self) -> Result<Dialer, Error> {
        let own = self
            .listeners
            .iter()
            .chain(&self.admin)
            .map(|bound| bound.address)
            .collect();
        let (backends, connect) = (&self.config.backends, self.config.timeouts.connect);
        let guard = Guard::new(backends.allow_private, own);
        let names = Handle::current();
        let dialer = Dialer::new(guard, connect, &backends.ca, &backends.dns, names)?;
        Ok(dialer)
    }

    /// Starts them, and gives what they are made of besides.
    pub(super) fn start_workers(
        &mut self,
        permits: &Arc<Permits>,
        stop: &Stop,
        dialer: Dialer,
    ) -> Result<(Vec<Running>, Parts), Error> {
        let mut bound = std::mem::take(&mut self.listeners);
        let terms = self.certificates.terms()?;
        for secure in bound.iter_mut().skip(self.config.listen.http.len()) {
            secure.entrance.tls = Some(Arc::clone(&terms));
        }
        let config = &self.config;
        self.metrics.follow(&config.metrics);
        let parts = Parts {
            settings: Arc::new(config.settings(self.api.domains())),
            telemetry: Arc::new(Telemetry {
                metrics: Arc::clone(&self.metrics),
                log: self.log.clone(),
                access: Access::of(&config.log),
                tracer: self.tracer.clone(),
            }),
            cache: Cache::new(config.cache.clone(), Arc::clone(&self.metrics)),
            challenges: Arc::clone(&self.certificates.challenges),
            dialer,
            pool: PoolLimits {
                connections: config
                    .backends
                    .connections
                    .min(config.limits.connections)
                    .div_ceil(self.workers),
                per_backend: config.backends.per_backend.div_ceil(self.workers),
                idle: config.timeouts.pool,
            },
            api: self.api.clone(),
        };
        let workers: Result<_, Error> = (0..self.workers)
            .map(|index| {
                let worker = Worker {
                    name: format!("worker-{index}"),
                    listeners: bound.iter_mut().filter_map(Listeners::take_one).collect(),
                    guests: Guests::Strangers,
                    settings: ConnectionSettings::new(&config.timeouts, &config.limits)
                        .counted_in(&self.metrics),
                    permits: Arc::clone(permits),
                    metrics: Arc::clone(&self.metrics),
                    drain: config.timeouts.drain,
                };
                let parts = parts.clone();
                let most = config.limits.per_workload;
                let build = move |tasks: &_, pressure: &_| parts.build(tasks, pressure);
                Ok(worker.spawn(most, build, stop.clone())?)
            })
            .collect();
        Ok((workers?, parts))
    }
}
