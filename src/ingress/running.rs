//! What the control thread knows of an ingress that serves, and how another configuration takes the place of
//! the one that it serves by.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::api::Api;
use super::beside::Beside;
use super::certificates::{BadCertificates, Certificates, Files};
use super::control;
use super::dials::{Dials, ReadAuthorities};
use super::listening::{self, Kind, Listening, Plan};
use super::parts::{self, Parts};
use super::reload::Report;
use super::workers::{self, Workers};
use super::{Addresses, Secrets, side};
use crate::admin::Admin;
use crate::config::Config;
use crate::control::Control;
use crate::pool::Pool;
use crate::rates::Rates;
use crate::server::descriptors;
use crate::server::inherited::Estate;
use crate::server::local::LocalSocket;
use crate::server::notify::Notifier;
use crate::server::permits::Permits;
use crate::server::settings::ConnectionSettings;
use crate::settings::Limits;
use crate::telemetry::log::{Log, Opened};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::serving::Serving;
use crate::tls::terms::Terms;

/// An ingress that serves.
#[derive(Debug)]
pub(super) struct Running {
    /// The configuration in effect.
    pub(super) config: Config,
    pub(super) secrets: Secrets,
    /// Those of the configuration, as far as they fit.
    pub(super) limits: Limits,
    pub(super) parts: Parts,
    pub(super) dials: Dials,
    pub(super) public: Listening,
    pub(super) operator: Listening,
    pub(super) certificates: Certificates,
    /// What looks at the folder of certificates.
    pub(super) watching: Option<AbortHandle>,
    pub(super) workers: Workers<Parts>,
    pub(super) admin: Admin,
    pub(super) admin_workers: Workers<Admin>,
    /// The connections of this thread itself.
    pub(super) pool: Rc<Pool>,
    /// Those over which spans are told, where they are.
    pub(super) telling: Option<Rc<Pool>>,
    pub(super) beside: Beside,
    /// Handles of all listeners, for a process that follows.
    pub(super) estate: Estate,
    pub(super) notifier: Notifier,
    pub(super) permits: Arc<Permits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: Log,
    pub(super) control: Rc<Control>,
    pub(super) drain_delay: Rc<Cell<Duration>>,
}

/// What another configuration needs, all that can fail done.
struct Prepared {
    limits: Limits,
    dials: Dials,
    api: Api,
    files: Option<Files>,
    terms: Option<Arc<Terms>>,
    log: Opened,
    public: Plan,
    operator: Plan,
}

impl Running {
    /// The configuration in effect.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The addresses really bound.
    pub(super) fn addresses(&self) -> Addresses {
        Addresses {
            http: self.public.bound(Kind::Http).collect(),
            https: self.public.bound(Kind::Https).collect(),
            admin: self.operator.bound(Kind::Admin).next(),
        }
    }

    /// Serves by `config` from now on, of whose backends `authorities` were read.
    ///
    /// # Errors
    /// For every reason why that cannot be. Then all is as it was.
    pub(super) async fn reload(
        &mut self,
        mut config: Config,
        secrets: Secrets,
        authorities: ReadAuthorities,
    ) -> Result<Report, Vec<String>> {
        let restart = config.keep_what_stays(&self.config);
        let mut report = Report {
            changed: self.config.changes(&config),
            renewed: self.renewed(&secrets, &authorities),
            restart,
            notes: self.notes(&config, &secrets),
            ..Report::default()
        };
        if report.is_change() {
            let prepared = self.prepare(&config, &secrets, authorities).await?;
            report.opened.clone_from(&prepared.public.opened);
            report.opened.extend(&prepared.operator.opened);
            report.closed.clone_from(&prepared.public.closed);
            report.closed.extend(&prepared.operator.closed);
            if !self.take_over(prepared, config, secrets).await? {
                let late = "a worker has not taken the configuration over yet: it will, before it serves its next request";
                report.notes.push(late.to_owned());
            }
        }
        report.connections = self.permits.open();
        report.tunnels = self.metrics.connections_of.tunnels();
        Ok(report)
    }

