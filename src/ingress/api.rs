//! The API that an ingress is built around: a remote one, or the embedded platform.

use std::sync::Arc;

use super::heir::Heir;
use super::{Error, Secrets};
use crate::config::Config;
use crate::domains::Domains;
use crate::mail::Mailbox;
use crate::platform::{self, Platform};
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
            domains,
            is_handed_over: before.is_some(),
        };
        let rules = platform::Rules {
            hosts: config.hosts.clone(),
            redirect_hosts: config.user.redirect_hosts.clone(),
            timeouts: config.timeouts.clone(),
        };
        before.map_or(Ok(()), Heir::ask)?;
        let platform = Platform::open(platform, rules, &extras)?;
        Ok(Self::Local(Arc::new(platform)))
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
