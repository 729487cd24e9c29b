//! Where the certificates of an ingress come from, and what keeps them fresh.

use std::collections::HashSet;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::heir::Heir;
use crate::acme::{self, Acme};
use crate::config::{Config, Tls};
use crate::domains::Domains;
use crate::hosts::Hosts;
use crate::pool::{BadAuthorities, Dialer, Guard, Pool, PoolLimits};
use crate::server::shutdown::{Stage, Stop};
use crate::telemetry::metrics::Metrics;
use crate::tls::certificate::Certificate;
use crate::tls::challenges::Challenges;
use crate::tls::files::{BadFiles, Depth, Folder};
use crate::tls::identities::Identities;
use crate::tls::keyring::{Keyring, Source};
use crate::tls::local::{self, Authority, BadAuthority};
use crate::tls::on_demand::OnDemand;
use crate::tls::reading;
use crate::tls::terms::{NoTerms, Terms};

/// The certificates of an ingress, and their sources.
#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) keyring: Arc<Keyring>,
    pub(super) challenges: Arc<Challenges>,
    /// Where HTTPS is served from the start: what is to be kept fresh.
    pub(super) files: Option<Files>,
    /// Where an authority is asked for some, until that begins.
    acme: Option<Acme>,
    /// Whether one is asked.
    orders: bool,
    on_demand: Option<Arc<dyn OnDemand>>,
    /// Made when they are needed first.
    terms: Option<Arc<Terms>>,
}

/// The names that may get a certificate at their first handshake.
struct Names {
    hosts: Hosts,
    domains: Domains,
}

impl acme::Known for Names {
    fn is_known(&self, name: &str) -> bool {
        let hosts = &self.hosts;
        let ours = [&hosts.app, &hosts.function, &hosts.url, &hosts.user];
        let is_ours = ours.into_iter().flatten().any(|host| host.as_str() == name);
        is_ours || self.domains.app_of(name).is_some()
    }
}

/// Certificates from a folder, as far as there is nothing to say against them, with those of the local
/// authority of `dev`.
#[derive(Debug)]
pub(super) struct Files {
    folder: Folder,
    /// The one for names that no other is for; empty: none.
    fallback: String,
    /// Between two looks at the folder.
    watch: Duration,
    local: Option<Local>,
}

/// The authority of `dev` and what it signed.
#[derive(Debug)]
struct Local {
    authority: Authority,
    names: Vec<String>,
    current: Vec<Arc<Certificate>>,
}

