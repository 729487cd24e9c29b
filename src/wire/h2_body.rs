//! Bodies over HTTP/2 streams (RFC 9113, 8.1), for either half of a connection: what we send, within
//! the windows that the other side gives, and what we are sent, whose window opens as it is read.
//!
//! Knows no connection: whoever holds one drives it, and decides what its errors mean.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::body;
use super::framing;

/// A body on its way out. Dropped before its end, the stream is reset: it never looks whole.
#[derive(Debug)]
pub struct Outgoing<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// What is still to come of a body whose length was said.
    left: Option<u64>,
    /// Data that waits for room in the windows.
    ahead: Bytes,
    /// Bytes that the stream has taken.
    sent: u64,
    /// What was taken of the body, as long as it may have to be sent again and is not too much.
    kept: Option<Vec<Bytes>>,
    /// There is no more to send, or nobody who takes it.
    ended: bool,
    /// All of it is on its way, or the stream was reset.
    settled: bool,
}

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// It failed itself, or is not as long as was said.
    #[error("the body failed")]
    Body(#[source] body::Error),
    /// The other side takes no more of it (RFC 9113, 8.1: that may be no error), or the connection
    /// broke.
    #[error("the stream ended")]
    Stream(#[source] h2::Error),
}

/// What is kept of a body to be sent again: most that are small, and the start of no other.
const MOST_KEPT: usize = 64 << 10;
const MOST_PIECES: usize = 32;

const WRONG_LENGTH: body::Error =
    body::Error::Malformed("the body is not as long as its length says");

impl<B: HttpBody<Data = Bytes, Error = body::Error> + Unpin> Outgoing<B> {
    /// Sends `body` over `stream`, whose head said `length` of it.
    pub fn new(body: B, stream: SendStream<Bytes>, length: Option<u64>) -> Self {
        Self {
            body,
            stream,
            left: length,
            ahead: Bytes::new(),
            sent: 0,
            kept: None,
            ended: false,
            settled: false,
        }
    }

    /// Keeps what is taken of the body, until it is too much: it may have to be sent again.
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.kept = Some(Vec::new());
        self
    }

    /// It need not be sent again.
    pub fn let_go(&mut self) {
        self.kept = None;
    }

    /// Gives up, and gives the body back with what was taken of it: `None` where that is not known any
    /// more.
    pub fn take_back(&mut self) -> Option<(B, Bytes)>
    where
        B: Default,
    {
        let kept = self.kept.take()?;
        Some((std::mem::take(&mut self.body), kept.concat().into()))
    }

    /// The body, to do what is not sending it.
    pub fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }

    /// Goes on: ready when all of it is on its way or will never be.
    ///
    /// # Errors
    /// When it was not sent to its end. The stream is reset when this is dropped, if not before.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let sent = ready!(self.poll_send(context));
        self.ended = true;
        self.settled = sent.is_ok();
        Poll::Ready(sent)
    }

    /// Gives up, for `reason`.
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
        (self.ended, self.settled) = (true, true);
    }

    /// Whether it waits for the other side to take something.
    pub fn is_held_up(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Bytes that the stream has taken.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            if !self.ahead.is_empty() {
                let last = self.is_last();
                let wanted = self.ahead.len();
                ready!(poll_room(&mut self.stream, wanted, context)).map_err(Unsent::Stream)?;
                let room = self.stream.capacity().min(self.ahead.len());
                let piece = self.ahead.split_to(room);
                self.sent += piece.len() as u64;
                let last = last && self.ahead.is_empty();
                self.stream.send_data(piece, last).map_err(Unsent::Stream)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.take(data)?,
                    Err(frame) => {
                        self.kept = None;
                        if let Ok(trailers) = frame.into_trailers() {
                            return Poll::Ready(self.end(may_trail(trailers)));
                        }
                    }
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Unsent::Body(error))),
                Poll::Ready(None) => return Poll::Ready(self.end(HeaderMap::new())),
                Poll::Pending => {
                    // The other side may want no more of it: nobody waits for the rest then.
                    return self.stream.poll_reset(context).map(|reset| {
                        Err(Unsent::Stream(
                            reset.map_or_else(|error| error, h2::Error::from),
                        ))
                    });
                }
            }
        }
    }

    fn take(&mut self, data: Bytes) -> Result<(), Unsent> {
        if let Some(left) = &mut self.left {
            let length = data.len() as u64;
            *left = left.checked_sub(length).ok_or(Unsent::Body(WRONG_LENGTH))?;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(data.clone());
            let length: usize = kept.iter().map(Bytes::len).sum();
            if length > MOST_KEPT || kept.len() > MOST_PIECES {
                self.kept = None;
            }
        }
        self.ahead = data;
        Ok(())
    }

    /// Whether the data that waits is the end of the body.
    fn is_last(&self) -> bool {
        self.body.is_end_stream() && self.left.is_none_or(|left| left == 0)
    }

    fn end(&mut self, trailers: HeaderMap) -> Result<(), Unsent> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Unsent::Body(WRONG_LENGTH));
        }
        let sent = if trailers.is_empty() {
            self.stream.send_data(Bytes::new(), true)
        } else {
            self.stream.send_trailers(trailers)
        };
        sent.map_err(Unsent::Stream)
    }
}

