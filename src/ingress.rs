//! Builds the house from its configuration, wires it and drains it. Decides nothing per request.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::acme;
use crate::admin::Readiness;
use crate::config::Config;
use crate::credentials::Secret;
use crate::domains::Domains;
use crate::mail::Mailbox;
use crate::otlp::Export;
use crate::server::inherited::Estate;
use crate::server::listener::Listeners;
use crate::server::local::LocalSocket;
use crate::server::notify::Notifier;
use crate::server::shutdown::{Stage, Stop, stop_signal};
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Tracer;
use api::Api;
use bound::Bound;
pub use certificates::BadCertificates;
use certificates::Certificates;
use demo::Demo;
use ending::{Ending, flatten, join};
pub use error::Error;
pub use heir::{Heir, Inheritance};
use reload::Asks;
pub use reload::{Refused, Reloader, Report, Source};
use start::Started;
use steering::steer;
pub use succession::{
    Program, STORE_VARIABLE as UPGRADE_STORE_VARIABLE, Upgrader, Upgrades,
    VARIABLE as UPGRADE_VARIABLE, upgrades,
};
use workers::Thread;

mod api;
mod background;
mod beside;
mod bound;
mod certificates;
mod control;
mod demo;
mod dials;
mod ending;
mod error;
mod heir;
mod listening;
mod parts;
mod reload;
mod running;
mod side;
mod start;
mod steering;
mod succession;
mod watch;
mod watchdog;
mod workers;

/// What the configuration names but does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The ingress's own token for a remote API.
    pub api_token: Option<Secret>,
    /// The API key of the embedded platform, in place of those that its store knows.
    pub platform_key: Option<Secret>,
    /// Where mail leaves, with its password.
    pub smtp_url: Option<Secret>,
    /// Those of `[tls.acme]`.
    pub acme: acme::Secrets,
    /// Where spans are told to; `None`: there are none.
    pub traces: Option<Export>,
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
    control: Option<LocalSocket>,
    demo: Option<Demo>,
    api: Api,
    metrics: Arc<Metrics>,
    log: Log,
    mailbox: Option<Mailbox>,
    tracer: Option<Arc<Tracer>>,
    secrets: Secrets,
    source: Option<Source>,
    reloader: Reloader,
    asks: Asks,
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
        let Bound {
            public: listeners,
            admin,
            estate,
            taken,
        } = Bound::bind(&config, workers, sockets)?;
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
        let sampler = secrets.traces.as_ref().map(|export| export.sampler);
        let tracer = sampler.map(|sampler| Tracer::new(&config.tracing, sampler, log.metrics()));
        let (acme, domains) = (&secrets.acme, Domains::default());
        let (metrics, heir) = (log.metrics(), before.as_ref());
        let certificates = Certificates::open(&config, acme, domains.clone(), metrics, heir)?;
        let control = config.listen.control.as_deref();
        let mut control = control.map(LocalSocket::bind_aside).transpose()?;
        let api = Api::open(
            &config,
            secrets.clone(),
            mailbox.clone(),
            domains,
            &log.metrics(),
            before.as_ref(),
        )?;
        // Last: until all is well, the name leads to whoever served before. One that hands over still does.
        if before.is_none()
            && let (Some(control), Some(path)) = (&mut control, &config.listen.control)
        {
            if LocalSocket::is_answered(path) {
                tracing::warn!(
                    "listen.control: another process answers at `{path}`, and cannot be reached there any more: each needs a path of its own",
                    path = path.display()
                );
            }
            control.take_name()?;
        }
        let (reloader, asks) = reload::reloader();
        Ok(Self {
            secrets,
            source: None,
            reloader,
            asks,
            api,
            certificates,
            workers,
            listeners,
            admin,
            control,
            demo,
            metrics: log.metrics(),
            log,
            mailbox,
            tracer,
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
    pub fn upgraded_by(self, upgrades: Upgrades) -> Self {
        Self {
            upgrades: Some(upgrades),
            ..self
        }
    }

    /// Has it read its configuration again from `source` whenever a [`Reloader`] says so.
    #[must_use]
    pub fn reading_from(self, source: Source) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    /// What has it read its configuration again while it runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
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
    /// control thread: admin, mail, names, reloads, and the order of the shutdown.
    ///
    /// # Errors
    /// When it cannot go on.
    pub fn run(self, stop: Stop) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())?;
        self.metrics.count_tasks_of(runtime.handle().metrics());
        let served = runtime.block_on(self.serve(stop));
        // A thread that waits for a disk which does not answer holds nobody up.
        runtime.shutdown_timeout(LEAST_PATIENCE);
        served
    }

    async fn serve(mut self, stop: Stop) -> Result<(), Error> {
        let (stopper, worker_stop) = stop_signal();
        let readiness = Arc::new(Readiness::default());
        let (before, upgrades) = (self.before.clone(), self.upgrades.take());
        let (taken, control) = (std::mem::take(&mut self.taken), self.control.take());
        let started = self.start(&readiness, &worker_stop).await?;
        let Started {
            mut running,
            threads,
            mut reloads,
        } = started;
        readiness.set(true);
        if let Some(before) = &before {
            before.ready(taken)?;
        }
        if let Some(control) = control {
            running.open_control(control);
        }
        running.tell();

        let mut joining = JoinSet::new();
        for Thread { handle, .. } in threads {
            joining.spawn_blocking(move || join(handle));
        }
        let mut ending = Ending {
            stop,
            readiness: Arc::clone(&readiness),
            notifier: running.notifier.clone(),
            delay: Rc::clone(&running.drain_delay),
        };
        let mut successor = None;
        let early = tokio::select! {
            Some(ended) = joining.join_next() => Some(flatten(ended)),
            ended = steer(&mut running, &mut reloads, upgrades, &stopper, &mut ending) => {
                successor = ended;
                None
            }
        };
        if early.is_some() {
            // Nobody told it to: the others are not left to carry on with half the sockets closed.
            readiness.set(false);
            running.notifier.stopping();
            running.estate.leave(&[]);
            stopper.advance(Stage::Draining);
        }
        let mut outcome = early.unwrap_or(Ok(()));
        let (began, drain) = (Instant::now(), running.config().timeouts.drain);
        // Whoever waits for a reload hears that there will be none.
        drop(reloads);
        running.estate.leave(&[]);
        tracing::info!("draining: no new connections, what is in flight may finish");
        if let Some(successor) = successor {
            readiness.set(false);
            running.beside.end_first().await;
            successor.go();
        }
        let mut stop = ending.stop;
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
        let left = drain.saturating_sub(began.elapsed()).max(LEAST_PATIENCE);
        let hurry = async {
            stop.reached(Stage::Stopping).await;
            tokio::time::sleep(LEAST_PATIENCE).await;
        };
        tokio::select! {
            () = running.end(left) => {}
            () = hurry => tracing::warn!("what goes on beside the requests was cut off"),
        }
        tracing::info!("stopped");
        outcome
    }
}

/// What goes on beside the workers may take so long to end, whatever is left of the drain, and however often
/// the process is told to stop.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// As many as configured, else one a core that this process may run on.
fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    }
}
