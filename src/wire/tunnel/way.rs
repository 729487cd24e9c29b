//! One direction of a tunnel: bytes as they come. It holds only what its writer did not take at once.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;

/// Bytes that are read at once: a record of TLS.
const PIECE: usize = 16 << 10;

/// A frame that closes a WebSocket, from a server: status 1001, "going away" (RFC 6455, 7.4.1).
const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// What was read and not written.
    rest: Vec<u8>,
    /// Of that, what was written since.
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
                self.rest.extend(GOING_AWAY);
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
                    ready!(self.poll_rest(context, to, moved))?;
                    if ready!(self.poll_piece(context, from, to))? == 0 {
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

    /// Writes what is left of the last piece.
    fn poll_rest(
        &mut self,
        context: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.rest.len() {
            let length = ready!(poll_some(context, to, &self.rest[self.sent..]))?;
            self.sent += length;
            self.is_unflushed = true;
            *moved = true;
        }
        // A tunnel is mostly silent, and has no buffer then.
        self.rest = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads a piece and writes of it what the other side takes; gives how long it was.
    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut room);
        if Pin::new(from).poll_read(context, &mut piece)?.is_pending() {
            if self.is_unflushed {
                ready!(Pin::new(to).poll_flush(context))?;
                self.is_unflushed = false;
            }
            return Poll::Pending;
        }
        let piece = piece.filled();
        let (passing, last) = self.follow(piece);
        let mut left = passing;
        while !left.is_empty() {
            match poll_some(context, to, left) {
                Poll::Ready(length) => left = &left[length?..],
                Poll::Pending => break,
            }
        }
        self.is_unflushed |= left.len() < passing.len();
        self.rest.extend_from_slice(left);
        self.rest.extend_from_slice(last);
        Poll::Ready(Ok(piece.len()))
    }

    /// Looks at what has just come: what of it passes, and what is said behind that.
    fn follow<'a>(&mut self, piece: &'a [u8]) -> (&'a [u8], &'static [u8]) {
        let mut passing = piece;
        let mut last: &[u8] = b"";
        self.parting = match std::mem::take(&mut self.parting) {
            parting @ (Parting::Never | Parting::Closed) => parting,
            Parting::Possible(mut frames) => {
                frames.follow(piece);
                unless_closed(frames, Parting::Possible)
            }
            Parting::Due(mut frames) => match frames.follow(piece) {
                Some(end) if !frames.closes() => {
                    passing = &piece[..end];
                    last = &GOING_AWAY;
                    Parting::Said
                }
                Some(_) | None => unless_closed(frames, Parting::Due),
            },
            Parting::Said => {
                passing = b"";
                Parting::Said
            }
        };
        (passing, last)
    }
}

/// Writes some of `data`.
fn poll_some(
    context: &mut Context<'_>,
    to: &mut (impl AsyncWrite + Unpin),
    data: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(context, data))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        length => Poll::Ready(Ok(length)),
    }
}

fn unless_closed(frames: Frames, parting: impl Fn(Frames) -> Parting) -> Parting {
    match frames.closes() {
        true => Parting::Closed,
        false => parting(frames),
    }
}
