//! One connection: its stream, what was read ahead of it, and what is still to be written.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use rustix::net::SendFlags;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

use super::output::{Output, PIECES};
use super::pipe::{self, Pipe};

/// What a connection is made over.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin {
    /// The socket, where it carries the very bytes that are read and written here: they may go by
    /// without coming here.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

/// A connection of the system, which knows more of its other end than what can be read.
pub trait Transport: Carrier {
    /// Whether the other end has closed, although bytes of it are still to be read.
    fn has_closed(&self) -> bool;

    /// Whether bytes wait to be read, also when nobody was told of them yet.
    fn has_unread(&self) -> bool;

    /// Waits until there is something to read, or its end. What was read before, was read until there was no
    /// more.
    fn poll_unread(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Whether to be dropped is to look like a fault to the other end, and not like an end.
    fn reset_on_drop(&self, reset: bool);

    /// Writes `data` as the last that is written: what is left is passed on by [`poll_finish`](Self::poll_finish),
    /// together with the end.
    fn poll_write_last(
        &mut self,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(context, data)
    }

    /// Passes on what was written. Where the end of it can go with it, it does.
    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(context)
    }

    /// Sends what was held back to go with what comes next, as far as the system takes it at once: for a while
    /// nothing comes.
    fn settle(&mut self) {}

    /// Says that this is the end, where the protocol has words for it: without them a client takes the
    /// end for a fault. Waits for nothing; everything else was written before.
    fn farewell(&mut self) {}
}

impl Carrier for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Transport for TcpStream {
    fn has_closed(&self) -> bool {
        is_read_closed(self.ready(Interest::READABLE))
    }

    fn has_unread(&self) -> bool {
        has_bytes(&SockRef::from(self))
    }

    fn poll_unread(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // What an error is, reading tells.
        self.poll_read_ready(context).map(drop)
    }

    fn poll_write_last(
        &mut self,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(context))?;
            // What does not fill a segment waits for the end, and goes in one with it.
            let written = self.try_io(Interest::WRITABLE, || {
                Ok(rustix::net::send(
                    &*self,
                    data,
                    SendFlags::MORE | SendFlags::NOSIGNAL,
                )?)
            });
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_finish(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Before it is closed: that would throw away what is to be sent where something is left to be read.
        // Where it fails the connection is gone already.
        let _outcome = SockRef::from(&*self).shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }

    fn reset_on_drop(&self, reset: bool) {
        // Where it fails the connection is gone already.
        let _outcome = SockRef::from(self).set_linger(reset.then_some(Duration::ZERO));
    }
}

impl Carrier for UnixStream {}

impl Transport for UnixStream {
    fn has_closed(&self) -> bool {
        is_read_closed(self.ready(Interest::READABLE))
    }

    fn has_unread(&self) -> bool {
        has_bytes(&SockRef::from(self))
    }

    fn poll_unread(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(context).map(drop)
    }

    /// A socket of this machine knows no reset.
    fn reset_on_drop(&self, _reset: bool) {}
}

/// Whether the system has told that the other end has closed: asking what is `known` costs nothing.
fn is_read_closed(known: impl Future<Output = io::Result<Ready>>) -> bool {
    let known = known.now_or_never();
    known.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
}

fn has_bytes(socket: &SockRef<'_>) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    socket.peek(&mut byte).is_ok_and(|read| read > 0)
}

impl Carrier for DuplexStream {}

/// A pipe within this process.
impl Transport for DuplexStream {
    fn has_closed(&self) -> bool {
        false
    }

    fn has_unread(&self) -> bool {
        false
    }

    /// It is known by reading alone.
    fn poll_unread(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn reset_on_drop(&self, _reset: bool) {}
}

/// A stream with its buffers. It is a stream itself: what was read ahead comes first.
pub struct Link<S> {
    stream: S,
    /// Bytes that were read and not used yet.
    pub input: BytesMut,
    /// Bytes that are to be written.
    pub output: Output,
    /// Bytes that were written since the connection began.
    written: u64,
    /// Whether the stream has passed all of them on.
    flushed: bool,
    /// Whether the last reading took all the room there was.
    filled: bool,
    /// Whether bytes may go by without coming here.
    pipes: bool,
}

/// Room for a head, or for small pieces of a body.
const ROOM: usize = 8 << 10;
/// Room for large pieces of a body.
const LARGE_ROOM: usize = 64 << 10;
/// With less room than this a buffer is not worth a system call.
const LEAST_ROOM: usize = 1 << 10;

impl<S> std::fmt::Debug for Link<S> {
    /// Without the bytes: heads have secrets in them.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Link")
            .field("read_ahead", &self.input.len())
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl<S: Carrier> Link<S> {
    /// A connection on which nothing was read or written.
    pub fn new(stream: S) -> Self {
        Self {
            pipes: stream.socket().is_some(),
            stream,
            input: BytesMut::new(),
            output: Output::default(),
            written: 0,
            flushed: true,
            filled: false,
        }
    }

    /// The stream below.
    pub fn transport(&self) -> &S {
        &self.stream
    }

    /// Says that this is the end, as [`Transport::farewell`] does.
    pub fn farewell(&mut self)
    where
        S: Transport,
    {
        self.stream.farewell();
    }

    /// Waits until there is something to read, as [`Transport::poll_unread`] does.
    pub fn poll_unread(&mut self, context: &mut Context<'_>) -> Poll<()>
    where
        S: Transport,
    {
        self.stream.poll_unread(context)
    }

    /// Sends what the stream has held back, as [`Transport::settle`] does.
    pub fn settle(&mut self)
    where
        S: Transport,
    {
        self.stream.settle();
    }

    /// The stream, and what was read ahead of it. Only when nothing is left to be written.
    pub fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.input)
    }

