//! What answers requests now: the handler of a worker and what its connections are held to, replaced
//! together while it runs.

use std::cell::RefCell;
use std::rc::Rc;

use super::settings::ConnectionSettings;
use crate::settings::Timeouts;
use crate::wire::head::HeadLimits;

/// A handler, and what its requests are held to.
#[derive(Debug)]
pub(super) struct Snapshot<H> {
    pub(super) handler: H,
    pub(super) settings: ConnectionSettings,
}

/// The snapshot that the next request meets. A request takes it when it begins and ends with it, so no
/// request sees two.
#[derive(Debug)]
pub(super) struct Current<H>(RefCell<Rc<Snapshot<H>>>);

impl<H> Current<H> {
    pub(super) fn new(handler: H, settings: ConnectionSettings) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Rc::new(Snapshot { handler, settings }))))
    }

    /// What a request takes that begins now.
    pub(super) fn now(&self) -> Rc<Snapshot<H>> {
        Rc::clone(&self.0.borrow())
    }

    /// What the head of a request is held to that begins now.
    pub(super) fn head(&self) -> HeadLimits {
        self.0.borrow().settings.head
    }

    /// How long things may take that begin now.
    pub(super) fn timeouts<T>(&self, read: impl FnOnce(&Timeouts) -> T) -> T {
        read(&self.0.borrow().settings.timeouts)
    }

    /// Puts another snapshot in place.
    pub(super) fn replace(&self, handler: H, settings: ConnectionSettings) {
        let before = self.0.replace(Rc::new(Snapshot { handler, settings }));
        // Where no request holds it, it ends here, and may look at this while it does.
        drop(before);
    }
}
