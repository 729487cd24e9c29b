//! Every series of the process in one struct. Only this module knows prometheus.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::runtime::RuntimeMetrics;

use super::acme::Orders;
use super::outliers::Ejections;
use super::tls::Tls;

/// The kinds of route, as the label `http_route` and the log name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// `/api/…` and `/v1/…`.
    Api,
    /// `<id>.m3o.app`.
    App,
    /// `<id>.m3o.sh`.
    Function,
    /// Short links.
    Link,
    /// Verification links.
    Verify,
    /// The list of apps.
    Index,
    /// Proofs of custom domains.
    Proof,
    /// Everything that leads nowhere.
    Unknown,
}

impl RouteKind {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    const ALL: [Self; 8] = [
        Self::Api,
        Self::App,
        Self::Function,
        Self::Link,
        Self::Verify,
        Self::Index,
        Self::Proof,
        Self::Unknown,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::App => "app",
            Self::Function => "function",
            Self::Link => "link",
            Self::Verify => "verify",
            Self::Index => "index",
            Self::Proof => "proof",
            Self::Unknown => "unknown",
        }
    }
}

/// What the resolve cache had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// An entry that needs no asking.
    Fresh,
    /// An entry that is being refreshed in the background.
    Stale,
    /// An old entry, because the upstream does not answer.
    Rescued,
    /// "No such app", remembered.
    Negative,
    /// Nothing: the upstream was asked.
    Miss,
}

impl CacheResult {
    const ALL: [Self; 5] = [
        Self::Fresh,
        Self::Stale,
        Self::Rescued,
        Self::Negative,
        Self::Miss,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Rescued => "rescued",
            Self::Negative => "negative",
            Self::Miss => "miss",
        }
    }
}

/// Why a request was sent once more, over a fresh connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not a byte of it had left, or the server says that it has not looked at it.
    Unsent,
    /// The kept connection broke off, and the request may arrive twice.
    BrokenOff,
}

impl Retry {
    const ALL: [Self; 2] = [Self::Unsent, Self::BrokenOff];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "unsent",
            Self::BrokenOff => "broken_off",
        }
    }
}

/// What there was no room for, and the request or connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// One more connection: `limits.connections` is reached.
    Connections,
    /// One more connection of this address: `limits.per_peer` is reached.
    Peer,
    /// One more descriptor: only those are left that are kept for what must go on.
    Descriptors,
    /// One more request to this workload: `limits.per_workload` is reached, tunnels included.
    Workload,
    /// One more request to this workload while a worker has more to do than it can.
    Overload,
    /// One more question to the upstream about a workload that is not known.
    Lookups,
    /// One more request of this client: its rate is used up.
    RatePeer,
    /// One more call with this key.
    RateKey,
    /// One more request to this app.
    RateApp,
}

impl Shed {
    const ALL: [Self; 9] = [
        Self::Connections,
        Self::Peer,
        Self::Descriptors,
        Self::Workload,
        Self::Overload,
        Self::Lookups,
        Self::RatePeer,
        Self::RateKey,
        Self::RateApp,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Peer => "peer",
            Self::Descriptors => "descriptors",
            Self::Workload => "workload",
            Self::Overload => "overload",
            Self::Lookups => "lookups",
            Self::RatePeer => "rate_peer",
            Self::RateKey => "rate_key",
            Self::RateApp => "rate_app",
        }
    }
}

/// Why a connection is closed for its PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHeader {
    /// Its peer is not trusted to announce anybody.
    Untrusted,
    /// It begins with none, or with one that breaks off or is malformed.
    Malformed,
    /// The header did not arrive in time.
    TimedOut,
}

impl NoHeader {
    const ALL: [Self; 3] = [Self::Untrusted, Self::Malformed, Self::TimedOut];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Malformed => "malformed",
            Self::TimedOut => "timed_out",
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
    durations: Vec<Histogram>,
    resolve_cache: Vec<IntCounter>,
    retries: Vec<IntCounter>,
    shed: Vec<IntCounter>,
    no_header: Vec<IntCounter>,
    /// Requests being answered right now.
    pub active_requests: IntGauge,
    /// Connections of clients.
    pub connections: IntGauge,
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
    /// Panics, each of which cost a request or a task.
    pub panics: IntCounter,
    /// Log lines that found the queue full.
    pub log_lines_dropped: IntCounter,
}

/// The status classes, `1xx` to `5xx`.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The buckets that OpenTelemetry advises for request durations, in seconds.
const BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

