//! One rate, and everybody whom it is for. Only here governor is known.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use super::table::{Counted, Seen, Table};
use super::{Exceeded, Rate, Scope, Standing};

/// Counts requests against one rate.
pub(super) struct Limiter<C: Clock> {
    scope: Scope,
    rate: Rate,
    counting: By<Counted, C>,
    /// Over the same table.
    looking: By<Seen, C>,
    /// Its secret is of this process, so nobody can choose whom to share a place with.
    hasher: RandomState,
}

type By<S, C> = RateLimiter<u64, S, C, StateInformationMiddleware>;

impl<C: Clock + Clone> Limiter<C> {
    /// Tells `capacity` of those apart for whom `rate` is.
    pub(super) fn new(scope: Scope, rate: Rate, capacity: usize, clock: C) -> Self {
        let quota = Quota::with_period(rate.period())
            .expect("the numbers of a rate are bounded, so its period is not zero")
            .allow_burst(rate.burst());
        let table = Arc::new(Table::with_room_for(capacity));
        Self {
            scope,
            rate,
            counting: RateLimiter::new(quota, Counted(Arc::clone(&table)), clock.clone()),
            looking: RateLimiter::new(quota, Seen(table), clock),
            hasher: RandomState::new(),
        }
    }
}

impl<C: Clock> Limiter<C> {
    /// Counts one request of `who`.
    ///
    /// # Errors
    /// When it is one too many.
    pub(super) fn check(&self, who: impl Hash) -> Result<Standing, Exceeded> {
        self.check_by(&self.counting, who)
    }

    /// What one request of `who` would be told, which is not counted.
    ///
    /// # Errors
    /// When it would be one too many.
    pub(super) fn foresee(&self, who: impl Hash) -> Result<Standing, Exceeded> {
        self.check_by(&self.looking, who)
    }

    fn check_by<S: StateStore<Key = u64>>(
        &self,
        limiter: &By<S, C>,
        who: impl Hash,
    ) -> Result<Standing, Exceeded> {
        let quota = self.rate.burst().get();
        let standing = |left, reset| Standing {
            scope: self.scope,
            quota,
            window: seconds(self.rate.window()),
            left,
            reset: seconds(reset),
        };
        match limiter.check_key(&self.hasher.hash_one(who)) {
            Ok(state) => {
                let left = state.remaining_burst_capacity();
                Ok(standing(left, self.rate.period() * (quota - left)))
            }
            Err(until) => {
                let wait = until.wait_time_from(limiter.clock().now());
                Err(Exceeded(standing(0, wait)))
            }
        }
    }
}

impl<C: Clock> fmt::Debug for Limiter<C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scope, rate) = (self.scope, self.rate);
        write!(out, "Limiter({scope:?}, {rate})")
    }
}

/// Rounded up: whoever waits so long has waited long enough. A whole second at least.
fn seconds(span: Duration) -> u32 {
    let whole = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}
