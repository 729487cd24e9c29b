//! Builds the house from its configuration, wires it and drains it. Decides nothing per request.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::{Handle, LocalOptions};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::acme;
use crate::admin::{Admin, Readiness};
use crate::config::Config;
use crate::credentials::Secret;
use crate::mail::Mailbox;
use crate::platform;
use crate::platform::demo::{DemoApp, DemoFunction};
use crate::pool::outliers::Outliers;
use crate::pool::{self, Dialer, Guard, Pool, PoolLimits};
use crate::proxy::Settings;
use crate::proxy::https::Https;
use crate::rates::Rates;
use crate::resolve::Cache;
use crate::server::connection::ConnectionSettings;
use crate::server::descriptors;
use crate::server::door::Guests;
use crate::server::listener::{self, Listeners};
use crate::server::permits::Permits;
use crate::server::shutdown::{Stage, Stop, stop_signal};
use crate::server::worker::Worker;
use crate::telemetry::exchange::Telemetry;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::serving::Serving;
use crate::upstream;
use crate::wire::Handler;
use api::Api;
pub use certificates::BadCertificates;
use certificates::Certificates;
use demo::Demo;
use ending::{drained, flatten, join};
use parts::Parts;

mod api;
mod certificates;
mod demo;
mod ending;
mod parts;

/// What the configuration names but does not hold.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// The ingress's own token for a remote API.
    pub api_token: Option<Secret>,
    /// The API key of the embedded platform, in place of those that its store knows.
    pub platform_key: Option<Secret>,
    /// Where mail leaves, with its password.
    pub smtp_url: Option<Secret>,
    /// Those of `[tls.acme]`.
    pub acme: acme::Secrets,
}

/// Where a bound [`Ingress`] listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Plain HTTP.
    pub http: Vec<SocketAddr>,
    /// HTTPS.
    pub https: Vec<SocketAddr>,
    /// Health and metrics.
    pub admin: Option<SocketAddr>,
}

