//! One body type for every protocol and every source: an enum, not a box.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use super::pipe::Pipe;
use super::timer::Timer;
use super::tunnel::Tunnel;

pub use arriving::{Received, Sent};

mod arriving;

/// The body of a request or a response. `Debug` shows no byte of it.
#[derive(Default)]
pub enum Body {
    /// No body.
    #[default]
    Empty,
    /// A body that is whole; empty once it was read.
    Full(Bytes),
    /// What a client sends, within its limits.
    Received(Received),
    /// What a backend or the upstream sends.
    Sent(Sent),
    /// Chunks that this process makes, one at a time.
    Chunks(mpsc::Receiver<Bytes>),
    /// No body, but the other end of a connection that switches protocols.
    Tunnel(Tunnel),
}

/// A piece of a body, for whoever does no more than pass it on.
#[derive(Debug)]
pub enum Piece {
    /// Data, or trailers.
    Frame(Frame<Bytes>),
    /// Data that has not come to this process.
    Piped(Pipe),
}

impl Piece {
    /// How many bytes of the body it is.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Frame(frame) => length(frame),
            Self::Piped(pipe) => pipe.len() as u64,
        }
    }

    /// How many of them have not come to this process.
    #[must_use]
    pub fn piped(&self) -> usize {
        match self {
            Self::Frame(_) => 0,
            Self::Piped(pipe) => pipe.len(),
        }
    }
}

/// How many bytes of data `frame` is.
#[must_use]
pub fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, Bytes::len) as u64
}

/// What may come of a body when it is polled.
pub type Polled<T> = Poll<Option<Result<T, Error>>>;

/// The same piece, of a body that gives nothing but frames.
pub fn framed(polled: Polled<Frame<Bytes>>) -> Polled<Piece> {
    polled.map(|frame| frame.map(|frame| frame.map(Piece::Frame)))
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
    /// It is not framed as it must be.
    #[error("the body is malformed: {0}")]
    Malformed(&'static str),
    /// The connection broke.
    #[error("the body was cut off")]
    Broken(#[source] std::io::Error),
}

impl Body {
    /// Ends the body with [`Error::Stalled`] when a backend or the upstream stops sending it for
    /// `limit`.
    pub fn watch(&mut self, timer: &Timer, limit: Duration) {
        if let Self::Sent(sent) = self {
            sent.watch(timer, limit);
        }
    }

    /// How many octets came of a client's body, as it is read; `None` where there is none.
    #[must_use]
    pub fn received(&self) -> Option<Rc<Cell<u64>>> {
        match self {
            Self::Received(received) => Some(received.came()),
            Self::Empty | Self::Full(_) | Self::Sent(_) | Self::Chunks(_) | Self::Tunnel(_) => None,
        }
    }

    /// The body with `data`, which was read of it, before what is still to come; `None` where that
    /// cannot be put back.
    #[must_use]
    pub fn unread(self, data: Bytes) -> Option<Self> {
        if data.is_empty() {
            return Some(self);
        }
        match self {
            Self::Empty => Some(Self::Full(data)),
            Self::Full(rest) if rest.is_empty() => Some(Self::Full(data)),
            Self::Received(received) => received.unread(data).map(Self::Received),
            Self::Full(_) | Self::Sent(_) | Self::Chunks(_) | Self::Tunnel(_) => None,
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

    /// The next piece of it: what is large and looked at by nobody may come in a pipe.
    pub fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        match self {
            Self::Received(received) => received.poll_piece(context),
            Self::Sent(sent) => sent.poll_piece(context),
            Self::Empty | Self::Full(_) | Self::Chunks(_) | Self::Tunnel(_) => {
                framed(Pin::new(self).poll_frame(context))
            }
        }
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

impl std::fmt::Debug for Body {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => out.write_str("Empty"),
            Self::Full(bytes) => write!(out, "Full({} bytes)", bytes.len()),
            Self::Received(received) => received.fmt(out),
            Self::Sent(sent) => sent.fmt(out),
            Self::Chunks(_) => out.write_str("Chunks"),
            Self::Tunnel(tunnel) => tunnel.fmt(out),
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
            Self::Empty | Self::Tunnel(_) => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Received(received) => received.poll_frame(context),
            Self::Sent(sent) => sent.poll_frame(context),
            Self::Chunks(chunks) => chunks
                .poll_recv(context)
                .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Tunnel(_) => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Received(received) => received.is_ended(),
            Self::Sent(sent) => sent.is_ended(),
            Self::Chunks(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Tunnel(_) => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Received(received) => received.size_hint(),
            Self::Sent(sent) => sent.size_hint(),
            Self::Chunks(_) => SizeHint::default(),
        }
    }
}

/// What an answer's body can do beside being read.
pub trait Answer: HttpBody<Data = Bytes, Error = Error> + Unpin {
    /// Goes on with the request's body where the answer came before its end, while nobody takes the
    /// answer's own.
    fn poll_upload(&mut self, context: &mut Context<'_>);

    /// The next piece of it, for whoever takes pipes too.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        framed(Pin::new(self).poll_frame(context))
    }

    /// The other end of the connection, where the answer switches protocols.
    fn take_tunnel(&mut self) -> Option<Tunnel>;

    /// It is not written to its end: whoever observes it is told why.
    fn cut(&mut self, _cut: Cut) {}
}

/// Why an answer is not written to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its body broke.
    Body,
    /// The client left, or takes no more of it.
    Client,
}

impl Answer for Body {
    fn poll_upload(&mut self, context: &mut Context<'_>) {
        if let Self::Sent(sent) = self {
            sent.poll_upload(context);
        }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        self.poll_piece(context)
    }

    fn take_tunnel(&mut self) -> Option<Tunnel> {
        match std::mem::take(self) {
            Self::Tunnel(tunnel) => Some(tunnel),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Where a body is read from: one half of a connection.
pub trait Source: std::fmt::Debug {
    /// The next frame of the body.
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>>;

    /// The next piece of it, for whoever takes pipes too.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        framed(self.poll_frame(context))
    }

    /// Whether it was read to its end.
    fn is_ended(&self) -> bool;

    /// What is known of its length.
    fn size_hint(&self) -> SizeHint;

    /// Goes on with what is sent the other way.
    fn poll_upload(&mut self, _context: &mut Context<'_>) {}

    /// It was read to its end: the connection is free.
    fn finish(self: Box<Self>) {}
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
