//! One request, observed: one log line and its metrics when it ends, also if it is dropped early.

use std::cell::Cell;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::access::{Entry, clip, version_text};
use super::load::InFlight;
use super::log::{Log, Style};
use super::metrics::{CacheResult, Metrics, RouteKind};
use super::redact;
use crate::id::{RequestId, WorkloadId};
use crate::wire::body::{self, Answer, Cut};
use crate::wire::tunnel::Tunnel;
use crate::wire::{Peer, Request};

/// What an exchange reports to.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The series.
    pub metrics: Arc<Metrics>,
    /// The sink of the access log.
    pub log: Log,
    /// Whether there is an access log.
    pub access: bool,
}

impl Telemetry {
    fn writes_lines(&self) -> bool {
        self.access && self.log.is_on()
    }
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange {
    telemetry: Arc<Telemetry>,
    started: Instant,
    id: RequestId,
    line: Option<Line>,
    /// Where the request went.
    pub route: RouteKind,
    /// The app or function, where it went to one.
    pub workload: Option<WorkloadId>,
    /// What the cache had.
    pub cache: Option<CacheResult>,
    /// The error token of `Proxy-Status`, where the answer is our own.
    pub error: Option<&'static str>,
    /// What really happened, for the log alone.
    pub cause: Option<String>,
    /// Its place among the requests of its workload, given up when it ends.
    pub in_flight: Option<InFlight>,
    status: Option<StatusCode>,
    sent: u64,
    outcome: Outcome,
    /// HEAD: whatever body the answer has is not sent.
    to_head: bool,
}

/// What only the access log needs. Clones of what the request holds anyway.
struct Line {
    /// `None` where what arrived was no request.
    request: Option<RequestLine>,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    client: IpAddr,
}

struct RequestLine {
    method: Method,
    uri: Uri,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Complete,
    /// The client went before the end.
    ClientLeft,
    /// The backend broke off, or the ingress did: at the end of its drain, say.
    Cut,
}

/// nginx's number for a client that left before its answer.
const CLIENT_LEFT: u16 = 499;

thread_local! {
    static CLIENT_IS_LEAVING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `dropping`, which ends exchanges because their client has left. Any other exchange that is
/// dropped before its end was cut by the ingress itself.
pub fn client_left(dropping: impl FnOnce()) {
    /// Also where `dropping` panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            CLIENT_IS_LEAVING.set(false);
        }
    }
    let _reset = Reset;
    CLIENT_IS_LEAVING.set(true);
    dropping();
}

impl Exchange {
    /// Begins with the head of `request`. Boxed, because it goes on with the response through many hands.
    #[must_use]
    pub fn begin(
        telemetry: &Arc<Telemetry>,
        request: &Request,
        peer: &Peer,
        id: RequestId,
    ) -> Box<Self> {
        let line = telemetry.writes_lines().then(|| Line {
            request: Some(RequestLine {
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
            }),
            host: request.headers().get(header::HOST).cloned(),
            user_agent: request.headers().get(header::USER_AGENT).cloned(),
            client: peer.address.ip(),
        });
        let to_head = request.method() == Method::HEAD;
        Box::new(Self::new(telemetry, id, line, to_head))
    }

    /// Notes what was no request, or not whole in time, and was answered with `status`.
    pub fn refused(telemetry: &Arc<Telemetry>, peer: &Peer, id: RequestId, status: StatusCode) {
        let line = telemetry.writes_lines().then(|| Line {
            request: None,
            host: None,
            user_agent: None,
            client: peer.address.ip(),
        });
        let mut exchange = Self::new(telemetry, id, line, false);
        exchange.status = Some(status);
        exchange.error = Some(match status {
            StatusCode::SERVICE_UNAVAILABLE => "connection_limit_reached",
            _ => "http_request_error",
        });
        exchange.outcome = Outcome::Complete;
    }

    fn new(telemetry: &Arc<Telemetry>, id: RequestId, line: Option<Line>, to_head: bool) -> Self {
        telemetry.metrics.active_requests.inc();
        Self {
            telemetry: Arc::clone(telemetry),
            started: Instant::now(),
            id,
            line,
            route: RouteKind::Unknown,
            workload: None,
            cache: None,
            error: None,
            cause: None,
            in_flight: None,
            status: None,
            sent: 0,
            outcome: Outcome::Cut,
            to_head,
        }
    }