/// Why an ingress could not be built, or stopped on its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] listener::Error),
    /// The embedded platform cannot be opened.
    #[error(transparent)]
    Platform(#[from] platform::OpenError),
    /// The remote API cannot be called.
    #[error("[api]: {0}")]
    Api(#[from] upstream::Error),
    /// Its authorities cannot be read any more.
    #[error("backends.ca: {0}")]
    Authorities(#[from] pool::BadAuthorities),
    /// HTTPS cannot be served.
    #[error(transparent)]
    Certificates(#[from] BadCertificates),
    /// Neither a remote API nor the embedded platform is configured.
    #[error("neither [api] nor [platform] is configured")]
    NoApi,
    /// The system refuses a thread, a socket or a runtime.
    #[error("the system refuses what is needed to run: {0}")]
    System(#[from] io::Error),
    /// A worker ended on its own.
    #[error("a worker ended on its own: {0}")]
    Worker(String),
}

/// A whole ingress, its listeners bound, not yet serving.
#[derive(Debug)]
pub struct Ingress {
    config: Config,
    workers: usize,
    /// Those of plain HTTP, then those of HTTPS.
    listeners: Vec<Listeners>,
    certificates: Certificates,
    admin: Option<Listeners>,
    demo: Option<Demo>,
    api: Api,
    metrics: Arc<Metrics>,
    log: Log,
    mailbox: Option<Mailbox>,
}

impl Ingress {
    /// Opens the store, binds every listener, and checks what can be checked. Log lines go to `log`.
    ///
    /// # Errors
    /// When a port is taken, the store cannot be opened, or a secret is missing.
    pub fn bind(mut config: Config, secrets: Secrets, log: Log) -> Result<Self, Error> {
        let workers = worker_count(config.listen.workers);
        let trusted = &config.backends.trusted_proxies;
        let listeners = listener::bind_public(&config.listen, trusted, workers)?;
        let admin = config
            .listen
            .admin
            .map(|address| listener::bind(address, 1))
            .transpose()?;
        let demo = if config.dev {
            Some(Demo::bind()?)
        } else {
            None
        };
        let mailbox = config.dev.then(Mailbox::default);
        if config.dev
            && let (Some(platform), Some(first)) = (&mut config.platform, listeners.first())
        {
            // Port 0 is known only now.
            platform.public.port = Some(first.address.port());
        }
        let acme = secrets.acme.clone();
        let api = Api::open(&config, secrets, mailbox.clone())?;
        let certificates = Certificates::open(&config, &acme, api.domains(), log.metrics())?;
        Ok(Self {
            api,
            certificates,
            workers,
            listeners,
            admin,
            demo,
            metrics: log.metrics(),
            log,
            mailbox,
            config,
        })
    }

    /// The addresses really bound, also where the configuration said port 0.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let all = |bound: &[Listeners]| bound.iter().map(|bound| bound.address).collect();
        let (http, https) = self.listeners.split_at(self.config.listen.http.len());
        Addresses {
            http: all(http),
            https: all(https),
            admin: self.admin.as_ref().map(|bound| bound.address),
        }
    }

    /// Serves until `stop` says so, then drains. Blocks the calling thread, which becomes the
    /// control thread: admin, mail, names, and the order of the shutdown.
    ///
    /// # Errors
    /// When it cannot go on.
    pub fn run(self, stop: Stop) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())?;
        self.metrics.count_tasks_of(runtime.handle().metrics());
        runtime.block_on(self.serve(stop))
    }

    async fn serve(mut self, mut stop: Stop) -> Result<(), Error> {
        let readiness = Arc::new(Readiness::default());
        let limit = descriptors::connections_that_fit(&self.config.limits, self.config.chooser());
        let permits = Permits::new(limit, self.config.limits.per_peer);
        // One app alone must not fill the house, also where the system lowers the limit.
        let limits = &mut self.config.limits;
        limits.connections = limit;
        limits.per_workload = limits.per_workload.min(limit / 2).max(1);
        let (stopper, worker_stop) = stop_signal();
        let (side_stopper, side_stop) = stop_signal();

        let mut side = JoinSet::new();
        let (drain_delay, drain) = (self.config.timeouts.drain_delay, self.config.timeouts.drain);
        let addresses = self.addresses();
        if let (Some(demo), Api::Local(platform)) = (&self.demo, &self.api) {
            demo.register(platform).await?;
        }
        let dialer = self.dialer()?;
        let workers = self.start_workers(&permits, &worker_stop, dialer.clone())?;
        let (config, metrics) = (&self.config, &self.metrics);
        self.certificates
            .start_orders(&mut side, config, metrics, &side_stop)?;
        self.start_side(&mut side, &permits, &readiness, &side_stop, dialer);
        readiness.set(true);
        Serving {
            addresses: addresses.http,
            https: addresses.https,
            admin: addresses.admin,
            api: self.config.api_name(),
            workers: workers.len(),
        }
        .tell(&self.log);

        let mut joining = JoinSet::new();
        for worker in workers {
            joining.spawn_blocking(move || join(worker));
        }
        let mut hurried = false;
        let mut outcome = tokio::select! {
            // Nobody told it to: the others are not left to carry on with half the sockets closed.
            Some(ended) = joining.join_next() => {
                stopper.advance(Stage::Draining);
                flatten(ended)
            }
            () = drained(&mut stop, &stopper, &readiness, drain_delay) => Ok(()),
        };
        tracing::info!("draining: no new connections, what is in flight may finish");
        loop {
            tokio::select! {
                ended = joining.join_next() => match ended {
                    Some(ended) => outcome = outcome.and_then(|()| flatten(ended)),
                    None => break,
                },
                () = stop.reached(Stage::Stopping), if !hurried => {
                    hurried = true;
                    stopper.advance(Stage::Stopping);
                }
            }
        }
        side_stopper.advance(Stage::Draining);
        // The last hits are written and the mail under way is sent; a full disk must not hold us.
        let patience = drain.max(Duration::from_secs(1));
        let _late = tokio::time::timeout(patience, async {
            while let Some(ended) = side.join_next().await {
                if ended.is_err() {
                    tracing::error!("what goes on beside the workers ended badly");
                }
            }
        })
        .await;
        tracing::info!("stopped");
        outcome
    }

    /// What all pools dial with; names are looked up on this thread.
    fn dialer(&self) -> Result<Dialer, Error> {
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
        let outliers = Outliers::new(self.config.outliers.clone(), Arc::clone(&self.metrics));
        Ok(dialer.leaving_out(outliers))
    }

    fn start_workers(
        &mut self,
        permits: &Arc<Permits>,
        stop: &Stop,
        dialer: Dialer,
    ) -> Result<Vec<JoinHandle<io::Result<()>>>, Error> {
        let mut bound = std::mem::take(&mut self.listeners);
        let terms = self.certificates.terms()?;
        for secure in bound.iter_mut().skip(self.config.listen.http.len()) {
            secure.entrance.tls = Some(Arc::clone(&terms));
        }
        let config = &self.config;
        let parts = Parts {
            settings: Arc::new(Settings {
                hosts: config.hosts.clone(),
                timeouts: config.timeouts.clone(),
                limits: config.limits.clone(),
                rates: Rates::new(&config.rates),
                trusted: config.backends.trusted_proxies.clone(),
                user: config.user.clone(),
                index: config.index.clone(),
                domains: self.api.domains(),
                https: Https::new(&config.https, config.listen.public()).map(Arc::new),
            }),
            telemetry: Arc::new(Telemetry {
                metrics: Arc::clone(&self.metrics),
                log: self.log.clone(),
                access: config.log.access,
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
        (0..self.workers)
            .map(|index| {
                let worker = Worker {
                    name: format!("worker-{index}"),
                    listeners: bound.iter_mut().filter_map(Listeners::take_one).collect(),
                    guests: Guests::Strangers,
                    settings: ConnectionSettings::new(&config.timeouts, &config.limits),
                    permits: Arc::clone(permits),
                    metrics: Arc::clone(&self.metrics),
                    drain: config.timeouts.drain,
                };
                let parts = parts.clone();
                let most = config.limits.per_workload;
                let build = move |tasks: &_, pressure: &_| parts.build(tasks, pressure);
                Ok(worker.spawn(most, build, stop.clone())?)
            })
            .collect()
    }

    /// What goes on beside the workers, on this thread.
    fn start_side(
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
const SIDE_POOL: PoolLimits = PoolLimits {
    connections: 8,
    per_backend: 1,
    idle: Duration::from_secs(60),
};

/// How long the admin address may take to finish: a scrape, not a stream.
const SIDE_DRAIN: Duration = Duration::from_secs(1);

/// Before what panicked beside the workers begins anew.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// As many as configured, else one a core that this process may run on.
fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    }
}
