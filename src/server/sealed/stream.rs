//! What can be done with a connection over TLS: read, write, wait, end.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::unbuffered::EncryptError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Sealed;
use super::outgoing::{ADDED, ROOM};
use super::turn::exhausted;
use crate::wire::link::{Carrier, Transport};

thread_local! {
    /// Where small pieces become one. Empty while somebody has it.
    static GATHERED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// As much is sealed at once.
const PIECE: usize = 64 << 10;
/// What sealing adds to as many bytes, or fewer, is less than [`ADDED`].
const RECORD: usize = 16 << 10;

impl AsyncRead for Sealed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        while buffer.filled().len() == before && buffer.remaining() > 0 {
            if !this.opened.is_empty() {
                let length = this.opened.len().min(buffer.remaining());
                buffer.put_slice(&this.opened[..length]);
                this.opened.drain(..length);
                if this.opened.is_empty() {
                    this.opened = Vec::new();
                }
            } else if this.is_over {
                break;
            } else if ready!(this.poll_receive(context, Some(buffer)))? == 0 {
                // RFC 8446, 6.1: whoever ends in order says so, and else something may be missing.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sealed {
    /// Seals as much of `data` as is sent at once. It is sent when the stream is flushed.
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let piece = &data[..data.len().min(PIECE)];
        let sealed = piece.len() + (piece.len() / RECORD + 1) * ADDED;
        if this.outgoing.waiting().len() + sealed > ROOM {
            ready!(this.poll_send(context))?;
        }
        this.seal(|traffic, outgoing| {
            let mut least = sealed;
            loop {
                match traffic.encrypt(piece, outgoing.room(least)) {
                    Ok(length) => {
                        outgoing.put(length);
                        return Ok(());
                    }
                    // With a change of keys, say.
                    Err(EncryptError::InsufficientSize(size)) if size.required_size > least => {
                        least = size.required_size;
                    }
                    Err(error) => return Err(exhausted(&error)),
                }
            }
        })?;
        Poll::Ready(Ok(piece.len()))
    }

    /// Small pieces share a record.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pieces = slices.iter().filter(|slice| !slice.is_empty());
        let first = pieces.next().map_or(&[][..], |slice| slice);
        if first.len() >= RECORD || pieces.next().is_none() {
            return self.poll_write(context, first);
        }
        let mut gathered = GATHERED.take();
        gathered.clear();
        for slice in slices {
            let room = RECORD - gathered.len();
            gathered.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let polled = self.poll_write(context, &gathered);
        GATHERED.set(gathered);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.has_ended {
            this.end();
        }
        ready!(this.poll_send(context))?;
        match ready!(Pin::new(&mut this.stream).poll_shutdown(context)) {
            // The client was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}

impl Carrier for Sealed {}

impl Transport for Sealed {
    fn has_closed(&self) -> bool {
        self.stream.has_closed()
    }

    fn has_unread(&self) -> bool {
        !self.opened.is_empty() || self.stream.has_unread()
    }

    fn poll_unread(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.opened.is_empty() && !self.is_over && self.outgoing.is_empty() {
            self.stream.poll_unread(context)
        } else {
            Poll::Ready(())
        }
    }

    fn settle(&mut self) {
        // What the system does not take now has to wait.
        while !self.outgoing.is_empty() {
            match self.stream.try_write(self.outgoing.waiting()) {
                Ok(sent) => self.outgoing.advance(sent),
                Err(_) => return self.outgoing.settle(),
            }
        }
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_ended {
            self.end();
        }
        ready!(self.poll_send_by(context, TcpStream::poll_write_last))?;
        self.stream.poll_finish(context)
    }

    fn reset_on_drop(&self, reset: bool) {
        self.stream.reset_on_drop(reset);
    }

    fn farewell(&mut self) {
        if !self.has_ended {
            self.end();
            self.settle();
        }
    }
}