impl<B> Drop for Outgoing<B> {
    fn drop(&mut self) {
        if !self.settled {
            self.stream.send_reset(Reason::CANCEL);
        }
    }
}

/// Ready when some of the `wanted` bytes may be sent over `stream`.
///
/// # Errors
/// When the stream has ended.
pub fn poll_room(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    context: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    stream.reserve_capacity(wanted);
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(context)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => {
                let reset = ready!(stream.poll_reset(context));
                return Poll::Ready(Err(reset.map_or_else(|error| error, h2::Error::from)));
            }
        }
    }
    Poll::Ready(Ok(()))
}

/// Those of `fields` that may come after a body.
fn may_trail(fields: HeaderMap) -> HeaderMap {
    if fields.keys().all(framing::may_trail) {
        return fields;
    }
    let mut kept = HeaderMap::with_capacity(fields.len());
    for (name, value) in &fields {
        if framing::may_trail(name) {
            kept.append(name, value.clone());
        }
    }
    kept
}

/// A body on its way in.
///
/// Its window opens by what is taken of it, so a reader that stops stops the other side. Dropped before
/// its end, with all that is left of its stream, it takes that with it: the stream is reset.
#[derive(Debug)]
pub struct Incoming {
    stream: RecvStream,
    /// What is still to come of a body whose length is known.
    left: Option<u64>,
    /// Fields that its trailers may have.
    fields: usize,
    ended: bool,
}

impl Incoming {
    /// Reads `stream`, whose head said `length` of its body and whose trailers may have so many
    /// `fields`.
    #[must_use]
    pub fn new(stream: RecvStream, length: Option<u64>, fields: usize) -> Self {
        Self {
            ended: stream.is_end_stream(),
            stream,
            left: length,
            fields,
        }
    }

    /// The next frame of it.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unread>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    self.take(&data).map_err(Unread::Body)?;
                    if !data.is_empty() {
                        self.look_for_end(context);
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    if self.ended {
                        return Poll::Ready(None);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(Unread::Stream(error)))),
                None => {
                    let trailers = ready!(self.stream.poll_trailers(context));
                    let trailers = trailers.map_err(Unread::Stream)?;
                    self.ended = true;
                    let last = self.trailers(trailers).map_err(Unread::Body);
                    return Poll::Ready(last.transpose());
                }
            }
        }
    }

    /// Whether it was read to its end.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// What is known of its length.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn take(&mut self, data: &Bytes) -> Result<(), body::Error> {
        // It fails where the stream is over, and then there is nothing to give back.
        let _released = self.stream.flow_control().release_capacity(data.len());
        if let Some(left) = &mut self.left {
            let length = data.len() as u64;
            *left = left.checked_sub(length).ok_or(WRONG_LENGTH)?;
        }
        self.ended = self.stream.is_end_stream();
        if self.ended { self.whole() } else { Ok(()) }
    }

    /// Many send the end apart from the data: where it is here already, the stream ends by itself.
    fn look_for_end(&mut self, context: &mut Context<'_>) {
        if self.left == Some(0)
            && !self.ended
            && let Poll::Ready(Some(Ok(more))) = self.stream.poll_data(context)
            && more.is_empty()
        {
            self.ended = self.stream.is_end_stream();
        }
    }

    fn trailers(&self, fields: Option<HeaderMap>) -> Result<Option<Frame<Bytes>>, body::Error> {
        self.whole()?;
        if fields.as_ref().is_some_and(|map| map.len() > self.fields) {
            return Err(body::Error::Malformed("there are too many trailers"));
        }
        Ok(fields.map(Frame::trailers))
    }

    fn whole(&self) -> Result<(), body::Error> {
        match self.left {
            None | Some(0) => Ok(()),
            Some(_) => Err(WRONG_LENGTH),
        }
    }
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It is not as its head said, or has too many trailers.
    #[error("the body is malformed")]
    Body(#[source] body::Error),
    /// The stream broke, or its connection.
    #[error("the stream ended")]
    Stream(#[source] h2::Error),
}

impl Unread {
    /// What became of the body.
    #[must_use]
    pub fn into_error(self) -> body::Error {
        match self {
            Self::Body(error) => error,
            Self::Stream(error) if error.is_library() => {
                body::Error::Malformed("the other side breaks the rules of HTTP/2")
            }
            Self::Stream(error) => body::Error::Broken(to_io(error)),
        }
    }
}

/// A failure of HTTP/2 as one of the connection. What the other side says in it is left out: it may
/// be anything.
#[must_use]
pub fn to_io(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(reason) => {
            let frame = if error.is_go_away() {
                "GOAWAY"
            } else {
                "RST_STREAM"
            };
            io::Error::other(format!("HTTP/2: {frame}: {}", reason.description()))
        }
        None => match error.into_io() {
            Some(error) => error,
            None => io::ErrorKind::BrokenPipe.into(),
        },
    }
}

/// Removes what HTTP/2 has no place for (RFC 9113, 8.2.2), but for `TE`, which a request may have.
pub fn remove_connection_specific(headers: &mut HeaderMap) {
    // Nearly no message has one of them, and to look at all names costs less than to look for each.
    while let Some(name) = headers.keys().find(|name| is_connection_specific(name)) {
        let name = name.clone();
        headers.remove(name);
    }
}

fn is_connection_specific(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    )
}
