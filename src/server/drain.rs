//! Tells the connections of one worker to finish, without a lock or a poll on their way.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Waker};

/// The drain of one worker.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// Each answer says that it is the last one.
    last_call: Cell<bool>,
    began: Cell<bool>,
    /// How often it was taken back.
    round: Cell<u64>,
    next: Cell<u64>,
    wakers: RefCell<HashMap<u64, Waker>>,
}

impl Drain {
    /// Connections end with their next answer; those without a request may wait for one. A client that
    /// sends one request after the other is never cut off between two.
    pub(super) fn last_call(&self) {
        self.last_call.set(true);
    }

    /// New connections, and those that have heard of nothing yet, go on.
    pub(super) fn end(&self) {
        self.last_call.set(false);
        self.began.set(false);
        self.round.set(self.round.get() + 1);
    }

    /// Every connection is to finish what it does and close.
    pub(super) fn begin(&self) {
        self.began.set(true);
        for (_, waker) in self.wakers.borrow_mut().drain() {
            waker.wake();
        }
    }

    /// A connection's place in this drain.
    pub(super) fn join(self: &Rc<Self>) -> Drained {
        let id = self.next.get();
        self.next.set(id + 1);
        Drained {
            drain: Rc::clone(self),
            id,
            registered: None,
        }
    }
}

/// One connection of a worker that may drain.
#[derive(Debug)]
pub(super) struct Drained {
    drain: Rc<Drain>,
    id: u64,
    /// In which round.
    registered: Option<u64>,
}

impl Drained {
    /// Whether an answer that begins now is the last one.
    pub(super) fn is_last(&self) -> bool {
        self.drain.last_call.get() || self.drain.began.get()
    }

    /// Whether the drain has begun; if not, the task of `context` is woken when it does.
    pub(super) fn began(&mut self, context: &Context<'_>) -> bool {
        if self.drain.began.get() {
            return true;
        }
        let round = Some(self.drain.round.get());
        if self.registered != round {
            // A connection stays in one task, so its waker stays good.
            let waker = context.waker().clone();
            self.drain.wakers.borrow_mut().insert(self.id, waker);
            self.registered = round;
        }
        false
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        self.drain.wakers.borrow_mut().remove(&self.id);
    }
}
