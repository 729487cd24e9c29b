//! The control socket of an ingress.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Addresses;
use super::api::Api;
use super::listening::{Kind, Listener};
use super::reload::{Refused, Reloader};
use super::running::Running;
use crate::admin::Readiness;
use crate::control::{self, Control, Reload};
use crate::pool::{Guard, Pool};
use crate::proxy::explain::{Entrance, Sources};
use crate::server::local::LocalSocket;
use crate::server::permits::Permits;
use crate::server::settings::ConnectionSettings;
use crate::server::shutdown::Stop;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Upstream;
use crate::wire::Scheme;

/// What an ingress is.
pub(super) fn about(addresses: &Addresses, api: &str, workers: usize) -> Value {
    json!({
        "http": addresses.http,
        "https": addresses.https,
        "admin": addresses.admin,
        "api": api,
        "workers": workers,
    })
}

/// What has the configuration read again.
pub(super) fn reloading(reloader: Reloader) -> Reload {
    Box::new(move || {
        let reloader = reloader.clone();
        Box::pin(async move {
            match reloader.reload().await {
                Ok(report) => Ok(json!(report)),
                Err(Refused::Problems(problems)) => Err(problems),
                Err(refused @ (Refused::NoSource | Refused::Ended)) => {
                    Err(vec![refused.to_string()])
                }
            }
        })
    })
}

/// What answers over it.
pub(super) fn control(
    readiness: &Arc<Readiness>,
    permits: &Arc<Permits>,
    api: &Api,
    reload: Option<Reload>,
) -> Rc<Control> {
    Rc::new(Control {
        about: RefCell::default(),
        started: Instant::now(),
        readiness: Arc::clone(readiness),
        permits: Arc::clone(permits),
        platform: match api {
            Api::Local(platform) => Some(Arc::clone(platform)),
            Api::Remote(_) => None,
        },
        sources: RefCell::default(),
        reload,
    })
}

/// Serves `socket` until `stop`.
pub(super) fn start(
    side: &mut JoinSet<()>,
    mut socket: LocalSocket,
    control: &Rc<Control>,
    settings: ConnectionSettings,
    metrics: &Arc<Metrics>,
    stop: &Stop,
) {
    if let Err(error) = socket.take_name() {
        tracing::error!(%error, "nobody finds the control socket: {error}");
    }
    let (metrics, stop) = (Arc::clone(metrics), stop.clone());
    let control = Rc::clone(control);
    side.spawn_local(async move {
        let greet = move |caller| control.desk(caller);
        if let Err(error) = socket.serve(greet, settings, metrics, stop).await {
            tracing::error!(%error, "the control socket ended");
        }
    });
}

/// What requests of this process are explained by.
pub(super) fn sources(running: &Running) -> Sources {
    let Running {
        config,
        parts,
        public,
        operator,
        certificates,
        ..
    } = running;
    let entrance = |listener: &Listener| Entrance {
        id: listener.id,
        address: listener.bound,
        scheme: match listener.kind {
            Kind::Https => Scheme::Https,
            Kind::Http | Kind::Admin => Scheme::Http,
        },
    };
    let listeners: Vec<Entrance> = public.all.iter().map(entrance).collect();
    let own = public.all.iter().chain(&operator.all);
    let own = own.map(|listener| listener.bound).collect();
    let is_secure = |entrance: &Entrance| entrance.scheme == Scheme::Https;
    let keyring = listeners.iter().any(is_secure);
    let keyring = keyring.then(|| Arc::clone(&certificates.keyring));
    // Of no use but to make an Upstream: only this process is asked.
    let metrics = Arc::clone(&running.metrics);
    let pool = Pool::new(parts.dialer.clone(), parts.pool, metrics);
    let via = parts.api.clone().into_via();
    Sources {
        settings: Arc::clone(&parts.settings),
        listeners,
        guard: Guard::new(config.backends.allow_private, own),
        keyring,
        on_demand: control::on_demand(config),
        unread: false,
        api: config.api_name(),
        upstream: Some(Upstream::new(via, pool, TaskTracker::new())),
        cache: Some(Arc::clone(&parts.cache)),
        dialer: Some(parts.dialer.clone()),
        challenges: Some(Arc::clone(&parts.challenges)),
    }
}
