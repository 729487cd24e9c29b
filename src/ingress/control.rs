//! The control socket of an ingress.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Addresses;
use super::api::Api;
use super::reload::{Refused, Reloader};
use crate::admin::Readiness;
use crate::control::{Control, Reload};
use crate::server::connection::ConnectionSettings;
use crate::server::local::LocalSocket;
use crate::server::permits::Permits;
use crate::server::shutdown::Stop;
use crate::telemetry::metrics::Metrics;

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
        reload,
    })
}

/// Serves `socket` until `stop`.
pub(super) fn start(
    side: &mut JoinSet<()>,
    socket: LocalSocket,
    control: Rc<Control>,
    settings: ConnectionSettings,
    metrics: &Arc<Metrics>,
    stop: &Stop,
) {
    let (metrics, stop) = (Arc::clone(metrics), stop.clone());
    side.spawn_local(async move {
        let greet = move |caller| control.desk(caller);
        if let Err(error) = socket.serve(greet, settings, metrics, stop).await {
            tracing::error!(%error, "the control socket ended");
        }
    });
}
