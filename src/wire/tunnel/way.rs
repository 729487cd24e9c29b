//! One direction of a tunnel: bytes as they come. While none come it holds no buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::frames::Frames;

/// Bytes that are on their way at once: a record of TLS.
const BUFFER: usize = 16 << 10;

/// A frame that closes a WebSocket, from a server: status 1001, "going away" (RFC 6455, 7.4.1).
const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Way {
    buffer: Vec<u8>,
    /// Of these, what was written.
    sent: usize,
    is_unflushed: bool,
    stage: Stage,
    parting: Parting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Open,
    /// Nothing more comes; the other side is yet to be told.
    Ending,
    Ended,
}

/// Whether the reader is told that we go away.
#[derive(Debug, Default)]
enum Parting {
    /// It is not: nothing is known of what it carries.
    #[default]
    Never,
    /// It would be, between two frames.
    Possible(Frames),
    /// As soon as the frame under way has ended.
    Due(Frames),
    /// The writer has closed by itself.
    Closed,
    /// It was. What comes behind is not for it any more (RFC 6455, 5.5.1).
    Said,
}

impl Way {
    /// One that can be told to part: what it carries are the frames of a WebSocket's server.
    pub(super) fn of_frames() -> Self {
        Self {
            parting: Parting::Possible(Frames::default()),
            ..Self::default()
        }
    }

    /// Whether it was not told to part yet, and can be.
    pub(super) fn can_part(&self) -> bool {
        self.stage == Stage::Open && matches!(self.parting, Parting::Possible(_))
    }

    /// Whether the reader was told that its WebSocket is over.
    pub(super) fn has_parted(&self) -> bool {
        matches!(self.parting, Parting::Closed | Parting::Said)
    }

    /// Tells the reader that we go away, behind the frame that is under way.
    pub(super) fn part(&mut self) {
        self.parting = match std::mem::take(&mut self.parting) {
            Parting::Possible(frames) if frames.is_between() => {
                self.buffer.extend(GOING_AWAY);
                Parting::Said
            }
            Parting::Possible(frames) => Parting::Due(frames),
            parting => parting,
        };
    }

    /// Carries on until the end has been passed on; notes in `moved` when something does.
    ///
    /// # Errors
    /// When either side breaks off.
    pub(super) fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &mut bool,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.stage {
                Stage::Open => {
                    ready!(self.poll_write(context, to, moved))?;
                    if ready!(self.poll_read(context, from, to))? == 0 {
                        self.stage = Stage::Ending;
                    }
                    *moved = true;
                }
                Stage::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.buffer.len() {
            let piece = &self.buffer[self.sent..];
            let length = ready!(Pin::new(&mut *to).poll_write(context, piece))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += length;
            self.is_unflushed = true;
            *moved = true;
        }
        self.buffer.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<usize>> {
        self.buffer.reserve_exact(BUFFER);
        let polled = poll_read_buf(Pin::new(from), context, &mut self.buffer);
        let Poll::Ready(length) = polled else {
            self.buffer = Vec::new();
            if self.is_unflushed {
                ready!(Pin::new(to).poll_flush(context))?;
                self.is_unflushed = false;
            }
            return Poll::Pending;
        };
        self.follow();
        Poll::Ready(length)
    }

    /// Looks at what has just come.
    fn follow(&mut self) {
        self.parting = match std::mem::take(&mut self.parting) {
            parting @ (Parting::Never | Parting::Closed) => parting,
            Parting::Possible(mut frames) => {
                frames.follow(&self.buffer);
                unless_closed(frames, Parting::Possible)
            }
            Parting::Due(mut frames) => match frames.follow(&self.buffer) {
                Some(end) if !frames.closes() => {
                    self.buffer.truncate(end);
                    self.buffer.extend(GOING_AWAY);
                    Parting::Said
                }
                Some(_) | None => unless_closed(frames, Parting::Due),
            },
            Parting::Said => {
                self.buffer.clear();
                Parting::Said
            }
        };
    }
}

fn unless_closed(frames: Frames, parting: impl Fn(Frames) -> Parting) -> Parting {
    match frames.closes() {
        true => Parting::Closed,
        false => parting(frames),
    }
}
