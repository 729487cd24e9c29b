//! Builds the house from its configuration, wires it and drains it. Decides nothing per request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Handle, LocalOptions};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::acme;
use crate::admin::{Admin, Readiness};
use crate::config::Config;
use crate::credentials::Secret;
use crate::domains::Domains;
use crate::mail::Mailbox;
use crate::platform;
use crate::platform::demo::{DemoApp, DemoFunction};
use crate::pool::{self, Dialer, Guard, Pool, PoolLimits};
use crate::proxy::Settings;
use crate::proxy::https::Https;
use crate::resolve::Cache;
use crate::server::connection::ConnectionSettings;
use crate::server::descriptors;
use crate::server::door::Guests;
use crate::server::inherited::{self, Estate, Kind};
use crate::server::listener::{self, Listeners};
use crate::server::notify::Notifier;
use crate::server::permits::Permits;
use crate::server::pulse::Pulse;
use crate::server::shutdown::{Stage, Stop, stop_signal};
use crate::server::worker::Worker;
use crate::telemetry::exchange::Telemetry;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::serving::Serving;
use crate::upstream;
use crate::wire::Handler;
use api::Api;
use background::Background;
pub use certificates::BadCertificates;
use certificates::Certificates;
use demo::Demo;
use ending::{all_of, drained, flatten, join};
pub use heir::{Heir, Inheritance};
use parts::Parts;
use succession::{End, Succession};
pub use succession::{Program, Upgrader, Upgrades, VARIABLE as UPGRADE_VARIABLE, upgrades};

