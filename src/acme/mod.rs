//! Certificates from an authority that speaks ACME (RFC 8555): ordered, proven, kept, renewed.
//!
//! The messages are those of the crate instant-acme; what is kept, when something is ordered and how
//! much at once is decided here. Runs on the control thread and puts what it has into the keyring.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::credentials::Secret;
use crate::pool::Pool;
use crate::telemetry::metrics::Metrics;
use crate::tls::certificate::{Certificate, Pair};
use crate::tls::challenges::Challenges;
use crate::tls::keyring::Keyring;
use crate::tls::on_demand::OnDemand;
use account::{Binding, Registration};
use dns::Solver;
use folder::{Folder, Shelf, Stored};
use gate::Gate;
use keeper::{Keeper, Rules};
use kept::Kept;
use order::Tools;

mod account;
mod bucket;
mod client;
pub mod config;
mod dns;
mod failure;
mod folder;
mod gate;
mod keeper;
mod kept;
mod leaf;
mod names;
mod order;
mod proof;
mod schedule;

pub use config::Config;
pub use dns::BadUpdate;
pub use folder::BadFolder;
pub use gate::Known;
pub use names::{Name, NameSet};

/// The secrets that `[tls.acme]` names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The key of the external account binding, in base64url.
    pub eab_key: Option<Secret>,
    /// The key that signs updates of the DNS, in base64.
    pub tsig_key: Option<Secret>,
}

/// What certificates are put into, and what proves names.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Where handshakes find them.
    pub keyring: Arc<Keyring>,
    /// Where authorities find proofs.
    pub challenges: Arc<Challenges>,
    /// Where orders are counted.
    pub metrics: Arc<Metrics>,
}

/// Why nothing could be ordered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] BadFolder),
    /// Updates of the DNS could never be sent.
    #[error(transparent)]
    Update(#[from] BadUpdate),
    /// The binding has no key, or one that is no base64url.
    #[error("tls.acme.eab_key_env: the key is not there, or it is no base64url")]
    Binding,
}

/// The certificates of one authority, those of earlier runs loaded, nothing ordered yet.
pub struct Acme {
    config: Config,
    keeper: Keeper,
    solver: Option<Solver>,
    binding: Option<Binding>,
    challenges: Arc<Challenges>,
    questions: Option<mpsc::Receiver<Name>>,
}

impl Acme {
    /// Loads what is in `folder` into the keyring. `always` are the certificates to have; names that
    /// are `known` get one at their first handshake where `[tls.acme]` says so. Another process may
    /// still order for the same folder.
    ///
    /// # Errors
    /// When the folder or a secret cannot be used.
    pub fn open(
        config: Config,
        folder: &Path,
        always: Vec<NameSet>,
        secrets: &Secrets,
        shared: Shared,
        known: Arc<dyn Known>,
    ) -> Result<Self, OpenError> {
        let solver = match &config.dns {
            Some(dns) => Solver::new(dns, secrets.tsig_key.as_ref())?,
            None => None,
        };
        let binding = match (&config.eab_kid, &secrets.eab_key) {
            (Some(kid), Some(key)) => Some(Binding::new(kid, key).ok_or(OpenError::Binding)?),
            (Some(_), None) => return Err(OpenError::Binding),
            (None, _) => None,
        };
        let folder = Arc::new(Folder::open(folder, &config.directory.file_name())?);
        let gate = config
            .on_demand
            .then(|| Gate::new(&config, known, Arc::clone(&shared.metrics)));
        let (gate, questions) = gate.unzip();
        let kept = load(&folder, always, gate.is_some())?;
        let keeper = Keeper {
            kept,
            folder,
            keyring: shared.keyring,
            metrics: shared.metrics,
            gate,
            rules: Rules {
                orders: config.orders,
                retry: config.retry,
                retry_most: config.retry_most,
                on_demand: config.on_demand_certificates,
            },
        };
        keeper.serve();
        Ok(Self {
            config,
            keeper,
            solver,
            binding,
            challenges: shared.challenges,
            questions,
        })
    }

    /// Takes hold of the folder, so that no other process orders for it.
    ///
    /// # Errors
    /// When another one does.
    pub fn hold(&self) -> Result<(), OpenError> {
        Ok(self.keeper.folder.hold()?)
    }

    /// Whom handshakes ask for names without a certificate; nobody, where nothing is ordered on demand.
    #[must_use]
    pub fn on_demand(&self) -> Option<Arc<dyn OnDemand>> {
        let gate = self.keeper.gate.clone()?;
        Some(gate)
    }

