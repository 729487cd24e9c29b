//! The configuration: the sum of the parts' own sections, read from a file and the environment.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::hosts::Hosts;
use crate::settings::{Limits, Timeouts};
use crate::{platform, pool, proxy, rates, resolve, server, telemetry, upstream};

mod changes;
mod check;
mod check_acme;
mod dev;
mod document;
mod environment;
mod example;
mod load;
mod problem;
mod reach;
mod reload;
mod report;
mod restart;
mod settings;
mod tls;
mod wording;

pub use changes::Change;
pub use environment::{Environment, FLAGS};
pub use problem::{Place, Problem};
pub use reach::Reached;
pub use reload::Reload;
pub use tls::Tls;

/// Everything that `m3o-ingress run` is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where we listen.
    pub listen: server::Config,
    /// A remote M3O API; excludes `platform`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<upstream::Config>,
    /// The embedded platform; excludes `api`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<platform::Config>,
    /// Our public names.
    pub hosts: Hosts,
    /// How long resolved backends are believed.
    pub cache: resolve::Config,
    /// Connections to backends.
    pub backends: pool::Config,
    /// When an address of a backend is left out.
    pub outliers: pool::outliers::Config,
    /// A limit in time for every phase.
    pub timeouts: Timeouts,
    /// A limit in size or number for everything else.
    pub limits: Limits,
    /// How often one client, one key and one app may ask.
    pub rates: rates::Config,
    /// Certificates.
    pub tls: Tls,
    /// Who is sent to HTTPS, and told to stay there.
    pub https: proxy::https::Config,
    /// Verification links.
    pub user: proxy::verify::Config,
    /// The list of apps.
    pub index: proxy::index::Config,
    /// Logs.
    pub log: telemetry::Config,
    /// Metrics.
    pub metrics: telemetry::metrics::Config,
    /// When a file that has changed is taken over unasked.
    pub reload: Reload,
    /// Traces, where there is somebody to tell them to.
    pub tracing: telemetry::traces::Config,
    /// Set by `m3o-ingress dev` alone: a demo app, a demo function, and a mailbox in place of mail.
    #[serde(skip)]
    pub dev: bool,
}

impl Config {
    /// Reads a configuration, with the values of `M3O_INGRESS_<SECTION>__<KEY>` over its own.
    ///
    /// `file` is only what the problems call it. The file of `backends.ca` is looked at.
    ///
    /// # Errors
    /// Every mistake there is, in the order of their places.
    pub fn parse(file: &str, text: &str, environment: &Environment) -> Result<Self, Vec<Problem>> {
        load::read(file, text, environment)
    }

    /// Reads a configuration file, as [`parse`](Self::parse) does.
    ///
    /// # Errors
    /// When it cannot be read, or every mistake in it.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, Vec<Problem>> {
        let file = path.display().to_string();
        let unreadable =
            |message: String| vec![Problem::new(Place::File(file.clone()), "", message)];
        let bytes = std::fs::read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => unreadable(
                "there is no such file; name another with --config FILE, or try `m3o-ingress dev`, which needs none".to_owned(),
            ),
            _ => unreadable(format!("it cannot be read: {error}")),
        })?;
        let text = String::from_utf8(bytes)
            .map_err(|error| unreadable(format!("it is not UTF-8: {}", error.utf8_error())))?;
        Self::parse(&file, &text, environment)
    }

    /// The variables that begin like those of a key or a flag, but that nothing reads.
    ///
    /// Where one is almost that of a key, the configuration does not read at all.
    #[must_use]
    pub fn unread<'e>(&self, environment: &'e Environment) -> Vec<&'e str> {
        let secrets: Vec<&str> = self.secrets().map(|(_, variable)| variable).collect();
        let is_read = |name: &str| {
            let secret = name.strip_suffix("_FILE").unwrap_or(name);
            FLAGS.contains(&name) || secrets.contains(&name) || secrets.contains(&secret)
        };
        environment.others().filter(|name| !is_read(name)).collect()
    }

    /// The keys that name the variable of a secret, and the variables.
    fn secrets(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let token = self
            .api
            .as_ref()
            .map(|api| ("api.token_env", &api.token_env));
        let platform = self.platform.as_ref();
        let key = platform.map(|platform| ("platform.key_env", &platform.key_env));
        let mail = platform.and_then(|platform| platform.mail.as_ref());
        let smtp = mail.map(|mail| ("platform.mail.smtp_url_env", &mail.smtp_url_env));
        let acme = self.tls.acme.as_ref();
        let eab = acme.and_then(|acme| acme.eab_key_env.as_ref());
        let eab = eab.map(|variable| ("tls.acme.eab_key_env", variable));
        let update = acme.and_then(|acme| acme.dns.as_ref()?.update.as_ref());
        let tsig = update.map(|update| ("tls.acme.dns.update.key_env", &update.key_env));
        let named = [token, key, smtp, eab, tsig].into_iter().flatten();
        named.map(|(key, variable)| (key, variable.as_str()))
    }

    /// Who set the limits.
    #[must_use]
    pub fn chooser(&self) -> server::descriptors::Chooser {
        match self.dev {
            true => server::descriptors::Chooser::Nobody,
            false => server::descriptors::Chooser::Operator,
        }
    }

    /// The address of the remote API, without what may be a secret in it, or the store.
    #[must_use]
    pub fn api_name(&self) -> String {
        match (&self.api, &self.platform) {
            (Some(api), _) => api.address.url().origin().ascii_serialization(),
            (None, Some(platform)) => format!("store {}", platform.store.display()),
            (None, None) => String::new(),
        }
    }

    /// Where the account and the certificates of `[tls.acme]` are kept.
    #[must_use]
    pub fn acme_folder(&self) -> Option<std::path::PathBuf> {
        let acme = self.tls.acme.as_ref()?;
        if acme.folder.as_os_str().is_empty() {
            let store = &self.platform.as_ref()?.store;
            return Some(store.with_file_name("acme")).filter(|_| !self.store_is_in_memory());
        }
        Some(acme.folder.clone())
    }

    fn store_is_in_memory(&self) -> bool {
        let platform = self.platform.as_ref();
        platform.is_some_and(|own| own.store == Path::new("memory"))
    }

    /// The whole configuration with its defaults, as a file that reads back to the same.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is tables of texts, numbers and switches")
    }
}

#[cfg(test)]
mod tests;
