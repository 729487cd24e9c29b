//! The embedded platform: the M3O API, from one store. Routes nothing but `/v1/…`.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::{HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::task::TaskTracker;

use crate::credentials::{BadToken, Credentials, Secret};
use crate::domains::Domains;
use crate::hosts::{HostName, Hosts, PublicLinks, PublicScheme};
use crate::id::WorkloadId;
use crate::mail::{self, Mailbox, Smtp};
use crate::pool::Pool;
use crate::server::shutdown::{Stage, Stop};
use crate::settings::Timeouts;
use crate::telemetry::platform::Platform as Series;
use crate::upstream::{LocalAnswer, LocalApi, OwnCall};
use crate::wire::{Body, Request, Response};

mod accounts;
mod apps;
mod calls;
mod closing;
pub mod demo;
mod domains;
mod endpoint;
mod error;
mod fields;
mod functions;
mod helloworld;
mod hits;
mod kept;
mod keys;
mod mailing;
mod passwords;
mod random;
mod sessions;
mod store;
mod urls;
mod users;
mod verification;
mod workload;

use endpoint::Endpoint;
use error::Error;
use fields::Fields;
use mailing::Mail;
use store::{IN_MEMORY, Look, Store};

pub use closing::{ClosingError, Kind};
pub use store::{BackupError, FileError};

/// `[platform]`: the embedded platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file of the store; `memory` keeps nothing.
    pub store: PathBuf,
    /// The environment variable that holds the API key, needed while the store has none.
    #[serde(default = "default_key_env")]
    pub key_env: String,
    /// Scheme, and port if unusual, of the public links that it makes.
    #[serde(default)]
    pub public: PublicScheme,
    /// How mail leaves; without it, what would send one is a 501.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<mail::Config>,
}

impl Config {
    /// Whether the store is yet to be made, and so has no API key.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.store == Path::new(IN_MEMORY) || !self.store.exists()
    }

    /// That a store without a key is given none.
    #[must_use]
    pub fn no_key(&self) -> OpenError {
        let env = self.key_env.clone();
        OpenError::NoKey { env }
    }

    /// What would keep this user from opening the store, as far as looking tells.
    #[must_use]
    pub fn store_obstacle(&self) -> Option<String> {
        store::obstacle(&self.store)
    }
}

fn default_key_env() -> String {
    "M3O_PLATFORM_KEY".to_owned()
}

/// What other sections of the configuration say that holds for the platform too.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// `[hosts]`: links are made with them.
    pub hosts: Hosts,
    /// `user.redirect_hosts`: the only hosts that the links in mails may redirect to; empty: any.
    pub redirect_hosts: Vec<HostName>,
    /// `[timeouts]`: a function that is called answers within `response`.
    pub timeouts: Timeouts,
}

/// What the configuration names but does not hold.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// The key that may call, in place of those that the store knows; absent, and they stay.
    pub key: Option<Secret>,
    /// Where mail leaves, with its password.
    pub smtp_url: Option<Secret>,
    /// Takes all mail in place of a server: for `dev`.
    pub mailbox: Option<Mailbox>,
    /// Where its store and its mail are counted.
    pub series: Series,
    /// Where its custom domains are to be seen.
    pub domains: Domains,
    /// Whether another process had this very store open until now: it is not looked at whole again.
    pub is_handed_over: bool,
}

/// Why the platform could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file of the store.
    #[error("platform.store: {0}")]
    Store(#[from] FileError),
    /// The store is open but cannot be read or written.
    #[error("platform.store: {0}")]
    Unusable(String),
    /// Nobody could call.
    #[error(
        "platform.key_env: the environment variable {env} is not set and the store has no API key yet: set {env} to the first one"
    )]
    NoKey {
        /// The variable.
        env: String,
    },
    /// No client could send the key.
    #[error("platform.key_env: the key in the environment variable {env} cannot be used: {source}")]
    BadKey {
        /// The variable.
        env: String,
        /// Why.
        source: BadToken,
    },
    /// Mail is configured, but not where it leaves.
    #[error(
        "platform.mail.smtp_url_env: the environment variable {env} is not set: set it to the URL of the mail server, `smtps://user:password@host:465`"
    )]
    NoSmtpUrl {
        /// The variable.
        env: String,
    },
    /// Mail could never leave.
    #[error("platform.mail: {0}")]
    Smtp(#[from] mail::BadSmtp),
}

impl OpenError {
    /// Whether what is configured is wrong, and not what is on the disk.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::NoKey { .. } | Self::BadKey { .. } | Self::NoSmtpUrl { .. } | Self::Smtp(_) => {
                true
            }
            Self::Store(_) | Self::Unusable(_) => false,
        }
    }
}

/// What follows the configuration while the platform is open.
#[derive(Debug)]
struct Ways {
    links: PublicLinks,
    rules: Rules,
}

impl Ways {
    fn new(public: PublicScheme, rules: Rules) -> Self {
        Self {
            links: PublicLinks::new(public, rules.hosts.clone()),
            rules,
        }
    }
}

