//! Connections to backends and to the upstream: dialled, reused, bounded. One pool a worker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::telemetry::metrics::Metrics;
use crate::units;
use crate::wire::body;
use crate::wire::head::BadHead;
use connection::Connection;

mod connection;
mod dial;
mod eyeballs;
mod guard;
mod names;
mod origin;
mod secure;
mod send;
mod stream;

pub use dial::{BadAuthorities, DialError, Dialer};
pub use guard::Guard;
pub use origin::{BadOrigin, Origin, Reach};

/// `[backends]`: where backends may live and how many connections are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether backends may live on loopback, private and link-local addresses.
    pub allow_private: bool,
    /// A PEM file of authorities trusted besides the system's; empty: none.
    pub ca: String,
    /// Idle connections kept in all.
    pub connections: usize,
    /// Idle connections kept to one backend.
    pub per_backend: usize,
    /// Peers whose `X-Forwarded-*` and `X-Request-Id` are believed.
    #[serde(with = "units::one_or_many")]
    pub trusted_proxies: Vec<ipnet::IpNet>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow_private: false,
            ca: String::new(),
            connections: 1024,
            per_backend: 256,
            trusted_proxies: Vec::new(),
        }
    }
}

/// The connections of one worker, to be shared by its requests.
#[derive(Debug)]
pub struct Pool {
    dialer: Dialer,
    limits: PoolLimits,
    metrics: Arc<Metrics>,
    #[expect(clippy::vec_box, reason = "a connection goes round in its box")]
    idle: RefCell<HashMap<Rc<Origin>, Vec<Box<Connection>>>>,
    idle_count: Cell<usize>,
    sweeper: RefCell<Option<JoinHandle<()>>>,
}

/// What one pool may keep.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// Idle connections in all.
    pub connections: usize,
    /// Idle connections to one origin.
    pub per_backend: usize,
    /// How long an idle connection is kept.
    pub idle: Duration,
}

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The body of the request ended before its end: the fault is the client's.
    #[error("the request's body failed")]
    RequestBody(#[source] body::Error),
    /// The connection broke before the head of a response.
    #[error("{origin} broke off")]
    Broken {
        /// Where to.
        origin: Origin,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// What came back is no response.
    #[error("{origin} gave a response that is malformed")]
    Malformed {
        /// Where to.
        origin: Origin,
        /// What is wrong with it.
        #[source]
        source: BadHead,
    },
}

impl Pool {
    /// An empty pool. It is used on the one thread of a local runtime.
    #[must_use]
    pub fn new(dialer: Dialer, limits: PoolLimits, metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self {
            dialer,
            limits,
            metrics,
            idle: RefCell::default(),
            idle_count: Cell::new(0),
            sweeper: RefCell::default(),
        })
    }

    async fn open(self: &Rc<Self>, origin: &Origin) -> Result<Box<Connection>, Error> {
        let stream = self.dialer.dial(origin).await.inspect_err(|_| {
            self.metrics.pool_failed.inc();
        })?;
        let known = self
            .idle
            .borrow()
            .get_key_value(origin)
            .map(|(known, _)| Rc::clone(known));
        let origin = known.unwrap_or_else(|| Rc::new(origin.clone()));
        let connection = Connection::new(stream, origin, self);
        self.sweeper.borrow_mut().get_or_insert_with(|| {
            tokio::task::spawn_local(sweep(Rc::downgrade(self), self.limits.idle))
        });
        self.metrics.pool_opened.inc();
        Ok(connection)
    }

    /// The connection used last: the others may then grow old and go.
    fn take_idle(&self, origin: &Origin) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(origin)?;
        while let Some(mut connection) = kept.pop() {
            self.count_idle(-1);
            if connection.is_quiet() {
                self.metrics.pool_reused.inc();
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, mut connection: Box<Connection>) {
        let mut idle = self.idle.borrow_mut();
        let kept = match idle.get_mut(connection.origin()) {
            Some(kept) => kept,
            None => idle.entry(Rc::clone(connection.origin())).or_default(),
        };
        if kept.len() >= self.limits.per_backend || self.idle_count.get() >= self.limits.connections
        {
            return;
        }
        connection.idle_since = Instant::now();
        kept.push(connection);
        self.count_idle(1);
    }

    fn drop_old(&self) {
        let mut dropped = 0;
        self.idle.borrow_mut().retain(|_, kept| {
            let before = kept.len();
            kept.retain_mut(|connection| {
                connection.shrink();
                connection.is_quiet() && connection.idle_since.elapsed() < self.limits.idle
            });
            dropped += before - kept.len();
            !kept.is_empty()
        });
        self.count_idle(-isize::try_from(dropped).unwrap_or(0));
    }

    fn count_idle(&self, change: isize) {
        self.idle_count
            .set(self.idle_count.get().saturating_add_signed(change));
        self.metrics.pool_idle.add(change as i64);
    }
}

#[cfg(test)]
impl Pool {
    /// A pool for tests on the current runtime, which may dial loopback.
    pub(crate) fn for_tests() -> Rc<Self> {
        let guard = Guard::new(true, Vec::new());
        let runtime = tokio::runtime::Handle::current();
        let dialer = Dialer::new(guard, Duration::from_secs(5), "", runtime).unwrap();
        let limits = PoolLimits {
            connections: 4,
            per_backend: 4,
            idle: Duration::from_secs(60),
        };
        Self::new(dialer, limits, Metrics::new())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(sweeper) = self.sweeper.take() {
            sweeper.abort();
        }
    }
}

/// Drops what has been idle for too long or was closed by the other side.
async fn sweep(pool: Weak<Pool>, idle: Duration) {
    let pause = (idle / 4).clamp(Duration::from_millis(20), Duration::from_secs(15));
    loop {
        tokio::time::sleep(pause).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.drop_old();
    }
}
