//! One connection of a client: request after request, each phase within its time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use http::StatusCode;

use super::current::{Current, Snapshot};
use super::drain::Drained;
use super::http2;
use super::linger::linger;
use super::refusal::{self, Form, Refusal};
use super::settings::ConnectionSettings;
use crate::id::RequestId;
use crate::telemetry::connections::{Open, Protocol};
use crate::telemetry::exchange;
use crate::wire::body::{Answer, Cut, Received};
use crate::wire::head::BadHead;
use crate::wire::link::Transport;
use crate::wire::server::{After, Next, Presence, Server};
use crate::wire::timer::{self, Deadline};
use crate::wire::tunnel::Tunnel;
use crate::wire::{Body, Handler, Peer, Request, Scheme};

/// Serves requests on `stream` until it ends, is overdue, or has drained.
pub(super) fn serve<S, P, H>(
    stream: S,
    permit: P,
    peer: Peer,
    current: Rc<Current<H>>,
    drained: Drained,
) -> impl Future<Output = ()>
where
    S: Transport + 'static,
    H: Handler + 'static,
{
    let timer = peer.timer.clone();
    // One piece of memory that changes hands: what a future is given, it may hold twice.
    let connection = Box::new(Connection {
        server: Server::new(stream, current.head()),
        open: current.now().settings.count(Protocol::Http1, peer.scheme),
        peer,
        current,
        drained,
        idle_until: None,
    });
    async move {
        let _held = &permit;
        let running = pin!(connection.run());
        timer::drive(&timer, running).await;
    }
}

struct Connection<S, H> {
    server: Server<S>,
    /// Counted as one of HTTP/1.1 as long as it is.
    open: Option<Open>,
    peer: Peer,
    /// What each request takes when it begins.
    current: Rc<Current<H>>,
    drained: Drained,
    /// How long it may be without a request, where it rests or has rested since the last one.
    idle_until: Option<Deadline>,
}

/// What becomes of a connection that was awake.
enum Left<S, H> {
    /// It waits for its next request, and mostly for long.
    Resting(Box<Connection<S, H>>),
    /// It is over.
    Over,
    /// It carries no requests any more, and this goes on with it.
    Other(LocalBoxFuture<'static, ()>),
}

/// What comes of a connection that waits.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and a box would cost each request an allocation"
)]
enum Came {
    /// The head of a request.
    Request(http::Request<()>),
    /// The preface of HTTP/2.
    Http2,
    /// Nothing for a moment.
    Nothing,
    /// Nothing more.
    End,
}

/// What became of one request.
enum Ended {
    /// Answered.
    Answered(After),
    /// Answered with a tunnel.
    Switched(Tunnel),
    /// Not answered to the end.
    Broken,
}

/// What a connection without a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The next request, which mostly comes at once.
    Next,
    /// The rest of a head.
    Head,
}

/// What is remembered of a client while its answer is not there.
#[derive(Debug, Default)]
struct Watch {
    /// When to look after it again, where nobody would tell that it left.
    look: Option<Deadline>,
    /// Until when a client that sends no more is waited with.
    grace: Option<Deadline>,
}

/// A client of which no more is read ahead is looked at so often.
const LOOK: Duration = Duration::from_millis(250);
/// A client that has closed its half is taken to have left when nothing has moved for so long.
const GRACE: Duration = Duration::from_millis(400);
/// A connection without a request is ready for the next one for so long; then it rests, and keeps no memory
/// for it.
const REST: Duration = Duration::from_secs(1);

impl<S: Transport + 'static, H: Handler + 'static> Connection<S, H> {
    /// Rests until there is something to do, does it, and rests again.
    async fn run(mut self: Box<Self>) {
        while self.rest().await {
            // Boxed, so that a connection that rests keeps no room for a request.
            match Box::pin(self.serve_requests()).await {
                Left::Resting(connection) => self = connection,
                Left::Over => return,
                Left::Other(rest) => return rest.await,
            }
        }
    }

    /// Waits until the client sends something; false where the connection is over instead.
    async fn rest(&mut self) -> bool {
        let idle = || self.current.timeouts(|timeouts| timeouts.idle);
        let until = *self
            .idle_until
            .get_or_insert_with(|| self.peer.timer.after(idle()));
        let came = poll_fn(|context| {
            if self.server.poll_unread(context).is_ready() {
                return Poll::Ready(true);
            }
            // A request that is here is answered, also one that nobody was told of yet.
            let leaves = self.drained.leaves(context) && !self.server.has_unread();
            match leaves || self.peer.timer.passed(until) {
                true => Poll::Ready(false),
                false => Poll::Pending,
            }
        })
        .await;
        if !came {
            self.server.farewell();
        }
        came
    }

