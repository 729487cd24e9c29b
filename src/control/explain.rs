//! What becomes of a request: with what this process knows, or by a configuration alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::{Desk, Refused};
use crate::config::Config;
use crate::platform::Platform;
use crate::pool::{Dialer, Guard, Pool, PoolLimits};
use crate::proxy::explain::{Entrance, Question, Sources, explain};
use crate::rates::Rates;
use crate::telemetry::metrics::Metrics;
use crate::tls::files::{Depth, Folder};
use crate::tls::keyring::{Keyring, Source};
use crate::upstream::{Upstream, Via};
use crate::wire::Scheme;
use crate::wire::peer::ListenerId;

impl Desk {
    /// `POST /explain`.
    pub(super) async fn explain(&self, body: &[u8]) -> Result<Value, Refused> {
        let wrong = |why: &dyn std::fmt::Display| Refused::Wrong(why.to_string());
        // What serde says of a text would repeat it, and a URL may hold a key.
        let question: Question = serde_json::from_slice(body)
            .map_err(|error| wrong(&format!("no question, at column {}", error.column())))?;
        let sources = self.control.sources.borrow().clone();
        let early = || Refused::Unavailable("it does not serve yet".to_owned());
        let sources = sources.ok_or_else(early)?;
        let explained = explain(&question, &sources).await;
        Ok(json!(explained.map_err(|error| wrong(&error))?))
    }
}

/// What a configuration says, where nobody is asked. Certificates are read from their folder, and the store
/// of the platform is, where there is one that nobody uses. Needs a runtime.
#[must_use]
pub fn of_configuration(config: &Config) -> Sources {
    let platform = config.platform.as_ref();
    let platform = platform.and_then(|own| Platform::look(own, config.rules()).ok());
    let platform = platform.map(Arc::new);
    let domains = platform.as_ref().map(|platform| platform.domains());
    let own: Vec<SocketAddr> = config.listen.public().chain(config.listen.admin).collect();
    let listeners = listeners(config);
    let numbered = listeners.iter().map(|known| (known.id, known.address));
    Sources {
        settings: Arc::new(config.settings(
            &config.limits,
            domains.unwrap_or_default(),
            numbered,
            Rates::new(&config.rates),
        )),
        listeners,
        guard: Guard::new(config.backends.allow_private, own),
        keyring: keyring(config),
        on_demand: on_demand(config),
        unread: config.tls.acme.is_some(),
        api: config.api_name(),
        upstream: platform.and_then(|platform| asking(config, platform)),
        cache: None,
        dialer: None,
        challenges: None,
    }
}

/// Asks `platform` without a network.
fn asking(config: &Config, platform: Arc<Platform>) -> Option<Upstream> {
    let runtime = Handle::try_current().ok()?;
    let backends = &config.backends;
    let guard = Guard::new(backends.allow_private, Vec::new());
    let connect = config.timeouts.connect;
    // Of no use but to make an Upstream: a platform that is asked where things are calls nobody.
    let dialer = Dialer::new(guard, connect, &backends.ca, &backends.dns, runtime).ok()?;
    let pool = Pool::new(dialer, NO_CONNECTIONS, Metrics::new());
    let via = Via::Local(platform);
    Some(Upstream::new(via, pool, TaskTracker::new()))
}

const NO_CONNECTIONS: PoolLimits = PoolLimits {
    connections: 1,
    per_backend: 1,
    idle: Duration::from_secs(1),
};

/// The public addresses, numbered as they are at a start.
fn listeners(config: &Config) -> Vec<Entrance> {
    let http = config.listen.http.iter();
    let http = http.map(|address| (*address, Scheme::Http));
    let https = config.listen.https.iter();
    let https = https.map(|address| (*address, Scheme::Https));
    let numbered = (0..).map(ListenerId).zip(http.chain(https));
    numbered
        .map(|(id, (address, scheme))| Entrance {
            id,
            address,
            scheme,
        })
        .collect()
}

/// Whether a handshake may make an authority give a certificate.
#[must_use]
pub fn on_demand(config: &Config) -> bool {
    config.tls.acme.as_ref().is_some_and(|acme| acme.on_demand)
}

fn keyring(config: &Config) -> Option<Arc<Keyring>> {
    if config.listen.https.is_empty() {
        return None;
    }
    let keyring = Keyring::with_fallback(&config.tls.default);
    let mut folder = Folder::new(&config.tls.certs);
    // What cannot be read is not there: `check` says why.
    let _unlisted = folder.scan(Depth::Names);
    keyring.put(Source::Files, folder.certificates());
    Some(keyring)
}
