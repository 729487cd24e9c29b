//! One coarse timer a connection, for every phase of every request on it.
//!
//! A phase asks for a [`Deadline`]; the task of the connection holds one sleep and looks after each
//! poll whether a deadline has become earlier than that sleep. Nothing is armed or cancelled a request.
//!
//! The clock is read once a poll: all that is asked for in one turn of the task is asked for at the
//! same time.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The deadlines of one connection, or of one request of several on it. Clones share them.
#[derive(Debug, Clone)]
pub struct Timer(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    /// The time when a request body last moved, in milliseconds since the clock started.
    touched: Cell<u64>,
}

#[derive(Debug)]
enum Clock {
    Own(Times),
    /// That of another timer, which has its own.
    Of(Timer),
}

/// What the one sleep goes by.
#[derive(Debug)]
struct Times {
    started: Instant,
    /// The earliest deadline that somebody waits for, in milliseconds since `started`.
    wanted: Cell<u64>,
    /// The time when the sleep last fired, likewise.
    fired: Cell<u64>,
    turn: Cell<Turn>,
}

/// What is known of the time while the task of the connection is polled.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// It is not polled.
    None,
    /// Nobody has asked for the time yet.
    Begun,
    At(Instant),
}

const NEVER: u64 = u64::MAX;

/// A moment until which something must have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(u64);