    /// Serves request after request, as long as the next one comes soon.
    async fn serve_requests(mut self: Box<Self>) -> Left<S, H> {
        // A tunnel keeps what it began with, such as the pool of the connection behind it.
        let (ended, held) = loop {
            match self.next().await {
                Ok(Came::Request(request)) => {
                    self.idle_until = None;
                    let snapshot = self.current.now();
                    // Pinned where it is made: passed on, it would be copied.
                    let ended = pin!(self.answer(request, &snapshot)).await;
                    match ended {
                        Ended::Answered(After::Open) => {}
                        ended => break (ended, snapshot),
                    }
                }
                Ok(Came::Nothing) => return Left::Resting(self),
                Ok(Came::Http2) => return Left::Other(Box::pin(self.run_http2())),
                Ok(Came::End) => {
                    self.server.farewell();
                    return Left::Over;
                }
                Err(refusal) => return Left::Other(Box::pin(self.refuse(refusal))),
            }
        };
        match ended {
            // Nothing is unread, so the system ends it in order.
            Ended::Answered(After::Open | After::Close) => self.server.farewell(),
            Ended::Answered(After::Linger) => {
                if let Some(link) = self.server.into_link() {
                    return Left::Other(Box::pin(linger(link)));
                }
            }
            Ended::Switched(tunnel) => return Left::Other(Box::pin(self.join(tunnel, held))),
            Ended::Broken => {}
        }
        Left::Over
    }

    async fn run_http2(self: Box<Self>) {
        drop(self.open);
        if let Some(link) = self.server.into_link() {
            let (stream, ahead) = link.into_parts();
            http2::run(stream, ahead, &self.peer, &self.current, self.drained).await;
        }
    }

    /// Says why there is no answer, and ends.
    async fn refuse(self: Box<Self>, refusal: Refusal) {
        let id = RequestId::new();
        let form = if self.server.is_asked_by_head() {
            Form::HeadAlone
        } else {
            Form::Whole
        };
        if let Some(mut link) = self.server.into_link() {
            let handler = &self.current.now().handler;
            let promise = handler.promise(&self.peer);
            refusal::write(&mut link, refusal, form, promise.as_ref(), &id).await;
            handler.refused(&self.peer, refusal.status(), id);
            linger(link).await;
        }
    }

    /// Carries what both ends say, whatever it is.
    async fn join(self: Box<Self>, tunnel: Tunnel, held: Rc<Snapshot<H>>) {
        let _open = held.settings.count(Protocol::Tunnel, self.peer.scheme);
        let mut drained = self.drained.of_tunnel();
        if let Some(link) = self.server.into_link() {
            let timer = &self.peer.timer;
            tunnel
                .join(link, timer, |context| drained.leaves(context))
                .await;
        }
    }

    /// The next request, or what else comes in its place.
    async fn next(&mut self) -> Result<Came, Refusal> {
        let mut waiting: Option<(Wait, Deadline)> = None;
        poll_fn(|context| {
            if self.server.is_idle() {
                // It is the next request that meets other limits, not one that has begun.
                self.server.hold_to(self.current.head());
            }
            match self.server.poll_next(context) {
                Poll::Ready(Next::Request(request)) => {
                    return Poll::Ready(Ok(Came::Request(request)));
                }
                // RFC 9113, 3.3: over TLS both sides have agreed on a protocol before.
                Poll::Ready(Next::Http2) if self.peer.scheme == Scheme::Https => {
                    return Poll::Ready(Err(Refusal::Head(BadHead::Version)));
                }
                Poll::Ready(Next::Http2) => return Poll::Ready(Ok(Came::Http2)),
                Poll::Ready(Next::Closed) => return Poll::Ready(Ok(Came::End)),
                Poll::Ready(Next::Refused(bad)) => return Poll::Ready(Err(Refusal::Head(bad))),
                Poll::Pending => {}
            }
            let idle = self.server.is_idle();
            // A request that is here is answered, also one that nobody was told of yet.
            if idle && self.drained.leaves(context) && !self.server.has_unread() {
                return Poll::Ready(Ok(Came::End));
            }
            let (wait, deadline) = match waiting {
                Some((wait, deadline)) if idle == (wait != Wait::Head) => (wait, deadline),
                _ => self.wait(if idle { Wait::Next } else { Wait::Head }),
            };
            waiting = Some((wait, deadline));
            match wait {
                _ if !self.peer.timer.passed(deadline) => Poll::Pending,
                Wait::Head => Poll::Ready(Err(Refusal::HeadTimedOut)),
                Wait::Next => {
                    self.server.shrink();
                    let idle = self.current.timeouts(|timeouts| timeouts.idle);
                    let left = || self.peer.timer.after(idle.saturating_sub(REST));
                    self.idle_until.get_or_insert_with(left);
                    Poll::Ready(Ok(Came::Nothing))
                }
            }
        })
        .await
    }

