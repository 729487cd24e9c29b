//! Every series of the process in one struct. Only this folder knows prometheus.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricType;
use prometheus::{
    Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::RuntimeMetrics;

use super::acme::Orders;
pub use super::apps::MOST_APPS;
use super::apps::{Apps, Served};
use super::client::Clients;
use super::connections::Connections;
use super::exposition;
use super::histogram::{Histogram, SECONDS, steps};
pub use super::labels::{AppKind, CacheResult, ErrorType, NoHeader, Retry, RouteKind, Shed};
use super::load::Load;
use super::outliers::Ejections;
use super::platform::Platform;
use super::reloads::Reloads;
pub use super::requests::MOST_COMBINATIONS;
use super::requests::{Ended, Requests};
use super::tls::Tls;
use super::traces;
use crate::id::WorkloadId;
use crate::units;

/// `[metrics]`: how many series there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Apps and functions with series of their own: the busiest.
    pub apps: usize,
    /// Those among them that have some always.
    #[serde(with = "units::one_or_many")]
    pub always: Vec<WorkloadId>,
    /// Combinations of method, status, version, scheme and route with series of their own.
    pub combinations: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            apps: 50,
            always: Vec::new(),
            combinations: 512,
        }
    }
}

/// The series, each ready to be counted without a lookup.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Those whose tasks are counted.
    runtimes: Mutex<Vec<RuntimeMetrics>>,
    tasks: IntGauge,
    pub(super) requests: Requests,
    apps: Apps,
    pub(super) clients: Clients,
    lateness: Histogram,
    errors: Vec<IntCounter>,
    retries: Vec<IntCounter>,
    shed: Vec<IntCounter>,
    no_header: Vec<IntCounter>,
    /// Connections of clients.
    pub connections: IntGauge,
    /// How many there may be.
    pub connections_limit: IntGauge,
    /// What is spoken over them.
    pub connections_of: Connections,
    /// Connections opened to backends and the upstream.
    pub pool_opened: IntCounter,
    /// Requests sent over a connection that was kept.
    pub pool_reused: IntCounter,
    /// Connections that could not be made.
    pub pool_failed: IntCounter,
    /// Connections kept idle.
    pub pool_idle: IntGauge,
    /// Addresses of backends that are left out for a while.
    pub ejections: Ejections,
    /// Workers that have more to do than they can.
    pub overloaded: IntGauge,
    /// Handshakes and certificates.
    pub tls: Tls,
    /// Those of certificates that are ordered.
    pub acme: Orders,
    platform: OnceLock<Platform>,
    /// Those of the configuration.
    pub reloads: Reloads,
    /// Panics, each of which cost a request or a task.
    pub panics: IntCounter,
    /// Spans of traces.
    pub spans: traces::Series,
    /// Log lines that found the queue full, or no room where they are written.
    pub log_lines_dropped: IntCounter,
}