    /// Orders and renews until `stop`, over `pool`, on a local runtime. Orders that are under way then
    /// are given up, and what they showed is taken away. Where another process still holds the folder,
    /// nothing is ordered before it lets go of it, and what it has obtained is served then.
    pub async fn run(mut self, pool: Rc<Pool>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        tokio::select! {
            () = self.take_over() => {}
            () = &mut stop => return,
        }
        let (client, carrier) = client::client(pool, self.config.timeout);
        let registration = Registration::new(
            Arc::clone(&self.keeper.folder),
            client,
            self.config.directory.as_str(),
            &self.config.contact,
            self.binding.take(),
        );
        let tools = Rc::new(Tools {
            registration,
            challenges: self.challenges,
            solver: self.solver,
            preferred: self.config.challenge,
            key_type: self.config.key_type,
            timeout: self.config.order_timeout,
            stop: CancellationToken::new(),
        });
        let keep = async {
            let run = self.keeper.run(&tools, &mut self.questions, stop.as_mut());
            let mut ended = AssertUnwindSafe(run).catch_unwind().await;
            while ended.is_err() {
                self.keeper.metrics.panics.inc();
                tracing::error!("what keeps certificates met a panic; it goes on");
                // What it stopped at may stop it again.
                tokio::select! {
                    () = tokio::time::sleep(PANIC_PAUSE) => {}
                    () = &mut stop => break,
                }
                let run = async {
                    self.keeper.recover();
                    let questions = &mut self.questions;
                    self.keeper.run(&tools, questions, stop.as_mut()).await;
                };
                ended = AssertUnwindSafe(run).catch_unwind().await;
            }
            // The carrier ends with the last client.
            drop(tools);
        };
        tokio::join!(carrier.run(), keep);
    }

    /// Holds the folder from now on. Another process that did until now has left there what this one has not
    /// seen.
    async fn take_over(&mut self) {
        if self.keeper.folder.is_held() {
            return;
        }
        let mut told = false;
        while let Err(error) = self.keeper.take_over().await {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "no certificate is ordered yet: {error}");
            }
            tokio::time::sleep(HOLD_PAUSE).await;
        }
    }
}

/// After a panic.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// Before another process is asked again whether it holds the folder.
const HOLD_PAUSE: Duration = Duration::from_secs(1);

impl fmt::Debug for Acme {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Acme")
            .field("directory", &self.config.directory)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Takes hold of the folder, and takes in anew what is there.
    async fn take_over(&mut self) -> Result<(), BadFolder> {
        self.folder.hold()?;
        let always = self.kept.iter().filter(|kept| kept.shelf == Shelf::Always);
        let always = always.map(|kept| kept.names.clone()).collect();
        let (folder, on_demand) = (Arc::clone(&self.folder), self.gate.is_some());
        let loading = tokio::task::spawn_blocking(move || load(&folder, always, on_demand));
        // After a panic there, what was loaded at the start stays.
        if let Ok(kept) = loading.await {
            self.kept = kept?;
            self.serve();
        }
        Ok(())
    }
}

/// What is to be kept, with the certificates that are there already.
fn load(folder: &Folder, always: Vec<NameSet>, on_demand: bool) -> Result<Vec<Kept>, BadFolder> {
    let unusable = |source| BadFolder::Unusable {
        path: folder.path().to_owned(),
        source,
    };
    let stored = |shelf| folder.stored(shelf).map_err(unusable);
    let mut stored_always = stored(Shelf::Always)?;
    let mut kept: Vec<Kept> = always
        .into_iter()
        .map(|names| {
            let mut kept = Kept::missing(Shelf::Always, names);
            let found = stored_always
                .iter()
                .position(|file| file.name == *kept.names.first());
            if let Some(file) = found.map(|index| stored_always.swap_remove(index)) {
                take(&mut kept, file);
            }
            kept
        })
        .collect();
    if on_demand {
        for file in stored(Shelf::OnDemand)? {
            let names = NameSet::one(file.name.clone());
            let mut one = Kept::missing(Shelf::OnDemand, names);
            take(&mut one, file);
            kept.extend(one.certificate.is_some().then_some(one));
        }
    }
    Ok(kept)
}

/// Takes a stored certificate in. One that is broken is ordered again, and so is one for other names,
/// which serves until then.
fn take(kept: &mut Kept, file: Stored) {
    let names = &kept.names;
    let Stored { name, pem, written } = file;
    let again = pem.clone();
    // The key is read when somebody needs it, or the keeper has the time to.
    let later = move || {
        Ok(Pair {
            chain: again.clone(),
            key: again,
        })
    };
    match Certificate::index(name.as_str(), &pem, later) {
        Ok(certificate) => {
            let has = |name: &Name| certificate.names().any(|found| found == name.as_str());
            let fits = names.iter().all(has) && certificate.names().count() == names.iter().count();
            kept.take(certificate, &pem, written.min(Timestamp::now()));
            if !fits {
                kept.renew_now();
            }
        }
        Err(error) => {
            tracing::warn!(%names, %error, "a stored certificate cannot be read: it is ordered again");
        }
    }
}