    /// Bytes that were written since the connection began.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Reads what there is, when `expected` bytes more are to come (`None`: nobody knows); 0 at the
    /// end of the stream.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        expected: Option<u64>,
    ) -> Poll<io::Result<usize>> {
        let room = self.input.capacity() - self.input.len();
        let is_large = expected.map_or(self.filled, |expected| expected > ROOM as u64);
        let (least, wanted) = if is_large {
            (LARGE_ROOM / 2, LARGE_ROOM)
        } else {
            (LEAST_ROOM, ROOM)
        };
        if room < least {
            self.input.reserve(wanted);
        } else if room < ROOM && self.input.is_empty() {
            // From the start again, where nobody has anything of it any more: what is used less stays
            // nearer to the processor.
            let _from_the_start = self.input.try_reclaim(ROOM);
        }
        let stream = Pin::new(&mut self.stream);
        let read = ready!(poll_read_buf(stream, context, &mut self.input))?;
        self.filled = self.input.len() == self.input.capacity();
        Poll::Ready(Ok(read))
    }

    /// Whether bytes may go by in a pipe, from here and to here.
    pub fn takes_pipes(&self) -> bool {
        self.pipes
    }

    /// Takes what there is, but no more than `most` bytes, in a pipe; an empty one at the end of the
    /// stream. `None` where it is to be read.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_pipe(
        &mut self,
        context: &mut Context<'_>,
        most: u64,
    ) -> Poll<io::Result<Option<Pipe>>> {
        let socket = self.stream.socket().filter(|_| self.pipes);
        let Some(socket) = socket.filter(|_| self.input.is_empty()) else {
            return Poll::Ready(Ok(None));
        };
        match ready!(Pipe::poll_fill(socket, most, context)) {
            Err(error) if pipe::is_refused(&error) => {
                self.pipes = false;
                Poll::Ready(Ok(None))
            }
            filled => Poll::Ready(filled),
        }
    }

    /// Writes what is to be written.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(self.poll_write_some(context))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => {
                    self.written += written as u64;
                    self.flushed = false;
                }
            }
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_some(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let (Some(pipe), Some(socket)) = (self.output.piped(), self.stream.socket()) {
            match ready!(pipe.poll_drain(socket, context)) {
                Err(error) if pipe::is_refused(&error) => {
                    self.pipes = false;
                    self.output.read_out()?;
                }
                drained => {
                    self.output.settle();
                    return Poll::Ready(drained);
                }
            }
        }
        let copies = self.stream.socket().is_none();
        let stream = Pin::new(&mut self.stream);
        let written = ready!(if copies {
            let mut room = [IoSlice::new(&[]); PIECES];
            let pieces = self.output.pieces(&mut room);
            stream.poll_write_vectored(context, &room[..pieces])
        } else {
            match self.output.only() {
                Some(only) => stream.poll_write(context, only),
                None => stream.poll_write_vectored(context, &self.output.slices()),
            }
        })?;
        self.output.advance(written);
        Poll::Ready(Ok(written))
    }

    /// As [`poll_flush`](Self::poll_flush), where nothing will be written any more.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: Transport,
    {
        while let Some(only) = self.output.only().filter(|only| !only.is_empty()) {
            match ready!(self.stream.poll_write_last(context, only))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => {
                    self.output.advance(written);
                    self.written += written as u64;
                    self.flushed = false;
                }
            }
        }
        // Several pieces.
        ready!(self.poll_flush(context))?;
        self.stream.poll_finish(context)
    }

    /// Whether everything was written, and passed on.
    pub fn is_flushed(&self) -> bool {
        self.output.is_empty() && self.flushed
    }

    /// Whether a connection on which nothing is due is still open and has stayed silent.
    pub fn is_quiet(&mut self) -> bool {
        // Asks the system only when something has happened on the socket.
        self.input.is_empty()
            && self
                .poll_fill(&mut Context::from_waker(Waker::noop()), Some(0))
                .is_pending()
    }

    /// Gives the memory of empty buffers back: nothing is expected for a while.
    pub fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.output.is_empty() {
            self.output.shrink();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Link<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.input.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let length = this.input.len().min(buffer.remaining());
        buffer.put_slice(&this.input.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Link<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_that_left_is_seen_behind_what_it_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let link = Link::new(listener.accept().await.unwrap().0);
        client.write_all(b"unread").await.unwrap();
        assert!(!link.transport().has_closed());
        drop(client);
        let seen = async {
            while !link.transport().has_closed() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_read_first() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut link = Link::new(ours);
        link.input.extend_from_slice(b"ahead ");
        theirs.write_all(b"and after").await.unwrap();
        drop(theirs);
        let mut text = String::new();
        link.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "ahead and after");
    }
}