impl Metrics {
    /// All series at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let pool = counters(
            "m3o_ingress_pool_connections_total",
            "Connections to backends and the upstream",
            "result",
        );
        let errors = counters(
            "m3o_ingress_errors_total",
            "Errors that the ingress answered with, by their type in Proxy-Status",
            "error",
        );
        let retries = counters(
            "m3o_ingress_backend_retries_total",
            "Requests sent once more, because the connection they were sent over was dead",
            "reason",
        );
        let shed = counters(
            "m3o_ingress_shed_total",
            "Requests and connections turned away for want of room",
            "reason",
        );
        let no_header = counters(
            "m3o_ingress_proxy_protocol_refused_total",
            "Connections closed for their PROXY header",
            "reason",
        );
        let metrics = Self {
            requests: Requests::new(),
            apps: Apps::new(),
            clients: Clients::new(),
            lateness: Histogram::new(&SECONDS),
            errors: each(&errors, ErrorType::ALL.map(ErrorType::as_str)),
            runtimes: Mutex::default(),
            tasks: gauge("m3o_ingress_tasks", "Tasks that have not ended"),
            retries: each(&retries, Retry::ALL.map(Retry::as_str)),
            connections: gauge("m3o_ingress_connections", "Connections of clients"),
            connections_limit: gauge(
                "m3o_ingress_connections_limit",
                "Connections of clients that there may be at once",
            ),
            connections_of: Connections::new(&registry),
            pool_opened: pool.with_label_values(&["opened"]),
            pool_reused: pool.with_label_values(&["reused"]),
            pool_failed: pool.with_label_values(&["failed"]),
            pool_idle: gauge("m3o_ingress_pool_idle", "Connections kept idle"),
            shed: each(&shed, Shed::ALL.map(Shed::as_str)),
            no_header: each(&no_header, NoHeader::ALL.map(NoHeader::as_str)),
            acme: Orders::new(&registry),
            reloads: Reloads::new(&registry),
            ejections: Ejections::new(&registry),
            tls: Tls::new(&registry),
            platform: OnceLock::new(),
            overloaded: gauge(
                "m3o_ingress_overloaded_workers",
                "Workers that have more to do than they can",
            ),
            panics: counter(
                "m3o_ingress_panics_total",
                "Panics, each of which cost a request or a task",
            ),
            spans: traces::Series::new(&registry),
            log_lines_dropped: counter(
                "m3o_ingress_log_lines_dropped_total",
                "Log lines that found the queue full, or no room where they are written",
            ),
            registry,
        };
        let collectors: [Box<dyn Collector>; 14] = [
            Box::new(pool),
            Box::new(retries),
            Box::new(shed),
            Box::new(no_header),
            Box::new(build_info()),
            Box::new(errors),
            Box::new(metrics.tasks.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.connections_limit.clone()),
            Box::new(metrics.pool_idle.clone()),
            Box::new(metrics.overloaded.clone()),
            Box::new(metrics.panics.clone()),
            Box::new(metrics.log_lines_dropped.clone()),
            Box::new(ProcessCollector::for_self()),
        ];
        for collector in collectors {
            register(&metrics.registry, collector);
        }
        metrics.follow(&Config::default());
        Arc::new(metrics)
    }

    /// Shows as many series as `config` says from now on. Those of requests that are there stay.
    pub fn follow(&self, config: &Config) {
        self.requests.limit_to(config.combinations);
        self.apps.follow(config);
    }

    /// The load of an app that exists, and is counted from now on.
    #[must_use]
    pub fn load(&self, kind: AppKind, id: WorkloadId) -> Arc<Load> {
        self.apps.load(kind, id)
    }

    /// Counts one request that has ended, for its app too where it has one.
    pub(super) fn request_ended(&self, ended: &Ended, load: Option<&Load>) {
        self.requests.end(ended);
        if let Some(load) = load {
            let served = Served {
                status: ended.status,
                took: steps(ended.took),
                received: ended.received.unwrap_or_default(),
                sent: ended.sent,
            };
            self.apps.served(load, served);
        }
    }

    /// Counts one answer that is an error of ours.
    pub(super) fn failed(&self, error: ErrorType) {
        self.errors[error as usize].inc();
    }

    /// Counts one lookup of a backend.
    pub fn resolved(&self, kind: AppKind, result: CacheResult) {
        self.requests.resolved(kind, result);
    }

    /// Counts one request that is sent once more.
    pub fn retried(&self, reason: Retry) {
        self.retries[reason as usize].inc();
    }

    /// Counts what was turned away.
    pub fn shed(&self, reason: Shed) {
        self.shed[reason as usize].inc();
    }

    /// Counts one look of a worker at its clock, which came so late.
    pub fn late(&self, late: Duration) {
        self.lateness.observe_time(late);
    }

    /// The series of the embedded platform, which are shown from now on.
    #[must_use]
    pub fn platform(&self) -> Platform {
        let platform = || Platform::new(&self.registry);
        self.platform.get_or_init(platform).clone()
    }

    /// Counts the tasks of this runtime too, from now on.
    pub fn count_tasks_of(&self, runtime: RuntimeMetrics) {
        self.runtimes().push(runtime);
    }

    fn runtimes(&self) -> MutexGuard<'_, Vec<RuntimeMetrics>> {
        // What a panic left behind is a list all the same.
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection that is closed for its PROXY header.
    pub fn closed_for_header(&self, reason: NoHeader) {
        self.no_header[reason as usize].inc();
    }

    /// Everything in the text format of Prometheus.
    #[must_use]
    pub fn to_text(&self) -> Vec<u8> {
        let alive: usize = self
            .runtimes()
            .iter()
            .map(RuntimeMetrics::num_alive_tasks)
            .sum();
        self.tasks.set(i64::try_from(alive).unwrap_or(i64::MAX));
        let mut families = self.requests.families();
        families.extend(self.apps.families());
        families.push(self.clients.family());
        families.push(exposition::family(
            "m3o_ingress_worker_lateness_seconds",
            "How late workers look at their clocks, which they do ten times a second",
            MetricType::HISTOGRAM,
            vec![exposition::histogram(&[], self.lateness.to_proto())],
        ));
        families.extend(self.registry.gather());
        // Without a series there is no such metric yet.
        families.retain(|family| !family.get_metric().is_empty());
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("writing to memory does not fail");
        text
    }
}

