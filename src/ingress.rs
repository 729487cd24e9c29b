//! Builds the house from its configuration, wires it and drains it. Decides nothing per request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, LocalOptions};
use tokio::task::JoinSet;

use crate::acme;
use crate::admin::Readiness;
use crate::config::Config;
use crate::credentials::Secret;
use crate::domains::Domains;
use crate::mail::Mailbox;
use crate::pool::{Dialer, Guard, PoolLimits};
use crate::proxy::Settings;
use crate::proxy::https::Https;
use crate::resolve::Cache;
use crate::server::connection::ConnectionSettings;
use crate::server::descriptors;
use crate::server::door::Guests;
use crate::server::inherited::Estate;
use crate::server::listener::Listeners;
use crate::server::notify::Notifier;
use crate::server::permits::Permits;
use crate::server::pulse::Pulse;
use crate::server::shutdown::{Stage, Stop, stop_signal};
use crate::server::worker::Worker;
use crate::telemetry::exchange::Telemetry;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::serving::Serving;
use api::Api;
pub use certificates::BadCertificates;
use certificates::Certificates;
use demo::Demo;
use ending::{Beside, Running, drained, flatten, join};
pub use error::Error;
pub use heir::{Heir, Inheritance};
use listening::Listening;
use parts::Parts;
use succession::{End, Succession};
pub use succession::{Program, Upgrader, Upgrades, VARIABLE as UPGRADE_VARIABLE, upgrades};

mod api;
mod background;
mod certificates;
mod demo;
mod ending;
mod error;
mod heir;
mod listening;
mod parts;
mod side;
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
        let workers = worker_count(config.listen.workers);
        let Listening {
            public: listeners,
            admin,
            estate,
            taken,
        } = Listening::bind(&config, workers, sockets)?;
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
        let (drain_delay, drain) = (self.config.timeouts.drain_delay, self.config.timeouts.drain);
        let addresses = self.addresses();
        if let (Some(demo), Api::Local(platform)) = (&self.demo, &self.api) {
            demo.register(platform).await?;
        }
        let dialer = self.dialer()?;
        let workers = self.start_workers(&permits, &worker_stop, dialer.clone())?;
        let mut beside = Beside::new(self.background(dialer));
        let (config, metrics) = (&self.config, &self.metrics);
        let (first, stop_first) = (&mut beside.first, &beside.first_stop);
        let alone = Heir::alone(self.before.clone());
        self.certificates
            .start_orders(first, config, metrics, stop_first, alone)?;
        self.start_admin(first, &permits, &readiness, stop_first);
        self.start_side(&mut beside.side, &beside.side_stop);
        self.start_watchdog(&mut beside, &workers, &worker_stop);
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
        for Running { thread, .. } in workers {
            joining.spawn_blocking(move || join(thread));
        }
        let ending = async {
            let succession = Succession {
                upgrades: self.upgrades.take(),
                limit: self.config.timeouts.upgrade,
                estate: std::mem::take(&mut self.estate),
                workers: &stopper,
                api: &self.api,
                background: &mut beside.background,
                notifier: &self.notifier,
            };
            match succession.end(&mut stop).await {
                End::Told => {
                    self.notifier.stopping();
                    drained(&mut stop, &stopper, &readiness, drain_delay).await;
                }
                End::Replaced(successor) => {
                    readiness.set(false);
                    beside.end_first().await;
                    successor.go();
                }
            }
        };
        let mut outcome = tokio::select! {
            // Nobody told it to: the others are not left to carry on with half the sockets closed.
            Some(ended) = joining.join_next() => {
                stopper.advance(Stage::Draining);
                flatten(ended)
            }
            () = ending => Ok(()),
        };
        tracing::info!("draining: no new connections, what is in flight may finish");
        let mut hurried = false;
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
        // The last hits are written and the mail under way is sent; a full disk must not hold us.
        beside.end(drain.max(Duration::from_secs(1))).await;
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
    ) -> Result<Vec<Running>, Error> {
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
                let thread = worker.spawn(most, build, stop.clone())?;
                Ok(Running { thread, pulse })
            })
            .collect()
    }
}

/// As many as configured, else one a core that this process may run on.
fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    }
}
