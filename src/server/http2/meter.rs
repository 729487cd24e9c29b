//! The stream below `h2`: counts what is read and written, and stops reading where it is too much.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Frames, Part, Stop};
use crate::wire::tunnel::Duplex;

/// The stream of a connection, and what is known of it.
pub(super) struct Wire<S> {
    stream: S,
    /// What was read of it before.
    ahead: BytesMut,
    /// The frames that came.
    pub(super) frames: Frames,
    /// Whether everything was read that is here.
    is_dry: bool,
    /// Whether the client has closed its end, or the connection broke.
    ended: bool,
    /// Whether the stream takes nothing now.
    blocked: bool,
    written: u64,
}

impl<S: Duplex> Wire<S> {
    /// The wire of `stream`, of which `ahead` was read.
    pub(super) fn shared(stream: S, ahead: BytesMut) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            stream,
            ahead,
            frames: Frames::new(),
            is_dry: false,
            ended: false,
            blocked: false,
            written: 0,
        }))
    }

    /// What the client has begun to send, while we wait for the rest of it.
    pub(super) fn awaits(&self) -> Option<Part> {
        self.frames.part().filter(|_| self.is_dry)
    }

    /// Whether the client takes nothing now.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Bytes that were written since the connection began.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether there is nothing to read any more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The stream alone.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frames.is_over() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if self.ahead.is_empty() {
            let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
            self.is_dry = polled.is_pending();
            let read = ready!(polled);
            self.ended = read.is_err() || buffer.filled().len() == before;
            read?;
        } else {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead.split_to(length));
        }
        let Err(Stop { before: kept }) = self.frames.read(&buffer.filled()[before..]) else {
            return Poll::Ready(Ok(()));
        };
        // Nothing of the frame that is too much is passed on, and nothing after it.
        buffer.set_filled(before + kept);
        match kept {
            // Not to be taken for the end of the stream.
            0 => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    fn note(&mut self, polled: &Poll<io::Result<usize>>) {
        self.blocked = polled.is_pending();
        if let Poll::Ready(Ok(length)) = polled {
            self.written += *length as u64;
            self.frames.written(*length);
        }
    }
}

impl<S> std::fmt::Debug for Wire<S> {
    /// Without the bytes: heads have secrets in them.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Wire")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// What `h2` reads and writes.
#[derive(Debug)]
pub(super) struct Metered<S>(pub(super) Rc<RefCell<Wire<S>>>);

impl<S: Duplex> AsyncRead for Metered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(context, buffer)
    }
}

impl<S: Duplex> AsyncWrite for Metered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = &mut *self.0.borrow_mut();
        let polled = Pin::new(&mut wire.stream).poll_write(context, data);
        wire.note(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = &mut *self.0.borrow_mut();
        let polled = Pin::new(&mut wire.stream).poll_write_vectored(context, slices);
        wire.note(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.borrow_mut();
        let polled = Pin::new(&mut wire.stream).poll_flush(context);
        wire.blocked = polled.is_pending();
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_shutdown(context)
    }
}