    /// The id of the request.
    #[must_use]
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Goes on with the body of the answer, and ends with it.
    pub fn observe<B: HttpBody>(
        mut self: Box<Self>,
        response: http::Response<B>,
    ) -> http::Response<Observed<B>> {
        self.status = Some(response.status());
        let bodiless = self.to_head
            || matches!(
                response.status(),
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        response.map(|body| {
            if bodiless || body.is_end_stream() {
                self.outcome = Outcome::Complete;
            }
            Observed {
                body,
                exchange: self,
            }
        })
    }

    /// Whether any path may hold the token of a mail: on a user host, and where the host could not be
    /// read.
    fn may_be_a_token(&self, status: u16) -> bool {
        match self.route {
            RouteKind::Verify => true,
            RouteKind::Unknown => status == StatusCode::BAD_REQUEST.as_u16(),
            _ => false,
        }
    }

    fn write_line(&self, line: &Line, status: u16) {
        let text = |value: &Option<HeaderValue>| {
            value
                .as_ref()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let request = line.request.as_ref();
        let host = match request.and_then(|request| request.uri.authority()) {
            Some(authority) => Some(authority.as_str().to_owned()),
            None => text(&line.host),
        };
        let path = request.map_or("", |request| request.uri.path());
        let path = if path.len() > 1 && self.may_be_a_token(status) {
            format!("/{}", redact::HIDDEN).into()
        } else {
            redact::path(path)
        };
        let query = request
            .and_then(|request| request.uri.query())
            .map(redact::query);
        let user_agent = text(&line.user_agent);
        let entry = Entry {
            timestamp: jiff::Timestamp::now().to_string(),
            kind: "access",
            client: line.client,
            method: redact::method(request.map_or("_OTHER", |request| request.method.as_str())),
            host: host.as_deref().map(redact::host),
            path: clip(&path),
            query: query.as_deref().map(clip),
            version: request.map(|request| version_text(request.version)),
            status,
            duration_ms: (self.started.elapsed().as_secs_f64() * 1e6).round() / 1e3,
            response_bytes: self.sent,
            route: self.route.as_str(),
            app: self.workload.as_ref().map(WorkloadId::as_str),
            cache: self.cache.map(CacheResult::as_str),
            outcome: match self.outcome {
                Outcome::Complete => "complete",
                Outcome::ClientLeft => "client_left",
                Outcome::Cut => "cut",
            },
            proxy_error: self.error,
            cause: self.cause.as_deref(),
            user_agent: user_agent.as_deref().map(clip),
            request_id: self.id.as_str(),
        };
        let mut bytes = match self.telemetry.log.style() {
            Style::Json => serde_json::to_vec(&entry).unwrap_or_default(),
            Style::Human => entry.to_human().into_bytes(),
        };
        bytes.push(b'\n');
        self.telemetry.log.write(bytes);
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Line([hidden])")
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let metrics = &self.telemetry.metrics;
        metrics.active_requests.dec();
        if std::thread::panicking() {
            self.outcome = Outcome::Cut;
            self.status.get_or_insert(StatusCode::INTERNAL_SERVER_ERROR);
        }
        if CLIENT_IS_LEAVING.get() {
            self.outcome = Outcome::ClientLeft;
        }
        let unanswered = match self.outcome {
            Outcome::ClientLeft => CLIENT_LEFT,
            Outcome::Complete | Outcome::Cut => StatusCode::SERVICE_UNAVAILABLE.as_u16(),
        };
        let status = self.status.map_or(unanswered, |status| status.as_u16());
        metrics.request_ended(self.route, status, self.started.elapsed());
        if let Some(line) = &self.line {
            self.write_line(line, status);
        }
    }
}

/// A response body whose exchange ends with it.
#[derive(Debug)]
pub struct Observed<B> {
    body: B,
    exchange: Box<Exchange>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Observed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.exchange.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                if this.body.is_end_stream() {
                    this.exchange.outcome = Outcome::Complete;
                }
            }
            Poll::Ready(Some(Err(_))) => this.exchange.outcome = Outcome::Cut,
            Poll::Ready(None) => this.exchange.outcome = Outcome::Complete,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Answer for Observed<B>
where
    B: Answer + HttpBody<Data = Bytes, Error = body::Error>,
{
    fn poll_upload(&mut self, context: &mut Context<'_>) {
        self.body.poll_upload(context);
    }

    fn take_tunnel(&mut self) -> Option<Tunnel> {
        self.body.take_tunnel()
    }

    fn cut(&mut self, cut: Cut) {
        self.exchange.outcome = match cut {
            Cut::Body => Outcome::Cut,
            Cut::Client => Outcome::ClientLeft,
        };
    }
}
