//! Tells the connections of one worker to finish, without a lock or a poll on their way.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Waker};

/// The drain of one worker.
#[derive(Debug, Default)]
pub(super) struct Drain {
    began: Cell<bool>,
    next: Cell<u64>,
    wakers: RefCell<HashMap<u64, Waker>>,
}

impl Drain {
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
            registered: false,
        }
    }
}

/// One connection of a worker that may drain.
#[derive(Debug)]
pub(super) struct Drained {
    drain: Rc<Drain>,
    id: u64,
    registered: bool,
}

impl Drained {
    /// A place of its own for something else on this connection.
    pub(super) fn beside(&self) -> Self {
        self.drain.join()
    }

    /// Whether the drain has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.drain.began.get()
    }

    /// Whether the drain has begun; if not, the task of `context` is woken when it does.
    pub(super) fn began(&mut self, context: &Context<'_>) -> bool {
        if self.has_begun() {
            return true;
        }
        if !self.registered {
            // A connection stays in one task, so its waker stays good.
            let waker = context.waker().clone();
            self.drain.wakers.borrow_mut().insert(self.id, waker);
            self.registered = true;
        }
        false
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        self.drain.wakers.borrow_mut().remove(&self.id);
    }
}
