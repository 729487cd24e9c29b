//! What the proxy and the platform read of a configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Config;
use crate::domains::Domains;
use crate::platform;
use crate::proxy::Settings;
use crate::proxy::https::Https;
use crate::rates::Rates;
use crate::settings::Limits;
use crate::wire::peer::ListenerId;

impl Config {
    /// What requests are held to, with the `limits` that fit, the custom domains that there are, the
    /// numbers of the public addresses, and where clients stand with their `rates`.
    #[must_use]
    pub fn settings(
        &self,
        limits: &Limits,
        domains: Domains,
        listeners: impl Iterator<Item = (ListenerId, SocketAddr)>,
        rates: Option<Arc<Rates>>,
    ) -> Settings {
        Settings {
            hosts: self.hosts.clone(),
            timeouts: self.timeouts.clone(),
            limits: limits.clone(),
            rates,
            trusted: self.backends.trusted_proxies.clone(),
            user: self.user.clone(),
            index: self.index.clone(),
            domains,
            https: Https::new(&self.https, listeners).map(Arc::new),
        }
    }

    /// What holds for the embedded platform too.
    #[must_use]
    pub fn rules(&self) -> platform::Rules {
        platform::Rules {
            hosts: self.hosts.clone(),
            redirect_hosts: self.user.redirect_hosts.clone(),
            timeouts: self.timeouts.clone(),
        }
    }
}
