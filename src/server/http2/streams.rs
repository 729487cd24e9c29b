//! The requests of one connection, in its task: each is polled when it was woken, once a turn.
//!
//! What they or the connection are woken for within a turn, by each other, waits for its end: to wake the
//! task then would be one more turn with nothing to do. A place answers one request after the other, with
//! the same future: a new one each time would be allocated, and copied there, and it is large.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Places for requests, which `open` makes futures of.
pub(super) struct Streams<T, F, O> {
    open: O,
    places: Vec<Place<T, F>>,
    /// Those of the places that are free.
    free: Vec<usize>,
    /// Those that are to be polled, and more than once only by chance.
    woken: Vec<usize>,
    bell: Arc<Bell>,
    waker: Waker,
}

struct Place<T, F> {
    future: Pin<Box<F>>,
    desk: Rc<Desk<T>>,
    call: Arc<Call>,
    waker: Waker,
}

/// Where a place takes its next request from.
pub(super) struct Desk<T> {
    next: Cell<Option<T>>,
    has_ended: Cell<bool>,
}

impl<T> Desk<T> {
    /// Answers one request after the other, by what `answer` makes of it.
    pub(super) async fn serve<A: Future<Output = ()>>(self: Rc<Self>, answer: impl Fn(T) -> A) {
        loop {
            let next = poll_fn(|_| match self.next.take() {
                Some(next) => Poll::Ready(next),
                None => Poll::Pending,
            });
            let next = next.await;
            {
                let answering = pin!(answer(next));
                answering.await;
            }
            self.has_ended.set(true);
        }
    }
}

/// Wakes what is in one place.
struct Call {
    number: usize,
    /// Whether it was woken since it was polled.
    is_woken: AtomicBool,
    bell: Arc<Bell>,
}

/// Wakes the connection, and knows of all who were woken.
struct Bell(Mutex<Rung>);

#[derive(Default)]
struct Rung {
    woken: Vec<usize>,
    /// Whether the connection itself was woken.
    connection: bool,
    /// Whether the task was, or need not be, because its turn is not over.
    is_told: bool,
    task: Option<Waker>,
}

impl<T, F: Future<Output = ()>, O: Fn(Rc<Desk<T>>) -> F> Streams<T, F, O> {
    pub(super) fn new(open: O) -> Self {
        let bell = Arc::new(Bell(Mutex::default()));
        Self {
            open,
            places: Vec::new(),
            free: Vec::new(),
            woken: Vec::new(),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }

    /// What the connection is to be woken by.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether no request is here.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Begins a turn of the task that `context` is of.
    pub(super) fn begin_turn(&self, context: &Context<'_>) {
        let mut rung = self.bell.rung();
        rung.is_told = true;
        match &mut rung.task {
            Some(known) => known.clone_from(context.waker()),
            unknown => *unknown = Some(context.waker().clone()),
        }
    }

    /// Ends it. Whoever was woken and not polled gets another one.
    pub(super) fn end_turn(&self) {
        let mut rung = self.bell.rung();
        rung.is_told = rung.connection || !rung.woken.is_empty() || !self.woken.is_empty();
        if rung.is_told
            && let Some(task) = &rung.task
        {
            task.wake_by_ref();
        }
    }

    /// Takes in a request, to be polled with the next that are.
    pub(super) fn push(&mut self, request: T) {
        let number = self.free.pop().unwrap_or_else(|| self.open_place());
        let place = &self.places[number];
        place.desk.next.set(Some(request));
        place.call.is_woken.store(true, Ordering::Relaxed);
        self.woken.push(number);
    }

    fn open_place(&mut self) -> usize {
        let number = self.places.len();
        let desk = Rc::new(Desk {
            next: Cell::new(None),
            has_ended: Cell::new(false),
        });
        let call = Arc::new(Call {
            number,
            is_woken: AtomicBool::new(true),
            bell: Arc::clone(&self.bell),
        });
        self.places.push(Place {
            future: Box::pin((self.open)(Rc::clone(&desk))),
            desk,
            waker: Waker::from(Arc::clone(&call)),
            call,
        });
        number
    }

    /// Polls those that were woken; gives how many requests have ended.
    pub(super) fn poll(&mut self) -> usize {
        self.woken.append(&mut self.bell.rung().woken);
        let mut ended = 0;
        for number in self.woken.drain(..) {
            // Of a place that is gone somebody may still have the waker.
            let Some(place) = self.places.get_mut(number) else {
                continue;
            };
            place.call.is_woken.store(false, Ordering::Release);
            // It ends with the connection, and never by itself.
            let _pending = place
                .future
                .as_mut()
                .poll(&mut Context::from_waker(&place.waker));
            if place.desk.has_ended.take() {
                self.free.push(number);
                ended += 1;
            }
        }
        ended
    }

    /// All are to be polled.
    pub(super) fn wake_all(&mut self) {
        self.woken.extend(0..self.places.len());
    }

    /// The connection is polled now: what it was woken for is seen to.
    pub(super) fn connection_is_polled(&self) {
        self.bell.rung().connection = false;
    }

    /// Gives the memory of all places back, where no request is here.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            self.places = Vec::new();
            self.free = Vec::new();
        }
    }
}

