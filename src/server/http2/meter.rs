//! The stream below `h2`: counts what is read and written, stops reading where it is too much, and puts
//! what is written together.
//!
//! `h2` writes each frame of some size by itself. What all requests of a connection leave to be written in one
//! turn of its task goes out in one write at the end of that turn instead, so a lone answer waits for nothing.

use std::cell::{Cell, RefCell};
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
    /// Whether it was found so in this turn: `h2` asks again for each request that came.
    rests: bool,
    /// Whether the client has closed its end, or the connection broke.
    ended: bool,
    /// What `h2` has written and the stream has not taken yet, behind the first `sent` bytes.
    waiting: Vec<u8>,
    sent: usize,
    is_unflushed: bool,
    /// Whether `h2` waits to write more.
    is_full: bool,
    /// Whether the stream takes nothing now.
    blocked: bool,
    written: u64,
}

/// What is put together at most, and one more write: as much as TLS seals at once.
const ENOUGH: usize = 64 << 10;
/// So much goes out at once, where nothing waits: putting it together would only copy it.
const LARGE: usize = 16 << 10;

thread_local! {
    /// Where writes are put together, by one connection of this worker after the other.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn give_back(mut spare: Vec<u8>) {
    if spare.capacity() >= ENOUGH {
        spare.clear();
        SPARE.set(spare);
    }
}

impl<S: Duplex> Wire<S> {
    /// The wire of `stream`, of which `ahead` was read.
    pub(super) fn shared(stream: S, ahead: BytesMut) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            stream,
            ahead,
            frames: Frames::new(),
            is_dry: false,
            rests: false,
            ended: false,
            waiting: Vec::new(),
            sent: 0,
            is_unflushed: false,
            is_full: false,
            blocked: false,
            written: 0,
        }))
    }

    /// Begins a turn of the task: there may be more to read.
    pub(super) fn begin_turn(&mut self) {
        self.rests = false;
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
        if self.frames.is_over() || self.rests {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if self.ahead.is_empty() {
            let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
            self.is_dry = polled.is_pending();
            self.rests = self.is_dry;
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

    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.waiting.is_empty() && length >= LARGE {
            let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
            self.is_unflushed = true;
            self.is_full = polled.is_pending();
            self.blocked = polled.is_pending();
            let taken = ready!(polled)?;
            self.note(taken);
            return Poll::Ready(Ok(taken));
        }
        if self.waiting.len() >= ENOUGH {
            self.is_full = true;
            ready!(self.poll_push(context))?;
            self.is_full = false;
        }
        if self.waiting.capacity() == 0 {
            self.waiting = SPARE.take();
            self.waiting.reserve_exact(ENOUGH + LARGE);
        }
        for slice in slices {
            self.waiting.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    /// Writes what waits, at the end of a turn. Gives whether `h2` has waited for that to write more.
    ///
    /// # Errors
    /// When the connection broke.
    pub(super) fn poll_push(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.sent < self.waiting.len() {
            let rest = &self.waiting[self.sent..];
            let polled = Pin::new(&mut self.stream).poll_write(context, rest);
            self.blocked = polled.is_pending();
            if self.blocked && self.waiting.capacity() > 2 * rest.len() {
                // A client that takes nothing holds what is for it, and no more.
                let rest = rest.to_vec();
                give_back(std::mem::replace(&mut self.waiting, rest));
                self.sent = 0;
            }
            let taken = ready!(polled)?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += taken;
            self.is_unflushed = true;
            self.note(taken);
        }
        if self.waiting.capacity() > 0 {
            // A connection that is idle holds none.
            give_back(std::mem::take(&mut self.waiting));
            self.sent = 0;
        }
        if self.is_unflushed {
            let polled = Pin::new(&mut self.stream).poll_flush(context);
            self.blocked = polled.is_pending();
            ready!(polled)?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(std::mem::take(&mut self.is_full)))
    }

    fn note(&mut self, taken: usize) {
        self.written += taken as u64;
        self.frames.written(taken);
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
        let slices = [io::IoSlice::new(data)];
        self.0.borrow_mut().poll_take(context, &slices)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: the turn is not over.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.borrow_mut();
        ready!(wire.poll_push(context))?;
        Pin::new(&mut wire.stream).poll_shutdown(context)
    }
}
