//! What is made once for all workers, and the proxy that each makes of it.

use std::rc::Rc;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::api::Api;
use crate::pool::{Dialer, Pool, PoolLimits};
use crate::proxy::{Proxy, Settings};
use crate::resolve::Cache;
use crate::server::pressure::Pressure;
use crate::telemetry::exchange::Telemetry;
use crate::tls::challenges::Challenges;
use crate::upstream::Upstream;

/// What every worker builds its own proxy from.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) settings: Arc<Settings>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) cache: Arc<Cache>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) dialer: Dialer,
    pub(super) pool: PoolLimits,
    pub(super) api: Api,
}

impl Parts {
    /// On the worker's own thread.
    pub(super) fn build(self, tasks: &TaskTracker, pressure: &Rc<Pressure>) -> Proxy {
        let metrics = Arc::clone(&self.telemetry.metrics);
        let pool = Pool::new(self.dialer, self.pool, metrics);
        let upstream = Upstream::new(self.api.into_via(), pool.clone(), tasks.clone());
        Proxy::new(
            self.settings,
            self.telemetry,
            self.cache,
            upstream,
            pool,
            tasks.clone(),
            Rc::clone(pressure),
        )
        .proving(self.challenges)
    }
}
