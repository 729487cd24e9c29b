//! The control socket of an ingress.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Addresses;
use super::api::Api;
use crate::admin::Readiness;
use crate::control::Control;
use crate::server::connection::ConnectionSettings;
use crate::server::local::LocalSocket;
use crate::server::permits::Permits;
use crate::server::shutdown::Stop;
use crate::telemetry::metrics::Metrics;

/// What does not change while the process runs.
pub(super) fn about(addresses: &Addresses, api: &str, workers: usize) -> Value {
    json!({
        "http": addresses.http,
        "https": addresses.https,
        "admin": addresses.admin,
        "api": api,
        "workers": workers,
    })
}

/// What answers over it.
pub(super) fn control(
    about: Value,
    readiness: &Arc<Readiness>,
    permits: &Arc<Permits>,
    api: &Api,
) -> Rc<Control> {
    Rc::new(Control {
        about,
        started: Instant::now(),
        readiness: Arc::clone(readiness),
        permits: Arc::clone(permits),
        platform: match api {
            Api::Local(platform) => Some(Arc::clone(platform)),
            Api::Remote(_) => None,
        },
        reload: None,
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
