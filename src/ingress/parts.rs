//! What is made once for all workers, and the proxy that each makes of it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::api::Api;
use crate::config::Config;
use crate::pool::{Dialer, Pool, PoolLimits};
use crate::proxy::{Proxy, Settings};
use crate::rates::Rates;
use crate::resolve::Cache;
use crate::server::worker::Place;
use crate::settings::Limits;
use crate::telemetry::access::Access;
use crate::telemetry::exchange::Telemetry;
use crate::telemetry::log::Log;
use crate::telemetry::traces::Tracer;
use crate::tls::challenges::Challenges;
use crate::upstream::Upstream;
use crate::wire::peer::ListenerId;
use crate::wire::pipe;

/// What every worker builds its own proxy from.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) settings: Arc<Settings>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) cache: Arc<Cache>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) dialer: Dialer,
    pub(super) pool: PoolLimits,
    /// How many of them each worker may have.
    pub(super) pipes: usize,
    pub(super) api: Api,
}

impl Parts {
    /// On the worker's own thread. Connections to backends go over to it, where nothing that they depend on
    /// is different, and what is counted as in flight does.
    pub(super) fn build(self, place: &Place<'_, Proxy>) -> Proxy {
        pipe::allow(self.pipes);
        let metrics = Arc::clone(&self.telemetry.metrics);
        let kept = place.before.map(Proxy::pool);
        let pool = match kept.filter(|pool| pool.is_like(&self.dialer, &self.pool)) {
            Some(pool) => Rc::clone(pool),
            None => Pool::new(self.dialer, self.pool, metrics),
        };
        let upstream = Upstream::new(self.api.into_via(), pool.clone(), place.tasks.clone());
        let proxy = Proxy::new(
            self.settings,
            self.telemetry,
            self.cache,
            upstream,
            pool,
            place.tasks.clone(),
            Rc::clone(place.pressure),
        )
        .proving(self.challenges);
        match place.before {
            Some(before) => proxy.after(before),
            None => proxy,
        }
    }
}

/// What the proxy reads of a configuration, whose `listeners` have these numbers.
pub(super) fn settings(
    config: &Config,
    limits: &Limits,
    api: &Api,
    listeners: impl Iterator<Item = (ListenerId, SocketAddr)>,
    rates: Option<Arc<Rates>>,
) -> Arc<Settings> {
    Arc::new(config.settings(limits, api.domains(), listeners, rates))
}

/// What the requests of a configuration are written to.
pub(super) fn telemetry(
    config: &Config,
    log: &Log,
    tracer: Option<&Arc<Tracer>>,
) -> Arc<Telemetry> {
    Arc::new(Telemetry {
        metrics: log.metrics(),
        log: log.clone(),
        access: Access::of(&config.log),
        tracer: tracer.cloned(),
    })
}

/// What each of so many workers may keep.
pub(super) fn pool_limits(config: &Config, limits: &Limits, workers: usize) -> PoolLimits {
    let backends = &config.backends;
    PoolLimits {
        connections: backends
            .connections
            .min(limits.connections)
            .div_ceil(workers),
        per_backend: backends.per_backend.div_ceil(workers),
        idle: config.timeouts.pool,
    }
}

/// The limits that hold where so many connections fit: one app alone must not fill the house, also where
/// the system lowers the limit.
pub(super) fn limits_within(limits: &Limits, fit: usize) -> Limits {
    Limits {
        connections: fit,
        per_workload: limits.per_workload.min(fit / 2).max(1),
        ..limits.clone()
    }
}
