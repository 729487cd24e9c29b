//! What the connections of a worker are held to, and where they are counted.

use std::sync::Arc;
use std::time::Duration;

use crate::settings::{Limits, Timeouts};
use crate::telemetry::connections::{Http2Ended, Open, Protocol};
use crate::telemetry::metrics::Metrics;
use crate::wire::Scheme;
use crate::wire::head::HeadLimits;

/// What every connection of a listener is held to.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    pub(super) timeouts: Timeouts,
    pub(super) body_limit: u64,
    pub(super) head: HeadLimits,
    pub(super) streams: usize,
    /// Where connections are counted; `None`: nowhere.
    metrics: Option<Arc<Metrics>>,
}

impl ConnectionSettings {
    /// From the configuration.
    #[must_use]
    pub fn new(timeouts: &Timeouts, limits: &Limits) -> Self {
        Self {
            timeouts: timeouts.clone(),
            body_limit: limits.body,
            head: HeadLimits::new(limits),
            streams: limits.streams,
            metrics: None,
        }
    }

    /// The same, its connections counted in `metrics`.
    #[must_use]
    pub fn counted_in(self, metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: Some(Arc::clone(metrics)),
            ..self
        }
    }

    /// Counts a connection that is let in.
    pub(super) fn accepted(&self, scheme: Scheme) {
        if let Some(metrics) = &self.metrics {
            metrics.connections_of.accepted(scheme);
        }
    }

    /// Counts what is open until that is dropped.
    pub(super) fn count(&self, protocol: Protocol, scheme: Scheme) -> Option<Open> {
        let metrics = self.metrics.as_ref()?;
        Some(Open::count(metrics, protocol, scheme))
    }

    /// Counts a connection of HTTP/2 that is ended.
    pub(super) fn http2_ended(&self, reason: Http2Ended) {
        if let Some(metrics) = &self.metrics {
            metrics.connections_of.http2_ended(reason);
        }
    }

    /// How long a TLS handshake may take.
    pub(super) fn handshake(&self) -> Duration {
        self.timeouts.header
    }
}