impl Metrics {
    /// All series at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "http_server_request_duration_seconds",
                "Time from a request's head to the end of its response",
            )
            .buckets(BUCKETS.to_vec()),
            &["http_route", "http_response_status_class"],
        )
        .expect("static name and labels");
        let cache = counters(
            "m3o_ingress_resolve_cache_total",
            "Lookups of backends, by what the cache had",
            "result",
        );
        let pool = counters(
            "m3o_ingress_pool_connections_total",
            "Connections to backends and the upstream",
            "result",
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
            durations: RouteKind::ALL
                .iter()
                .flat_map(|route| CLASSES.map(|class| [route.as_str(), class]))
                .map(|labels| durations.with_label_values(&labels))
                .collect(),
            runtimes: Mutex::default(),
            tasks: gauge("m3o_ingress_tasks", "Tasks that have not ended"),
            resolve_cache: each(&cache, CacheResult::ALL.map(CacheResult::as_str)),
            retries: each(&retries, Retry::ALL.map(Retry::as_str)),
            active_requests: gauge("http_server_active_requests", "Requests being answered"),
            connections: gauge("m3o_ingress_connections", "Connections of clients"),
            pool_opened: pool.with_label_values(&["opened"]),
            pool_reused: pool.with_label_values(&["reused"]),
            pool_failed: pool.with_label_values(&["failed"]),
            pool_idle: gauge("m3o_ingress_pool_idle", "Connections kept idle"),
            shed: each(&shed, Shed::ALL.map(Shed::as_str)),
            no_header: each(&no_header, NoHeader::ALL.map(NoHeader::as_str)),
            acme: Orders::new(&registry),
            ejections: Ejections::new(&registry),
            tls: Tls::new(&registry),
            overloaded: gauge(
                "m3o_ingress_overloaded_workers",
                "Workers that have more to do than they can",
            ),
            panics: counter(
                "m3o_ingress_panics_total",
                "Panics, each of which cost a request or a task",
            ),
            log_lines_dropped: counter(
                "m3o_ingress_log_lines_dropped_total",
                "Log lines that found the queue full",
            ),
            registry,
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 15] = [
            Box::new(durations),
            Box::new(cache),
            Box::new(pool),
            Box::new(retries),
            Box::new(shed),
            Box::new(no_header),
            Box::new(build_info()),
            Box::new(metrics.tasks.clone()),
            Box::new(metrics.active_requests.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.pool_idle.clone()),
            Box::new(metrics.overloaded.clone()),
            Box::new(metrics.panics.clone()),
            Box::new(metrics.log_lines_dropped.clone()),
            Box::new(prometheus::process_collector::ProcessCollector::for_self()),
        ];
        for collector in collectors {
            metrics
                .registry
                .register(collector)
                .expect("every name is registered once");
        }
        Arc::new(metrics)
    }

    /// Counts one request that has ended.
    pub fn request_ended(&self, route: RouteKind, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        let series = route as usize * CLASSES.len() + class;
        self.durations[series].observe(took.as_secs_f64());
    }

    /// Counts one lookup of a backend.
    pub fn resolved(&self, result: CacheResult) {
        self.resolve_cache[result as usize].inc();
    }

    /// Counts one request that is sent once more.
    pub fn retried(&self, reason: Retry) {
        self.retries[reason as usize].inc();
    }

    /// Counts what was turned away.
    pub fn shed(&self, reason: Shed) {
        self.shed[reason as usize].inc();
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
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
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

fn each<const N: usize>(series: &IntCounterVec, labels: [&str; N]) -> Vec<IntCounter> {
    labels
        .map(|label| series.with_label_values(&[label]))
        .into()
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
    use super::*;

    #[test]
    fn what_is_counted_is_shown_under_its_labels() {
        let metrics = Metrics::new();
        metrics.request_ended(RouteKind::Verify, 302, Duration::from_millis(7));
        metrics.resolved(CacheResult::Negative);
        metrics.retried(Retry::BrokenOff);
        metrics.shed(Shed::Descriptors);
        metrics.closed_for_header(NoHeader::TimedOut);
        let text = String::from_utf8(metrics.to_text()).unwrap();
        for line in [
            r#"http_server_request_duration_seconds_count{http_response_status_class="3xx",http_route="verify"} 1"#,
            r#"m3o_ingress_resolve_cache_total{result="negative"} 1"#,
            r#"m3o_ingress_resolve_cache_total{result="miss"} 0"#,
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