    /// Begins to wait: until when at most.
    fn wait(&self, wait: Wait) -> (Wait, Deadline) {
        let limit = self.current.timeouts(|timeouts| match wait {
            Wait::Next => REST.min(timeouts.idle),
            Wait::Head => timeouts.header,
        });
        (wait, self.peer.timer.after(limit))
    }

    async fn answer(&mut self, head: http::Request<()>, snapshot: &Snapshot<H>) -> Ended {
        let Snapshot { handler, settings } = snapshot;
        let request = self.receive(head, settings);
        let answered = {
            // Pinned here: what is given to a future is in memory twice, and copied. Gone before the answer is
            // written.
            let answering = pin!(Some(handler.handle(request, &self.peer)));
            self.response(answering).await
        };
        let Some(mut response) = answered else {
            return Ended::Broken;
        };
        let mut tunnel = None;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            tunnel = response.body_mut().take_tunnel();
            if tunnel.is_none() {
                return Ended::Broken;
            }
        }
        if self.write(response, settings).await.is_err() {
            return Ended::Broken;
        }
        match tunnel {
            Some(tunnel) => Ended::Switched(tunnel),
            None => Ended::Answered(self.server.after()),
        }
    }

    /// The request with its body, which is held to its limits.
    fn receive(&self, head: http::Request<()>, settings: &ConnectionSettings) -> Request {
        let body = match self.server.body() {
            None => Body::Empty,
            Some(source) => {
                let stall = settings.timeouts.body;
                let timer = self.peer.timer.clone();
                let limit = settings.body_limit;
                Body::Received(Received::new(source, limit, stall, timer))
            }
        };
        head.map(|()| body)
    }

    /// Waits for the answer; `None` when the client leaves first.
    async fn response<T>(
        &self,
        mut answering: Pin<&mut Option<impl Future<Output = T>>>,
    ) -> Option<T> {
        let mut watch = Watch::default();
        poll_fn(|context| {
            let polled = answering.as_mut().as_pin_mut();
            if let Some(Poll::Ready(response)) = polled.map(|answering| answering.poll(context)) {
                return Poll::Ready(Some(response));
            }
            if self.has_left(&mut watch, context) {
                exchange::client_left(|| answering.set(None));
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }

    /// Whether the client has left.
    fn has_left(&self, watch: &mut Watch, context: &mut Context<'_>) -> bool {
        loop {
            match self.server.presence(context) {
                Presence::Gone => return true,
                // One that waits for its answer looks the same, until it does not get one.
                Presence::Silent => return self.peer.timer.is_stuck(GRACE, &mut watch.grace),
                Presence::Here => {}
            }
            if !self.server.is_full() {
                return false;
            }
            let look = &mut watch.look;
            let deadline = look.get_or_insert_with(|| self.peer.timer.after(LOOK));
            if !self.peer.timer.passed(*deadline) {
                return false;
            }
            *look = None;
        }
    }

    /// Writes an answer to its end.
    async fn write<B: Answer>(
        &mut self,
        response: http::Response<B>,
        settings: &ConnectionSettings,
    ) -> Result<(), Cut> {
        let mut response = response;
        let mut encoder = self.server.begin(&mut response, self.drained.is_last());
        let mut body = response.into_body();
        // What the client had taken when it began to wait, and how long it may.
        let mut written = 0;
        let mut stuck: Option<Deadline> = None;
        let mut watch = Watch::default();
        let ended = poll_fn(|context| {
            if let Poll::Ready(ended) = self.server.poll_answer(&mut body, &mut encoder, context) {
                return Poll::Ready(ended);
            }
            if self.server.written() != written {
                written = self.server.written();
                stuck = None;
                watch.grace = None;
            }
            if !self.server.is_writing() {
                stuck = None;
                return if self.has_left(&mut watch, context) {
                    Poll::Ready(Err(Cut::Client))
                } else {
                    Poll::Pending
                };
            }
            body.poll_upload(context);
            let limit = settings.timeouts.response;
            if self.peer.timer.is_stuck(limit, &mut stuck) {
                return Poll::Ready(Err(Cut::Client));
            }
            Poll::Pending
        })
        .await;
        if let Err(cut) = ended {
            body.cut(cut);
        }
        ended
    }
}

#[cfg(test)]
mod tests;
