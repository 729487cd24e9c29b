//! Connections to backends and to the upstream: dialled, reused, bounded. One pool a worker.

use serde::{Deserialize, Serialize};

use crate::units;
use crate::wire::{Request, Response};

mod origin;

pub use origin::{BadOrigin, Origin};

/// `[backends]`: where backends may live and how many connections are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether backends may live on loopback, private and link-local addresses.
    pub allow_private: bool,
    /// A PEM file of authorities trusted besides the system's; empty: none.
    pub ca: String,
    /// Idle connections kept in all.
    pub connections: usize,
    /// Idle connections kept to one backend.
    pub per_backend: usize,
    /// Peers whose `X-Forwarded-*` and `X-Request-Id` are believed.
    #[serde(with = "units::one_or_many")]
    pub trusted_proxies: Vec<ipnet::IpNet>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow_private: false,
            ca: String::new(),
            connections: 1024,
            per_backend: 256,
            trusted_proxies: Vec::new(),
        }
    }
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Pool;

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
#[error("unreachable")]
pub struct Error;

impl Pool {
    /// Sends a request whose target is in origin form and whose `Host` is set, and gives the
    /// response as soon as its head is here.
    ///
    /// # Errors
    /// When no connection could be made, or it broke before the head of the response was here.
    pub async fn send(&self, _origin: &Origin, _request: Request) -> Result<Response, Error> {
        Err(Error)
    }
}
