//! Where each of those who are told apart stands: a table that is made once and never grows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;

/// States by hash. A hash belongs into one set of a few places, and each set has a lock of its own, so that
/// two workers meet only where they count the same client.
///
/// Whoever finds no place of its own takes over the one that has used up least, with what that has used up.
/// Where that is nothing, as in a place that is empty or whose time has passed, it begins afresh. So in a
/// flood of more than there is room for, those share places who came but once or twice, and who has used up
/// much keeps its own: nobody is ever allowed more than its rate, and some newcomers less.
pub(super) struct Table {
    sets: Box<[Mutex<Set>]>,
}

type Set = [State; WAYS];

/// Places of a set. So many share two lines of the processor's cache.
const WAYS: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
struct State {
    hash: u64,
    /// When all of its quota will be there again, in nanoseconds since the start.
    whole: u64,
}

impl Table {
    /// With room for so many, rounded up to whole sets.
    pub(super) fn with_room_for(count: usize) -> Self {
        let sets = count.div_ceil(WAYS).max(1);
        Self {
            sets: (0..sets).map(|_| Mutex::default()).collect(),
        }
    }

    fn set(&self, hash: u64) -> MutexGuard<'_, Set> {
        // The upper half of the product is below the number of sets, and as even as the hash.
        let sets = self.sets.len() as u128;
        let index = (u128::from(hash) * sets) >> u64::BITS;
        let set = &self.sets[usize::try_from(index).unwrap_or_default()];
        set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place in `set` that `hash` has, or would take.
fn place_of(hash: u64, set: &Set) -> usize {
    match set.iter().position(|state| state.hash == hash) {
        Some(own) => own,
        None => {
            let least = set.iter().enumerate().min_by_key(|(_, state)| state.whole);
            least.map_or(0, |(place, _)| place)
        }
    }
}

/// A table as it is counted in.
pub(super) struct Counted(pub(super) Arc<Table>);

impl StateStore for Counted {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, hash: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut set = self.0.set(*hash);
        let place = place_of(*hash, &set);
        let (outcome, whole) = decide(Some(set[place].whole.into()))?;
        set[place] = State {
            hash: *hash,
            whole: whole.into(),
        };
        Ok(outcome)
    }
}

/// A table as it is only looked at: what is decided changes nothing.
pub(super) struct Seen(pub(super) Arc<Table>);

impl StateStore for Seen {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, hash: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let set = self.0.set(*hash);
        let place = place_of(*hash, &set);
        decide(Some(set[place].whole.into())).map(|(outcome, _)| outcome)
    }
}
