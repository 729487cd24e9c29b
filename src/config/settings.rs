//! What the proxy and the platform read of a configuration.

use std::sync::Arc;

use super::Config;
use crate::domains::Domains;
use crate::platform;
use crate::proxy::Settings;
use crate::proxy::https::Https;
use crate::rates::Rates;

impl Config {
    /// What requests are held to, with the custom domains that there are.
    #[must_use]
    pub fn settings(&self, domains: Domains) -> Settings {
        Settings {
            hosts: self.hosts.clone(),
            timeouts: self.timeouts.clone(),
            limits: self.limits.clone(),
            rates: Rates::new(&self.rates),
            trusted: self.backends.trusted_proxies.clone(),
            user: self.user.clone(),
            index: self.index.clone(),
            domains,
            https: Https::new(&self.https, self.listen.public()).map(Arc::new),
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
