//! Bodies that come piece by piece: a client's within its limits, a backend's with its connection.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Error, Piece, Polled, Source, framed};
use crate::wire::timer::{Deadline, Timer};

/// A request body on its way from a client.
pub struct Received {
    source: Box<dyn Source>,
    /// Data that was read to look at it, and is read again first.
    ahead: Option<Bytes>,
    limit: u64,
    left: u64,
    /// How much has come, for whoever counts it.
    came: Rc<Cell<u64>>,
    stall: Stall,
}

impl Received {
    /// A body of at most `limit` bytes (0: any length) that must not stop moving for `stall`.
    #[must_use]
    pub fn new(source: Box<dyn Source>, limit: u64, stall: Duration, timer: Timer) -> Self {
        let left = if limit == 0 { u64::MAX } else { limit };
        Self {
            source,
            ahead: None,
            limit,
            left,
            came: Rc::default(),
            stall: Stall::new(timer, stall),
        }
    }

    /// The first byte that is still to be read; it stays to be read. `None` where there is none.
    ///
    /// # Errors
    /// What reading it met.
    pub async fn peek(&mut self) -> Result<Option<u8>, Error> {
        while self.ahead.is_none() {
            let frame = std::future::poll_fn(|context| {
                let polled = self.source.poll_frame(context);
                self.stall.judge(polled)
            });
            let Some(frame) = frame.await.transpose()? else {
                return Ok(None);
            };
            self.ahead = frame.into_data().ok().filter(|data| !data.is_empty());
        }
        Ok(self.ahead.as_ref().and_then(|data| data.first().copied()))
    }

    /// How much has come of it, as it is read.
    pub(super) fn came(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.came)
    }

    /// The body with `data`, which was read of it, before what is still to come; `None` where that
    /// cannot be put back.
    pub(super) fn unread(mut self, data: Bytes) -> Option<Self> {
        if self.ahead.is_some() {
            return None;
        }
        self.left = self.left.saturating_add(data.len() as u64);
        let came = self.came.get().saturating_sub(data.len() as u64);
        self.came.set(came);
        self.ahead = Some(data);
        Some(self)
    }

    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled<Frame<Bytes>> {
        let polled = match self.ahead.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => self.stall.judge(self.source.poll_frame(context)),
        };
        self.count(polled, super::length)
    }

    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        if self.ahead.is_some() {
            return framed(self.poll_frame(context));
        }
        let polled = self.stall.judge(self.source.poll_piece(context));
        self.count(polled, Piece::length)
    }

    /// Counts what came, and refuses what is too much.
    fn count<T>(&mut self, polled: Polled<T>, length: impl FnOnce(&T) -> u64) -> Polled<T> {
        let piece = match polled {
            Poll::Ready(Some(Ok(piece))) => piece,
            Poll::Pending if self.is_announced_too_large() => {
                return Poll::Ready(Some(Err(Error::TooLarge { limit: self.limit })));
            }
            other => return other,
        };
        self.stall.timer.touch();
        let length = length(&piece);
        self.came.set(self.came.get() + length);
        let Some(left) = self.left.checked_sub(length) else {
            return Poll::Ready(Some(Err(Error::TooLarge { limit: self.limit })));
        };
        self.left = left;
        if self.is_announced_too_large() {
            return Poll::Ready(Some(Err(Error::TooLarge { limit: self.limit })));
        }
        Poll::Ready(Some(Ok(piece)))
    }

    /// Whether what is to come, by the size of its chunk, is more than may come.
    fn is_announced_too_large(&self) -> bool {
        self.source.size_hint().lower() > self.left
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ahead.is_none() && self.source.is_ended()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().map_or(0, Bytes::len) as u64;
        let rest = self.source.size_hint();
        let mut hint = SizeHint::default();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint.set_lower(rest.lower() + ahead);
        hint
    }
}

/// A response body on its way from a backend or the upstream.
///
/// Dropped before its end, it takes its connection with it: what is left unread must never become
/// the start of the next response.
#[derive(Debug)]
pub struct Sent {
    /// `None` once it was read to its end.
    source: Option<Box<dyn Source>>,
    stall: Option<Stall>,
}

impl Sent {
    /// The body that `source` gives, which is told when it ended.
    #[must_use]
    pub fn new(source: Box<dyn Source>) -> Self {
        let mut sent = Self {
            source: Some(source),
            stall: None,
        };
        sent.settle();
        sent
    }

    /// Ends it with [`Error::Stalled`] when it stops coming for `limit`.
    pub(super) fn watch(&mut self, timer: &Timer, limit: Duration) {
        self.stall = Some(Stall::new(timer.clone(), limit));
    }

    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled<Frame<Bytes>> {
        self.poll(|source| source.poll_frame(context))
    }

    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        self.poll(|source| source.poll_piece(context))
    }

    fn poll<T>(&mut self, poll: impl FnOnce(&mut dyn Source) -> Polled<T>) -> Polled<T> {
        let Some(source) = self.source.as_deref_mut() else {
            return Poll::Ready(None);
        };
        let polled = poll(source);
        let piece = ready!(match &mut self.stall {
            Some(stall) => stall.judge(polled),
            None => polled,
        });
        self.settle();
        Poll::Ready(piece)
    }

    pub(super) fn poll_upload(&mut self, context: &mut Context<'_>) {
        if let Some(source) = &mut self.source {
            source.poll_upload(context);
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.source.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.source
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |source| source.size_hint())
    }

    fn settle(&mut self) {
        if let Some(source) = self.source.take_if(|source| source.is_ended()) {
            source.finish();
        }
    }
}

/// Notices that a body stopped moving. For a body that the task of the timer reads.
#[derive(Debug)]
struct Stall {
    timer: Timer,
    limit: Duration,
    /// Set while we wait for the next frame.
    deadline: Option<Deadline>,
}

impl Stall {
    fn new(timer: Timer, limit: Duration) -> Self {
        Self {
            timer,
            limit,
            deadline: None,
        }
    }

    /// What was `polled`, or that it has not moved for too long.
    fn judge<T>(&mut self, polled: Polled<T>) -> Polled<T> {
        if polled.is_ready() {
            self.deadline = None;
            return polled;
        }
        if self.timer.is_stuck(self.limit, &mut self.deadline) {
            return Poll::Ready(Some(Err(Error::Stalled)));
        }
        Poll::Pending
    }
}

impl std::fmt::Debug for Received {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Received")
            .field("source", &self.source)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
