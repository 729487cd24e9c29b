//! The series of clients' connections: what is spoken over them, and why those of HTTP/2 are ended.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::metrics::{Metrics, counters, each, gauge, register};
use crate::wire::Scheme;

/// Why we end a connection of HTTP/2 that its client would keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http2Ended {
    /// Too many frames that bring nobody anything.
    Flood,
    /// A frame or a block of fields that began takes too long to arrive.
    Late,
    /// The client takes nothing of what it asked for.
    Stuck,
    /// What it sends breaks the rules of the protocol.
    Malformed,
}

impl Http2Ended {
    const ALL: [Self; 4] = [Self::Flood, Self::Late, Self::Stuck, Self::Malformed];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flood => "flood",
            Self::Late => "late",
            Self::Stuck => "stuck",
            Self::Malformed => "malformed",
        }
    }
}

/// What is spoken over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, or the handshake before it is known.
    Http1,
    /// HTTP/2.
    Http2,
    /// Another one, to which it has switched, or a stream over HTTP/2 has.
    Tunnel,
}

/// The series of connections.
#[derive(Debug)]
pub struct Connections {
    accepted: [IntCounter; 2],
    open: [[IntGauge; 2]; 2],
    tunnels: IntGauge,
    http2_ended: Vec<IntCounter>,
}

impl Connections {
    /// All at zero, shown by `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let accepted = IntCounterVec::new(
            Opts::new(
                "m3o_ingress_connections_accepted_total",
                "Connections of clients that were let in",
            ),
            &["url_scheme"],
        )
        .expect("static name and label");
        let open = IntGaugeVec::new(
            Opts::new(
                "m3o_ingress_protocol_connections",
                "Connections of clients, by what is spoken over them",
            ),
            &["network_protocol_version", "url_scheme"],
        )
        .expect("static name and labels");
        let ended = counters(
            "m3o_ingress_http2_ended_total",
            "Connections of HTTP/2 that were ended for what their client did",
            "reason",
        );
        let schemes = [Scheme::Http, Scheme::Https].map(Scheme::as_str);
        let connections = Self {
            accepted: schemes.map(|scheme| accepted.with_label_values(&[scheme])),
            open: schemes.map(|scheme| {
                ["1.1", "2"].map(|version| open.with_label_values(&[version, scheme]))
            }),
            tunnels: gauge(
                "m3o_ingress_tunnels",
                "Requests that have switched protocols, as to a WebSocket",
            ),
            http2_ended: each(&ended, Http2Ended::ALL.map(Http2Ended::as_str)),
        };
        register(registry, Box::new(accepted));
        register(registry, Box::new(open));
        register(registry, Box::new(ended));
        register(registry, Box::new(connections.tunnels.clone()));
        connections
    }

    /// Counts a connection that was let in.
    pub fn accepted(&self, scheme: Scheme) {
        self.accepted[scheme as usize].inc();
    }

    /// Counts a connection of HTTP/2 that is ended.
    pub fn http2_ended(&self, reason: Http2Ended) {
        self.http2_ended[reason as usize].inc();
    }

    /// Tunnels that stand now.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        usize::try_from(self.tunnels.get()).unwrap_or(0)
    }

    fn gauge(&self, protocol: Protocol, scheme: Scheme) -> &IntGauge {
        match protocol {
            Protocol::Http1 => &self.open[scheme as usize][0],
            Protocol::Http2 => &self.open[scheme as usize][1],
            Protocol::Tunnel => &self.tunnels,
        }
    }
}

/// Something that is open, counted until it is dropped.
#[derive(Debug)]
pub struct Open {
    metrics: Arc<Metrics>,
    protocol: Protocol,
    scheme: Scheme,
}

impl Open {
    /// Counts it from now on.
    #[must_use]
    pub fn count(metrics: &Arc<Metrics>, protocol: Protocol, scheme: Scheme) -> Self {
        metrics.connections_of.gauge(protocol, scheme).inc();
        Self {
            metrics: Arc::clone(metrics),
            protocol,
            scheme,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let connections = &self.metrics.connections_of;
        connections.gauge(self.protocol, self.scheme).dec();
    }
}
