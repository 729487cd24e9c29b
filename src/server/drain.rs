//! Tells the connections of one worker, or of one listener, to finish, without a lock or a poll on their
//! way.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Waker};

/// The drain of one worker, or of one of its listeners.
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
        Drained {
            worker: self.place(),
            listener: None,
        }
    }

    fn place(self: &Rc<Self>) -> Place {
        let id = self.next.get();
        self.next.set(id + 1);
        Place {
            drain: Rc::clone(self),
            id,
            registered: false,
        }
    }
}

/// One connection that may drain: with its worker, or because its listener is gone.
#[derive(Debug)]
pub(super) struct Drained {
    worker: Place,
    listener: Option<Place>,
}

impl Drained {
    /// The same, and a place in the drain of its listener.
    pub(super) fn by(self, listener: &Rc<Drain>) -> Self {
        Self {
            listener: Some(listener.place()),
            ..self
        }
    }

    /// A place of its own for a tunnel, which goes on where its listener is gone.
    pub(super) fn of_tunnel(&self) -> Self {
        self.worker.drain.join()
    }

    /// Whether the connection is to end with what it does now.
    pub(super) fn has_to_leave(&self) -> bool {
        let listener = self.listener.as_ref();
        self.worker.drain.began.get() || listener.is_some_and(|place| place.drain.began.get())
    }

    /// The same; if not, the task of `context` is woken when it is.
    pub(super) fn leaves(&mut self, context: &Context<'_>) -> bool {
        // Both are asked: whichever begins first is to wake it.
        let listener = self.listener.as_mut();
        let by_listener = listener.is_some_and(|place| place.began(context));
        self.worker.began(context) || by_listener
    }
}

/// A place in one drain.
#[derive(Debug)]
struct Place {
    drain: Rc<Drain>,
    id: u64,
    registered: bool,
}

impl Place {
    fn began(&mut self, context: &Context<'_>) -> bool {
        if self.drain.began.get() {
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

impl Drop for Place {
    fn drop(&mut self) {
        self.drain.wakers.borrow_mut().remove(&self.id);
    }
}
