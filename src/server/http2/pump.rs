//! Sends the body of an answer as fast as the client takes it: one piece of it is held at a time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use crate::wire::body::{Answer, Cut};
use crate::wire::framing;

/// The body of an answer on its way.
pub(super) struct Pump<'a, B> {
    pub(super) body: &'a mut B,
    pub(super) stream: &'a mut SendStream<Bytes>,
    /// What is left of its length, where that was said.
    left: Option<u64>,
    piece: Bytes,
    /// Bytes that the stream has taken.
    taken: u64,
}

impl<'a, B: Answer> Pump<'a, B> {
    /// Sends `body`, of `length` where that is known.
    pub(super) fn new(
        body: &'a mut B,
        stream: &'a mut SendStream<Bytes>,
        length: Option<u64>,
    ) -> Self {
        Self {
            body,
            stream,
            left: length,
            piece: Bytes::new(),
            taken: 0,
        }
    }

    /// Goes on: ready when all of it is on its way.
    ///
    /// # Errors
    /// When it must be cut off: the body broke, or the client did.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        loop {
            if !self.piece.is_empty() {
                ready!(self.poll_room(context))?;
                let room = self.stream.capacity().min(self.piece.len());
                let data = self.piece.split_to(room);
                self.taken += data.len() as u64;
                let is_last =
                    self.piece.is_empty() && (self.left == Some(0) || self.body.is_end_stream());
                self.send(data, is_last)?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let frame = match ready!(Pin::new(&mut *self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Err(Cut::Body)),
                None if self.left.is_some_and(|left| left > 0) => {
                    return Poll::Ready(Err(Cut::Body));
                }
                None => return Poll::Ready(self.send(Bytes::new(), true)),
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Some(left) = &mut self.left {
                        *left = left.checked_sub(data.len() as u64).ok_or(Cut::Body)?;
                    }
                    self.piece = data;
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(self.end_with(passed_on(trailers)));
                }
            }
        }
    }

    /// Whether it waits for the client to take something.
    pub(super) fn is_held_up(&self) -> bool {
        !self.piece.is_empty()
    }

    /// Bytes that the stream has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.stream.reserve_capacity(self.piece.len());
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Cut::Client)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, data: Bytes, is_last: bool) -> Result<(), Cut> {
        let sent = self.stream.send_data(data, is_last);
        sent.map_err(|_| Cut::Client)
    }

    fn end_with(&mut self, trailers: HeaderMap) -> Result<(), Cut> {
        if trailers.is_empty() {
            return self.send(Bytes::new(), true);
        }
        let sent = self.stream.send_trailers(trailers);
        sent.map_err(|_| Cut::Client)
    }
}

/// The trailers that may go further.
pub(super) fn passed_on(trailers: HeaderMap) -> HeaderMap {
    if trailers.keys().all(framing::may_trail) {
        return trailers;
    }
    let mut passed = HeaderMap::new();
    for (name, value) in &trailers {
        if framing::may_trail(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}
