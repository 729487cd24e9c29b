//! Tells spans to a collector, over OTLP/HTTP: in batches, on the control thread, over a pool of its
//! own. A collector that is down costs spans, which are counted, and a line in the log now and then.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::time::{Instant, sleep, timeout};

use crate::causes::with_causes;
use crate::pool::{self, Origin, Pool};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{Config, Sampler, Tracer};
use crate::wire::{Body, Request, body};

mod message;
mod variables;

pub use variables::{HEADERS, Wrong, check_headers};

/// Where spans are told to, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Export {
    origin: Origin,
    /// Path and query, in which there may be a key.
    target: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    /// What is said of this process.
    resource: Vec<(String, String)>,
    /// What is recorded.
    pub sampler: Sampler,
}

/// Tells what a [`Tracer`] collects.
#[derive(Debug)]
pub struct Exporter {
    export: Export,
    tracer: Arc<Tracer>,
    pool: Rc<Pool>,
    metrics: Arc<Metrics>,
    delay: Duration,
    /// What is being told.
    pending: Option<Batch>,
    complained: Option<Instant>,
}

#[derive(Debug)]
struct Batch {
    message: Bytes,
    spans: u64,
    attempts: u32,
}

/// Why a collector did not take a batch.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Unreachable(#[from] pool::Error),
    #[error("its answer broke off: {0}")]
    BrokenOff(#[from] body::Error),
    #[error("it took too long")]
    TimedOut,
    #[error("it answered {0}")]
    Status(StatusCode, Option<Duration>),
}

/// How often a batch is told before it is given up.
const MOST_ATTEMPTS: u32 = 6;

/// The pause after the first failure; it doubles with each one more.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest that a collector is waited for when it says how long. It is never shorter than without a
/// word.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How long the last spans may take at the end of the process.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Between two complaints about a collector.
const COMPLAIN: Duration = Duration::from_secs(60);

/// The largest answer that is read.
const MAX_ANSWER: u64 = 64 << 10;

impl Exporter {
    /// Over `pool`, what `tracer` collects.
    #[must_use]
    pub fn new(
        export: Export,
        tracer: Arc<Tracer>,
        pool: Rc<Pool>,
        metrics: Arc<Metrics>,
        config: &Config,
    ) -> Self {
        Self {
            export,
            tracer,
            pool,
            metrics,
            delay: config.delay,
            pending: None,
            complained: None,
        }
    }

    /// Tells spans until `stop`, and then those that are left, if that does not take long.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = sleep(self.delay) => {}
                () = self.tracer.batch() => {}
            }
            tokio::select! {
                () = &mut stop => break,
                () = self.tell_all() => {}
            }
        }
        let _late = timeout(LAST_WORDS, self.tell_all()).await;
        let lost = self.pending.take().map_or(0, |batch| batch.spans);
        self.metrics.spans.dropped.inc_by(lost);
        loop {
            let left = self.tracer.take();
            if left.is_empty() {
                return;
            }
            self.metrics.spans.dropped.inc_by(left.len() as u64);
        }
    }

    /// Tells what there is, batch after batch. What it is dropped in is told next time.
    async fn tell_all(&mut self) {
        loop {
            if self.pending.is_none() {
                let spans = self.tracer.take();
                if spans.is_empty() {
                    return;
                }
                self.pending = Some(Batch {
                    spans: spans.len() as u64,
                    message: message::request(&self.export.resource, spans).into(),
                    attempts: 0,
                });
            }
            if let Some(pause) = self.tell().await {
                sleep(pause).await;
            }
        }
    }

    /// Tells the batch; gives how long to wait before it may be told again.
    async fn tell(&mut self) -> Option<Duration> {
        let batch = self.pending.as_mut()?;
        batch.attempts += 1;
        let (attempts, spans) = (batch.attempts, batch.spans);
        let request = self.export.request(batch.message.clone());
        let failure = match self.send(request).await {
            Ok(answer) => {
                let rejected = message::rejected(&answer).min(spans);
                self.metrics.spans.exported.inc_by(spans - rejected);
                self.metrics.spans.dropped.inc_by(rejected);
                self.pending = None;
                return None;
            }
            Err(failure) => failure,
        };
        self.complain(&failure);
        match failure.pause(attempts) {
            Some(pause) if attempts < MOST_ATTEMPTS => Some(pause),
            _ => {
                self.metrics.spans.dropped.inc_by(spans);
                self.pending = None;
                None
            }
        }
    }

    async fn send(&self, request: Request) -> Result<Bytes, Failure> {
        let sending = async {
            let response = self.pool.send(&self.export.origin, request).await?;
            let (head, body) = response.into_parts();
            let answer = body.collect(MAX_ANSWER).await?;
            match head.status {
                status if status.is_success() => Ok(answer),
                status => Err(Failure::Status(status, retry_after(&head.headers))),
            }
        };
        timeout(self.export.timeout, sending)
            .await
            .unwrap_or(Err(Failure::TimedOut))
    }

    fn complain(&mut self, failure: &Failure) {
        if self.complained.is_some_and(|at| at.elapsed() < COMPLAIN) {
            return;
        }
        self.complained = Some(Instant::now());
        let (collector, error) = (&self.export.origin, with_causes(failure));
        tracing::warn!(%collector, error, "the collector of spans does not take them");
    }
}

