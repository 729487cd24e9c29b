//! Makes and removes the records that DNS-01 asks for.

use std::fmt;

use super::config::Dns;
use crate::credentials::Secret;
use update::Updater;

mod hook;
mod update;

use hook::HookError;
use update::UpdateError;

pub use update::BadUpdate;

/// A text record: where it is, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The name, without a dot at its end.
    pub(super) name: String,
    /// The text.
    pub(super) value: String,
}

impl Record {
    /// The record that proves `domain`, a name without its wildcard (RFC 8555, 8.4).
    pub(super) fn of(domain: &str, value: String) -> Self {
        Self {
            name: format!("_acme-challenge.{domain}"),
            value,
        }
    }
}

/// One way to make records.
#[derive(Debug)]
pub(super) enum Solver {
    Update(Box<Updater>),
    Hook(super::config::Hook),
}

/// Why a record could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DnsError {
    /// The name server did not do it.
    #[error("the name server {server}: {source}")]
    Update {
        /// Which one.
        server: std::net::SocketAddr,
        /// Why not.
        #[source]
        source: UpdateError,
    },
    /// The program did not do it.
    #[error("the hook {program}: {source}")]
    Hook {
        /// Which one.
        program: String,
        /// Why not.
        #[source]
        source: HookError,
    },
}

/// What is done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Present,
    Cleanup,
}

impl Solver {
    /// The way that `[tls.acme.dns]` names; none where it names none.
    ///
    /// # Errors
    /// When a name or a key makes no sense.
    pub(super) fn new(config: &Dns, key: Option<&Secret>) -> Result<Option<Self>, BadUpdate> {
        if let Some(update) = &config.update {
            let updater = Updater::new(update, key.ok_or(BadUpdate::Key)?)?;
            return Ok(Some(Self::Update(Box::new(updater))));
        }
        Ok(config.hook.clone().map(Self::Hook))
    }

    /// Makes a record, and waits until it is seen where that can be asked.
    pub(super) async fn present(&self, record: &Record) -> Result<(), DnsError> {
        self.act(Action::Present, record).await
    }

    /// Removes a record; none there is fine.
    pub(super) async fn cleanup(&self, record: &Record) -> Result<(), DnsError> {
        self.act(Action::Cleanup, record).await
    }

    async fn act(&self, action: Action, record: &Record) -> Result<(), DnsError> {
        match self {
            Self::Update(updater) => updater.act(action, record).await.map_err(|source| {
                let server = updater.server();
                DnsError::Update { server, source }
            }),
            Self::Hook(hook) => hook::run(hook, action, record).await.map_err(|source| {
                let program = hook.command.first().cloned().unwrap_or_default();
                DnsError::Hook { program, source }
            }),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Present => "present",
            Self::Cleanup => "cleanup",
        })
    }
}

#[cfg(test)]
mod tests;
