//! The connections to one origin: how many there are, which are idle, and who waits for one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::connection::Connection;
use super::idle::Place;
use super::origin::Origin;

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
    waiting: RefCell<VecDeque<oneshot::Sender<Turn>>>,
}

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
        let (sender, receiver) = oneshot::channel();
        self.queue(sender);
        match tokio::time::timeout(PATIENCE, receiver).await {
            Ok(Ok(turn)) => turn.take().unwrap_or_else(|| Given::Room(self.seat())),
            Ok(Err(_)) | Err(_) => Given::Room(self.seat()),
        }
    }

    fn queue(&self, sender: oneshot::Sender<Turn>) {
        let mut waiting = self.waiting.borrow_mut();
        // All wait equally long, so whoever gave up is at the front before long.
        while waiting.pop_front_if(|first| first.is_closed()).is_some() {}
        waiting.push_back(sender);
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
            let first = waiting.pop_front()?;
            if !first.is_closed() {
                return Some(first);
            }
        }
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
