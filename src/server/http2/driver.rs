//! What ends a connection of HTTP/2: its client, a limit in time, too much of something, the drain.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};

use super::super::drain::Drained;
use super::super::settings::ConnectionSettings;
use super::frames::Part;
use super::meter::{Metered, Wire};
use crate::settings::Timeouts;
use crate::telemetry::connections::Http2Ended;
use crate::wire::Peer;
use crate::wire::timer::Deadline;
use crate::wire::tunnel::Duplex;

/// A request, and where its answer goes.
pub(super) type Accepted = (http::Request<RecvStream>, SendResponse<Bytes>);

/// A connection without requests keeps what answers them for so long.
const REST: Duration = Duration::from_secs(1);
/// What a connection that ends may take to be told so, and to answer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A connection, and what it waits for.
pub(super) struct Driver<'a, S> {
    connection: Connection<Metered<S>, Bytes>,
    wire: Rc<RefCell<Wire<S>>>,
    peer: &'a Peer,
    drained: Drained,
    stage: Stage,
    /// The frame that has begun to arrive, and until when it must be here.
    part: Option<(Part, Deadline)>,
    /// Set while the client takes nothing of what waits for it.
    stuck: Option<Deadline>,
    /// What it had taken then.
    written: u64,
    /// Set while there is no request: until when one is waited for, and kept ready for.
    idle: Option<(Deadline, Deadline)>,
    /// When the sleep of the task had last fired.
    fired: u64,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Told to open no more streams; what is in flight goes on.
    Leaving,
    /// Told that it is over.
    Ending(Deadline),
}

/// What is to be done with a connection that was polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, until something happens.
    Wait,
    /// The same, and what is kept for the next request may go.
    Rest,
    /// It has something to say.
    Poll,
    /// It is over.
    End,
}

impl<'a, S: Duplex> Driver<'a, S> {
    pub(super) fn new(
        connection: Connection<Metered<S>, Bytes>,
        wire: &Rc<RefCell<Wire<S>>>,
        peer: &'a Peer,
        drained: Drained,
    ) -> Self {
        Self {
            connection,
            wire: Rc::clone(wire),
            peer,
            drained,
            stage: Stage::Open,
            part: None,
            stuck: None,
            written: 0,
            idle: None,
            fired: peer.timer.fired(),
        }
    }

    /// Begins a turn of the task. Gives whether a limit in time may be over for some request.
    pub(super) fn begin_turn(&mut self) -> bool {
        self.wire.borrow_mut().begin_turn();
        let fired = self.peer.timer.fired();
        std::mem::replace(&mut self.fired, fired) != fired
    }

    /// Reads and writes what there is; a request that came, or the end of the connection.
    pub(super) fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Accepted, h2::Error>>> {
        self.connection.poll_accept(context)
    }

    /// Counts a connection that `h2` has ended with `error`, if it was for what the client did.
    pub(super) fn count(&self, error: &h2::Error, settings: &ConnectionSettings) {
        if self.stage == Stage::Open
            && error.is_library()
            && let Some(reason) = error.reason()
        {
            settings.http2_ended(ended(reason));
        }
    }

    /// Writes what was left to be written, at the end of a turn. Gives whether there is more, or that the
    /// connection broke.
    pub(super) fn push(&self, context: &mut Context<'_>) -> io::Result<bool> {
        match self.wire.borrow_mut().poll_push(context) {
            Poll::Ready(pushed) => pushed,
            Poll::Pending => Ok(false),
        }
    }

    /// A request has come to its end.
    pub(super) fn answered(&self) {
        self.wire.borrow_mut().frames.answered();
    }

    /// What comes next after everything was polled. `is_free` says that no request is here.
    pub(super) fn look_after(
        &mut self,
        is_free: bool,
        settings: &ConnectionSettings,
        context: &Context<'_>,
    ) -> Next {
        let timeouts = &settings.timeouts;
        let timer = &self.peer.timer;
        if let Stage::Ending(deadline) = self.stage {
            return match timer.passed(deadline) {
                true => Next::End,
                false => Next::Wait,
            };
        }
        let verdict = self.wire.borrow_mut().frames.verdict();
        if let Some(reason) = verdict {
            return self.end(settings, reason, ended(reason));
        }
        if self.stage == Stage::Open && self.drained.leaves(context) {
            return self.leave();
        }
        if self.is_late(timeouts) {
            return self.end(settings, Reason::ENHANCE_YOUR_CALM, Http2Ended::Late);
        }
        let has_streams = self.connection.has_streams();
        if self.is_stuck(is_free && has_streams, timeouts) {
            settings.http2_ended(Http2Ended::Stuck);
            return Next::End;
        }
        if !is_free || has_streams {
            self.idle = None;
            return Next::Wait;
        }
        let limit = match self.stage {
            Stage::Open => timeouts.idle,
            Stage::Leaving | Stage::Ending(_) => LAST_WORDS,
        };
        let timer = &self.peer.timer;
        let (end, rest) = *self
            .idle
            .get_or_insert_with(|| (timer.after(limit), timer.after(REST)));
        match (timer.passed(end), self.stage) {
            (false, _) if timer.passed(rest) => Next::Rest,
            (false, _) => Next::Wait,
            (true, Stage::Open) => self.leave(),
            // It does not answer.
            (true, Stage::Leaving | Stage::Ending(_)) => Next::End,
        }
    }

    /// Whether a frame, or a block of fields, takes too long to arrive.
    fn is_late(&mut self, timeouts: &Timeouts) -> bool {
        let Some(part) = self.wire.borrow().awaits() else {
            self.part = None;
            return false;
        };
        let timer = &self.peer.timer;
        let (_, deadline) = *match &mut self.part {
            Some(known) if known.0 == part => known,
            other => other.insert((
                part,
                timer.after(match part.is_data {
                    true => timeouts.body,
                    false => timeouts.header,
                }),
            )),
        };
        timer.passed(deadline)
    }

    /// Whether the client has taken nothing for too long of what waits for it; `rest` says that no
    /// request would notice.
    fn is_stuck(&mut self, rest: bool, timeouts: &Timeouts) -> bool {
        let (blocked, written) = {
            let wire = self.wire.borrow();
            (wire.is_blocked(), wire.written())
        };
        if written != self.written || !(blocked || rest) {
            self.written = written;
            self.stuck = None;
        }
        (blocked || rest) && self.peer.timer.is_stuck(timeouts.response, &mut self.stuck)
    }

    /// Asks the client to open no more streams (RFC 9113, 6.8).
    fn leave(&mut self) -> Next {
        self.connection.graceful_shutdown();
        self.stage = Stage::Leaving;
        self.idle = None;
        Next::Poll
    }

    /// Tells the client that it is over, and why.
    fn end(&mut self, settings: &ConnectionSettings, reason: Reason, counted: Http2Ended) -> Next {
        settings.http2_ended(counted);
        let client = self.peer.address;
        tracing::debug!(%client, %reason, "a connection of HTTP/2 is ended: {reason}");
        self.connection.abrupt_shutdown(reason);
        self.stage = Stage::Ending(self.peer.timer.after(LAST_WORDS));
        Next::Poll
    }
}

/// What the reason that a client is told is counted as.
fn ended(reason: Reason) -> Http2Ended {
    match reason {
        Reason::ENHANCE_YOUR_CALM => Http2Ended::Flood,
        _ => Http2Ended::Malformed,
    }
}
