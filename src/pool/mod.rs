//! Connections to backends and to the upstream: dialled, reused, bounded. One pool a worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, JoinSet};

use crate::telemetry::client::{Asking, Side};
use crate::telemetry::metrics::Metrics;
use crate::units;
use crate::wire::body;
use crate::wire::head::BadHead;
use connection::Connection;
use idle::{Idle, Place};
use lane::{Given, Lane, Seat};
use shared::Shared;

mod call;
mod connection;
mod dial;
mod eyeballs;
mod guard;
mod idle;
mod lane;
mod names;
mod origin;
pub mod outliers;
mod secure;
mod send;
mod share;
mod shared;
mod stream;
#[cfg(test)]
mod tests;
mod watched;
mod websocket;

pub use dial::{Authorities, BadAuthorities, DialError, Dialer};
pub use guard::{Guard, Verdict};
pub use names::{NameServer, NoTexts};
pub use origin::{BadOrigin, Origin, Reach};

/// `[backends]`: where backends may live and how many connections are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether backends may live on loopback, private and link-local addresses.
    pub allow_private: bool,
    /// A PEM file of authorities trusted besides the system's; empty: none.
    pub ca: String,
    /// Idle connections kept in all: beyond it the one that was not used for longest goes.
    pub connections: usize,
    /// Connections to one backend that are opened at once, and kept: beyond it a request waits a
    /// moment for one to be given back.
    pub per_backend: usize,
    /// Whom the addresses of backends, and the proofs of custom domains, are asked of; empty: whom the
    /// system asks.
    #[serde(with = "units::one_or_many")]
    pub dns: Vec<NameServer>,
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
            dns: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// The connections of one worker, to be shared by its requests.
#[derive(Debug)]
pub struct Pool {
    dialer: RefCell<Dialer>,
    limits: PoolLimits,
    metrics: Arc<Metrics>,
    lanes: RefCell<HashMap<Origin, Rc<Lane>>>,
    idle: RefCell<Idle<Resting>>,
    /// The tasks of shared connections. They end with those, at the latest with the pool.
    drivers: RefCell<JoinSet<()>>,
    sweeper: RefCell<Option<JoinHandle<()>>>,
}

/// A connection that is idle.
#[derive(Debug)]
enum Resting {
    Own(Box<Connection>),
    Shared(Rc<Shared>),
}

