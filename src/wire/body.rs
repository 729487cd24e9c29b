//! One body type for every protocol and every source: an enum, not a box.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::io::Phase;
use super::timer::{Deadline, Timer};

/// The body of a request or a response.
#[derive(Debug, Default)]
pub enum Body {
    /// No body.
    #[default]
    Empty,
    /// A body that is whole; empty once it was read.
    Full(Bytes),
    /// What a client sends, within its limits.
    Received(Received),
    /// What a backend or the upstream sends, with the lease of its connection.
    Leased(Leased),
    /// Chunks that this process makes, one at a time.
    Chunks(mpsc::Receiver<Bytes>),
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client sent more than `limits.body`.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Nothing moved for the configured time.
    #[error("the body stopped moving")]
    Stalled,
    /// The connection broke or the framing was faulty.
    #[error("the body was cut off")]
    Broken(#[source] hyper::Error),
}

impl Body {
    /// Ends the body with [`Error::Stalled`] when a backend or the upstream stops sending it for
    /// `limit`. For a body that the task of `timer` reads.
    pub fn watch(&mut self, timer: &Timer, limit: Duration) {
        if let Self::Leased(leased) = self {
            leased.stall = Some(Stall::new(timer.clone(), limit, Reader::Own));
        }
    }

    /// Reads the body whole.
    ///
    /// # Errors
    /// [`Error::TooLarge`] past `limit` bytes, or what reading it met.
    pub async fn collect(mut self, limit: u64) -> Result<Bytes, Error> {
        if let Self::Full(bytes) = &mut self {
            let bytes = std::mem::take(bytes);
            if bytes.len() as u64 > limit {
                return Err(Error::TooLarge { limit });
            }
            return Ok(bytes);
        }
        // A length that was declared is refused before a byte is read.
        if self.size_hint().lower() > limit {
            return Err(Error::TooLarge { limit });
        }
        let mut whole = bytes::BytesMut::new();
        while let Some(data) = self.next_data().await {
            let data = data?;
            if whole.len() as u64 + data.len() as u64 > limit {
                return Err(Error::TooLarge { limit });
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    /// The next piece of data; trailers are passed over.
    ///
    /// # Errors
    /// What reading it met.
    pub async fn next_data(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            let frame =
                std::future::poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await;
            match frame? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Full(text.into())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Full(bytes.into())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Received(received) => received.poll_frame(context),
            Self::Leased(leased) => leased.poll_frame(context),
            Self::Chunks(chunks) => chunks
                .poll_recv(context)
                .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Received(received) => {
                received.ahead.is_none() && received.incoming.is_end_stream()
            }
            Self::Leased(leased) => leased.incoming.is_end_stream(),
            Self::Chunks(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Received(received) => received.size_hint(),
            Self::Leased(leased) => leased.incoming.size_hint(),
            Self::Chunks(_) => SizeHint::default(),
        }
    }
}

/// A request body on its way from a client.
#[derive(Debug)]
pub struct Received {
    incoming: Incoming,
    /// Data that was read to look at it, and is read again first.
    ahead: Option<Bytes>,
    limit: u64,
    left: u64,
    stall: Stall,
    phase: Phase,
    ended: bool,
}

impl Received {
    /// A body of at most `limit` bytes (0: any length) that must not stop moving for `stall`.
    #[must_use]
    pub fn new(
        incoming: Incoming,
        limit: u64,
        stall: Duration,
        timer: Timer,
        phase: Phase,
    ) -> Self {
        phase.body_began();
        let left = if limit == 0 { u64::MAX } else { limit };
        Self {
            incoming,
            ahead: None,
            limit,
            left,
            // A request body is read by the task of the connection that it goes out on.
            stall: Stall::new(timer, stall, Reader::Other),
            phase,
            ended: false,
        }
    }

    /// The first byte that is still to be read; it stays to be read. `None` where there is none.
    ///
    /// # Errors
    /// What reading it met.
    pub async fn peek(&mut self) -> Result<Option<u8>, Error> {
        while self.ahead.is_none() {
            let frame =
                std::future::poll_fn(|context| self.stall.poll_frame(&mut self.incoming, context));
            let Some(frame) = frame.await.transpose()? else {
                self.ended = true;
                return Ok(None);
            };
            self.ahead = frame.into_data().ok().filter(|data| !data.is_empty());
        }
        Ok(self.ahead.as_ref().and_then(|data| data.first().copied()))
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match self.ahead.take() {
            Some(data) => Frame::data(data),
            None => match ready!(self.stall.poll_frame(&mut self.incoming, context)) {
                Some(Ok(frame)) => frame,
                other => {
                    self.ended = other.is_none();
                    return Poll::Ready(other);
                }
            },
        };
        self.stall.timer.touch();
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(left) = self.left.checked_sub(length) else {
            return Poll::Ready(Some(Err(Error::TooLarge { limit: self.limit })));
        };
        self.left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().map_or(0, Bytes::len) as u64;
        let incoming = self.incoming.size_hint();
        let mut hint = SizeHint::default();
        if let Some(upper) = incoming.upper() {
            hint.set_upper(upper + ahead);
        }
        hint.set_lower(incoming.lower() + ahead);
        hint
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.phase.body_ended();
        if !self.ended && !self.incoming.is_end_stream() {
            self.phase.body_given_up();
        }
    }
}

/// A connection that a [`Leased`] body is read from.
pub trait Lease {
    /// The body was read to its end: the connection is free.
    fn finish(self: Rc<Self>);
}

/// A response body on its way from a backend or the upstream.
///
/// Dropped before its end, it takes its connection with it: what is left unread must never become
/// the start of the next response.
#[derive(Debug)]
pub struct Leased {
    incoming: Incoming,
    lease: Option<LeaseHandle>,
    stall: Option<Stall>,
}

struct LeaseHandle(Rc<dyn Lease>);

impl std::fmt::Debug for LeaseHandle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Lease")
    }
}

impl Leased {
    /// A body, and the connection to free at its end.
    #[must_use]
    pub fn new(incoming: Incoming, lease: Rc<dyn Lease>) -> Self {
        let mut leased = Self {
            incoming,
            lease: Some(LeaseHandle(lease)),
            stall: None,
        };
        if leased.incoming.is_end_stream() {
            leased.finish();
        }
        leased
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match &mut self.stall {
            Some(stall) => ready!(stall.poll_frame(&mut self.incoming, context)),
            None => ready!(Pin::new(&mut self.incoming).poll_frame(context))
                .map(|frame| frame.map_err(Error::Broken)),
        };
        if frame.is_none() || self.incoming.is_end_stream() {
            self.finish();
        }
        Poll::Ready(frame)
    }