mod api;
mod background;
mod certificates;
mod demo;
mod ending;
mod heir;
mod parts;
mod succession;
mod watchdog;

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
    /// A socket of systemd is for nothing.
    #[error(transparent)]
    Unmatched(#[from] inherited::Unmatched),
    /// The process before this one does not hand over.
    #[error("the process before this one does not hand over: {0}")]
    Handover(#[source] io::Error),
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
    before: Option<Heir>,
    notifier: Notifier,
    upgrades: Option<Upgrades>,
    /// Handles of the listeners, for a process that follows.
    estate: Estate,
    /// Those that a process before handed over.
    taken: Vec<SocketAddr>,
}

impl Ingress {
    /// Opens the store, binds every listener, and checks what can be checked. Log lines go to `log`.
    ///
    /// # Errors
    /// When a port is taken, the store cannot be opened, or a secret is missing.
    pub fn bind(config: Config, secrets: Secrets, log: Log) -> Result<Self, Error> {
        Self::bind_with(config, secrets, log, Inheritance::default())
    }

    /// As [`Ingress::bind`], with what the process was given at its start. Where one before hands over,
    /// it lets go of the store last of all.
    ///
    /// # Errors
    /// Moreover when a socket of systemd is for no address, or the process before does not hand over.
    pub fn bind_with(
        mut config: Config,
        secrets: Secrets,
        log: Log,
        inheritance: Inheritance,
    ) -> Result<Self, Error> {
        let Inheritance {
            sockets,
            before,
            notifier,
        } = inheritance;
        if let Some(before) = &before {
            before.set_patience(config.timeouts.upgrade)?;
        }
        let passed = sockets.0.iter().map(|passed| passed.bound);
        let mut taken: Vec<SocketAddr> = passed.collect();
        let mut sockets = sockets.deal(&config.listen)?;
        let workers = worker_count(config.listen.workers);
        let trusted = &config.backends.trusted_proxies;
        let listeners = listener::bind_public(&config.listen, trusted, workers, &mut sockets)?;
        let mut admin = |address| listener::listen(address, 1, sockets.take(Kind::Admin, address));
        let admin = config.listen.admin.map(&mut admin).transpose()?;
        let all = || listeners.iter().chain(&admin);
        taken.retain(|address| all().any(|bound| bound.address == *address));
        let estate = estate(&config, &listeners, admin.as_ref())?;
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
        let domains = Domains::default();
        let certificates = Certificates::open(&config, &acme, domains.clone(), log.metrics())?;
        let api = Api::open(&config, secrets, mailbox.clone(), domains, before.as_ref())?;
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
            before,
            notifier,
            upgrades: None,
            estate,
            taken,
        })
    }

    /// Lets itself be replaced by a new process when that is asked for.
    #[must_use]
    pub fn upgraded_by(mut self, upgrades: Upgrades) -> Self {
        self.upgrades = Some(upgrades);
        self
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
        // What another process takes over at once: the admin address, and orders for certificates.
        let (first_stopper, first_stop) = stop_signal();

        let (mut side, mut first) = (JoinSet::new(), JoinSet::new());
        let (drain_delay, drain) = (self.config.timeouts.drain_delay, self.config.timeouts.drain);
        let addresses = self.addresses();
        if let (Some(demo), Api::Local(platform)) = (&self.demo, &self.api) {
            demo.register(platform).await?;
        }
        let dialer = self.dialer()?;
        let workers = self.start_workers(&permits, &worker_stop, dialer.clone())?;
        let (config, metrics) = (&self.config, &self.metrics);
        let before = self.before.clone();
        self.certificates
            .start_orders(&mut first, config, metrics, &first_stop, alone(before))?;
        self.start_admin(&mut first, &permits, &readiness, &first_stop);
        self.start_side(&mut side, &side_stop);
        self.start_watchdog(&mut side, &workers, &worker_stop, &side_stop);
        let mut background = self.background(dialer);
        if let Some(background) = &mut background {
            background.start();
        }
        readiness.set(true);
        if let Some(before) = &self.before {
            before.ready(std::mem::take(&mut self.taken))?;
        }
        let serving = Serving {
            addresses: addresses.http,
            https: addresses.https,
            admin: addresses.admin,
            api: self.config.api_name(),
            workers: workers.len(),
        };
        serving.tell(&self.log);
        self.notifier
            .ready(&format!("serving with {} workers", workers.len()));

        let mut joining = JoinSet::new();
        for (worker, _) in workers {
            joining.spawn_blocking(move || join(worker));
        }
        let succession = Succession {
            upgrades: self.upgrades.take(),
            limit: self.config.timeouts.upgrade,
            estate: std::mem::take(&mut self.estate),
            workers: &stopper,
            api: &self.api,
            background: &mut background,
            notifier: &self.notifier,
        };
        let mut hurried = false;
        let mut outcome = tokio::select! {
            // Nobody told it to: the others are not left to carry on with half the sockets closed.
            Some(ended) = joining.join_next() => {
                stopper.advance(Stage::Draining);
                flatten(ended)
            }
            end = succession.end(&mut stop) => {
                match end {
                    End::Told => {
                        self.notifier.stopping();
                        drained(&mut stop, &stopper, &readiness, drain_delay).await;
                    }
                    End::Replaced(successor) => {
                        readiness.set(false);
                        first_stopper.advance(Stage::Draining);
                        all_of(&mut first, FIRST_PATIENCE).await;
                        successor.go();
                    }
                }
                Ok(())
            }
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
        first_stopper.advance(Stage::Draining);
        // The last hits are written and the mail under way is sent; a full disk must not hold us.
        let patience = drain.max(Duration::from_secs(1));
        let background = async {
            if let Some(mut background) = background {
                let _late = tokio::time::timeout(patience, background.end()).await;
            }
        };
        tokio::join!(
            all_of(&mut side, patience),
            all_of(&mut first, patience),
            background
        );
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
        Ok(dialer)
    }

    fn start_workers(
        &mut self,
        permits: &Arc<Permits>,
        stop: &Stop,
        dialer: Dialer,
    ) -> Result<Vec<(JoinHandle<io::Result<()>>, Pulse)>, Error> {
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
                let left = self.workers - index;
                let parts_of = |bound: &mut Listeners| bound.take_part(left).collect::<Vec<_>>();
                let pulse = Pulse::default();
                let worker = Worker {
                    name: format!("worker-{index}"),
                    listeners: bound.iter_mut().flat_map(parts_of).collect(),
                    pulse: pulse.clone(),
                    guests: Guests::Strangers,
                    settings: ConnectionSettings::new(&config.timeouts, &config.limits),
                    permits: Arc::clone(permits),
                    metrics: Arc::clone(&self.metrics),
                    drain: config.timeouts.drain,
                };
                let parts = parts.clone();
                let most = config.limits.per_workload;
                let build = move |tasks: &_, pressure: &_| parts.build(tasks, pressure);
                Ok((worker.spawn(most, build, stop.clone())?, pulse))
            })
            .collect()
    }

    /// Health and metrics, on this thread.
    fn start_admin(
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
    fn start_side(&mut self, side: &mut JoinSet<()>, stop: &Stop) {
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
    fn start_watchdog(
        &self,
        side: &mut JoinSet<()>,
        workers: &[(JoinHandle<io::Result<()>>, Pulse)],
        drain: &Stop,
        end: &Stop,
    ) {
        if let Some(every) = self.notifier.watchdog() {
            let pulses = workers.iter().map(|(_, pulse)| pulse.clone()).collect();
            let (notifier, drain, end) = (self.notifier.clone(), drain.clone(), end.clone());
            side.spawn_local(watchdog::feed(notifier, every, pulses, drain, end));
        }
    }

    /// What the embedded platform does beside the calls.
    fn background(&self, dialer: Dialer) -> Option<Background> {
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

/// How long what another process has taken over may take to end here.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// Handles of all listeners that a process that follows may want.
fn estate(config: &Config, public: &[Listeners], admin: Option<&Listeners>) -> io::Result<Estate> {
    let mut estate = Estate::default();
    for (index, listeners) in public.iter().enumerate() {
        let kind = match index < config.listen.http.len() {
            true => Kind::Http,
            false => Kind::Https,
        };
        estate.keep(kind, listeners)?;
    }
    if let Some(listeners) = admin {
        estate.keep(Kind::Admin, listeners)?;
    }
    Ok(estate)
}

/// Waits until the process before does nothing more that only one is to do.
async fn alone(before: Option<Heir>) {
    if let Some(before) = before {
        before.alone().await;
    }
}

/// As many as configured, else one a core that this process may run on.
fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    }
}
