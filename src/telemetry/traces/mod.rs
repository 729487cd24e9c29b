//! Traces: a span for each request and one for what is asked on its behalf. Without a collector to
//! tell them to there is no [`Tracer`], and a request pays for one look at that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use prometheus::{IntCounter, Registry};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::access::Entry;
use super::metrics::{Metrics, counter, register};
use crate::units::{self, Share};
use crate::wire::Trust;
use context::{RANDOM, SAMPLED, TRACEPARENT, TRACESTATE};

pub mod context;
pub mod span;

pub use context::{Context, SpanId, TraceId};
pub use span::Span;

/// `[tracing]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The share of traces that begin here and are recorded.
    pub sample: Share,
    /// Spans that wait to be told.
    pub queue: usize,
    /// Spans that are told at once.
    pub batch: usize,
    /// How long a span waits at most.
    #[serde(with = "units::duration")]
    pub delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sample: Share::parse("5%").unwrap_or(Share::NONE),
            queue: 2048,
            batch: 512,
            delay: Duration::from_secs(5),
        }
    }
}

/// Which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Of those that begin here.
    pub share: Share,
    /// Whether a trusted peer decides for those that it began.
    pub parent: Parent,
}

/// Whether the word of whoever is before us counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// It does, where the peer is trusted.
    Heeded,
    /// It does not.
    Ignored,
}

/// Collects spans for whoever tells them.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    most: usize,
    batch: usize,
    spans: Mutex<Vec<Span>>,
    /// Told once there is a batch.
    full: Notify,
    metrics: Arc<Metrics>,
}

/// The series of spans.
#[derive(Debug)]
pub struct Series {
    /// Spans that a collector took.
    pub exported: IntCounter,
    /// Spans that nobody was told.
    pub dropped: IntCounter,
}

/// Where one request stands in its trace.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) id: TraceId,
    pub(super) flags: u8,
    /// The span before ours, in the same trace.
    pub(super) parent: Option<SpanId>,
    pub(super) state: Option<String>,
    /// What a stranger says that it is part of.
    pub(super) link: Option<Context>,
    pub(super) began: SystemTime,
}

impl Tracer {
    /// A tracer with nothing to tell.
    #[must_use]
    pub fn new(config: &Config, sampler: Sampler, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            sampler,
            most: config.queue,
            batch: config.batch,
            spans: Mutex::default(),
            full: Notify::new(),
            metrics,
        })
    }

    /// Begins the trace of a request, or goes on with that of a trusted peer.
    pub(super) fn begin(&self, headers: &HeaderMap, trust: Trust) -> Trace {
        let found = Context::of(headers);
        let began = SystemTime::now();
        match (found, trust) {
            (Some(parent), Trust::Proxy) => {
                let sampled = match self.sampler.parent {
                    Parent::Heeded => parent.flags & SAMPLED,
                    Parent::Ignored => self.sampler.flag(parent.trace),
                };
                Trace {
                    id: parent.trace,
                    flags: sampled | parent.flags & RANDOM,
                    parent: Some(parent.span),
                    state: context::state(headers),
                    link: None,
                    began,
                }
            }
            (link, Trust::Proxy | Trust::Stranger) => {
                let id = TraceId::new(began);
                Trace {
                    id,
                    flags: self.sampler.flag(id) | RANDOM,
                    parent: None,
                    state: None,
                    link,
                    began,
                }
            }
        }
    }

    /// Keeps the spans of a request that has ended.
    pub(super) fn end(&self, trace: &Trace, entry: &Entry<'_>) {
        let server = span::server(trace, entry);
        let client = entry
            .call
            .and_then(|call| span::client(trace, server.id, entry, call));
        let mut spans = self.spans();
        let before = spans.len();
        for span in [Some(server), client].into_iter().flatten() {
            if spans.len() < self.most {
                spans.push(span);
            } else {
                self.metrics.spans.dropped.inc();
            }
        }
        let is_batch = before < self.batch && spans.len() >= self.batch;
        drop(spans);
        if is_batch {
            self.full.notify_one();
        }
    }

    /// Up to a batch of what there is to tell, the oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Span> {
        let mut spans = self.spans();
        let count = spans.len().min(self.batch);
        spans.drain(..count).collect()
    }

    /// Waits until there is a batch, or may have been one.
    pub async fn batch(&self) {
        if self.spans().len() < self.batch {
            self.full.notified().await;
        }
    }

    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sampler {
    /// By the id, so that whoever else decides about the trace by it decides alike: as OpenTelemetry's
    /// consistent probability sampling does, what is not below a threshold is kept.
    fn flag(self, id: TraceId) -> u8 {
        let whole = Share::ALL.millionths();
        // Both sides in millionths, so that nothing is rounded.
        let threshold = u128::from(whole - self.share.millionths()) << 56;
        let sampled = u128::from(id.randomness()) * u128::from(whole) >= threshold;
        u8::from(sampled) * SAMPLED
    }
}

