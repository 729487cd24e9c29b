//! The connections to one origin: how many there are, which are idle, and who waits for one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::connection::Connection;
use super::dial::DialError;
use super::idle::Place;
use super::origin::{Origin, Spoken};
use super::shared::Shared;

/// What one pool knows of one origin.
#[derive(Debug)]
pub(super) struct Lane {
    origin: Origin,
    /// Connections up to this number are opened at once, and kept.
    cap: usize,
    /// Connections that are open or being opened, busy and idle: not tunnels.
    open: Cell<usize>,
    /// Where its idle connections are kept, oldest first.
    idle: RefCell<VecDeque<Place>>,
    /// Those who wait, first come first; there are none while one is idle. Whoever went away stays
    /// until it is at the front.
    waiting: RefCell<VecDeque<Waiting>>,
    /// Whether somebody looks after those who wait.
    is_looked_after: Cell<bool>,
    /// Connections that carry many requests at once, the one opened first before the others.
    shared: RefCell<Vec<Rc<Shared>>>,
    /// How many of those there have been.
    numbered: Cell<u64>,
    /// Whether the server was seen to speak HTTP/1.1 where it might speak HTTP/2.
    speaks_http1: Cell<bool>,
    /// The turn to open a shared connection: all others may then use it.
    opening: Semaphore,
    /// How often that failed, and why it did last.
    failures: Cell<u64>,
    failure: RefCell<Option<DialError>>,
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    next: oneshot::Sender<Turn>,
}

/// Shared connections to one origin: more help only where the server takes few requests on each.
const MOST_SHARED: usize = 8;

/// How long a request waits for a connection that is busy, before it opens one beyond the cap.
///
/// Most answers take less than that, and a handshake across a continent takes more: a backend that is
/// busy for a moment is spared connections that would be closed again at once. One that streams for
/// hours delays a request by that moment and a handshake, and then has one more to be used again.
pub(super) const PATIENCE: Duration = Duration::from_millis(30);

