//! Builds the house from its configuration, wires it and drains it. Decides nothing per request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::task::JoinSet;

use crate::acme;
use crate::admin::Readiness;
use crate::config::Config;
use crate::credentials::Secret;
use crate::mail::Mailbox;
use crate::otlp::Export;
use crate::server::descriptors;
use crate::server::listener::{self, Listeners};
use crate::server::local::LocalSocket;
use crate::server::permits::Permits;
use crate::server::shutdown::{Stage, Stop, stop_signal};
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::serving::Serving;
use crate::telemetry::traces::Tracer;
use api::Api;
pub use certificates::BadCertificates;
use certificates::Certificates;
use control::Knows;
use demo::Demo;
use ending::{drained, flatten, join};
pub use error::Error;

mod api;
mod certificates;
mod control;
mod demo;
mod ending;
mod error;
mod parts;
mod side;
mod workers;

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
    export: Option<Export>,
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
        let export = secrets.traces.clone();
        let sampler = export.as_ref().map(|export| export.sampler);
        let tracer = sampler.map(|sampler| Tracer::new(&config.tracing, sampler, log.metrics()));
        let api = Api::open(&config, secrets, mailbox.clone(), &log.metrics())?;
        let certificates = Certificates::open(&config, &acme, api.domains(), log.metrics())?;
        // Last: until all is well, the name leads to whoever served before.
        let control = config.listen.control.as_deref();
        let control = control.map(LocalSocket::bind).transpose()?;
        Ok(Self {
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
            export,
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
        let (workers, parts) = self.start_workers(&permits, &worker_stop, dialer.clone())?;
        let (config, metrics) = (&self.config, &self.metrics);
        self.certificates
            .start_orders(&mut side, config, metrics, &side_stop)?;
        let knows = Knows {
            addresses: &addresses,
            parts: &parts,
            permits: &permits,
            readiness: &readiness,
        };
        self.start_control(&mut side, &knows, &side_stop);
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
}

/// As many as configured, else one a core that this process may run on.
fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    }
}
