//! Pipes of the system: large bodies that nobody here looks at go from one socket to another by them,
//! and never come to this process.
//!
//! A pipe is lent while there are bytes in it, so a body that waits for more of itself holds none. Each
//! thread has pipes of its own, as many as it is [allowed](allow): where there is no other, and where the
//! system refuses, bodies are read and written as all others.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustix::pipe::{PipeFlags, SpliceFlags};
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::{Resource, getrlimit};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::body::Piece;

/// Bytes on their way from one socket to another.
///
/// One that is dropped with bytes in it is closed: they must never become a part of another body.
#[derive(Debug)]
pub struct Pipe {
    /// Always there until it is dropped.
    ends: Option<Ends>,
    held: usize,
    lender: Rc<Lender>,
}

/// This thread may have so many pipes from now on.
pub fn allow(pipes: usize) {
    LENDER.with(|lender| lender.allow(pipes));
}

impl Pipe {
    /// Takes what `socket` has received, but no more than `most` bytes of it; a pipe without any at its
    /// end. `None` where there is no pipe for it.
    ///
    /// # Errors
    /// What the socket says. [It](is_refused) may be that such sockets are not joined with pipes.
    pub fn poll_fill(
        socket: &TcpStream,
        most: u64,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Self>>> {
        let most = usize::try_from(most).unwrap_or(SIZE).min(SIZE);
        let mut lent: Option<Self> = None;
        loop {
            // First, because whoever waits holds no pipe.
            ready!(socket.poll_read_ready(context))?;
            if lent.is_none() {
                lent = LENDER.with(Lender::lend);
            }
            let Some(pipe) = &mut lent else {
                return Poll::Ready(Ok(None));
            };
            // It is empty, so what blocks can only be the socket.
            let filled = socket.try_io(Interest::READABLE, || {
                let into = &pipe.ends().write;
                splice(socket, None, into, None, most, FLAGS).map_err(io::Error::from)
            });
            match filled {
                Ok(filled) => {
                    pipe.held = filled;
                    return Poll::Ready(Ok(lent));
                }
                Err(error) if is_to_be_repeated(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends what it can of it over `socket`: how much.
    ///
    /// # Errors
    /// What the socket says. [It](is_refused) may be that such sockets are not joined with pipes.
    pub fn poll_drain(
        &mut self,
        socket: &TcpStream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(socket.poll_write_ready(context))?;
            // It is not empty, so what blocks can only be the socket.
            let drained = socket.try_io(Interest::WRITABLE, || {
                let from = &self.ends().read;
                splice(from, None, socket, None, self.held, FLAGS).map_err(io::Error::from)
            });
            match drained {
                Ok(drained) => {
                    self.held -= drained;
                    return Poll::Ready(Ok(drained));
                }
                Err(error) if is_to_be_repeated(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads what is in it into `out`, where the system sends it nowhere.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_out(mut self, out: &mut BytesMut) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.held);
        let read = &mut &self.ends().read;
        read.take(self.held as u64).read_to_end(&mut bytes)?;
        out.extend_from_slice(&bytes);
        self.held -= bytes.len();
        Ok(())
    }

    /// How many bytes are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("only drop takes them")
    }
}

/// What a task may pass on before others get their turn: a copy would have cost as much time.
#[derive(Debug, Default)]
pub struct Turn {
    piped: usize,
}

impl Turn {
    /// Counts `piece`.
    pub fn takes(&mut self, piece: &Piece) {
        self.piped += piece.piped();
    }

    /// Whether others are to get their turn; the task of `context` has another one after them.
    pub fn is_over(&self, context: &Context<'_>) -> bool {
        let is_over = self.piped >= A_TURN;
        if is_over {
            context.waker().wake_by_ref();
        }
        is_over
    }
}

/// Whether `error` says that the system does not join a socket with a pipe.
#[must_use]
pub fn is_refused(error: &io::Error) -> bool {
    // A filter of system calls says that it is not permitted.
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied
    )
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let ends = self.ends.take().filter(|_| self.held == 0);
        self.lender.take_back(ends);
    }
}

thread_local! {
    static LENDER: Rc<Lender> = Rc::default();
}

/// Lends the pipes of a thread.
#[derive(Debug, Default)]
struct Lender {
    /// How many it may have.
    most: Cell<usize>,
    lent: Cell<usize>,
    /// Empty ones.
    idle: RefCell<Vec<Ends>>,
    /// When the system last had no pipe.
    refused: Cell<Option<Instant>>,
}

impl Lender {
    fn allow(&self, most: usize) {
        self.most.set(most);
        let keep = most.saturating_sub(self.lent.get());
        self.idle.borrow_mut().truncate(keep);
    }

    fn lend(self: &Rc<Self>) -> Option<Pipe> {
        if self.lent.get() >= self.most.get() {
            return None;
        }
        let idle = self.idle.borrow_mut().pop();
        let ends = match idle {
            Some(ends) => ends,
            None => self.open()?,
        };
        self.lent.set(self.lent.get() + 1);
        Some(Pipe {
            ends: Some(ends),
            held: 0,
            lender: Rc::clone(self),
        })
    }

    fn open(&self) -> Option<Ends> {
        let refused = self.refused.get();
        if refused.is_some_and(|refused| refused.elapsed() < PAUSE) {
            return None;
        }
        let ends = Ends::open();
        self.refused.set(ends.is_none().then(Instant::now));
        ends
    }

    fn take_back(&self, ends: Option<Ends>) {
        self.lent.set(self.lent.get() - 1);
        let mut idle = self.idle.borrow_mut();
        let has_room = idle.len() < KEPT && idle.len() + self.lent.get() < self.most.get();
        idle.extend(ends.filter(|_| has_room));
    }
}

#[derive(Debug)]
struct Ends {
    read: PipeReader,
    write: PipeWriter,
}

impl Ends {
    /// A new pipe; `None` where descriptors become scarce, or room for pipes.
    fn open() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // The system hands out the lowest free number: half of them are for connections alone.
        let number = u64::try_from(write.as_raw_fd()).unwrap_or(u64::MAX);
        let limit = getrlimit(Resource::Nofile).current;
        if limit.is_some_and(|limit| number >= limit / 2) {
            return None;
        }
        // Whoever has many pipes gets small ones (pipe(7)), which are worth nothing here.
        if fcntl_setpipe_size(&write, SIZE).is_err()
            && fcntl_getpipe_size(&write).ok()? < LEAST_SIZE
        {
            return None;
        }
        Some(Self {
            read: read.into(),
            write: write.into(),
        })
    }
}

/// Room in a pipe: as much as anybody may ask for where nobody has changed that.
const SIZE: usize = 1 << 20;
/// With less room than this a pipe is not worth its system calls: the system's own default.
const LEAST_SIZE: usize = 64 << 10;
/// Bytes that a task passes on in one turn.
const A_TURN: usize = 1 << 20;
/// So many empty pipes are kept: most are lent for a moment.
const KEPT: usize = 16;
/// The system is not asked for a pipe again for so long after it had none.
const PAUSE: Duration = Duration::from_secs(1);

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// Whether the socket was not ready, which the runtime knows by now, or a signal came between.
fn is_to_be_repeated(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
