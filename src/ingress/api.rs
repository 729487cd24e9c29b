//! The API that an ingress is built around: a remote one, or the embedded platform.

use std::sync::Arc;

use super::heir::Heir;
use super::{Error, Secrets};
use crate::config::Config;
use crate::domains::Domains;
use crate::mail::Mailbox;
use crate::platform::{self, Platform};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{self, Remote, Via};

/// The API, ready to be called.
#[derive(Debug, Clone)]
pub(super) enum Api {
    Remote(Arc<Remote>),
    Local(Arc<Platform>),
}

impl Api {
    /// Opens the store, or gets ready to call. The custom domains of its apps are to be seen in `domains`.
    /// A process `before` this one lets go of the store first.
    ///
    /// # Errors
    /// When the store cannot be opened, or a secret is missing.
    pub(super) fn open(
        config: &Config,
        secrets: Secrets,
        mailbox: Option<Mailbox>,
        domains: Domains,
        metrics: &Metrics,
        before: Option<&Heir>,
    ) -> Result<Self, Error> {
        if let Some(api) = &config.api {
            let token = secrets.api_token.ok_or(upstream::Error::Misconfigured)?;
            let timeout = config.timeouts.connect + config.timeouts.response;
            before.map_or(Ok(()), Heir::ask)?;
            return Ok(Self::Remote(Arc::new(Remote::new(api, &token, timeout)?)));
        }
        let platform = config.platform.as_ref().ok_or(Error::NoApi)?;
        let extras = platform::Extras {
            key: secrets.platform_key,
            smtp_url: secrets.smtp_url,
            mailbox,
            series: metrics.platform(),
            domains,
            is_handed_over: before.is_some_and(|before| before.hands_over(&platform.store)),
        };
        before.map_or(Ok(()), Heir::ask)?;
        let platform = Platform::open(platform, config.rules(), &extras)?;
        Ok(Self::Local(Arc::new(platform)))
    }

    /// The one of another configuration, after what was: the same where nothing is different for it.
    ///
    /// # Errors
    /// When it cannot be called.
    pub(super) fn next(
        &self,
        (now, was): (&Config, &Secrets),
        (then, secrets): (&Config, &Secrets),
    ) -> Result<Self, upstream::Error> {
        let (Self::Remote(_), Some(api)) = (self, &then.api) else {
            return Ok(self.clone());
        };
        let time = |config: &Config| config.timeouts.connect + config.timeouts.response;
        let same = now.api.as_ref() == Some(api) && time(now) == time(then);
        if same && was.api_token == secrets.api_token {
            return Ok(self.clone());
        }
        let token = secrets.api_token.as_ref();
        let token = token.ok_or(upstream::Error::Misconfigured)?;
        Ok(Self::Remote(Arc::new(Remote::new(api, token, time(then))?)))
    }

    /// Goes by `config` from now on, as far as it does not begin anew with it.
    pub(super) fn follow(&self, config: &Config) {
        if let (Self::Local(own), Some(platform)) = (self, &config.platform) {
            own.follow(platform.public, config.rules());
        }
    }

    /// Whether `then` asks somebody else than `now` did.
    pub(super) fn is_another(now: &Config, then: &Config) -> bool {
        let address = |config: &Config| config.api.as_ref().map(|api| api.address.clone());
        address(now) != address(then)
    }

    /// How workers reach it.
    pub(super) fn into_via(self) -> Via {
        match self {
            Self::Remote(remote) => Via::Remote(remote),
            Self::Local(platform) => Via::Local(platform),
        }
    }

    /// The custom domains of its apps: a remote API has none that we know.
    pub(super) fn domains(&self) -> Domains {
        match self {
            Self::Remote(_) => Domains::default(),
            Self::Local(platform) => platform.domains(),
        }
    }
}
