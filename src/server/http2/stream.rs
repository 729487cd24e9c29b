//! One request over HTTP/2 and its answer, on one stream.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, StatusCode, header};

use super::super::current::Snapshot;
use super::super::drain::Drained;
use super::super::refusal::Refusal;
use super::super::settings::ConnectionSettings;
use super::body::Asked;
use super::request::{self, Bad};
use crate::id::RequestId;
use crate::telemetry::connections::Protocol;
use crate::telemetry::exchange;
use crate::wire::body::{Answer, Cut, Received};
use crate::wire::encode::SaidLength;
use crate::wire::framing::{self, Length};
use crate::wire::h2_body::{self, Incoming, Outgoing, Unsent};
use crate::wire::h2_tunnel::Ends;
use crate::wire::head::BadHead;
use crate::wire::{Body, Handler, Peer, clock};

/// Answers a request. Its time is its own, so that no other request's body moves it.
///
/// A panic is one request's misfortune: its client sees a reset.
pub(super) async fn serve(
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    snapshot: Rc<Snapshot<impl Handler>>,
    peer: &Peer,
    drained: &Drained,
) {
    let Snapshot { handler, settings } = &*snapshot;
    let peer = &peer.going_by(peer.timer.apart());
    let stream = Stream {
        respond,
        peer,
        settings,
        drained,
    };
    let running = pin!(stream.run(request, handler));
    if AssertUnwindSafe(running).catch_unwind().await.is_err() {
        handler.panicked();
    }
}

struct Stream<'a> {
    respond: SendResponse<Bytes>,
    peer: &'a Peer,
    settings: &'a ConnectionSettings,
    drained: &'a Drained,
}