    /// What leads to something else, although it is named as before.
    fn renewed(&self, secrets: &Secrets, authorities: &ReadAuthorities) -> Vec<&'static str> {
        let mut renewed = Vec::new();
        if secrets.api_token != self.secrets.api_token {
            renewed.push("api.token_env");
        }
        // Where none is given any more, the store keeps the one that it knows.
        if secrets.platform_key.is_some() && secrets.platform_key != self.secrets.platform_key {
            renewed.push("platform.key_env");
        }
        if !self.dials.trusts(authorities) {
            renewed.push("backends.ca");
        }
        renewed
    }

    /// What else does not follow before a restart or an upgrade.
    fn notes(&self, config: &Config, secrets: &Secrets) -> Vec<String> {
        let (now, then) = (&self.config, config);
        let mut notes = Vec::new();
        let mut note = |is: bool, text: &str| {
            if is {
                notes.push(format!("{text} until a restart or an upgrade"));
            }
        };
        note(
            secrets.smtp_url != self.secrets.smtp_url,
            "platform.mail.smtp_url_env: mail leaves by the server that was named before",
        );
        note(
            secrets.acme != self.secrets.acme,
            "tls.acme: the secrets that were given before are used",
        );
        note(
            secrets.traces != self.secrets.traces,
            "OTEL_…: spans go where they went before",
        );
        let names = now.hosts != then.hosts;
        let ways =
            now.backends.dns != then.backends.dns || now.timeouts.connect != then.timeouts.connect;
        note(
            self.certificates.orders() && (names || ways),
            "tls.acme: orders go by the [hosts], backends.dns and timeouts.connect of the start",
        );
        let begins = now.listen.https.is_empty() && !then.listen.https.is_empty();
        note(
            begins && now.tls.acme.is_some() && !self.certificates.orders(),
            "tls.acme: no certificate is ordered, and those of files alone are served,",
        );
        notes
    }

    async fn prepare(
        &mut self,
        config: &Config,
        secrets: &Secrets,
        authorities: ReadAuthorities,
    ) -> Result<Prepared, Vec<String>> {
        let mut problems = Vec::new();
        if self.workers.ready().is_none() || self.admin_workers.ready().is_none() {
            return Err(stuck());
        }
        let limits = match config.limits == self.config.limits {
            true => self.limits.clone(),
            false => {
                let fit = descriptors::connections_that_fit(&config.limits, config.chooser());
                parts::limits_within(&config.limits, fit)
            }
        };
        let api = self
            .parts
            .api
            .next((&self.config, &self.secrets), (config, secrets));
        let api = good(
            api.map_err(|error| format!("[api]: {error}")),
            &mut problems,
        );
        let dials = self
            .dials
            .next(&self.config, config, authorities, &self.metrics);
        let dials = good(
            dials.map_err(|error| format!("backends.ca: {error}")),
            &mut problems,
        );
        let files = self.files(config).await;
        let files = good(files.map_err(|error| error.to_string()), &mut problems);
        let terms = self.certificates.terms(config);
        let terms = good(terms.map_err(|error| error.to_string()), &mut problems);
        let log = self.log.open(&config.log);
        let log = good(log.map_err(|error| error.to_string()), &mut problems);
        // Last: what is new listens from here on, and is closed where something else is wrong.
        let public = self.public.plan(&listening::wanted(&config.listen));
        let public = all_good(public, &mut problems);
        let operator = self
            .operator
            .plan(&listening::wanted_by_operator(&config.listen));
        let operator = all_good(operator, &mut problems);
        let sockets = public.zip(operator);
        match (api, dials, files, terms, log, sockets) {
            (Some(api), Some(dials), Some(files), Some(terms), Some(log), Some(sockets)) => {
                let (public, operator) = sockets;
                Ok(Prepared {
                    limits,
                    dials,
                    api,
                    files,
                    terms,
                    log,
                    public,
                    operator,
                })
            }
            _ => Err(problems),
        }
    }

    /// The folder of certificates, where another one is to be served from, or one for the first time.
    async fn files(&self, config: &Config) -> Result<Option<Files>, BadCertificates> {
        let (now, then) = (&self.config.tls, &config.tls);
        let same =
            now.certs == then.certs && now.default == then.default && now.watch == then.watch;
        let served = !self.config.listen.https.is_empty();
        if config.listen.https.is_empty() || (served && same) {
            return Ok(None);
        }
        let (tls, others) = (then.clone(), self.certificates.orders());
        let known = self.certificates.keyring.certificates();
        let opening = tokio::task::spawn_blocking(move || Files::open_next(&tls, others, &known));
        // A panic goes on here, and is counted there.
        opening.await.expect("looking at the folder ends").map(Some)
    }

    /// Lets another key call the platform, and no other.
    async fn give_key(&self, secrets: &Secrets) -> Result<(), Vec<String>> {
        let (Api::Local(platform), Some(key)) = (&self.parts.api, &secrets.platform_key) else {
            return Ok(());
        };
        let (platform, key) = (Arc::clone(platform), key.clone());
        let giving = tokio::task::spawn_blocking(move || platform.give_key(&key));
        let given = giving.await.expect("writing the key ends");
        given.map_err(|error| vec![error.to_string()])
    }

    /// Has everybody serve by what is prepared; whether all do already.
    async fn take_over(
        &mut self,
        prepared: Prepared,
        config: Config,
        secrets: Secrets,
    ) -> Result<bool, Vec<String>> {
        let (Some(workers), Some(admin)) = (self.workers.ready(), self.admin_workers.ready())
        else {
            return Err(stuck());
        };
        let Prepared {
            limits,
            dials,
            api,
            files,
            terms,
            log,
            public,
            operator,
        } = prepared;
        if secrets.platform_key != self.secrets.platform_key {
            // Last of what can fail: the key before it is revoked for good.
            self.give_key(&secrets).await?;
        }
        // Nothing fails from here on. First what nobody minds who serves by the configuration before.
        let all = [
            &self.public,
            &self.operator,
            &public.listening,
            &operator.listening,
        ];
        dials.set_own(listening::bound(all));
        if let Some(files) = &files {
            self.certificates
                .keyring
                .put_files(files.certificates(), files.fallback());
        }
        self.log.apply(log);
        self.log.set_level(config.log.level);
        self.metrics.follow(&config.metrics);
        self.drain_delay.set(config.timeouts.drain_delay);
        self.permits
            .set_limits(limits.connections, config.limits.per_peer);
        api.follow(&config);
        // Handles of what goes are closed before it empties its queue.
        self.estate.add(public.estate);
        self.estate.add(operator.estate);
        let spoken = listening::spoken([&public.listening, &operator.listening]);
        self.estate.keep_only(&spoken);
        let parts = self.next_parts(&config, &limits, &dials, api, &public.listening);
        let (public, sockets) = (public.listening, public.sockets);
        let orders = workers::orders(
            &config,
            &limits,
            parts.clone(),
            &public,
            sockets,
            terms.as_ref(),
        );
        let settings = ConnectionSettings::new(&config.timeouts, &limits);
        let told = workers.tell(orders);
        let (operator, sockets) = (operator.listening, operator.sockets);
        let orders = side::admin_orders(self.admin.clone(), &settings, &operator, sockets);
        let admin_told = admin.tell(orders);
        let (all, admin) = tokio::join!(told, admin_told);
        dials.set_own(listening::bound([&public, &operator]));
        for pool in [Some(&self.pool), self.telling.as_ref()]
            .into_iter()
            .flatten()
        {
            pool.redial(&dials.dialer);
        }
        if files.is_some() || config.listen.https.is_empty() {
            self.watch_files(files);
        }
        self.limits = limits;
        self.parts = parts;
        self.dials = dials;
        self.public = public;
        self.operator = operator;
        self.config = config;
        self.secrets = secrets;
        self.show();
        Ok(all && admin)
    }

    /// Has the operator see what it is now.
    pub(super) fn show(&self) {
        let (addresses, api) = (self.addresses(), self.config.api_name());
        let about = control::about(&addresses, &api, self.workers.count());
        self.control.about.replace(about);
        let sources = Rc::new(control::sources(self));
        self.control.sources.replace(Some(sources));
    }

    /// Answers at the control socket from now on, also to those who know only its name.
    pub(super) fn open_control(&mut self, socket: LocalSocket) {
        let settings = ConnectionSettings::new(&self.config.timeouts, &self.limits);
        let Beside {
            side, side_stop, ..
        } = &mut self.beside;
        control::start(
            side,
            socket,
            &self.control,
            settings,
            &self.metrics,
            side_stop,
        );
    }

    /// How the service is, in words.
    pub(super) fn status(&self) -> String {
        format!("serving with {} workers", self.workers.count())
    }

    /// Says in the log, and to systemd, that it serves.
    pub(super) fn tell(&self) {
        let addresses = self.addresses();
        Serving {
            addresses: addresses.http,
            https: addresses.https,
            admin: addresses.admin,
            api: self.config.api_name(),
            workers: self.workers.count(),
        }
        .tell(&self.log);
        self.notifier.ready(&self.status());
    }

    /// Ends what goes on beside the workers, within `patience`: the last hits are written and the mail under
    /// way is sent; a full disk must not hold us.
    pub(super) async fn end(mut self, patience: Duration) {
        self.watch_files(None);
        if let Api::Local(platform) = &self.parts.api {
            platform.stop_backups();
        }
        self.beside.end(patience).await;
    }

    /// What depends on nothing that is different stays the very same.
    fn next_parts(
        &self,
        config: &Config,
        limits: &Limits,
        dials: &Dials,
        api: Api,
        listening: &Listening,
    ) -> Parts {
        let cache = match Api::is_another(&self.config, config) {
            true => self.parts.cache.forgotten(&config.cache),
            false => self.parts.cache.judged_by(&config.cache),
        };
        let before = &self.parts;
        let rates = match self.config.rates == config.rates {
            true => before.settings.rates.clone(),
            false => Rates::new(&config.rates),
        };
        Parts {
            settings: parts::settings(config, limits, &api, listening.named(), rates),
            telemetry: parts::telemetry(config, &self.log, before.telemetry.tracer.as_ref()),
            cache,
            challenges: Arc::clone(&self.parts.challenges),
            dialer: dials.dialer.clone(),
            pool: parts::pool_limits(config, limits, self.workers.count()),
            pipes: limits.pipes.div_ceil(self.workers.count()),
            api,
        }
    }

    /// Looks at the folder that is served from now on, and at no other.
    pub(super) fn watch_files(&mut self, files: Option<Files>) {
        if let Some(before) = self.watching.take() {
            before.abort();
        }
        let Some(files) = files else {
            return;
        };
        let keyring = Arc::clone(&self.certificates.keyring);
        let watching = files.keep_fresh(keyring, Arc::clone(&self.metrics));
        self.watching = Some(self.beside.side.spawn_local(watching));
    }
}

fn stuck() -> Vec<String> {
    vec!["a worker has not followed the reload before: try again in a moment".to_owned()]
}

/// The value of what went well; the problem of what did not is noted.
fn good<T>(outcome: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    all_good(outcome.map_err(|problem| vec![problem]), problems)
}

fn all_good<T>(outcome: Result<T, Vec<String>>, problems: &mut Vec<String>) -> Option<T> {
    outcome.map_err(|found| problems.extend(found)).ok()
}
