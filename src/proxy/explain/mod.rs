//! What becomes of a request, step by step, by the rules that requests themselves go by: from the
//! configuration alone, or with what a running ingress knows.
//!
//! Nothing is changed by asking: no backend and no remote API is called, no hit counted, no place taken.
//! `question` makes the request that a client would send, `walk` follows it up to its route by way of `handshake`,
//! `rates` and `found`, and `workload`, `others` and `api` from there; `report` is what is told of it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Settings;
use crate::pool::{Dialer, Guard};
use crate::resolve::Cache;
use crate::tls::challenges::Challenges;
use crate::tls::keyring::Keyring;
use crate::upstream::Upstream;
use crate::wire::Scheme;
use crate::wire::peer::ListenerId;
use walk::Walk;

mod api;
mod found;
mod handshake;
mod others;
mod question;
mod rates;
mod report;
mod walk;
mod workload;

pub use question::{BadQuestion, Question};
pub use report::{Answer, Explanation, Step};

/// What the answers come from.
#[derive(Debug)]
pub struct Sources {
    /// What requests are held to.
    pub settings: Arc<Settings>,
    /// The public addresses.
    pub listeners: Vec<Entrance>,
    /// Which addresses backends may live at.
    pub guard: Guard,
    /// The certificates, where HTTPS is served and they are known.
    pub keyring: Option<Arc<Keyring>>,
    /// Whether an authority is asked for a certificate at a handshake.
    pub on_demand: bool,
    /// Whether there may be certificates of an authority beside those of `keyring`.
    pub unread: bool,
    /// What the API is called: its address, or its store.
    pub api: String,
    /// The API, which is asked only where it is the embedded platform.
    pub upstream: Option<Upstream>,
    /// What a running ingress remembers of apps and functions.
    pub cache: Option<Arc<Cache>>,
    /// Looks names up, and dials nothing; none: nobody is asked.
    pub dialer: Option<Dialer>,
    /// The proofs that authorities look for.
    pub challenges: Option<Arc<Challenges>>,
}

/// A public address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrance {
    /// Its number, by which rules for listeners are found.
    pub id: ListenerId,
    /// Where it is.
    pub address: SocketAddr,
    /// What is spoken there.
    pub scheme: Scheme,
}

impl Sources {
    /// Whether it is what a running ingress knows.
    fn is_running(&self) -> bool {
        self.cache.is_some()
    }

    /// The embedded platform, where it can be asked.
    fn platform(&self) -> Option<&Upstream> {
        self.upstream
            .as_ref()
            .filter(|upstream| upstream.is_local())
    }
}

/// Explains what becomes of the request that `question` describes.
///
/// # Errors
/// When no client would send it.
pub async fn explain(question: &Question, sources: &Sources) -> Result<Explanation, BadQuestion> {
    let asked = question::Asked::read(question)?;
    Ok(Walk::new(sources, &asked).run().await)
}

#[cfg(test)]
mod tests;
