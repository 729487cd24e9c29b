//! One connection to a server, and whose turn it is on it.

use std::rc::{Rc, Weak};
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::lane::{Lane, Seat};
use super::outliers::Member;
use super::stream::Stream;
use super::{Error, Pool};
use crate::wire::body::{Piece, Polled, Sent, Source};
use crate::wire::client::{self, Client};
use crate::wire::tunnel::Tunnel;
use crate::wire::{Body, Request, Response};

/// A connection that carries one request at a time, and goes where that goes: to the body of its
/// response, and from there back to its pool.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client<Stream>,
    seat: Seat,
    pool: Weak<Pool>,
    /// Its address, where the server has several.
    member: Option<Member>,
    /// Whether it was given back before: a fresh one has carried nothing yet.
    kept: bool,
    idle_since: Option<Instant>,
}

impl Connection {
    pub(super) fn new(stream: Stream, seat: Seat, pool: &Rc<Pool>) -> Box<Self> {
        Box::new(Self {
            client: Client::new(stream),
            seat,
            pool: Rc::downgrade(pool),
            member: None,
            kept: false,
            idle_since: None,
        })
    }

    /// The same, to one address of several.
    pub(super) fn at(mut self: Box<Self>, member: Option<Member>) -> Box<Self> {
        self.member = member;
        self
    }

    pub(super) fn member(&self) -> Option<&Member> {
        self.member.as_ref()
    }

    pub(super) fn lane(&self) -> &Rc<Lane> {
        self.seat.lane()
    }

    /// Closes it, and leaves its place for another.
    pub(super) fn into_seat(self: Box<Self>) -> Seat {
        self.seat
    }

    /// Gives it to whoever needs it next.
    pub(super) fn give_back(mut self: Box<Self>) {
        self.kept = true;
        if let Some(pool) = self.pool.upgrade() {
            pool.take_back(self);
        }
    }

    /// Whether it is still open after a pause, nothing came that nobody asked for, and its address is not
    /// left out.
    pub(super) fn is_quiet(&mut self) -> bool {
        !self.member.as_ref().is_some_and(Member::is_out) && self.client.is_quiet()
    }

    /// Notes that it is idle from now on.
    pub(super) fn rest(&mut self) {
        self.idle_since = Some(Instant::now());
    }

    /// How long it has been idle.
    pub(super) fn idle_for(&self) -> Duration {
        self.idle_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether it has carried a request before this one.
    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    /// Gives the memory of its buffers back.
    pub(super) fn shrink(&mut self) {
        self.client.shrink();
    }

    /// Puts `request` in line to be written, and takes its body.
    pub(super) fn begin(&mut self, request: &mut Request) {
        self.client.begin(request);
    }

    /// Takes over a request of which `other` wrote nothing.
    pub(super) fn take_over(&mut self, other: &mut Self) {
        self.client.take_over(&mut other.client);
    }

    /// Whether not a byte of the request was written.
    pub(super) fn is_unsent(&self) -> bool {
        self.client.is_unsent()
    }

    /// Writes the request that was begun, and reads the head of its response.
    pub(super) async fn response(
        &mut self,
        request: &mut Request,
    ) -> Result<http::Response<()>, client::Error> {
        let to_head = request.method() == Method::HEAD;
        self.client.response(to_head, request.headers_mut()).await
    }

    /// The response with its body.
    pub(super) fn answer(self: Box<Self>, head: http::Response<()>) -> Response {
        if let Some(member) = &self.member {
            member.answered(head.status());
        }
        let body = if head.status() == StatusCode::SWITCHING_PROTOCOLS {
            Body::Tunnel(Tunnel::new(self.client.into_link()))
        } else {
            Body::Sent(Sent::new(self))
        };
        head.map(|()| body)
    }

    /// What it is that no response came, to whoever waits for one.
    pub(super) fn broken(&self, error: client::Error) -> Error {
        let origin = self.lane().origin().clone();
        if let (Some(member), client::Error::BrokenOff(_) | client::Error::Malformed(_)) =
            (&self.member, &error)
        {
            member.failed();
        }
        match error {
            client::Error::RequestBody(error) => Error::RequestBody(error),
            client::Error::BrokenOff(source) => Error::Broken { origin, source },
            client::Error::Malformed(source) => Error::Malformed { origin, source },
        }
    }
}

impl Source for Connection {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled<Frame<Bytes>> {
        self.client.poll_frame(context)
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        self.client.poll_piece(context)
    }

    fn is_ended(&self) -> bool {
        self.client.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.client.size_hint()
    }

    fn poll_upload(&mut self, context: &mut Context<'_>) {
        // What breaks it is seen when the response is read.
        let _progress = self.client.poll_upload(context);
    }

    fn finish(self: Box<Self>) {
        if self.client.is_free() {
            self.give_back();
        }
    }
}
