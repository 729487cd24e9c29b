//! How often one client, one API key and one app may ask: a rate each, with room for bursts (GCRA). Knows no
//! requests and no fields.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use governor::clock::{Clock, MonotonicClock};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::credentials::Secret;
use crate::id::WorkloadId;
use crate::units;
use limiter::Limiter;

mod limiter;
mod name;
mod rate;
mod table;
#[cfg(test)]
mod tests;

pub use name::{AppName, BadAppName};
pub use rate::Rate;

/// `[rates]`: a rate that is left out is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Of one client, by its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Rate>,
    /// Of one key of the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Rate>,
    /// To one app or function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<Rate>,
    /// Clients, and as many keys and apps, that are told apart at most.
    pub capacity: usize,
    /// Networks whose clients no rate is for.
    #[serde(with = "units::one_or_many")]
    pub exempt: Vec<IpNet>,
    /// In place of `app` for the apps and functions of these names.
    pub apps: BTreeMap<AppName, Rate>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            peer: None,
            key: None,
            app: None,
            capacity: 65_536,
            exempt: Vec::new(),
            apps: BTreeMap::new(),
        }
    }
}

/// Whose rate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One client.
    Peer,
    /// One API key.
    Key,
    /// One app or function.
    App,
}

impl Scope {
    /// The name of the policy.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Key => "key",
            Self::App => "app",
        }
    }
}

/// How much is left of a rate. Times are in whole seconds, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whose rate.
    pub scope: Scope,
    /// Requests that may come at once.
    pub quota: u32,
    /// After this long all of them may come again.
    pub window: u32,
    /// Requests that may still come at once.
    pub left: u32,
    /// Where none may: until one may. Else: until all may.
    pub reset: u32,
}

/// Nothing is left. The standing says when something is again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests {}", match .0.scope {
    Scope::Peer => "of one client",
    Scope::Key => "with one key",
    Scope::App => "to one app",
})]
pub struct Exceeded(pub Standing);

/// What a request is to a rate; `None`: there is none for it.
pub type Checked = Result<Option<Standing>, Exceeded>;

/// The rates, and who stands where: one for all workers.
#[derive(Debug)]
pub struct Rates<C: Clock = MonotonicClock> {
    peer: Option<Limiter<C>>,
    key: Option<Limiter<C>>,
    app: Option<Limiter<C>>,
    apps: HashMap<WorkloadId, Limiter<C>>,
    exempt: Vec<IpNet>,
    /// What it was made of, for whoever asks.
    config: Config,
}

impl Rates {
    /// The rates of `config`; `None` where it has none.
    #[must_use]
    pub fn new(config: &Config) -> Option<Arc<Self>> {
        Self::by(config, &MonotonicClock).map(Arc::new)
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn by(config: &Config, clock: &C) -> Option<Self> {
        let limiter = |scope, rate: Option<Rate>| {
            rate.map(|rate| Limiter::new(scope, rate, config.capacity, clock.clone()))
        };
        // An app and a function may have the same name.
        let alone = |rate| Limiter::new(Scope::App, rate, 2, clock.clone());
        let apps = config.apps.iter();
        let rates = Self {
            peer: limiter(Scope::Peer, config.peer),
            key: limiter(Scope::Key, config.key),
            app: limiter(Scope::App, config.app),
            apps: apps.map(|(name, rate)| (name.id(), alone(*rate))).collect(),
            exempt: config.exempt.clone(),
            config: config.clone(),
        };
        let some = rates.peer.is_some() || rates.key.is_some() || rates.limit_apps();
        some.then_some(rates)
    }
}

impl<C: Clock> Rates<C> {
    /// Whether no rate is for `client`.
    #[must_use]
    pub fn exempt(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.exempt.iter().any(|net| net.contains(&client))
    }

    /// What it goes by.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counts a request of `client`. Over IPv6 that is a network of 64 bits, which is what one subscriber has
    /// at least (RFC 6177).
    ///
    /// # Errors
    /// When it has sent too many.
    pub fn peer(&self, client: IpAddr) -> Checked {
        let Some(limiter) = &self.peer else {
            return Ok(None);
        };
        limiter.check(subscriber(client)).map(Some)
    }

    /// What a request of `client` would be told now. It is not counted.
    ///
    /// # Errors
    /// When it would be one too many.
    pub fn foresee_peer(&self, client: IpAddr) -> Checked {
        let limiter = self.peer.as_ref();
        let foreseen = limiter.map(|limiter| limiter.foresee(subscriber(client)));
        foreseen.transpose()
    }

    /// Whether there is a rate for keys.
    #[must_use]
    pub fn limit_keys(&self) -> bool {
        self.key.is_some()
    }

    /// Counts a call with `key`, of which nothing is kept but a hash that only this process can make.
    ///
    /// # Errors
    /// When there were too many.
    pub fn key(&self, key: &Secret) -> Checked {
        let Some(limiter) = &self.key else {
            return Ok(None);
        };
        limiter.check(key.expose()).map(Some)
    }

    /// What a call with `key` would be told now. It is not counted.
    ///
    /// # Errors
    /// When it would be one too many.
    pub fn foresee_key(&self, key: &Secret) -> Checked {
        let limiter = self.key.as_ref();
        let foreseen = limiter.map(|limiter| limiter.foresee(key.expose()));
        foreseen.transpose()
    }

    fn limit_apps(&self) -> bool {
        self.app.is_some() || !self.apps.is_empty()
    }

    /// Counts a request to the app or function called `id`; `kind` tells the two apart.
    ///
    /// # Errors
    /// When there were too many.
    pub fn app(&self, kind: impl std::hash::Hash, id: &WorkloadId) -> Checked {
        let Some(limiter) = self.limiter_of(id) else {
            return Ok(None);
        };
        limiter.check((kind, id)).map(Some)
    }

    /// What a request to the app or function called `id` would be told now. It is not counted.
    ///
    /// # Errors
    /// When it would be one too many.
    pub fn foresee_app(&self, kind: impl std::hash::Hash, id: &WorkloadId) -> Checked {
        let limiter = self.limiter_of(id);
        let foreseen = limiter.map(|limiter| limiter.foresee((kind, id)));
        foreseen.transpose()
    }

    fn limiter_of(&self, id: &WorkloadId) -> Option<&Limiter<C>> {
        let own = match self.apps.is_empty() {
            true => None,
            false => self.apps.get(id),
        };
        own.or(self.app.as_ref())
    }
}

/// What counts as one client.
fn subscriber(client: IpAddr) -> u128 {
    const HOST_BITS: u32 = 64;
    match client.to_canonical() {
        // Below every network of IPv6 that is in use.
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits() >> HOST_BITS << HOST_BITS,
    }
}
