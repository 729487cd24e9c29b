//! How much a worker takes on. That it has more to do than it can, it notices by how late its own
//! clock ticks: the tick stands in line with the work.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pulse::Pulse;
use crate::telemetry::metrics::Metrics;

/// What one worker allows each workload at the moment.
///
/// While it is late, the share of each workload is halved, tick by tick: the busiest meet it first,
/// and whoever sends one request at a time never does. Then it grows again, more slowly. It is held
/// against the requests of the whole process, tunnels not counted.
#[derive(Debug)]
pub struct Pressure {
    /// What is allowed in calm times by other limits: halving begins here.
    most: Cell<usize>,
    allowed: Cell<usize>,
    /// Ticks in a row that were late.
    late: Cell<u32>,
    metrics: Arc<Metrics>,
}

/// How often a worker looks.
const TICK: Duration = Duration::from_millis(100);

/// A tick that comes so late is one too many waiting. A request stands in line some three times:
/// when it comes, when its backend is there and when that answers.
const LATE: Duration = Duration::from_millis(250);

/// One late tick may be a hiccup of the machine.
const IN_A_ROW: u32 = 2;

/// The share that no load takes away.
const LEAST: usize = 1;

impl Pressure {
    /// No pressure. `most` is what a workload may have in flight at any time.
    #[must_use]
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self {
            most: Cell::new(most),
            allowed: Cell::new(usize::MAX),
            late: Cell::new(0),
            metrics,
        })
    }

    /// How many requests each workload may have in flight as far as this worker's load goes.
    #[must_use]
    pub fn allowed(&self) -> usize {
        self.allowed.get()
    }

    /// What a workload may have in flight at any time is another number from now on.
    pub(super) fn set_most(&self, most: usize) {
        self.most.set(most);
    }

    /// Looks at every tick, for ever. A task of its own, because only that stands in line.
    pub(super) async fn watch(self: Rc<Self>, pulse: Pulse) {
        loop {
            let due = Instant::now() + TICK;
            tokio::time::sleep_until(due).await;
            pulse.beat();
            self.tick(due.elapsed());
        }
    }

    fn tick(&self, late: Duration) {
        self.metrics.late(late);
        let before = self.allowed.get();
        let in_a_row = match late >= LATE {
            true => self.late.get().saturating_add(1),
            false => 0,
        };
        self.late.set(in_a_row);
        let now = if in_a_row >= IN_A_ROW {
            (before.min(self.most.get()) / 2).max(LEAST)
        } else if late < LATE / 2 && before < usize::MAX {
            let more = before + before / 4 + 1;
            if more < self.most.get() {
                more
            } else {
                usize::MAX
            }
        } else {
            before
        };
        self.allowed.set(now);
        if before == usize::MAX && now < usize::MAX {
            self.metrics.overloaded.inc();
            tracing::warn!(
                late_ms = late.as_millis(),
                "there is more to do than this worker can: the busiest apps get a 503"
            );
        } else if before < usize::MAX && now == usize::MAX {
            self.metrics.overloaded.dec();
            tracing::info!("this worker keeps up again");
        }
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        if self.allowed.get() < usize::MAX {
            self.metrics.overloaded.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: u64 = 5;
    const SLOW: u64 = 200;
    const LATE: u64 = 300;

    /// What is allowed after each tick, a full share shown as 0.
    #[track_caller]
    fn check(ticks: &[u64], expected: &[usize]) {
        let pressure = Pressure::new(40, Metrics::new());
        let allowed: Vec<usize> = ticks
            .iter()
            .map(|late| {
                pressure.tick(Duration::from_millis(*late));
                Some(pressure.allowed()).filter(|now| *now < usize::MAX)
            })
            .map(Option::unwrap_or_default)
            .collect();
        assert_eq!(allowed, expected);
        let is_overloaded = i64::from(expected.last() != Some(&0));
        assert_eq!(pressure.metrics.overloaded.get(), is_overloaded);
        let metrics = Arc::clone(&pressure.metrics);
        drop(pressure);
        assert_eq!(metrics.overloaded.get(), 0);
    }

    #[test]
    fn one_late_tick_is_no_overload() {
        check(&[CALM, LATE, CALM, LATE, SLOW, LATE], &[0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn shares_are_halved_while_it_is_late_but_never_to_nothing() {
        check(&[LATE; 8], &[0, 20, 10, 5, 2, 1, 1, 1]);
    }

    #[test]
    fn shares_stay_as_they_are_while_it_is_merely_slow() {
        check(&[LATE, LATE, SLOW, SLOW, LATE], &[0, 20, 20, 20, 20]);
    }

    #[test]
    fn shares_grow_again_until_there_is_no_need_for_them() {
        check(
            &[LATE, LATE, LATE, CALM, CALM, CALM, CALM, CALM, CALM],
            &[0, 20, 10, 13, 17, 22, 28, 36, 0],
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_get_round_to_its_tick_is_late() {
        let pressure = Pressure::new(40, Metrics::new());
        let local = tokio::task::LocalSet::new();
        local.spawn_local(Rc::clone(&pressure).watch(Pulse::default()));
        local
            .run_until(async {
                let lateness = async |late: Duration| {
                    tokio::task::yield_now().await;
                    tokio::time::advance(TICK + late).await;
                    tokio::task::yield_now().await;
                };
                for _ in 0..3 {
                    lateness(Duration::from_millis(LATE)).await;
                }
                assert_eq!(pressure.allowed(), 10);
                for _ in 0..20 {
                    lateness(Duration::ZERO).await;
                }
                assert_eq!(pressure.allowed(), usize::MAX);
            })
            .await;
    }
}
