//! The adapter under hyper's server: knows the phase of a connection, and so what it waits for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::timer::{Deadline, Timer};

/// How long each phase of a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct PhaseLimits {
    /// Between requests.
    pub idle: Duration,
    /// A request's head, from its first byte.
    pub header: Duration,
    /// A response that the client does not take.
    pub response: Duration,
}

/// What a connection waited for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// The next request: nobody is hurt by closing.
    Idle,
    /// The rest of a head: the client is told with a 408.
    Head,
    /// The client, to take what was sent: it is not there to be told.
    Write,
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
/// The response is whole, but it is not written yet, or the request's body still comes.
const ENDING: u8 = 3;
const NONE: u64 = u64::MAX;

/// The phase of one connection, shared by the adapter and the connection's task.
#[derive(Debug, Clone)]
pub struct Phase(Arc<Shared>);

// Atomics only because hyper wants an upgradable I/O type to be `Send`: one thread uses them.
#[derive(Debug)]
struct Shared {
    limits: PhaseLimits,
    timer: Timer,
    phase: AtomicU8,
    deadline: AtomicU64,
    write_deadline: AtomicU64,
    unread: AtomicBool,
    body_open: AtomicBool,
    flushed: AtomicBool,
}

impl Phase {
    /// The phase of a new connection: idle.
    #[must_use]
    pub fn new(limits: PhaseLimits, timer: Timer) -> Self {
        let phase = Self(Arc::new(Shared {
            limits,
            timer,
            phase: AtomicU8::new(IDLE),
            deadline: AtomicU64::new(NONE),
            write_deadline: AtomicU64::new(NONE),
            unread: AtomicBool::new(false),
            body_open: AtomicBool::new(false),
            flushed: AtomicBool::new(true),
        }));
        phase.enter(IDLE, Some(limits.idle));
        phase
    }

    /// A whole head has arrived: its handler has the time it needs.
    pub fn request_began(&self) {
        self.enter(BUSY, None);
    }

    /// Nothing is added to the response any more. The connection is idle when that is written, and
    /// when the request's body has ended too.
    pub fn response_ended(&self) {
        self.0.flushed.store(false, Ordering::Relaxed);
        self.enter(ENDING, None);
    }

    /// A request has a body: what arrives is that, and no head.
    pub(super) fn body_began(&self) {
        self.0.body_open.store(true, Ordering::Relaxed);
    }

    /// That body is read no more.
    pub(super) fn body_ended(&self) {
        self.0.body_open.store(false, Ordering::Relaxed);
        self.settle();
    }

    fn settle(&self) {
        let settled = self.0.phase.load(Ordering::Relaxed) == ENDING
            && self.0.flushed.load(Ordering::Relaxed)
            && !self.0.body_open.load(Ordering::Relaxed);
        if settled {
            self.enter(IDLE, Some(self.0.limits.idle));
        }
    }

    fn wrote_all(&self) {
        if !self.0.flushed.load(Ordering::Relaxed) {
            self.0.flushed.store(true, Ordering::Relaxed);
            self.settle();
        }
    }

    /// Whether a head has begun to arrive and is not whole.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == HEAD
    }

    /// A request's body was given up before its end: the client may still be sending it.
    pub fn body_given_up(&self) {
        self.0.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the client may still be sending what nobody reads.
    #[must_use]
    pub fn has_unread_body(&self) -> bool {
        self.0.unread.load(Ordering::Relaxed)
    }

    /// Whether no request is under way and none has begun to arrive.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == IDLE
    }

    /// What is overdue, if anything is; asks the timer for a wake-up if not.
    #[must_use]
    pub fn overdue(&self) -> Option<Overdue> {
        let passed = |deadline: &AtomicU64| {
            let deadline = deadline.load(Ordering::Relaxed);
            deadline != NONE && self.0.timer.passed(Deadline(deadline))
        };
        if passed(&self.0.write_deadline) {
            return Some(Overdue::Write);
        }
        if !passed(&self.0.deadline) {
            return None;
        }
        Some(if self.is_idle() {
            Overdue::Idle
        } else {
            Overdue::Head
        })
    }

    fn enter(&self, phase: u8, limit: Option<Duration>) {
        let deadline = limit.map_or(NONE, |limit| self.0.timer.after(limit).0);
        self.0.phase.store(phase, Ordering::Relaxed);
        self.0.deadline.store(deadline, Ordering::Relaxed);
    }

    fn bytes_arrived(&self) {
        if self.is_idle() {
            self.enter(HEAD, Some(self.0.limits.header));
        }
    }

    fn wrote(&self, moved: bool) {
        let waiting = self.0.write_deadline.load(Ordering::Relaxed) != NONE;
        if moved && waiting {
            self.0.write_deadline.store(NONE, Ordering::Relaxed);
        }
        if !moved && !waiting {
            let deadline = self.0.timer.after(self.0.limits.response);
            self.0.write_deadline.store(deadline.0, Ordering::Relaxed);
        }
    }
}

/// A client's stream, as hyper reads and writes it.
///
/// `held` lives as long as the stream, also when a tunnel takes it over: the permit of a connection.
#[derive(Debug)]
pub struct Io<S, P> {
    stream: S,
    phase: Phase,
    _held: P,
}

impl<S, P> Io<S, P> {
    /// Wraps `stream`.
    pub fn new(stream: S, phase: Phase, held: P) -> Self {
        Self {
            stream,
            phase,
            _held: held,
        }
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Io<S, P> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.phase.bytes_arrived();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Io<S, P> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, data);
        this.phase.wrote(polled.is_ready());
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, data);
        this.phase.wrote(polled.is_ready());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(context);
        if polled.is_ready() {
            this.phase.wrote_all();
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