/// What one pool may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections in all.
    pub connections: usize,
    /// Connections to one origin, busy and idle.
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
    /// The request asks for another protocol, and what is spoken there cannot switch.
    #[error("{origin} speaks HTTP/2, which switches to no other protocol")]
    Upgrade {
        /// Where to.
        origin: Origin,
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
            dialer: RefCell::new(dialer),
            limits,
            metrics,
            lanes: RefCell::default(),
            idle: RefCell::new(Idle::new()),
            drivers: RefCell::default(),
            sweeper: RefCell::default(),
        })
    }

    /// Counts the time from now until what is sent is answered.
    #[must_use]
    pub fn asking(&self, side: Side) -> Asking<'_> {
        Asking::new(&self.metrics, side)
    }

    /// Whether it is what a new one for this dialer and these limits would be, but for the connections that
    /// it has.
    #[must_use]
    pub fn is_like(&self, dialer: &Dialer, limits: &PoolLimits) -> bool {
        self.dialer.borrow().is(dialer) && self.limits == *limits
    }

    /// Dials with another dialer from now on. What is open stays.
    pub fn redial(&self, dialer: &Dialer) {
        self.dialer.replace(dialer.clone());
    }

    fn dialer(&self) -> Dialer {
        self.dialer.borrow().clone()
    }

    /// The TXT records of `name`, each as one piece, asked for anew, within `timeouts.connect`.
    ///
    /// # Errors
    /// When nobody says what they are, or there are none.
    pub async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, NoTexts> {
        self.dialer().texts(name).await
    }

    /// A connection that is idle.
    fn take_idle(&self, origin: &Origin) -> Option<Box<Connection>> {
        let lanes = self.lanes.borrow();
        let lane = lanes.get(origin)?;
        while let Some(place) = lane.take_newest() {
            let kept = self.wake(place);
            if let Some(Resting::Own(mut connection)) = kept
                && connection.is_quiet()
            {
                self.metrics.pool_reused.inc();
                return Some(connection);
            }
        }
        None
    }

    /// A connection for one request where none is idle: one that another request gives back, or a fresh
    /// one.
    async fn obtain_own(self: &Rc<Self>, lane: &Rc<Lane>) -> Result<Box<Connection>, Error> {
        let seat = match lane.turn().await {
            Given::Room(seat) => seat,
            Given::Connection(mut connection) => {
                if connection.is_quiet() {
                    self.metrics.pool_reused.inc();
                    return Ok(connection);
                }
                connection.into_seat()
            }
        };
        // Boxed, so that whoever waits for a turn holds little.
        Box::pin(self.open(seat)).await
    }

    /// A fresh connection for one request, whoever waits.
    async fn open_anew(self: &Rc<Self>, origin: &Origin) -> Result<Box<Connection>, Error> {
        let seat = self.lane(origin).seat();
        self.open(seat).await
    }

    async fn open(self: &Rc<Self>, seat: Seat) -> Result<Box<Connection>, Error> {
        let dialled = self.dialer().dial_http1(seat.lane().origin()).await;
        let (stream, member) = dialled.inspect_err(|_| self.metrics.pool_failed.inc())?;
        self.metrics.pool_opened.inc();
        Ok(Connection::new(stream, seat, self).at(member))
    }

    /// Takes what is idle at `place`.
    fn wake(&self, place: Place) -> Option<Resting> {
        let kept = self.idle.borrow_mut().take(place);
        self.metrics.pool_idle.dec();
        kept
    }

    fn lane(self: &Rc<Self>, origin: &Origin) -> Rc<Lane> {
        let mut lanes = self.lanes.borrow_mut();
        if let Some(lane) = lanes.get(origin) {
            return Rc::clone(lane);
        }
        self.sweeper.borrow_mut().get_or_insert_with(|| {
            tokio::task::spawn_local(sweep(Rc::downgrade(self), self.limits.idle))
        });
        let lane = Lane::new(origin.clone(), self.limits.per_backend);
        lanes.insert(origin.clone(), Rc::clone(&lane));
        lane
    }

    /// Takes a connection that is done: for whoever waits, else to keep it.
    fn take_back(&self, connection: Box<Connection>) {
        let lane = Rc::clone(connection.lane());
        let Some(mut connection) = lane.hand_on(connection) else {
            return;
        };
        if lane.has_enough_idle() {
            return;
        }
        connection.rest();
        let mut idle = self.idle.borrow_mut();
        lane.put_idle(idle.put(Resting::Own(connection)));
        self.count_idle(&mut idle);
    }

    /// One more is idle: beyond the cap, the one that is for longest goes.
    fn count_idle(&self, idle: &mut Idle<Resting>) {
        if idle.len() <= self.limits.connections {
            self.metrics.pool_idle.inc();
            return;
        }
        match idle.take_oldest() {
            Some(Resting::Own(oldest)) => oldest.lane().forget_oldest(),
            Some(Resting::Shared(oldest)) => {
                let _place = oldest.take_place();
                if let Some(lane) = oldest.lane() {
                    lane.retain_shared(|shared| !Rc::ptr_eq(shared, &oldest));
                }
            }
            None => {}
        }
    }

    fn drop_old(&self) {
        let mut idle = self.idle.borrow_mut();
        self.lanes.borrow_mut().retain(|_, lane| {
            lane.retain_idle(|place| {
                let stays = match idle.get_mut(*place) {
                    Some(Resting::Own(connection)) => {
                        let quiet = connection.is_quiet();
                        connection.shrink();
                        quiet && connection.idle_for() < self.limits.idle
                    }
                    Some(Resting::Shared(_)) | None => false,
                };
                if !stays {
                    let _closed = idle.take(*place);
                    self.metrics.pool_idle.dec();
                }
                stays
            });
            lane.retain_shared(|shared| {
                let stays = shared.is_open() && !shared.is_idle_for(self.limits.idle);
                if !stays && let Some(place) = shared.take_place() {
                    let _closed = idle.take(place);
                    self.metrics.pool_idle.dec();
                }
                stays
            });
            !lane.is_unused()
        });
    }
}

#[cfg(test)]
impl Pool {
    /// A pool for tests on the current runtime, which may dial loopback.
    pub(crate) fn for_tests() -> Rc<Self> {
        Self::for_tests_with(PoolLimits {
            connections: 4,
            per_backend: 4,
            idle: Duration::from_secs(60),
        })
    }

    fn for_tests_with(limits: PoolLimits) -> Rc<Self> {
        let guard = Guard::new(true, Vec::new());
        let runtime = tokio::runtime::Handle::current();
        let dialer = Dialer::new(guard, Duration::from_secs(5), "", &[], runtime).unwrap();
        Self::new(dialer, limits, Metrics::new())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let kept = i64::try_from(self.idle.get_mut().len()).unwrap_or(0);
        self.metrics.pool_idle.sub(kept);
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
        if let Some(outliers) = pool.dialer().outliers() {
            outliers.sweep();
        }
        pool.drop_old();
    }
}