/// Why HTTPS cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadCertificates {
    /// There is no certificate at all.
    #[error(
        "listen.https: there is no certificate to serve: put NAME.crt, with its whole chain, and NAME.key into {folder}, which tls.certs names{reason}"
    )]
    None {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with what is there.
        reason: String,
    },
    /// The fallback is none.
    #[error(
        "tls.default: there is no certificate `{label}` in {folder}: it is the NAME of a pair NAME.crt and NAME.key there{reason}"
    )]
    Default {
        /// What the configuration calls it.
        label: String,
        /// The folder.
        folder: PathBuf,
        /// What is wrong with what is there.
        reason: String,
    },
    /// What is served now would not be any more.
    #[error(
        "tls.certs: what has the names of certificates that are served now is none in {folder}{reason}"
    )]
    Lost {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with what is there.
        reason: String,
    },
    /// Nothing can be ordered from the authority of `[tls.acme]`.
    #[error(transparent)]
    Acme(#[from] acme::OpenError),
    /// That authority cannot be trusted by its file.
    #[error("tls.acme.ca: {0}")]
    Trust(#[from] BadAuthorities),
    /// The local authority of `dev` cannot be used.
    #[error(transparent)]
    Authority(#[from] BadAuthority),
    /// There is nothing that clients could agree to.
    #[error(transparent)]
    Terms(#[from] NoTerms),
}

impl BadCertificates {
    /// Whether the configuration, or what it names, is to blame.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::None { .. }
            | Self::Default { .. }
            | Self::Lost { .. }
            | Self::Acme(_)
            | Self::Trust(_) => true,
            Self::Authority(_) | Self::Terms(_) => false,
        }
    }
}

/// Connections to the authority of `[tls.acme]`.
const ACME_POOL: PoolLimits = PoolLimits {
    connections: 4,
    per_backend: 4,
    idle: Duration::from_secs(60),
};

/// Between two looks at how long the certificate of the local authority lasts.
const HOUR: Duration = Duration::from_secs(3600);

impl Certificates {
    /// Takes in the names of all certificates, if HTTPS is served; keys wait until they are needed. A process
    /// `before` this one orders until it hands over.
    ///
    /// # Errors
    /// When there would be nothing to serve.
    pub(super) fn open(
        config: &Config,
        secrets: &acme::Secrets,
        domains: Domains,
        metrics: Arc<Metrics>,
        before: Option<&Heir>,
    ) -> Result<Self, BadCertificates> {
        let tls = &config.tls;
        let mut certificates = Self {
            keyring: Keyring::with_fallback(&tls.default),
            challenges: Challenges::new(),
            files: None,
            acme: None,
            orders: false,
            on_demand: None,
            terms: None,
        };
        if config.listen.https.is_empty() {
            return Ok(certificates);
        }
        let keyring = &certificates.keyring;
        let local = tls.authority.as_ref();
        let local = local
            .map(|folder| Local::open(folder, config))
            .transpose()?;
        if let Some(local) = &local {
            keyring.put(Source::Local, local.current.clone());
        }
        // The local authority has given some, another one has or will.
        let others = local.is_some() || tls.acme.is_some();
        let files = Files::open(tls, others, Depth::Names)?;
        keyring.put_files(files.certificates(), files.fallback());
        certificates.files = Some(Files { local, ..files });
        certificates.open_acme(config, secrets, domains, metrics)?;
        if let (None, Some(acme)) = (before, &certificates.acme) {
            acme.hold()?;
        }
        Ok(certificates)
    }

    /// Takes in what the authority of `[tls.acme]` gave before.
    fn open_acme(
        &mut self,
        config: &Config,
        secrets: &acme::Secrets,
        domains: Domains,
        metrics: Arc<Metrics>,
    ) -> Result<(), BadCertificates> {
        let (Some(acme), Some(folder)) = (&config.tls.acme, config.acme_folder()) else {
            return Ok(());
        };
        let shared = acme::Shared {
            keyring: Arc::clone(&self.keyring),
            challenges: Arc::clone(&self.challenges),
            metrics,
        };
        let hosts = config.hosts.clone();
        let always = acme.names_for(&hosts);
        let known = Arc::new(Names { hosts, domains });
        let acme = Acme::open(acme.clone(), &folder, always, secrets, shared, known)?;
        self.orders = true;
        self.on_demand = acme.on_demand();
        self.acme = Some(acme);
        Ok(())
    }

    /// Orders certificates until `stop`, on the control thread, over connections of its own. Begins when
    /// this process is the only one that does, which is when `alone` ends.
    ///
    /// # Errors
    /// When the file of `tls.acme.ca` is no good any more.
    pub(super) fn start_orders(
        &mut self,
        side: &mut JoinSet<()>,
        config: &Config,
        metrics: &Arc<Metrics>,
        stop: &Stop,
        alone: impl Future<Output = ()> + 'static,
    ) -> Result<(), BadCertificates> {
        let (Some(acme), Some(section)) = (self.acme.take(), &config.tls.acme) else {
            return Ok(());
        };
        // The operator names the authority: the guard is for addresses that others name.
        let guard = Guard::new(false, Vec::new());
        let connect = config.timeouts.connect;
        let servers = &config.backends.dns;
        let dialer = Dialer::new(guard, connect, &section.ca, servers, Handle::current())?;
        let pool = Pool::new(dialer, ACME_POOL, Arc::clone(metrics));
        let mut stop = stop.clone();
        side.spawn_local(async move {
            tokio::select! {
                () = alone => {}
                () = stop.reached(Stage::Draining) => return,
            }
            acme.run(pool, stop.reached(Stage::Draining)).await;
        });
        Ok(())
    }

    /// Whether an authority is asked for some.
    pub(super) fn orders(&self) -> bool {
        self.orders
    }

    /// What clients of HTTPS have to agree to, where `config` serves any: the same as long as the process
    /// runs, so that their tickets stay good.
    pub(super) fn terms(&mut self, config: &Config) -> Result<Option<Arc<Terms>>, BadCertificates> {
        if config.listen.https.is_empty() {
            return Ok(None);
        }
        if self.terms.is_some() {
            return Ok(self.terms.clone());
        }
        let (keyring, challenges) = (Arc::clone(&self.keyring), Arc::clone(&self.challenges));
        let identities = Identities::new(keyring, challenges, self.on_demand.clone());
        let terms = Terms::new(identities)?;
        self.terms = Some(Arc::clone(&terms));
        Ok(Some(terms))
    }
}

impl Files {
    /// As [`Files::open`], for an ingress that runs and serves `known`: nobody waits for its keys, so each is
    /// looked at.
    ///
    /// # Errors
    /// Moreover where files that are called as one of `known` are no certificate.
    pub(super) fn open_next(
        tls: &Tls,
        others: bool,
        known: &[Arc<Certificate>],
    ) -> Result<Self, BadCertificates> {
        let files = Self::open(tls, others, Depth::Keys)?;
        let known: HashSet<&str> = known.iter().map(|known| known.label()).collect();
        let problems = files.folder.problems();
        let lost = reasons(problems.filter(|(label, _)| known.contains(label)), None);
        match lost.is_empty() {
            true => Ok(files),
            false => Err(BadCertificates::Lost {
                folder: tls.certs.clone(),
                reason: lost,
            }),
        }
    }

    /// Takes in what is in the folder, looked at so closely. `others` says that there are certificates of
    /// another source, or will be.
    ///
    /// # Errors
    /// When there would be nothing to serve.
    fn open(tls: &Tls, others: bool, depth: Depth) -> Result<Self, BadCertificates> {
        let mut folder = Folder::new(&tls.certs);
        let unlisted = folder.scan(depth).err();
        let path = tls.certs.clone();
        if !others && !folder.can_serve() {
            return Err(BadCertificates::None {
                folder: path,
                reason: reasons(folder.problems(), unlisted.as_ref()),
            });
        }
        if !tls.default.is_empty() && !folder.can_serve_as(&tls.default) {
            return Err(BadCertificates::Default {
                label: tls.default.clone(),
                folder: path,
                reason: reasons(folder.problems(), unlisted.as_ref()),
            });
        }
        Ok(Self {
            folder,
            fallback: tls.default.clone(),
            watch: tls.watch,
            local: None,
        })
    }

    /// Those that can be served.
    pub(super) fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.folder.certificates()
    }

    /// The name of the one for names that no other is for.
    pub(super) fn fallback(&self) -> &str {
        &self.fallback
    }

    /// Looks at the folder again and again, and renews what the local authority signed. Never ends.
    pub(super) async fn keep_fresh(self, keyring: Arc<Keyring>, metrics: Arc<Metrics>) {
        let watching = keep_watching(self.folder, self.watch, &keyring, &metrics);
        match self.local {
            Some(local) => {
                tokio::join!(watching, local.keep_lasting(&keyring));
            }
            None => watching.await,
        }
    }
}