impl Stream<'_> {
    async fn run(mut self, request: http::Request<RecvStream>, handler: &impl Handler) {
        let (head, incoming) = request.into_parts();
        let by_head = head.method == Method::HEAD;
        let asked = match request::take(head, &self.settings.head) {
            Ok(asked) => asked,
            Err(Bad::Malformed) => return self.respond.send_reset(Reason::PROTOCOL_ERROR),
            Err(Bad::TooManyFields) => {
                let id = RequestId::new();
                let refusal = Refusal::Head(BadHead::TooManyFields);
                let response = refusal.to_response(handler.promise(self.peer), &id);
                let _client_gone = self.write(response, by_head).await;
                return handler.refused(self.peer, refusal.status(), id);
            }
        };
        let waits = (asked.expects && !incoming.is_end_stream()).then(Rc::<Cell<bool>>::default);
        let (body, incoming) = if asked.connects {
            (Body::Empty, Some(incoming))
        } else {
            (self.receive(incoming, asked.length, waits.clone()), None)
        };
        let request = asked.head.map(|()| body);
        let answered = {
            let answering = pin!(Some(handler.handle(request, self.peer)));
            self.response(answering, waits.as_deref()).await
        };
        let Some(response) = answered else {
            return;
        };
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match incoming {
            // Boxed, as few requests have room to make for it.
            Some(incoming) if switches => Box::pin(self.switch(response, incoming)).await,
            // Either a tunnel that nobody asked for, or none where every success is one.
            None if switches => self.respond.send_reset(Reason::INTERNAL_ERROR),
            Some(_) if response.status().is_success() => {
                self.respond.send_reset(Reason::INTERNAL_ERROR);
            }
            Some(_) | None => {
                let _client_gone = self.write(response, by_head).await;
            }
        }
    }

    /// The body of the request, which is held to its limits.
    fn receive(
        &self,
        incoming: RecvStream,
        length: Option<u64>,
        waits: Option<Rc<Cell<bool>>>,
    ) -> Body {
        if incoming.is_end_stream() {
            return Body::Empty;
        }
        let incoming = Incoming::new(incoming, length, self.settings.head.fields);
        let source = Box::new(Asked { incoming, waits });
        let (limit, stall) = (self.settings.body_limit, self.settings.timeouts.body);
        Body::Received(Received::new(source, limit, stall, self.peer.timer.clone()))
    }

    /// Waits for the answer; `None` when the client leaves first, and with it what was `answering`. `waits`
    /// says when it is to hear that it may send the body.
    ///
    /// What answers is pinned by the caller: held here, it would be in memory twice, and copied.
    async fn response<T>(
        &mut self,
        mut answering: Pin<&mut Option<impl Future<Output = T>>>,
        waits: Option<&Cell<bool>>,
    ) -> Option<T> {
        poll_fn(|context| {
            let polled = answering.as_mut().as_pin_mut();
            if let Some(Poll::Ready(response)) = polled.map(|answering| answering.poll(context)) {
                return Poll::Ready(Some(response));
            }
            if waits.is_some_and(Cell::take) {
                // RFC 9110, 10.1.1. Where it fails, the client is gone.
                let mut go_on = http::Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                let _outcome = self.respond.send_informational(go_on);
            }
            if self.respond.poll_reset(context).is_ready() {
                exchange::client_left(|| answering.set(None));
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }

    /// Writes an answer to its end.
    async fn write<B: Answer>(
        &mut self,
        mut response: http::Response<B>,
        by_head: bool,
    ) -> Result<(), Cut> {
        let status = response.status();
        let bodiless = by_head || framing::is_bodiless(status);
        let whole = http_body::Body::size_hint(response.body()).exact();
        say(&mut response, by_head, whole);
        let (mut head, mut body) = response.into_parts();
        head.extensions.clear();
        let head = http::Response::from_parts(head, ());
        let is_whole = bodiless || whole == Some(0) || body.is_end_stream();
        let sent = self.respond.send_response(head, is_whole);
        let Ok(stream) = sent else {
            body.cut(Cut::Client);
            return Err(Cut::Client);
        };
        if is_whole {
            return Ok(());
        }
        let mut outgoing = Outgoing::new(body, stream, whole);
        let ended = self.send(&mut outgoing).await;
        if let Err(cut) = ended {
            if cut == Cut::Body {
                // What came before leaves first, as far as the client takes it at once.
                once_more().await;
                outgoing.reset(Reason::INTERNAL_ERROR);
            }
            outgoing.body_mut().cut(cut);
        }
        ended
    }

    async fn send<B: Answer>(&self, outgoing: &mut Outgoing<B>) -> Result<(), Cut> {
        let limit = self.settings.timeouts.response;
        // What the client had taken when it began to wait, and how long it may.
        let (mut taken, mut stuck) = (0, None);
        poll_fn(|context| {
            if let Poll::Ready(ended) = outgoing.poll(context) {
                return Poll::Ready(ended.map_err(|unsent| match unsent {
                    Unsent::Body(_) => Cut::Body,
                    Unsent::Stream(_) => Cut::Client,
                }));
            }
            if !outgoing.is_held_up() {
                stuck = None;
                return Poll::Pending;
            }
            outgoing.body_mut().poll_upload(context);
            if outgoing.sent() != taken {
                taken = outgoing.sent();
                stuck = None;
            }
            if self.peer.timer.is_stuck(limit, &mut stuck) {
                return Poll::Ready(Err(Cut::Client));
            }
            Poll::Pending
        })
        .await
    }

    /// Answers an extended CONNECT with a tunnel: over HTTP/2 that is a success like any other
    /// (RFC 8441, 5).
    async fn switch<B: Answer>(&mut self, mut response: http::Response<B>, incoming: RecvStream) {
        let Some(tunnel) = response.body_mut().take_tunnel() else {
            return self.respond.send_reset(Reason::INTERNAL_ERROR);
        };
        let headers = response.headers_mut();
        headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        headers.remove(header::CONTENT_LENGTH);
        remove_connection_specific(headers);
        headers.insert(header::DATE, clock::http_date());
        let mut head = http::Response::new(());
        std::mem::swap(head.headers_mut(), response.headers_mut());
        let Ok(stream) = self.respond.send_response(head, false) else {
            return;
        };
        drop(response);
        let _open = self.settings.count(Protocol::Tunnel, self.peer.scheme);
        let mut drained = self.drained.of_tunnel();
        let going_away = |context: &Context<'_>| drained.leaves(context);
        let ends = Ends::new(incoming, stream);
        tunnel.join(ends, &self.peer.timer, going_away).await;
    }
}

/// Lets what was queued be written, as far as it can be at once.
async fn once_more() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Makes the head of an answer say what it must over HTTP/2, and nothing of a connection.
fn say<B>(response: &mut http::Response<B>, by_head: bool, whole: Option<u64>) {
    let status = response.status();
    let headers = response.headers_mut();
    remove_connection_specific(headers);
    let framed = whole.map_or(Length::Chunked, Length::Exact);
    match SaidLength::of_answer(status, headers, by_head, whole, framed) {
        SaidLength::Framed(Length::Exact(length)) => {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        SaidLength::Framed(Length::Chunked | Length::UntilClose) | SaidLength::Nothing => {
            headers.remove(header::CONTENT_LENGTH);
        }
        SaidLength::OfAnother => {}
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, clock::http_date());
    }
}

/// RFC 9113, 8.2.2: `TE` too has no place in an answer.
fn remove_connection_specific(headers: &mut HeaderMap) {
    h2_body::remove_connection_specific(headers);
    headers.remove(header::TE);
}
