//! From a bound ingress to one that serves.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::api::Api;
use super::beside::Beside;
use super::dials::{self, Dials};
use super::heir::Heir;
use super::listening::{self, Listening};
use super::parts::{self, Parts};
use super::reload::Reloads;
use super::running::Running;
use super::workers::{self, Thread};
use super::{Error, Ingress, control, side};
use crate::admin::{Admin, Readiness};
use crate::otlp::Exporter;
use crate::pool::outliers::Outliers;
use crate::rates::Rates;
use crate::resolve::Cache;
use crate::server::descriptors;
use crate::server::permits::Permits;
use crate::server::settings::ConnectionSettings;
use crate::server::shutdown::Stop;
use crate::settings::Limits;

/// An ingress that serves, and what it still needs to be looked after.
pub(super) struct Started {
    pub(super) running: Running,
    pub(super) threads: Vec<Thread>,
    pub(super) reloads: Reloads,
}

impl Ingress {
    /// Starts its workers, and what goes on beside them.
    ///
    /// # Errors
    /// When something that was there is not any more, or the system refuses a thread.
    pub(super) async fn start(
        mut self,
        readiness: &Arc<Readiness>,
        worker_stop: &Stop,
    ) -> Result<Started, Error> {
        let config = self.config.clone();
        let fit = descriptors::connections_that_fit(&config.limits, config.chooser());
        let limits = parts::limits_within(&config.limits, fit);
        let permits = Permits::new(fit, limits.per_peer);
        if let (Some(demo), Api::Local(platform)) = (&self.demo, &self.api) {
            demo.register(platform).await?;
        }
        let wanted = listening::wanted(&config.listen);
        let (public, sockets) =
            Listening::begin(wanted, std::mem::take(&mut self.listeners), self.workers);
        let wanted = listening::wanted_by_operator(&config.listen);
        let bound = Vec::from_iter(self.admin.take());
        let (operator, admin_sockets) = Listening::begin(wanted, bound, 1);
        let own = listening::bound([&public, &operator]);
        let outliers = Outliers::new(config.outliers.clone(), Arc::clone(&self.metrics));
        let dials = Dials::new(&config, dials::authorities(&config)?, own, outliers)?;
        let terms = self.certificates.terms(&config)?;
        let metrics = Arc::clone(&self.metrics);
        metrics.follow(&config.metrics);
        let parts = self.parts(&limits, &dials, &public);
        let first = workers::orders(
            &config,
            &limits,
            parts.clone(),
            &public,
            sockets,
            terms.as_ref(),
        );
        let settings = ConnectionSettings::new(&config.timeouts, &limits);
        let (workers, threads) =
            workers::start(self.workers, first, &permits, &metrics, worker_stop)?;

        let mut beside = Beside::new();
        let (first_stop, side_stop) = (beside.first_stop.clone(), beside.side_stop.clone());
        let (at_first, side) = (&mut beside.first, &mut beside.side);
        let alone = Heir::alone(self.before.take());
        self.certificates
            .start_orders(at_first, &config, &metrics, &first_stop, alone)?;
        let admin = Admin::new(
            Arc::clone(&metrics),
            Arc::clone(&permits),
            Arc::clone(readiness),
            Arc::clone(&self.certificates.keyring),
            self.mailbox,
        );
        // Connections of the operator are not counted with those of clients.
        let first = side::admin_orders(admin.clone(), &settings, &operator, admin_sockets);
        let admin_workers = side::serve_admin(at_first, first, &metrics, &first_stop);
        if let Some(demo) = self.demo {
            side::serve_demo(side, demo, &settings, &metrics, &side_stop);
        }
        let idle = config.timeouts.pool;
        let pool = side::pool(&dials.dialer, idle, &metrics);
        let mut telling = None;
        if let (Some(tracer), Some(export)) = (self.tracer, self.secrets.traces.clone()) {
            let pool = telling.insert(side::pool(&dials.dialer, idle, &metrics));
            let (pool, tracing) = (Rc::clone(pool), &config.tracing);
            let exporter = Exporter::new(export, tracer, pool, metrics.clone(), tracing);
            side::run_exporter(side, exporter, &side_stop);
        }
        side::run_watchdog(side, &self.notifier, &threads, worker_stop, &side_stop);
        beside.background = side::background(&self.api, &pool, &metrics);
        let reload = self.source.is_some();
        let reload = reload.then(|| control::reloading(self.reloader));
        let control = control::control(readiness, &permits, &self.api, reload);
        let files = self.certificates.files.take();
        let mut running = Running {
            drain_delay: Rc::new(Cell::new(config.timeouts.drain_delay)),
            secrets: self.secrets,
            limits,
            parts,
            dials,
            public,
            operator,
            certificates: self.certificates,
            watching: None,
            workers,
            admin,
            admin_workers,
            pool,
            telling,
            beside,
            estate: self.estate,
            notifier: self.notifier,
            permits,
            metrics,
            log: self.log,
            control,
            config,
        };
        running.watch_files(files);
        running.show();
        Ok(Started {
            running,
            threads,
            reloads: Reloads::new(self.asks, self.source),
        })
    }

    /// What its workers make their first proxies of.
    fn parts(&self, limits: &Limits, dials: &Dials, public: &Listening) -> Parts {
        let config = &self.config;
        let rates = Rates::new(&config.rates);
        Parts {
            settings: parts::settings(config, limits, &self.api, public.named(), rates),
            telemetry: parts::telemetry(config, &self.log, self.tracer.as_ref()),
            cache: Cache::new(config.cache.clone(), Arc::clone(&self.metrics)),
            challenges: Arc::clone(&self.certificates.challenges),
            dialer: dials.dialer.clone(),
            pool: parts::pool_limits(config, limits, self.workers),
            pipes: limits.pipes.div_ceil(self.workers),
            api: self.api.clone(),
        }
    }
}
