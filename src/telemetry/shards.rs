//! Numbers that all threads count and one adds up: each thread has a place of its own, so that none
//! waits for another's cache line, nor locks its own.

use std::num::NonZero;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A `T` for each thread that counts, as far as there are so many, and one for all others.
#[derive(Debug)]
pub(super) struct Sharded<T>(Box<[T]>);

/// The place of one thread.
#[derive(Debug)]
pub(super) struct Mine<'a, T> {
    place: &'a T,
    /// Whether no other thread counts there.
    alone: bool,
}

impl<T: Default> Sharded<T> {
    pub(super) fn new() -> Self {
        Self((0..*PLACES).map(|_place| T::default()).collect())
    }

    /// One for all threads together.
    pub(super) fn whole() -> Self {
        Self([T::default()].into())
    }

    /// That of the thread that asks.
    pub(super) fn mine(&self) -> Mine<'_, T> {
        let common = self.0.len() - 1;
        let number = match common {
            // Whoever has no other place needs no number.
            0 => 0,
            _ => NUMBER.with(|number| *number),
        };
        Mine {
            place: &self.0[number.min(common)],
            alone: number < common,
        }
    }

    /// All of them, each whichever thread it is of.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    /// What `of` all of them are together.
    pub(super) fn sum(&self, of: impl Fn(&T) -> u64) -> u64 {
        self.0.iter().map(of).fold(0, u64::wrapping_add)
    }
}

impl<'a, T> Mine<'a, T> {
    /// The place itself.
    pub(super) fn place(&self) -> &'a T {
        self.place
    }

    /// Adds to one number of the place. Below zero it goes round, as the sum does.
    pub(super) fn add(&self, number: impl FnOnce(&'a T) -> &'a AtomicU64, more: u64) {
        let number = number(self.place);
        if self.alone {
            // Nobody else writes there, so nothing is lost between the two.
            let before = number.load(Ordering::Relaxed);
            number.store(before.wrapping_add(more), Ordering::Relaxed);
        } else {
            number.fetch_add(more, Ordering::Relaxed);
        }
    }
}

/// How many threads have counted so far. None gets the number of another, also when that has ended.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
}

/// How many places there are: one for each worker, for the control thread, and for the others. Asked
/// for once, because the system answers from files.
static PLACES: LazyLock<usize> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    cores.min(MOST) + 2
});

/// More places than this cost memory and spare nobody much.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_count_is_added_up() {
        let counted = Sharded::<AtomicU64>::new();
        std::thread::scope(|scope| {
            // More than there are places.
            for _thread in 0..2 * counted.0.len() {
                scope.spawn(|| {
                    for _time in 0..1000 {
                        counted.mine().add(|count| count, 2);
                        counted.mine().add(|count| count, u64::MAX);
                    }
                });
            }
        });
        let sum = counted.sum(|count| count.load(Ordering::Relaxed));
        assert_eq!(sum, 2000 * counted.0.len() as u64);
    }
}
