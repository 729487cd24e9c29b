//! Listeners, workers and connections.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::units;

pub mod activation;
mod announced;
pub mod connection;
mod current;
pub mod descriptors;
pub mod door;
mod drain;
mod gate;
mod handshake;
mod http2;
pub mod inherited;
mod linger;
pub mod listener;
pub mod local;
pub mod notify;
pub mod passing;
pub mod permits;
pub mod pressure;
pub mod proxy_protocol;
pub mod pulse;
mod refusal;
mod sealed;
pub mod settings;
pub mod shutdown;
mod turned_away;
pub mod worker;

pub use refusal::status_of;

/// `[listen]`: the addresses of this ingress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Plain HTTP.
    #[serde(with = "units::one_or_many")]
    pub http: Vec<SocketAddr>,
    /// HTTP over TLS.
    #[serde(with = "units::one_or_many")]
    pub https: Vec<SocketAddr>,
    /// Addresses out of the two whose connections begin with a PROXY header.
    #[serde(with = "units::one_or_many")]
    pub proxy_protocol: Vec<SocketAddr>,
    /// Health and metrics; never on a public listener.
    pub admin: Option<SocketAddr>,
    /// The Unix socket by which the operator asks and steers a running ingress.
    pub control: Option<PathBuf>,
    /// Threads that carry requests; 0: one a core that this process may run on.
    pub workers: usize,
}

impl Config {
    /// The public addresses.
    pub fn public(&self) -> impl Iterator<Item = SocketAddr> {
        self.http.iter().chain(&self.https).copied()
    }
}
