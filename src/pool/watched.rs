//! A stream whose traffic is watched: when something was last heard, and how much was written.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What went over one connection.
#[derive(Debug)]
pub(super) struct Traffic {
    heard: Cell<Instant>,
    written: Cell<u64>,
    /// Bytes that came since somebody last got something out of them.
    idle_talk: Cell<usize>,
}

/// What a server may send that is of use to nobody: more than all windows and the heads of many
/// responses hold. A flood of frames that carry nothing ends the connection there.
const MOST_IDLE_TALK: usize = 4 << 20;

impl Traffic {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            heard: Cell::new(Instant::now()),
            written: Cell::new(0),
            idle_talk: Cell::new(0),
        })
    }

    /// For how long nothing has come.
    pub(super) fn silence(&self) -> Duration {
        self.heard.get().elapsed()
    }

    /// How many bytes have left.
    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Somebody got what they waited for.
    pub(super) fn was_useful(&self) {
        self.idle_talk.set(0);
    }

    fn heard(&self, length: usize) -> io::Result<()> {
        self.heard.set(Instant::now());
        let talk = self.idle_talk.get() + length;
        self.idle_talk.set(talk);
        if talk > MOST_IDLE_TALK {
            return Err(io::Error::other("a flood of frames that carry nothing"));
        }
        Ok(())
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(length)) = written {
            self.written.set(self.written.get() + length as u64);
        }
        written
    }
}

/// `S`, watched.
#[derive(Debug)]
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) traffic: Rc<Traffic>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        Poll::Ready(this.traffic.heard(buffer.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, data);
        this.traffic.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, data);
        this.traffic.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
