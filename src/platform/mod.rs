//! The embedded platform: the M3O API, from one store. Routes nothing but `/v1/…`.

use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;
use tokio_util::task::TaskTracker;

use crate::credentials::Secret;
use crate::destination::Destination;
use crate::domains::Domains;
use crate::hosts::{PublicLinks, PublicScheme};
use crate::id::WorkloadId;
use crate::pool::Pool;
use crate::server::shutdown::{Stage, Stop};
use crate::upstream::{Hit, LocalAnswer, LocalApi, NoLink, OwnCall, ShortLink};
use crate::wire::{self, Body, Request, Response};

mod accounts;
mod apps;
mod calls;
mod closing;
pub mod demo;
mod domains;
mod endpoint;
mod error;
mod fields;
mod followed;
mod functions;
mod helloworld;
mod hits;
mod kept;
mod keys;
mod mailing;
mod opening;
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
use store::Store;

pub use closing::{ClosingError, Kind};
pub use opening::{Config, Extras, OpenError, Rules};
pub use store::{BackupError, FileError};

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
    keys: keys::Keys,
    /// Swapped whole when the configuration changes.
    ways: ArcSwap<Ways>,
    mail: Mail,
    passwords: passwords::Passwords,
    hits: hits::Hits,
    followed: followed::Followed,
    domains: Domains,
    proofs: domains::Proofs,
    calls: calls::Calls,
}

impl Platform {
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
        let uri = request.uri().clone();
        let Some(endpoint) = Endpoint::of(uri.path()) else {
            return Error::NoEndpoint.to_response("platform");
        };
        let answered = pin!(self.dispatch(&endpoint, request, pool, tasks)).await;
        match answered {
            Ok(response) => response,
            Err(error) => error.to_response(&endpoint.id()),
        }
    }

    async fn dispatch(
        &self,
        endpoint: &Endpoint<'_>,
        mut request: Request,
        pool: &Rc<Pool>,
        tasks: &TaskTracker,
    ) -> Result<Response, Error> {
        if request.extensions().get::<OwnCall>().is_none() {
            self.keys.admit(&self.store, request.headers())?;
        }
        let streams = endpoint.service == "helloworld" && endpoint.name == "Stream";
        if streams && helloworld::wants_web_socket(&request) {
            return helloworld::web_socket(&request, tasks);
        }
        if request.method() != Method::POST {
            return Err(Error::Method);
        }
        let spare = wire::emptied(request.headers_mut());
        let fields = Fields::read(request.into_body()).await?;
        let name = &*endpoint.name;
        let result = match &*endpoint.service {
            "helloworld" if streams => return helloworld::stream(&fields, tasks),
            "helloworld" => helloworld::call(name, &fields),
            // Boxed, so that no call has room for all of them.
            "app" => Box::pin(apps::call(self, name, &fields)).await,
            "function" => Box::pin(functions::call(self, name, &fields, pool)).await,
            "url" => Box::pin(urls::call(self, name, &fields)).await,
            "user" => Box::pin(users::call(self, name, &fields)).await,
            _ => Err(Error::NoEndpoint),
        };
        Ok(json_response(&result?, spare))
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
            // Pinned where it is made: passed on, it would be copied.
            let answer = pin!(self.answer(request, pool, tasks)).await;
            drop(call);
            answer
        })
    }

    fn link(&self, link: &ShortLink, hit: Hit) -> Result<Destination, NoLink> {
        let _call = self.calls.begin();
        followed::follow(self, link, hit)
    }

    fn generation(&self) -> u64 {
        self.store.generation()
    }
}

/// `200` with JSON; `spare` is an empty map that is filled.
fn json_response(value: &Value, spare: HeaderMap) -> Response {
    let json = serde_json::to_vec(value).expect("a value always serialises");
    let mut response = Response::new(Body::from(json));
    let fields = response.headers_mut();
    *fields = spare;
    fields.insert(header::CONTENT_TYPE, error::JSON);
    // Sessions and accounts are nobody else's business.
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
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