impl Export {
    fn request(&self, message: Bytes) -> Request {
        let mut request = Request::new(Body::from(message));
        *request.method_mut() = Method::POST;
        // Read from a URL, it is one.
        *request.uri_mut() = self.target.parse().unwrap_or_default();
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        headers.insert(header::HOST, self.origin.authority().clone());
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        request
    }
}

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const USER_AGENT: &str = concat!("m3o-ingress/", env!("CARGO_PKG_VERSION"));

impl std::fmt::Debug for Export {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Export")
            .field("origin", &self.origin)
            .field("sampler", &self.sampler)
            .finish_non_exhaustive()
    }
}

impl Failure {
    /// How long to wait before the next attempt; `None`: there is none. What may be repeated is a list
    /// of the protocol.
    fn pause(&self, attempts: u32) -> Option<Duration> {
        let asked = match self {
            Self::Unreachable(_) | Self::BrokenOff(_) | Self::TimedOut => None,
            Self::Status(
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT,
                asked,
            ) => *asked,
            Self::Status(..) => return None,
        };
        let own = spread(FIRST_PAUSE * (1 << (attempts - 1).min(5)));
        // What it asks for may be nothing, or long past.
        Some(asked.map_or(own, |asked| asked.clamp(own, LONGEST_PAUSE)))
    }
}

/// Somewhere in the upper half, so that those who failed together do not come back together.
fn spread(pause: Duration) -> Duration {
    let (_, random) = uuid::Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext)).as_u64_pair();
    pause / 2 + (pause / 2).mul_f64((random & 0xffff) as f64 / f64::from(0xffff))
}

/// `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_repeated_is_after_a_pause_that_grows() {
        let status = |code| Failure::Status(StatusCode::from_u16(code).unwrap(), None);
        for code in [429, 502, 503, 504] {
            let (first, third) = (status(code).pause(1), status(code).pause(3));
            assert!(first.unwrap() <= FIRST_PAUSE, "{code}");
            assert!(third.unwrap() >= FIRST_PAUSE * 2, "{code}");
        }
        for code in [301, 400, 401, 404, 413, 500, 501] {
            assert_eq!(status(code).pause(1), None, "{code}");
        }
        let asked = |after| {
            let code = StatusCode::SERVICE_UNAVAILABLE;
            Failure::Status(code, Some(Duration::from_secs(after))).pause(1)
        };
        assert_eq!(asked(7), Some(Duration::from_secs(7)));
        assert_eq!(asked(u64::MAX), Some(LONGEST_PAUSE));
        assert!(asked(0).unwrap() >= FIRST_PAUSE / 2);
    }

    #[test]
    fn a_collector_says_when_to_come_back() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }
}
