//! Tells the connections of one worker, or of one listener, to finish, without a lock or a poll on their
//! way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use super::shutdown::Stage;

/// The drain of one worker, or of one of its listeners.
#[derive(Debug)]
pub(super) struct Drain {
    stage: Cell<Stage>,
    /// How often all were woken.
    round: Cell<u64>,
    wakers: RefCell<Wakers>,
}

/// Who is to be woken, each in a place of its own.
#[derive(Debug, Default)]
struct Wakers {
    places: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Wakers {
    /// Puts a waker into the place that it had before, or into one that is free.
    fn put(&mut self, waker: Waker, before: Option<usize>) -> usize {
        let place = before.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(waker);
        place
    }

    /// All of them; their places stay theirs.
    fn take(&mut self) -> Vec<Waker> {
        self.places.iter_mut().filter_map(Option::take).collect()
    }

    fn leave(&mut self, place: usize) {
        self.places[place] = None;
        self.free.push(place);
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            stage: Cell::new(Stage::Running),
            round: Cell::default(),
            wakers: RefCell::default(),
        }
    }
}

impl Drain {
    /// Every connection is to finish what it does and close.
    pub(super) fn begin(&self) {
        self.go_to(Stage::Draining);
    }

    /// Before [`Stage::Draining`] it may go back: new connections, and those that have heard of nothing yet,
    /// go on then. On the last call those without a request may wait for one, so a client that sends one
    /// request after the other is never cut off between two.
    pub(super) fn go_to(&self, stage: Stage) {
        self.stage.set(stage);
        if stage < Stage::Yielding {
            return;
        }
        self.round.set(self.round.get() + 1);
        let woken = self.wakers.borrow_mut().take();
        for waker in woken {
            waker.wake();
        }
    }

    /// A connection's place in this drain.
    pub(super) fn join(self: &Rc<Self>) -> Drained {
        Drained {
            worker: self.place(Stage::Yielding),
            listener: None,
        }
    }

    fn place(self: &Rc<Self>, leaves_at: Stage) -> Place {
        Place {
            drain: Rc::clone(self),
            leaves_at,
            registered: None,
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
            listener: Some(listener.place(Stage::Draining)),
            ..self
        }
    }

    /// A place of its own for a tunnel, which goes on where its listener is gone, and until the drain cannot
    /// be taken back.
    pub(super) fn of_tunnel(&self) -> Self {
        Self {
            worker: self.worker.drain.place(Stage::Draining),
            listener: None,
        }
    }

    /// Whether an answer that begins now is the last one of its connection.
    pub(super) fn is_last(&self) -> bool {
        let listener = self.listener.as_ref();
        self.worker.drain.stage.get() >= Stage::LastCall
            || listener.is_some_and(|place| place.is_over())
    }

    /// Whether the connection is to end with what it does now; if not, the task of `context` is woken when it
    /// is.
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
    leaves_at: Stage,
    /// Where its waker is, and since which round.
    registered: Option<(usize, u64)>,
}

impl Place {
    fn is_over(&self) -> bool {
        self.drain.stage.get() >= self.leaves_at
    }

    fn began(&mut self, context: &Context<'_>) -> bool {
        if self.is_over() {
            return true;
        }
        let now = self.drain.round.get();
        if self.registered.is_none_or(|(_, round)| round != now) {
            // A connection stays in one task, so its waker stays good.
            let waker = context.waker().clone();
            let before = self.registered.map(|(place, _)| place);
            let place = self.drain.wakers.borrow_mut().put(waker, before);
            self.registered = Some((place, now));
        }
        false
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((place, _)) = self.registered {
            self.drain.wakers.borrow_mut().leave(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// A connection, or a tunnel, in a task of its own.
    struct Task {
        drained: Drained,
        woken: Arc<Woken>,
    }

    impl Task {
        fn new(drained: Drained) -> Self {
            let woken = Arc::default();
            Self { drained, woken }
        }

        fn leaves(&mut self) -> bool {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.drained.leaves(&Context::from_waker(&waker))
        }

        fn was_woken(&self) -> bool {
            self.woken.0.swap(false, Ordering::Relaxed)
        }
    }

    #[test]
    fn what_makes_room_is_heard_by_connections_each_time_and_never_by_tunnels() {
        let drain = Rc::<Drain>::default();
        let mut connection = Task::new(drain.join());
        let mut tunnel = Task::new(connection.drained.of_tunnel());
        for _ in 0..2 {
            assert!(!connection.leaves() && !tunnel.leaves() && !connection.drained.is_last());
            drain.go_to(Stage::LastCall);
            assert!(connection.drained.is_last() && !connection.leaves());
            drain.go_to(Stage::Yielding);
            assert!(connection.was_woken() && connection.leaves() && !tunnel.leaves());
            drain.go_to(Stage::Running);
            // What wakes it has no consequence.
            tunnel.was_woken();
        }
        drain.begin();
        assert!(tunnel.was_woken() && tunnel.leaves());
    }

    #[test]
    fn a_listener_that_is_gone_takes_its_connections_along_and_no_tunnel() {
        let (drain, listener) = (Rc::<Drain>::default(), Rc::<Drain>::default());
        let mut connection = Task::new(drain.join().by(&listener));
        let mut tunnel = Task::new(connection.drained.of_tunnel());
        assert!(!connection.leaves() && !tunnel.leaves());
        listener.begin();
        assert!(connection.was_woken() && connection.leaves() && connection.drained.is_last());
        assert!(!tunnel.was_woken() && !tunnel.leaves());
    }
}
