//! One coarse timer a connection, for every phase of every request on it.
//!
//! A phase asks for a [`Deadline`]; the task of the connection holds one sleep and looks after each
//! poll whether a deadline has become earlier than that sleep. Nothing is armed or cancelled a request.

use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The deadlines of one connection. Clones share them.
#[derive(Debug, Clone)]
pub struct Timer(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// The earliest deadline that somebody waits for, in milliseconds since `started`.
    wanted: Cell<u64>,
    /// The time when the sleep last fired, likewise.
    fired: Cell<u64>,
    /// The time when a request body last moved, likewise.
    touched: Cell<u64>,
    /// The task that holds the sleep.
    owner: OnceCell<Waker>,
}

const NEVER: u64 = u64::MAX;

/// A moment until which something must have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(u64);

impl Timer {
    /// A timer with no deadline.
    #[must_use]
    pub fn new() -> Self {
        Self(Rc::new(Shared {
            started: Instant::now(),
            wanted: Cell::new(NEVER),
            fired: Cell::new(0),
            touched: Cell::new(0),
            owner: OnceCell::new(),
        }))
    }

    /// The deadline `limit` from now.
    #[must_use]
    pub fn after(&self, limit: Duration) -> Deadline {
        // One more, because both times are rounded down: never early.
        Deadline(self.now() + millis(limit) + 1)
    }

    /// Whether `deadline` has passed. Asks for a wake-up of the connection's task if not.
    pub fn passed(&self, deadline: Deadline) -> bool {
        if self.0.fired.get() >= deadline.0 {
            return true;
        }
        if deadline.0 < self.0.wanted.get() {
            self.0.wanted.set(deadline.0);
            if let Some(owner) = self.0.owner.get() {
                // It looks at its sleep again. Seldom: what is wanted stays until the sleep fires.
                owner.wake_by_ref();
            }
        }
        false
    }

    /// A request body has moved: what waits [`while_moving`](Self::while_moving) may wait on.
    pub fn touch(&self) {
        self.0.touched.set(self.now());
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
        let mut deadline = self.after(limit);
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            while self.passed(deadline) {
                let touched = self.0.touched.get();
                let later = Deadline(touched + millis(limit) + 1);
                if later.0 <= deadline.0 {
                    return Poll::Ready(None);
                }
                deadline = later;
            }
            Poll::Pending
        })
        .await
    }

    fn now(&self) -> u64 {
        millis(self.0.started.elapsed())
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

/// The one sleep behind a [`Timer`], held by the task of its connection.
#[derive(Debug)]
pub struct Alarm {
    timer: Timer,
    sleep: Pin<Box<Sleep>>,
    armed: u64,
}

impl Alarm {
    /// An alarm that no deadline has armed yet.
    #[must_use]
    pub fn new(timer: Timer) -> Self {
        Self {
            timer,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: NEVER,
        }
    }

    /// To be called after the connection was polled: ready when a deadline has passed, and then the
    /// connection is to be polled again.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let shared = &self.timer.0;
        // A connection stays in one task, so its waker stays good.
        shared.owner.get_or_init(|| context.waker().clone());
        let wanted = shared.wanted.get();
        if wanted < self.armed {
            self.armed = wanted;
            let moment = shared.started + Duration::from_millis(wanted);
            self.sleep.as_mut().reset(moment);
        }
        if self.armed == NEVER || self.sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        // Whoever still waits says so again when the connection is polled.
        self.armed = NEVER;
        shared.wanted.set(NEVER);
        shared.fired.set(self.timer.now());
        Poll::Ready(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    /// Polls `future` beside an alarm, as the task of a connection does.
    async fn drive<T>(timer: &Timer, future: impl Future<Output = T>) -> T {
        let mut alarm = Alarm::new(timer.clone());
        let mut future = std::pin::pin!(future);
        poll_fn(|context| {
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(context) {
                    return Poll::Ready(output);
                }
                std::task::ready!(alarm.poll(context));
            }
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_what_takes_longer() {
        let timer = Timer::new();
        let start = Instant::now();
        let never = pin!(std::future::pending::<()>());
        let outcome = drive(&timer, timer.while_moving(Duration::from_secs(10), never)).await;
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
        assert_eq!(
            drive(&timer, timer.while_moving(60 * second, pin!(both))).await,
            None
        );
        assert!(start.elapsed() >= 60 * second);
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
        let outcome = drive(&timer, timer.while_moving(limit, pin!(upload))).await;
        assert_eq!(outcome, None);
        let took = start.elapsed().as_secs();
        assert_eq!(took, 70);
    }
}
