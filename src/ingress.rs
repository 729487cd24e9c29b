//! Builds the house from its configuration, wires it and drains it. Decides nothing per request.

use std::net::SocketAddr;

use crate::config::Config;
use crate::credentials::Secret;
use crate::server::shutdown::Stop;

/// What the configuration names but does not hold.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// The ingress's own token for a remote API.
    pub api_token: Option<Secret>,
    /// The first API key of the embedded platform.
    pub platform_key: Option<Secret>,
    /// Where mail leaves, with its password.
    pub smtp_url: Option<Secret>,
}

/// Where a bound [`Ingress`] listens.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// Plain HTTP.
    pub http: Vec<SocketAddr>,
    /// Health and metrics.
    pub admin: Option<SocketAddr>,
}

/// Why an ingress could not be built, or stopped on its own.
#[derive(Debug, thiserror::Error)]
#[error("not built yet")]
pub struct Error;

/// A whole ingress, its listeners bound, not yet serving.
#[derive(Debug)]
pub struct Ingress;

impl Ingress {
    /// Opens the store, binds every listener, and checks what can be checked.
    ///
    /// # Errors
    /// When a port is taken, the store cannot be opened, or a secret is missing.
    pub fn bind(_config: Config, _secrets: Secrets) -> Result<Self, Error> {
        Err(Error)
    }

    /// The addresses really bound, also where the configuration said port 0.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses::default()
    }

    /// Serves until `stop` says so, then drains. Blocks the calling thread.
    ///
    /// # Errors
    /// When it cannot go on.
    pub fn run(self, _stop: Stop) -> Result<(), Error> {
        Err(Error)
    }
}
