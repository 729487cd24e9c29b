//! One connection of a client: request after request, each phase within its time.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

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
pub(super) async fn serve<S, P, H>(
    stream: S,
    permit: P,
    peer: Peer,
    current: Rc<Current<H>>,
    drained: Drained,
) where
    S: Transport + 'static,
    H: Handler + 'static,
{
    let _held = permit;
    let connection = Connection {
        server: Server::new(stream, current.head()),
        open: current.now().settings.count(Protocol::Http1, peer.scheme),
        peer: &peer,
        current: &current,
        drained,
    };
    let running = pin!(connection.run());
    timer::drive(&peer.timer, running).await;
}

struct Connection<'a, S, H> {
    server: Server<S>,
    /// Counted as one of HTTP/1.1 as long as it is.
    open: Option<Open>,
    peer: &'a Peer,
    /// What each request takes when it begins.
    current: &'a Current<H>,
    drained: Drained,
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
    /// The next request, whenever it comes.
    Idle,
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
/// An idle connection keeps its buffers for so long.
const REST: Duration = Duration::from_secs(1);

impl<S: Transport + 'static, H: Handler> Connection<'_, S, H> {
    async fn run(mut self) {
        // A tunnel keeps what it began with, such as the pool of the connection behind it.
        let (ended, held) = loop {
            match self.next().await {
                Ok(Came::Request(request)) => {
                    let snapshot = self.current.now();
                    match self.answer(request, &snapshot).await {
                        Ended::Answered(After::Open) => {}
                        ended => break (ended, snapshot),
                    }
                }
                Ok(Came::Http2) => {
                    drop(self.open);
                    if let Some(link) = self.server.into_link() {
                        let (stream, ahead) = link.into_parts();
                        let (peer, current) = (self.peer, self.current);
                        let drained = self.drained;
                        // Boxed, so that a connection of HTTP/1.1 keeps no room for it.
                        Box::pin(http2::run(stream, ahead, peer, current, drained)).await;
                    }
                    return;
                }
                Ok(Came::End) => {
                    if let Some(mut link) = self.server.into_link() {
                        link.farewell();
                    }
                    return;
                }
                Err(refusal) => {
                    let id = RequestId::new();
                    let form = if self.server.is_asked_by_head() {
                        Form::HeadAlone
                    } else {
                        Form::Whole
                    };
                    if let Some(mut link) = self.server.into_link() {
                        let handler = &self.current.now().handler;
                        let promise = handler.promise(self.peer);
                        refusal::write(&mut link, refusal, form, promise.as_ref(), &id).await;
                        handler.refused(self.peer, refusal.status(), id);
                        linger(link).await;
                    }
                    return;
                }
            }
        };
        let Some(mut link) = self.server.into_link() else {
            return;
        };
        match ended {
            // Nothing is unread, so the system ends it in order.
            Ended::Answered(After::Open | After::Close) => link.farewell(),
            Ended::Answered(After::Linger) => linger(link).await,
            Ended::Switched(tunnel) => {
                let _open = held.settings.count(Protocol::Tunnel, self.peer.scheme);
                let mut drained = self.drained.of_tunnel();
                tunnel.join(link, |context| drained.leaves(context)).await;
            }
            Ended::Broken => {}
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
            let (mut wait, mut deadline) = match waiting {
                Some((wait, deadline)) if idle == (wait != Wait::Head) => (wait, deadline),
                _ => self.wait(if idle { Wait::Next } else { Wait::Head }),
            };
            if wait == Wait::Next && self.peer.timer.passed(deadline) {
                self.server.shrink();
                (wait, deadline) = self.wait(Wait::Idle);
            }
            waiting = Some((wait, deadline));
            match wait {
                _ if !self.peer.timer.passed(deadline) => Poll::Pending,
                Wait::Head => Poll::Ready(Err(Refusal::HeadTimedOut)),
                Wait::Next | Wait::Idle => Poll::Ready(Ok(Came::End)),
            }
        })
        .await
    }

    /// Begins to wait: until when at most.
    fn wait(&self, wait: Wait) -> (Wait, Deadline) {
        let limit = self.current.timeouts(|timeouts| match wait {
            Wait::Next => REST.min(timeouts.idle),
            Wait::Idle => timeouts.idle.saturating_sub(REST),
            Wait::Head => timeouts.header,
        });
        (wait, self.peer.timer.after(limit))
    }

    async fn answer(&mut self, head: http::Request<()>, snapshot: &Snapshot<H>) -> Ended {
        let Snapshot { handler, settings } = snapshot;
        let request = self.receive(head, settings);
        let Some(mut response) = self.response(handler.handle(request, self.peer)).await else {
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
    async fn response<T>(&self, answering: impl Future<Output = T>) -> Option<T> {
        let mut answering = pin!(Some(answering));
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