impl Timer {
    /// A timer with no deadline.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Clock::Own(Times {
            started: Instant::now(),
            wanted: Cell::new(NEVER),
            fired: Cell::new(0),
            turn: Cell::new(Turn::None),
        }))
    }

    /// A timer for one request of several at once: the sleep is the same, but what moves in the others
    /// does not move this one.
    #[must_use]
    pub fn apart(&self) -> Self {
        let root = match &self.0.clock {
            Clock::Own(_) => self,
            Clock::Of(root) => root,
        };
        Self::with(Clock::Of(root.clone()))
    }

    fn with(clock: Clock) -> Self {
        let touched = Cell::new(0);
        Self(Rc::new(Shared { clock, touched }))
    }

    /// When the sleep last fired. Whoever polls futures only when they are woken has to poll all of them
    /// then: each asks for its wake-up anew.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.times().fired.get()
    }

    fn times(&self) -> &Times {
        match &self.0.clock {
            Clock::Own(times) => times,
            Clock::Of(root) => root.times(),
        }
    }

    /// The time, which stands still while the task of the connection is polled.
    #[must_use]
    pub fn now(&self) -> Instant {
        let turn = &self.times().turn;
        match turn.get() {
            Turn::None => Instant::now(),
            Turn::Begun => {
                let now = Instant::now();
                turn.set(Turn::At(now));
                now
            }
            Turn::At(now) => now,
        }
    }

    /// The deadline `limit` from now.
    #[must_use]
    pub fn after(&self, limit: Duration) -> Deadline {
        // One more, because both times are rounded down: never early.
        Deadline(self.since_start() + millis(limit) + 1)
    }

    /// Whether `deadline` has passed. Asks for a wake-up of the connection's task if not.
    pub fn passed(&self, deadline: Deadline) -> bool {
        if self.times().fired.get() >= deadline.0 {
            return true;
        }
        // The task that asks is the one that holds the sleep, and looks at it when it was polled.
        let wanted = &self.times().wanted;
        wanted.set(deadline.0.min(wanted.get()));
        false
    }

    /// A request body has moved: what waits [`while_moving`](Self::while_moving) may wait on.
    pub fn touch(&self) {
        self.0.touched.set(self.since_start());
    }

    /// Runs `future`, but for no longer than `limit` after the request's body last moved; `None`
    /// when that time is over.
    ///
    /// For futures that the connection's own task polls. It is pinned by the caller: held here, it
    /// would be in memory twice, and copied.
    pub async fn while_moving<T>(
        &self,
        limit: Duration,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut deadline = None;
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if self.is_stuck(limit, &mut deadline) {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }

    /// Whether nothing has moved for `limit`: since `deadline` was set, which this does where it is
    /// not, and since the request's body last moved. Asks for a wake-up if not.
    pub fn is_stuck(&self, limit: Duration, deadline: &mut Option<Deadline>) -> bool {
        let mut until = *deadline.get_or_insert_with(|| self.after(limit));
        while self.passed(until) {
            let later = Deadline(self.0.touched.get() + millis(limit) + 1);
            if later.0 <= until.0 {
                return true;
            }
            until = later;
        }
        *deadline = Some(until);
        false
    }

    /// In milliseconds.
    fn since_start(&self) -> u64 {
        millis(self.now().saturating_duration_since(self.times().started))
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

/// The one sleep behind a [`Timer`], held by the task of its connection.
#[derive(Debug)]
struct Alarm {
    timer: Timer,
    sleep: Pin<Box<Sleep>>,
    armed: u64,
}

impl Alarm {
    /// An alarm that no deadline has armed yet.
    fn new(timer: Timer) -> Self {
        Self {
            timer,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: NEVER,
        }
    }

    /// To be called after the connection was polled: ready when a deadline has passed, and then the
    /// connection is to be polled again.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let times = self.timer.times();
        let wanted = times.wanted.get();
        if wanted < self.armed {
            self.armed = wanted;
            let moment = times.started + Duration::from_millis(wanted);
            self.sleep.as_mut().reset(moment);
        }
        if self.armed == NEVER || self.sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        // Whoever still waits says so again when the connection is polled.
        self.armed = NEVER;
        times.wanted.set(NEVER);
        times.fired.set(self.timer.since_start());
        Poll::Ready(())
    }
}

/// Runs `future` in a task of its own, which holds the sleep behind `timer`.
///
/// It is pinned by the caller: held here, it would be in memory twice, and copied.
pub async fn drive<T>(timer: &Timer, mut future: Pin<&mut impl Future<Output = T>>) -> T {
    let mut alarm = Alarm::new(timer.clone());
    poll_fn(|context| {
        loop {
            let turn = &timer.times().turn;
            turn.set(Turn::Begun);
            let polled = future.as_mut().poll(context);
            turn.set(Turn::None);
            if let Poll::Ready(output) = polled {
                return Poll::Ready(output);
            }
            ready!(alarm.poll(context));
        }
    })
    .await
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_what_takes_longer() {
        let timer = Timer::new();
        let start = Instant::now();
        let never = pin!(std::future::pending::<()>());
        let waiting = pin!(timer.while_moving(Duration::from_secs(10), never));
        let outcome = drive(&timer, waiting).await;
        assert_eq!(outcome, None);
        let took = start.elapsed().as_millis();
        assert!((10_000..10_010).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_shortens_the_sleep_and_a_later_one_is_not_forgotten() {
        let timer = Timer::new();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let both = async {
            let never = pin!(std::future::pending::<()>());
            assert_eq!(timer.while_moving(second, never).await, None);
            assert!(start.elapsed() < 2 * second);
            std::future::pending::<()>().await;
        };
        let both = pin!(both);
        let waiting = pin!(timer.while_moving(60 * second, both));
        assert_eq!(drive(&timer, waiting).await, None);
        assert!(start.elapsed() >= 60 * second);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_share_the_sleep_and_each_has_what_moves_to_itself() {
        let timer = Timer::new();
        let start = Instant::now();
        let (moving, still) = (timer.apart(), timer.apart().apart());
        let both = async {
            let upload = async {
                tokio::time::sleep(Duration::from_secs(6)).await;
                moving.touch();
                std::future::pending::<()>().await;
            };
            let limit = Duration::from_secs(10);
            let upload = pin!(upload);
            let moves = moving.while_moving(limit, upload);
            let never = pin!(std::future::pending::<()>());
            let waits = async {
                assert_eq!(still.while_moving(limit, never).await, None);
                start.elapsed().as_secs()
            };
            tokio::join!(moves, waits)
        };
        let both = pin!(both);
        assert_eq!(drive(&timer, both).await, (None, 10));
        assert_eq!(start.elapsed().as_secs(), 16);
        assert!(timer.fired() == moving.fired() && timer.fired() >= 16_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_moves_slowly_keeps_its_request_alive() {
        let timer = Timer::new();
        let start = Instant::now();
        let upload = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(6)).await;
                timer.touch();
            }
            std::future::pending::<()>().await;
        };
        let limit = Duration::from_secs(10);
        let upload = pin!(upload);
        let waiting = pin!(timer.while_moving(limit, upload));
        let outcome = drive(&timer, waiting).await;
        assert_eq!(outcome, None);
        let took = start.elapsed().as_secs();
        assert_eq!(took, 70);
    }
}