/// The type of [`Metrics::to_text`].
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("static name")
}

pub(super) fn counters(name: &str, help: &str, label: &str) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), &[label]).expect("static name and label")
}

pub(super) fn each<const N: usize>(series: &IntCounterVec, labels: [&str; N]) -> Vec<IntCounter> {
    labels
        .map(|label| series.with_label_values(&[label]))
        .into()
}

pub(super) fn register(registry: &Registry, collector: Box<dyn Collector>) {
    registry
        .register(collector)
        .expect("every name is registered once");
}

fn build_info() -> IntGaugeVec {
    let build = IntGaugeVec::new(
        Opts::new(
            "m3o_ingress_build_info",
            "Always 1; the version is the label",
        ),
        &["version"],
    )
    .expect("static name and labels");
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    build
}

pub(super) fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("static name")
}

#[cfg(test)]
mod tests {
    use http::{Method, Version};

    use super::super::requests::Asked;
    use super::*;
    use crate::wire::Scheme;

    #[test]
    fn what_is_counted_is_shown_under_its_labels() {
        let metrics = Metrics::new();
        metrics.requests.begin();
        let ended = Ended {
            asked: Asked::by(&Method::GET, Version::HTTP_11, Scheme::Http),
            route: RouteKind::Verify,
            status: 302,
            took: Duration::from_millis(7),
            received: None,
            sent: 0,
        };
        metrics.request_ended(&ended, None);
        metrics.failed(ErrorType::Loop);
        metrics.late(Duration::from_millis(300));
        metrics.resolved(AppKind::Function, CacheResult::Negative);
        metrics.retried(Retry::BrokenOff);
        metrics.shed(Shed::Descriptors);
        metrics.closed_for_header(NoHeader::TimedOut);
        let text = String::from_utf8(metrics.to_text()).unwrap();
        for line in [
            r#"http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="302",http_route="verify",network_protocol_version="1.1",url_scheme="http"} 1"#,
            r#"m3o_ingress_errors_total{error="proxy_loop_detected"} 1"#,
            r#"m3o_ingress_errors_total{error="proxy_internal_error"} 0"#,
            r#"m3o_ingress_worker_lateness_seconds_bucket{le="0.5"} 1"#,
            r#"m3o_ingress_resolve_cache_total{kind="function",result="negative"} 1"#,
            r#"m3o_ingress_resolve_cache_total{kind="app",result="negative"} 0"#,
            r#"m3o_ingress_backend_retries_total{reason="broken_off"} 1"#,
            r#"m3o_ingress_backend_retries_total{reason="unsent"} 0"#,
            r#"m3o_ingress_shed_total{reason="descriptors"} 1"#,
            r#"m3o_ingress_shed_total{reason="connections"} 0"#,
            r#"m3o_ingress_proxy_protocol_refused_total{reason="timed_out"} 1"#,
            "http_server_active_requests 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn tasks_are_counted_until_they_end() {
        let metrics = Metrics::new();
        metrics.count_tasks_of(tokio::runtime::Handle::current().metrics());
        let shows = |line: &str| String::from_utf8(metrics.to_text()).unwrap().contains(line);
        assert!(shows("m3o_ingress_tasks 0\n"));
        let task = tokio::spawn(std::future::pending::<()>());
        assert!(shows("m3o_ingress_tasks 1\n"));
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(shows("m3o_ingress_tasks 0\n"));
    }
}
