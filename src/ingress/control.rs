//! The control socket of an ingress.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::api::Api;
use super::parts::Parts;
use super::side::SIDE_POOL;
use super::{Addresses, Ingress};
use crate::admin::Readiness;
use crate::config::Config;
use crate::control::{self, Control};
use crate::pool::{Guard, Pool};
use crate::proxy::explain::Sources;
use crate::server::connection::ConnectionSettings;
use crate::server::permits::Permits;
use crate::server::shutdown::Stop;
use crate::tls::keyring::Keyring;
use crate::upstream::Upstream;

/// What the operator may ask about.
pub(super) struct Knows<'a> {
    pub(super) addresses: &'a Addresses,
    pub(super) parts: &'a Parts,
    pub(super) permits: &'a Arc<Permits>,
    pub(super) readiness: &'a Arc<Readiness>,
}

impl Ingress {
    /// Serves the control socket until `stop`, where there is one.
    pub(super) fn start_control(&mut self, side: &mut JoinSet<()>, knows: &Knows<'_>, stop: &Stop) {
        let Some(socket) = self.control.take() else {
            return;
        };
        let addresses = knows.addresses;
        let keyring = &self.certificates.keyring;
        let sources = sources(&self.config, knows.parts, addresses, keyring);
        let control = Rc::new(Control {
            about: json!({
                "http": addresses.http,
                "https": addresses.https,
                "admin": addresses.admin,
                "api": self.config.api_name(),
                "workers": self.workers,
            }),
            started: Instant::now(),
            readiness: Arc::clone(knows.readiness),
            permits: Arc::clone(knows.permits),
            platform: match &self.api {
                Api::Local(platform) => Some(Arc::clone(platform)),
                Api::Remote(_) => None,
            },
            sources: RefCell::new(Rc::new(sources)),
            reload: None,
        });
        let settings = ConnectionSettings::new(&self.config.timeouts, &self.config.limits);
        let (metrics, stop) = (Arc::clone(&self.metrics), stop.clone());
        side.spawn_local(async move {
            let greet = move |caller| control.desk(caller);
            if let Err(error) = socket.serve(greet, settings, metrics, stop).await {
                tracing::error!(%error, "the control socket ended");
            }
        });
    }
}

/// What requests of this process are explained by, from `config` on.
pub(super) fn sources(
    config: &Config,
    parts: &Parts,
    addresses: &Addresses,
    keyring: &Arc<Keyring>,
) -> Sources {
    let own = addresses.http.iter().chain(&addresses.https);
    let own = own.chain(&addresses.admin).copied().collect();
    // Of no use but to make an Upstream: only this process is asked.
    let metrics = Arc::clone(&parts.telemetry.metrics);
    let pool = Pool::new(parts.dialer.clone(), SIDE_POOL, metrics);
    let via = parts.api.clone().into_via();
    Sources {
        settings: Arc::clone(&parts.settings),
        listeners: control::listeners(&addresses.http, &addresses.https),
        guard: Guard::new(config.backends.allow_private, own),
        keyring: (!addresses.https.is_empty()).then(|| Arc::clone(keyring)),
        on_demand: control::on_demand(config),
        api: config.api_name(),
        upstream: Some(Upstream::new(via, pool, TaskTracker::new())),
        cache: Some(Arc::clone(&parts.cache)),
        dialer: Some(parts.dialer.clone()),
        challenges: Some(Arc::clone(&parts.challenges)),
    }
}
