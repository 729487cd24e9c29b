//! What backends are dialled with, and what that was made of.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::Config;
use crate::pool::outliers::Outliers;
use crate::pool::{Authorities, BadAuthorities, Dialer, Guard};
use crate::telemetry::metrics::Metrics;

/// The dialer of all pools, with what it depends on beside the configuration.
#[derive(Debug, Clone)]
pub(super) struct Dials {
    pub(super) dialer: Dialer,
    guard: Guard,
    /// What was in the file of `backends.ca`.
    authorities: Option<Authorities>,
    /// What is known of addresses that fail.
    outliers: Arc<Outliers>,
}

/// What is in the file of `backends.ca`, where one is named, or why it cannot be read.
pub(super) type ReadAuthorities = Result<Option<Authorities>, BadAuthorities>;

/// Reads it. Blocks.
pub(super) fn authorities(config: &Config) -> ReadAuthorities {
    Authorities::read(&config.backends.ca)
}

impl Dials {
    /// Names are looked up on the thread that calls; a backend at one of `own` would be a loop.
    ///
    /// # Errors
    /// When the file of `backends.ca` is no good.
    pub(super) fn new(
        config: &Config,
        authorities: Option<Authorities>,
        own: Vec<SocketAddr>,
        outliers: Arc<Outliers>,
    ) -> Result<Self, BadAuthorities> {
        let (backends, connect) = (&config.backends, config.timeouts.connect);
        let guard = Guard::new(backends.allow_private, own);
        let names = Handle::current();
        let (trusted, dns) = (authorities.as_ref(), &backends.dns);
        let dialer = Dialer::trusting(guard.clone(), connect, trusted, dns, names)?;
        Ok(Self {
            dialer: dialer.leaving_out(Arc::clone(&outliers)),
            guard,
            authorities,
            outliers,
        })
    }

    /// What the configuration `then` dials with: the very same as before, with the answers about names that
    /// it remembers, where nothing is different for it.
    ///
    /// # Errors
    /// When the file of `backends.ca` is no good.
    pub(super) fn next(
        &self,
        now: &Config,
        then: &Config,
        authorities: ReadAuthorities,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BadAuthorities> {
        let outliers = match now.outliers == then.outliers {
            true => Arc::clone(&self.outliers),
            false => Outliers::new(then.outliers.clone(), Arc::clone(metrics)),
        };
        let same = now.backends.allow_private == then.backends.allow_private
            && now.backends.ca == then.backends.ca
            && now.backends.dns == then.backends.dns
            && now.timeouts.connect == then.timeouts.connect
            && now.outliers == then.outliers
            && self.trusts(&authorities);
        match same {
            true => Ok(self.clone()),
            false => Self::new(then, authorities?, Vec::new(), outliers),
        }
    }

    /// Whether these are the authorities that it trusts.
    pub(super) fn trusts(&self, authorities: &ReadAuthorities) -> bool {
        matches!(authorities, Ok(read) if *read == self.authorities)
    }

    /// Our own listeners are these from now on.
    pub(super) fn set_own(&self, own: Vec<SocketAddr>) {
        self.guard.set_own(own);
    }
}
