//! Opens the platform: what the configuration says of it, and why that could fail.

use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::mailing::Mail;
use super::store::{self, FileError, IN_MEMORY, Look, Store};
use super::{Platform, Ways, calls, domains, followed, hits, keys, mailing, passwords};
use crate::credentials::{BadToken, Credentials, Secret};
use crate::domains::Domains;
use crate::hosts::{HostName, Hosts, PublicScheme};
use crate::mail::{self, Mailbox, Smtp};
use crate::settings::Timeouts;
use crate::telemetry::platform::Platform as Series;

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
            keys: keys::Keys::default(),
            ways: ArcSwap::from_pointee(Ways::new(config.public, rules)),
            mail,
            passwords: passwords::Passwords::new(),
            hits: hits::Hits::new(series),
            followed: followed::Followed::new(),
            domains,
            proofs: domains::Proofs::new(domains::proof_port(config.public)),
            calls: calls::Calls::default(),
        }
    }
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