/// What is wrong with a folder that has not what is needed.
fn reasons<'a>(
    bad: impl Iterator<Item = (&'a str, &'a BadFiles)>,
    unlisted: Option<&io::Error>,
) -> String {
    let unlisted = unlisted.map(|error| format!("; it cannot be listed: {error}"));
    let bad = bad.take(MOST_REASONS);
    let bad = bad.map(|(label, bad)| format!("; {label}: {bad}"));
    unlisted.into_iter().chain(bad).collect()
}

/// So many pairs are told about where nothing can be served.
const MOST_REASONS: usize = 3;

async fn keep_watching(
    mut folder: Folder,
    every: Duration,
    keyring: &Keyring,
    metrics: &Arc<Metrics>,
) {
    reading::read_all(folder.certificates()).await;
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let counted = Arc::clone(metrics);
        let looked = tokio::task::spawn_blocking(move || {
            // A panic leaves what was known before it.
            let looked = std::panic::catch_unwind(AssertUnwindSafe(|| folder.watch()));
            let changed = looked.unwrap_or_else(|_| {
                counted.panics.inc();
                false
            });
            (folder, changed)
        });
        let Ok((looked_at, changed)) = looked.await else {
            // The runtime ends, or has no thread for us.
            return;
        };
        folder = looked_at;
        let bad = folder.problems().count();
        metrics
            .tls
            .bad_pairs
            .set(i64::try_from(bad).unwrap_or(i64::MAX));
        if changed {
            keyring.put(Source::Files, folder.certificates());
            metrics.tls.swapped.inc();
        }
    }
}

impl Local {
    fn open(folder: &Path, config: &Config) -> Result<Self, BadAuthority> {
        let names = config.local_names();
        let authority = Authority::open(folder, &names)?;
        if let Some(notice) = authority.notice() {
            tracing::warn!("{notice}");
        }
        let current = authority.issue(&names)?;
        Ok(Self {
            authority,
            names,
            current,
        })
    }

    async fn keep_lasting(mut self, keyring: &Keyring) {
        loop {
            tokio::time::sleep(HOUR).await;
            let now = Timestamp::now();
            let mut current = self.current.iter();
            if !current.any(|certificate| local::is_due(certificate.not_after(), now)) {
                continue;
            }
            match self.authority.issue(&self.names) {
                Ok(new) => {
                    self.current = new;
                    keyring.put(Source::Local, self.current.clone());
                }
                Err(error) => tracing::error!(%error, "no new certificate of the local authority"),
            }
        }
    }
}