impl Bell {
    fn rung(&self) -> MutexGuard<'_, Rung> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, note: impl FnOnce(&mut Rung)) {
        let mut rung = self.rung();
        note(&mut rung);
        if std::mem::replace(&mut rung.is_told, true) {
            return;
        }
        let task = rung.task.clone();
        drop(rung);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring(|rung| rung.connection = true);
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.bell.ring(|rung| rung.woken.push(self.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Task {
        fn woken(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    /// Answers that leave their wakers and wait until they are told to end.
    #[derive(Default)]
    struct Told {
        wakers: RefCell<Vec<Waker>>,
        ended: RefCell<Vec<usize>>,
        polled: RefCell<Vec<usize>>,
    }

    impl Told {
        fn answer(self: &Rc<Self>, number: usize) -> impl Future<Output = ()> + use<> {
            let told = Rc::clone(self);
            poll_fn(move |context| {
                told.polled.borrow_mut().push(number);
                told.wakers.borrow_mut().push(context.waker().clone());
                match told.ended.borrow().contains(&number) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
        }

        fn end(&self, numbers: &[usize]) {
            self.ended.borrow_mut().extend(numbers);
        }

        fn polled(&self) -> Vec<usize> {
            self.polled.take()
        }
    }

    type Boxed = Pin<Box<dyn Future<Output = ()>>>;
    type Open = Box<dyn Fn(Rc<Desk<usize>>) -> Boxed>;

    fn streams(told: &Rc<Told>) -> Streams<usize, Boxed, Open> {
        let told = Rc::clone(told);
        Streams::new(Box::new(move |desk| {
            let told = Rc::clone(&told);
            Box::pin(desk.serve(move |number| told.answer(number)))
        }))
    }

    fn begin(streams: &Streams<usize, Boxed, Open>, task: &Arc<Task>) {
        let waker = Waker::from(Arc::clone(task));
        streams.begin_turn(&Context::from_waker(&waker));
    }

    #[test]
    fn each_is_polled_when_it_was_woken_and_its_place_is_used_again() {
        let (task, told) = (Arc::<Task>::default(), Rc::<Told>::default());
        let mut streams = streams(&told);
        begin(&streams, &task);
        for number in 0..3 {
            streams.push(number);
        }
        assert_eq!((streams.poll(), told.polled()), (0, vec![0, 1, 2]));
        streams.end_turn();
        assert_eq!(task.woken(), 0);

        let wakers = told.wakers.take();
        for number in [2, 0, 2, 0] {
            wakers[number].wake_by_ref();
        }
        assert_eq!(task.woken(), 1, "the task has one turn for all");
        told.end(&[2]);
        begin(&streams, &task);
        assert_eq!((streams.poll(), told.polled()), (1, vec![2, 0]));
        assert_eq!((streams.poll(), told.polled()), (0, vec![]));
        streams.push(3);
        assert_eq!((streams.poll(), told.polled()), (0, vec![3]));
        streams.end_turn();
        assert_eq!((streams.places.len(), task.woken()), (3, 0));

        told.end(&[0, 1, 3]);
        begin(&streams, &task);
        streams.wake_all();
        assert_eq!(streams.poll(), 3);
        assert!(streams.is_empty());
        streams.end_turn();
        // Who has ended is woken for nothing.
        wakers[0].wake_by_ref();
        begin(&streams, &task);
        told.polled();
        assert_eq!((streams.poll(), told.polled()), (0, vec![]));
    }

    #[test]
    fn a_wake_up_within_a_turn_is_heard_at_its_end() {
        let (task, told) = (Arc::<Task>::default(), Rc::<Told>::default());
        let mut streams = streams(&told);
        let connection = streams.waker();
        begin(&streams, &task);
        streams.push(0);
        streams.poll();
        connection.wake_by_ref();
        streams.connection_is_polled();
        streams.end_turn();
        assert_eq!(task.woken(), 0, "it was seen to in this turn");

        begin(&streams, &task);
        connection.wake_by_ref();
        told.wakers.borrow()[0].wake_by_ref();
        assert_eq!(task.woken(), 0);
        streams.end_turn();
        assert_eq!(task.woken(), 1);
        connection.wake_by_ref();
        assert_eq!(task.woken(), 0, "it has its turn already");
    }

    #[test]
    fn a_connection_that_rests_keeps_nothing() {
        let (task, told) = (Arc::<Task>::default(), Rc::<Told>::default());
        let mut streams = streams(&told);
        begin(&streams, &task);
        for number in 0..3 {
            streams.push(number);
        }
        told.end(&[0, 1]);
        assert_eq!(streams.poll(), 2);
        streams.rest();
        assert_eq!(streams.places.len(), 3, "there is a request");
        told.end(&[2]);
        streams.wake_all();
        assert_eq!(streams.poll(), 1);
        streams.rest();
        assert_eq!((streams.places.len(), streams.free.len()), (0, 0));
        // Of a place that is gone, too, somebody may still have the waker.
        for waker in told.wakers.take() {
            waker.wake();
        }
        assert_eq!(streams.poll(), 0);
        streams.push(3);
        told.end(&[3]);
        assert_eq!(streams.poll(), 1);
    }
}