impl Trace {
    pub(super) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Makes the request to a backend or the upstream part of the trace, and of no other. Gives the span
    /// that it is.
    pub(super) fn write_to(&self, headers: &mut HeaderMap) -> SpanId {
        let context = Context {
            trace: self.id,
            span: SpanId::new(),
            flags: self.flags,
        };
        headers.insert(TRACEPARENT, context.to_value());
        match &self.state {
            None => {
                headers.remove(TRACESTATE);
            }
            // It is there where a client's request is passed on, but not where the question is our own.
            Some(state) if !headers.contains_key(TRACESTATE) => {
                if let Ok(state) = HeaderValue::from_str(state) {
                    headers.insert(TRACESTATE, state);
                }
            }
            Some(_) => {}
        }
        context.span
    }
}

impl Series {
    /// All at zero, shown by `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let series = Self {
            exported: counter(
                "m3o_ingress_spans_exported_total",
                "Spans that the collector took",
            ),
            dropped: counter(
                "m3o_ingress_spans_dropped_total",
                "Spans that found the queue full, or that the collector did not take",
            ),
        };
        register(registry, Box::new(series.exported.clone()));
        register(registry, Box::new(series.dropped.clone()));
        series
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(share: Share) -> Sampler {
        Sampler {
            share,
            parent: Parent::Heeded,
        }
    }

    #[test]
    fn the_share_that_is_asked_for_is_recorded() {
        let ids: Vec<TraceId> = (0..20_000)
            .map(|_| TraceId::new(SystemTime::now()))
            .collect();
        let recorded = |share: &str| {
            let sampler = sampler(Share::parse(share).unwrap());
            ids.iter().filter(|id| sampler.flag(**id) != 0).count()
        };
        assert_eq!(recorded("0"), 0);
        assert_eq!(recorded("1"), ids.len());
        // Twenty standard deviations wide.
        let some = recorded("5%");
        assert!((380..1620).contains(&some), "{some}");
    }

    #[test]
    fn what_is_not_below_the_threshold_is_recorded() {
        let check = |share: &str, randomness: &str, recorded| {
            let sampler = sampler(Share::parse(share).unwrap());
            // The bits before the last 56 are not looked at.
            for others in ["00000000000000ff00", "ffffffffffffffff00"] {
                let value = format!("00-{others}{randomness}-00f067aa0ba902b7-00");
                let context = Context::parse(value.as_bytes()).unwrap();
                let flag = sampler.flag(context.trace);
                assert_eq!(flag == SAMPLED, recorded, "{share} {randomness}");
            }
        };
        check("0.5", "80000000000000", true);
        check("0.5", "7fffffffffffff", false);
        check("0.25", "c0000000000000", true);
        check("0.25", "bfffffffffffff", false);
        check("1/16", "f0000000000000", true);
        check("1/16", "efffffffffffff", false);
        check("1", "00000000000000", true);
        check("0", "ffffffffffffff", false);
    }

    #[test]
    fn each_of_the_last_bits_of_an_id_is_random() {
        let ids = || (0..200).map(|_| TraceId::new(SystemTime::now()).randomness());
        assert_eq!(ids().fold(0, |all, bits| all | bits), (1 << 56) - 1);
        assert_eq!(ids().fold(u64::MAX, |all, bits| all & bits), 0);
    }

    #[test]
    fn a_trusted_peer_decides_and_a_stranger_does_not() {
        let metrics = Metrics::new();
        let none = Tracer::new(&Config::default(), sampler(Share::NONE), metrics);
        let mut headers = HeaderMap::new();
        let theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert(TRACEPARENT, HeaderValue::from_static(theirs));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));

        let ours = none.begin(&headers, Trust::Proxy);
        assert!(ours.is_sampled());
        let mut sent = headers.clone();
        let span = ours.write_to(&mut sent);
        let passed = Context::of(&sent).unwrap();
        assert_eq!((passed.trace, passed.span), (ours.id, span));
        assert_eq!(Some(passed.trace), Context::of(&headers).map(|on| on.trace));
        assert_eq!(sent[TRACESTATE], "a=1");
        let mut own = HeaderMap::new();
        assert_ne!(ours.write_to(&mut own), span);
        assert_eq!(own[TRACESTATE], "a=1");

        let ours = none.begin(&headers, Trust::Stranger);
        assert!(!ours.is_sampled());
        assert_eq!(ours.link, Context::of(&headers));
        let mut sent = headers.clone();
        ours.write_to(&mut sent);
        assert_ne!(Context::of(&sent).unwrap().trace, ours.link.unwrap().trace);
        assert!(!sent.contains_key(TRACESTATE));
    }
}