/// The platform. Shared by all threads.
#[derive(Debug)]
pub struct Platform {
    store: Store,
    /// Swapped whole when the configuration changes.
    ways: ArcSwap<Ways>,
    mail: Mail,
    passwords: passwords::Passwords,
    hits: hits::Hits,
    domains: Domains,
    proofs: domains::Proofs,
    calls: calls::Calls,
}

impl Platform {
    /// Opens the store and everything around it. Blocks for as long as the disk needs.
    ///
    /// # Errors
    /// When the store cannot be opened, nobody could call, or mail could never leave.
    pub fn open(config: &Config, rules: Rules, extras: &Extras) -> Result<Self, OpenError> {
        let env = config.key_env.clone();
        if let Some(key) = &extras.key
            && let Err(source) = Credentials::bearer(key.expose())
        {
            return Err(OpenError::BadKey { env, source });
        }
        let mail = open_mail(config, extras)?;
        if extras.key.is_none() && config.is_new() {
            // Nothing is made that nobody could call.
            return Err(config.no_key());
        }
        let domains = extras.domains.clone();
        let look = match extras.is_handed_over {
            true => Look::Again,
            false => Look::Whole,
        };
        let watch = domains::follow(&domains);
        let store = Store::open(&config.store, watch, look, &extras.series)?;
        let unusable = |error: store::Error| OpenError::Unusable(error.to_string());
        // Nobody writes yet.
        let view = store.read().map_err(unusable)?;
        domains::load(&domains, &view).map_err(unusable)?;
        let queued = mailing::queued(&view).map_err(unusable)?;
        let queued = i64::try_from(queued).unwrap_or(i64::MAX);
        extras.series.mail_queue.set(queued);
        drop(view);
        if let Some(key) = &extras.key {
            keys::give(&store, key).map_err(unusable)?;
        } else if !keys::any(&store).map_err(unusable)? {
            return Err(config.no_key());
        }
        let series = extras.series.clone();
        Ok(Self::on(config, rules, store, domains, mail, series))
    }

    /// The platform of a store that is there and that nobody uses, to ask what is in it. Nothing is changed.
    ///
    /// # Errors
    /// When it cannot be read, or somebody uses it.
    pub fn look(config: &Config, rules: Rules) -> Result<Self, OpenError> {
        // Counted, and shown nowhere.
        let series = Series::default();
        let store = Store::look(&config.store, &series)?;
        let domains = Domains::default();
        let unusable = |error: store::Error| OpenError::Unusable(error.to_string());
        let view = store.read().map_err(unusable)?;
        domains::load(&domains, &view).map_err(unusable)?;
        drop(view);
        Ok(Self::on(
            config,
            rules,
            store,
            domains,
            Mail::Nowhere,
            series,
        ))
    }

    fn on(
        config: &Config,
        rules: Rules,
        store: Store,
        domains: Domains,
        mail: Mail,
        series: Series,
    ) -> Self {
        Self {
            store,
            ways: ArcSwap::from_pointee(Ways::new(config.public, rules)),
            mail,
            passwords: passwords::Passwords::new(),
            hits: hits::Hits::new(series),
            domains,
            proofs: domains::Proofs::new(domains::proof_port(config.public)),
            calls: calls::Calls::default(),
        }
    }

    /// Goes by `public` and `rules` from now on.
    pub fn follow(&self, public: PublicScheme, rules: Rules) {
        self.proofs.set_port(domains::proof_port(public));
        self.ways.store(Arc::new(Ways::new(public, rules)));
    }