    fn finish(&mut self) {
        if let Some(LeaseHandle(lease)) = self.lease.take() {
            lease.finish();
        }
    }
}

/// Notices that a body stopped moving.
#[derive(Debug)]
struct Stall {
    timer: Timer,
    limit: Duration,
    reader: Reader,
    /// Set while we wait for the next frame.
    deadline: Option<Deadline>,
}

/// Whose task reads a body: the one that the timer belongs to, or another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Own,
    Other,
}

impl Stall {
    fn new(timer: Timer, limit: Duration, reader: Reader) -> Self {
        Self {
            timer,
            limit,
            reader,
            deadline: None,
        }
    }

    fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(incoming).poll_frame(context) {
            self.deadline = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::Broken)));
        }
        let deadline = *self
            .deadline
            .get_or_insert_with(|| self.timer.after(self.limit));
        let passed = match self.reader {
            Reader::Own => self.timer.passed(deadline),
            Reader::Other => self.timer.passed_elsewhere(deadline, context),
        };
        if passed {
            return Poll::Ready(Some(Err(Error::Stalled)));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_whole_body_is_collected_within_its_limit() {
        let body = || Body::from("12345".to_owned());
        assert_eq!(body().collect(5).await.unwrap(), "12345");
        assert!(matches!(
            body().collect(4).await,
            Err(Error::TooLarge { limit: 4 })
        ));
        assert_eq!(Body::Empty.collect(0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn chunks_are_collected_until_their_maker_is_gone() {
        let (sender, receiver) = mpsc::channel(2);
        sender.send(Bytes::from("a")).await.unwrap();
        sender.send(Bytes::from("b")).await.unwrap();
        drop(sender);
        assert_eq!(Body::Chunks(receiver).collect(10).await.unwrap(), "ab");
    }
}
