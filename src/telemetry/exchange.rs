//! One request, observed: one log line and its metrics when it ends, also if it is dropped early.

use std::borrow::Cow;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::access::{Access, Call, Entry, Keep, Outcome, unanswered};
use super::client::{Asking, Side};
use super::load::{InFlight, Load};
use super::log::Log;
use super::metrics::{CacheResult, ErrorType, Metrics, RouteKind};
use super::redact;
use super::requests::{self, Ended};
use super::traces::{Trace, Tracer};
use crate::id::{RequestId, WorkloadId};
use crate::rates::Standing;
use crate::wire::body::{self, Answer, Cut, Piece, Polled};
use crate::wire::tunnel::Tunnel;
use crate::wire::{Peer, Request, Trust};
use line::Line;

mod line;

/// What an exchange reports to.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The series.
    pub metrics: Arc<Metrics>,
    /// The sink of the access log.
    pub log: Log,
    /// Which requests have a line in it.
    pub access: Access,
    /// Who collects spans; `None`: nobody does.
    pub tracer: Option<Arc<Tracer>>,
}

impl Telemetry {
    fn writes_lines(&self) -> bool {
        self.access.is_on() && self.log.is_on()
    }
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange {
    telemetry: Arc<Telemetry>,
    started: Instant,
    id: RequestId,
    // Boxed, because most have none.
    line: Option<Box<Line>>,
    asked: requests::Asked,
    /// Octets that came of the request's body; `None` where it has none.
    received: Option<Rc<Cell<u64>>>,
    trace: Option<Box<Trace>>,
    /// Where the request went.
    pub route: RouteKind,
    /// The app or function, where it went to one.
    pub workload: Option<WorkloadId>,
    /// What the cache had.
    pub cache: Option<CacheResult>,
    /// What went wrong, where the answer is our own.
    pub error: Option<ErrorType>,
    /// What really happened, for the log alone.
    pub cause: Option<String>,
    /// Its place among the requests of its workload, given up when it ends.
    pub in_flight: Option<InFlight>,
    /// Where the workload's requests are counted.
    pub load: Option<Arc<Load>>,
    /// How much is left of the tightest rate that it counted for.
    pub standing: Option<Standing>,
    status: Option<StatusCode>,
    sent: u64,
    outcome: Outcome,
    /// HEAD: whatever body the answer has is not sent.
    to_head: bool,
}

/// Whether what is dropped now is dropped because its client has left.
pub(super) fn is_client_leaving() -> bool {
    CLIENT_IS_LEAVING.get()
}

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
        trust: Trust,
        id: RequestId,
    ) -> Box<Self> {
        let tracer = telemetry.tracer.as_ref();
        let trace = tracer.map(|tracer| Box::new(tracer.begin(request.headers(), trust)));
        let is_wanted =
            telemetry.writes_lines() || trace.as_ref().is_some_and(|trace| trace.is_sampled());
        let line = is_wanted.then(|| Box::new(Line::of(request, peer, telemetry.log.layout())));
        let asked = requests::Asked::by(request.method(), request.version(), peer.scheme);
        let started = peer.timer.now();
        let mut exchange = Box::new(Self::new(telemetry, started, id, line, asked));
        exchange.to_head = request.method() == Method::HEAD;
        exchange.received = request.body().received();
        exchange.trace = trace;
        exchange
    }

    /// Notes what was no request, or not whole in time, and was answered with `status`.
    pub fn refused(telemetry: &Arc<Telemetry>, peer: &Peer, id: RequestId, status: StatusCode) {
        let line = telemetry
            .writes_lines()
            .then(|| Box::new(Line::of_none(peer)));
        let asked = requests::Asked::badly(peer.scheme);
        let mut exchange = Self::new(telemetry, peer.timer.now(), id, line, asked);
        exchange.status = Some(status);
        exchange.error = Some(match status {
            StatusCode::SERVICE_UNAVAILABLE => ErrorType::NoRoom,
            _ => ErrorType::Request,
        });
        exchange.outcome = Outcome::Complete;
    }

    fn new(
        telemetry: &Arc<Telemetry>,
        started: Instant,
        id: RequestId,
        line: Option<Box<Line>>,
        asked: requests::Asked,
    ) -> Self {
        telemetry.metrics.requests.begin();
        Self {
            telemetry: Arc::clone(telemetry),
            started,
            id,
            line,
            asked,
            received: None,
            trace: None,
            route: RouteKind::Unknown,
            workload: None,
            cache: None,
            error: None,
            cause: None,
            in_flight: None,
            load: None,
            standing: None,
            status: None,
            sent: 0,
            outcome: Outcome::Cut,
            to_head: false,
        }
    }

    /// `request` leaves for `port` of `address` on behalf of this one, and becomes part of its trace.
    #[must_use]
    pub fn asks(
        &mut self,
        side: Side,
        address: &HeaderValue,
        port: u16,
        request: &mut Request,
    ) -> Asking<'_> {
        let began = self.ready();
        let trace = self.trace.as_ref();
        let span = trace.map(|trace| trace.write_to(request.headers_mut()));
        let call = self.line.as_mut().map(|line| {
            line.call.insert(Call {
                side,
                address: address.clone(),
                port,
                method: request.method().clone(),
                span,
                after: began.duration_since(self.started),
                took: None,
                status: None,
            })
        });
        Asking::telling(began, &self.telemetry.metrics, side, call)
    }

    /// The id of the request.
    #[must_use]
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// When it could be forwarded: when it began, if nothing was waited for since.
    fn ready(&self) -> Instant {
        match self.cache {
            Some(CacheResult::Fresh | CacheResult::Stale) => self.started,
            _ => Instant::now(),
        }
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

    /// Whether any path may hold the token of a mail: on a user host, and where nobody looked which
    /// host it is, since it could not be read, or is none of the connection's.
    fn may_be_a_token(&self, status: u16) -> bool {
        match self.route {
            RouteKind::Verify => true,
            RouteKind::Unknown => matches!(status, 400 | 421),
            _ => false,
        }
    }

    /// Writes the line and keeps the spans, where there are any.
    fn tell(&self, line: &Line, status: u16, took: Duration) {
        let telemetry = &*self.telemetry;
        let keep = match self.outcome {
            _ if !telemetry.writes_lines() => Keep::No,
            Outcome::Complete => telemetry.access.keep(status, took),
            Outcome::ClientLeft | Outcome::Cut => Keep::Always,
        };
        let recorded = self.trace.as_ref().filter(|trace| trace.is_sampled());
        if keep == Keep::No && recorded.is_none() {
            return;
        }
        let sampled = match keep {
            Keep::Sampled(share) => Some(share),
            Keep::Always | Keep::No => None,
        };
        let entry = Entry {
            sampled,
            ..self.entry(line, status, took)
        };
        if keep != Keep::No {
            let layout = telemetry.log.layout();
            telemetry.log.access(|out| entry.write(layout, out));
        }
        if let (Some(trace), Some(tracer)) = (recorded, &telemetry.tracer) {
            tracer.end(trace, &entry);
        }
    }

    fn entry<'a>(&'a self, line: &'a Line, status: u16, took: Duration) -> Entry<'a> {
        let text = |value: &'a Option<HeaderValue>| -> Option<Cow<'a, str>> {
            let value = value.as_ref()?;
            // Nearly all are, and that is looked at much faster.
            let text = std::str::from_utf8(value.as_bytes()).map(Cow::Borrowed);
            Some(text.unwrap_or_else(|_| String::from_utf8_lossy(value.as_bytes())))
        };
        let request = line.request.as_ref();
        let host = match request.and_then(|request| request.uri.authority()) {
            Some(authority) => Some(Cow::Borrowed(authority.as_str())),
            None => text(&line.host),
        };
        let host = host.map(|host| match host {
            Cow::Borrowed(host) => Cow::Borrowed(redact::host(host)),
            Cow::Owned(host) => Cow::Owned(redact::host(&host).to_owned()),
        });
        let path = request.map_or("", |request| request.uri.path());
        let may_be_a_token = self.may_be_a_token(status);
        let path = if path.len() > 1 && may_be_a_token {
            format!("/{}", redact::HIDDEN).into()
        } else {
            redact::path(path)
        };
        // Where every path may be a token, so may be that of the page that led here.
        let own = host.as_deref().filter(|_| !may_be_a_token);
        let referer = text(&line.referer).map(|referer| redact::referer(&referer, own));
        Entry {
            ended: SystemTime::now(),
            client: &line.client,
            scheme: line.scheme,
            tls: line.tls,
            method: redact::method(request.map_or("_OTHER", |request| request.method.as_str())),
            path,
            query: request
                .and_then(|request| request.uri.query())
                .map(redact::query),
            version: request.map(|request| request.version),
            status,
            took,
            received: self.received.as_ref().map_or(0, |received| received.get()),
            sent: self.sent,
            route: self.route.as_str(),
            app: self.workload.as_ref().map(WorkloadId::as_str),
            cache: self.cache.map(CacheResult::as_str),
            outcome: self.outcome,
            error: self.error.map(ErrorType::as_str),
            cause: self.cause.as_deref(),
            call: line.call.as_ref(),
            user_agent: text(&line.user_agent),
            referer,
            host,
            request_id: self.id.as_str(),
            trace_id: self.trace.as_ref().map(|trace| trace.id),
            sampled: None,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.outcome = Outcome::Cut;
            self.status.get_or_insert(StatusCode::INTERNAL_SERVER_ERROR);
        }
        if is_client_leaving() {
            self.outcome = Outcome::ClientLeft;
        }
        let unanswered = unanswered(self.outcome);
        let status = self.status.map_or(unanswered, |status| status.as_u16());
        let took = self.started.elapsed();
        let ended = Ended {
            asked: self.asked,
            route: self.route,
            status,
            took,
            received: self.received.as_ref().map(|received| received.get()),
            sent: self.sent,
        };
        let metrics = &self.telemetry.metrics;
        metrics.request_ended(&ended, self.load.as_deref());
        if let Some(error) = self.error {
            metrics.failed(error);
        }
        if let Some(line) = &self.line {
            self.tell(line, status, took);
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
        this.note(&polled, body::length);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: HttpBody> Observed<B> {
    /// Notes what was `polled` of the body, of which so much is data.
    fn note<T, E>(&mut self, polled: &Poll<Option<Result<T, E>>>, length: impl Fn(&T) -> u64) {
        match polled {
            Poll::Ready(Some(Ok(piece))) => {
                self.exchange.sent += length(piece);
                if self.body.is_end_stream() {
                    self.exchange.outcome = Outcome::Complete;
                }
            }
            Poll::Ready(Some(Err(_))) => self.exchange.outcome = Outcome::Cut,
            Poll::Ready(None) => self.exchange.outcome = Outcome::Complete,
            Poll::Pending => {}
        }
    }
}

impl<B> Answer for Observed<B>
where
    B: Answer + HttpBody<Data = Bytes, Error = body::Error>,
{
    fn poll_upload(&mut self, context: &mut Context<'_>) {
        self.body.poll_upload(context);
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        let polled = self.body.poll_piece(context);
        self.note(&polled, Piece::length);
        polled
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

#[cfg(test)]
mod tests;