    /// Lets `key` call, and no other. Blocks for as long as the disk needs.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn give_key(&self, key: &Secret) -> Result<(), OpenError> {
        keys::give(&self.store, key).map_err(|error| OpenError::Unusable(error.to_string()))
    }

    fn ways(&self) -> Guard<Arc<Ways>> {
        self.ways.load()
    }

    /// Copies the store, as it is now, to a new file at `path`, while it goes on. Gives how many records
    /// there are.
    ///
    /// # Errors
    /// When there is a file already, or one of the two fails.
    pub async fn back_up(self: &Arc<Self>, path: PathBuf) -> Result<u64, BackupError> {
        self.flush().await;
        let platform = Arc::clone(self);
        let copying = tokio::task::spawn_blocking(move || platform.store.back_up(&path));
        copying.await.unwrap_or(Err(BackupError::Store))
    }

    /// Has backups that are under way fail, and all later ones: the process ends.
    pub fn stop_backups(&self) {
        self.store.stop_copies();
    }

    /// The custom domains of its apps, as they are at any time.
    #[must_use]
    pub fn domains(&self) -> Domains {
        self.domains.clone()
    }

    /// Adds the demo app and the demo function, both named `helloworld`, or leads them elsewhere.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn register_demo(
        &self,
        app_backend: &str,
        function_backend: &str,
    ) -> Result<(), OpenError> {
        let name = WorkloadId::parse("helloworld").expect("a label");
        let registered = async {
            apps::upsert(self, name, app_backend).await?;
            functions::upsert(self, name, function_backend).await
        };
        registered
            .await
            .map_err(|error| OpenError::Unusable(error.to_string()))
    }

    /// What goes on beside the calls, until the drain begins: writes hits each second, sends mail,
    /// looks for the proofs of custom domains, removes what has expired. Runs once, on the control
    /// thread, whose `pool` it is.
    pub async fn run_background(&self, mut stop: Stop, pool: &Rc<Pool>) {
        tokio::select! {
            () = self.mail.run(&self.store, stop.reached(Stage::Draining)) => {}
            () = self.write_hits() => {}
            () = self.proofs.run(&self.store, pool) => {}
            () = self.sweep() => {}
        }
        self.flush().await;
    }

    /// Writes the hits that are not written yet. Called once more when no request is left.
    pub async fn flush(&self) {
        if let Err(error) = self.hits.flush(&self.store).await {
            // They are kept for the next time.
            tracing::warn!(%error, "hits of short links wait: {error}");
        }
    }

    /// Closes the store for the process that follows, once the calls in flight have ended or `patience`
    /// has. What goes on [in the background](Self::run_background) has ended before. Calls that come
    /// later get a 503.
    pub async fn let_go(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.calls.none())
            .await
            .is_err()
        {
            tracing::warn!("a call of the API takes too long: it may fail");
        }
        self.flush().await;
        self.store.let_go();
    }

    /// Opens the store again: no process followed.
    pub async fn take_back(&self) {
        self.store.take_back().await;
        let followed = self.store.read();
        let followed = followed.and_then(|view| domains::load(&self.domains, &view));
        if let Err(error) = followed {
            tracing::error!(%error, "custom domains are those of before: {error}");
        }
    }

    async fn write_hits(&self) {
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush().await;
        }
    }

    async fn sweep(&self) {
        loop {
            let swept = self.store.write(|tx| {
                sessions::sweep(tx)?;
                verification::sweep(tx)
            });
            if let Err(error) = swept.await {
                tracing::warn!(%error, "expired sessions and tokens stay for now: {error}");
            }
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    }

    async fn answer(&self, request: Request, pool: &Rc<Pool>, tasks: &TaskTracker) -> Response {
        let Some(endpoint) = Endpoint::of(request.uri().path()) else {
            return Error::NoEndpoint.to_response("platform");
        };
        match self.dispatch(&endpoint, request, pool, tasks).await {
            Ok(response) => response,
            Err(error) => error.to_response(&endpoint.id()),
        }
    }

    async fn dispatch(
        &self,
        endpoint: &Endpoint,
        request: Request,
        pool: &Rc<Pool>,
        tasks: &TaskTracker,
    ) -> Result<Response, Error> {
        let own = request.extensions().get::<OwnCall>().copied();
        if own.is_none() {
            keys::admit(&self.store, request.headers())?;
        }
        let streams = endpoint.service == "helloworld" && endpoint.name == "Stream";
        if streams && helloworld::wants_web_socket(&request) {
            return helloworld::web_socket(&request, tasks);
        }
        if request.method() != Method::POST {
            return Err(Error::Method);
        }
        let fields = Fields::read(request.into_body()).await?;
        let name = endpoint.name.as_str();
        let result = match endpoint.service.as_str() {
            "helloworld" if streams => return helloworld::stream(&fields, tasks),
            "helloworld" => helloworld::call(name, &fields),
            "app" => apps::call(self, name, &fields).await,
            "function" => functions::call(self, name, &fields, pool).await,
            "url" => urls::call(self, name, &fields, own).await,
            "user" => users::call(self, name, &fields).await,
            _ => Err(Error::NoEndpoint),
        };
        Ok(json_response(&result?))
    }
}

impl LocalApi for Platform {
    fn call<'a>(
        &'a self,
        request: Request,
        pool: &'a Rc<Pool>,
        tasks: &'a TaskTracker,
    ) -> LocalAnswer<'a> {
        let call = self.calls.begin();
        Box::pin(async move {
            let answer = self.answer(request, pool, tasks).await;
            drop(call);
            answer
        })
    }

    fn generation(&self) -> u64 {
        self.store.generation()
    }
}

/// `200` with JSON.
fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = StatusCode::OK;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, error::JSON);
    // Sessions and accounts are nobody else's business.
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn open_mail(config: &Config, extras: &Extras) -> Result<Mail, OpenError> {
    if let Some(mailbox) = &extras.mailbox {
        return Ok(Mail::Mailbox(mailbox.clone()));
    }
    let Some(config) = &config.mail else {
        return Ok(Mail::Nowhere);
    };
    let Some(url) = &extras.smtp_url else {
        let env = config.smtp_url_env.clone();
        return Err(OpenError::NoSmtpUrl { env });
    };
    Ok(Mail::Server {
        smtp: Box::new(Smtp::new(config, url)?),
        bell: tokio::sync::Notify::new(),
        series: Box::new(extras.series.clone()),
    })
}

/// The limit of a scan that wants all there is.
const EVERYTHING: usize = usize::MAX;

/// A kill may lose a second of hits: this, and the time that writing them takes.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

const SWEEP_EVERY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;