impl Lane {
    pub(super) fn new(origin: Origin, cap: usize) -> Rc<Self> {
        Rc::new(Self {
            origin,
            cap,
            open: Cell::new(0),
            idle: RefCell::default(),
            waiting: RefCell::default(),
            is_looked_after: Cell::new(false),
            shared: RefCell::default(),
            numbered: Cell::new(0),
            speaks_http1: Cell::new(false),
            opening: Semaphore::new(1),
            failures: Cell::new(0),
            failure: RefCell::default(),
        })
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether nothing of it is left.
    pub(super) fn is_unused(&self) -> bool {
        self.open.get() == 0
    }

    /// Whether as many are idle as are kept.
    pub(super) fn has_enough_idle(&self) -> bool {
        self.idle.borrow().len() >= self.cap
    }

    /// Counts a connection in, whether there is room or not.
    pub(super) fn seat(self: &Rc<Self>) -> Seat {
        self.open.set(self.open.get() + 1);
        Seat(Rc::clone(self))
    }

    /// Room for a connection. Where there is none, waits a moment for its turn to get some, or a
    /// connection that was given back, and is given room beyond the cap after that.
    pub(super) async fn turn(self: &Rc<Self>) -> Given {
        if self.open.get() < self.cap {
            return Given::Room(self.seat());
        }
        match self.queue().await {
            Ok(turn) => turn.take().unwrap_or_else(|| Given::Room(self.seat())),
            Err(_) => Given::Room(self.seat()),
        }
    }

    fn queue(self: &Rc<Self>) -> oneshot::Receiver<Turn> {
        let (next, receiver) = oneshot::channel();
        let mut waiting = self.waiting.borrow_mut();
        // All wait equally long, so whoever gave up is at the front before long.
        while waiting
            .pop_front_if(|first| first.next.is_closed())
            .is_some()
        {}
        waiting.push_back(Waiting {
            since: Instant::now(),
            next,
        });
        // One sleep for all: each that is armed by itself is a wake-up of the thread by itself.
        if !self.is_looked_after.replace(true) {
            tokio::task::spawn_local(look_after(Rc::downgrade(self)));
        }
        receiver
    }

    /// Ends the wait of those who have waited long enough; until when the next one may.
    fn end_of_patience(&self) -> Option<Instant> {
        let mut waiting = self.waiting.borrow_mut();
        let is_over = |first: &mut Waiting| first.since.elapsed() >= PATIENCE;
        while waiting.pop_front_if(is_over).is_some() {}
        let until = waiting.front().map(|first| first.since + PATIENCE);
        self.is_looked_after.set(until.is_some());
        until
    }

    /// Hands `connection` to whoever waits for one; gives it back where nobody does.
    pub(super) fn hand_on(&self, connection: Box<Connection>) -> Option<Box<Connection>> {
        match self.next_in_line() {
            Some(next) => {
                hand(next, Given::Connection(connection));
                None
            }
            None => Some(connection),
        }
    }

    /// Whether requests may share a connection, as far as is known.
    pub(super) fn may_share(&self) -> bool {
        match self.origin.spoken() {
            Spoken::Http1 => false,
            Spoken::Http2 => true,
            Spoken::Agreed => !self.speaks_http1.get(),
        }
    }

    /// Notes that the server speaks HTTP/1.1.
    pub(super) fn found_http1(&self) {
        self.speaks_http1.set(true);
    }

    /// The turn to open a shared connection.
    pub(super) fn opening(&self) -> &Semaphore {
        &self.opening
    }

    pub(super) fn next_number(&self) -> u64 {
        self.numbered.set(self.numbered.get() + 1);
        self.numbered.get()
    }

    /// Keeps a shared connection.
    pub(super) fn share(&self, shared: &Rc<Shared>) {
        self.speaks_http1.set(false);
        self.shared.borrow_mut().push(Rc::clone(shared));
    }

    /// The shared connection that takes one more request at once; where none does and no more are to be
    /// opened, the one that carries fewest.
    pub(super) fn pick(&self) -> Option<Rc<Shared>> {
        self.retain_shared(|shared| shared.is_open());
        let all = self.shared.borrow();
        if let Some(roomy) = all.iter().find(|shared| shared.has_room()) {
            return Some(Rc::clone(roomy));
        }
        if all.len() < MOST_SHARED && self.open.get() < self.cap {
            return None;
        }
        all.iter().min_by_key(|shared| shared.load()).cloned()
    }

    /// Forgets the shared connections that `stays` says no of. What they carry goes on.
    pub(super) fn retain_shared(&self, stays: impl FnMut(&Rc<Shared>) -> bool) {
        self.shared.borrow_mut().retain(stays);
    }

    /// Whether `shared` is one that requests may begin on.
    pub(super) fn keeps(&self, shared: &Rc<Shared>) -> bool {
        self.shared
            .borrow()
            .iter()
            .any(|kept| Rc::ptr_eq(kept, shared))
    }

    /// How often opening a shared connection has failed.
    pub(super) fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// Notes that it failed, for all who wait.
    pub(super) fn failed(&self, error: &DialError) {
        self.failures.set(self.failures.get() + 1);
        self.failure.replace(Some(error.again()));
    }

    /// Why it failed, if it did since there were so many `failures`.
    pub(super) fn failure_since(&self, failures: u64) -> Option<DialError> {
        if self.failures.get() == failures {
            return None;
        }
        self.failure.borrow().as_ref().map(DialError::again)
    }

    /// Notes where a connection is kept.
    pub(super) fn put_idle(&self, place: Place) {
        self.idle.borrow_mut().push_back(place);
    }

    /// Where the connection used last is kept: the others may then grow old and go.
    pub(super) fn take_newest(&self) -> Option<Place> {
        self.idle.borrow_mut().pop_back()
    }

    /// Forgets the one that is idle for longest.
    pub(super) fn forget_oldest(&self) {
        self.idle.borrow_mut().pop_front();
    }

    /// Forgets those that `stays` says no of.
    pub(super) fn retain_idle(&self, stays: impl FnMut(&Place) -> bool) {
        self.idle.borrow_mut().retain(stays);
    }

    fn next_in_line(&self) -> Option<oneshot::Sender<Turn>> {
        let mut waiting = self.waiting.borrow_mut();
        loop {
            let Waiting { next, .. } = waiting.pop_front()?;
            if !next.is_closed() {
                return Some(next);
            }
        }
    }
}

/// Until nobody waits any more.
async fn look_after(lane: Weak<Lane>) {
    while let Some(until) = lane.upgrade().and_then(|lane| lane.end_of_patience()) {
        tokio::time::sleep_until(until).await;
    }
}

/// A connection's place among those that are counted; whoever waits for room gets it next.
#[derive(Debug)]
pub(super) struct Seat(Rc<Lane>);

impl Seat {
    pub(super) fn lane(&self) -> &Rc<Lane> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let lane = &self.0;
        lane.open.set(lane.open.get() - 1);
        if lane.open.get() < lane.cap
            && let Some(next) = lane.next_in_line()
        {
            hand(next, Given::Room(lane.seat()));
        }
    }
}

/// What somebody who waits is given.
#[derive(Debug)]
pub(super) enum Given {
    /// A connection that another request is done with.
    Connection(Box<Connection>),
    /// Room to open one.
    Room(Seat),
}

/// The same on its way: if nobody takes it, because who waited has just gone, it goes to the next.
#[derive(Debug)]
struct Turn(Option<Given>);

impl Turn {
    fn take(mut self) -> Option<Given> {
        self.0.take()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(Given::Connection(connection)) = self.0.take() {
            connection.give_back();
        }
    }
}

fn hand(next: oneshot::Sender<Turn>, given: Given) {
    // Whoever is not gone by now takes it: they run on this thread.
    let _taken = next.send(Turn(Some(given)));
}
