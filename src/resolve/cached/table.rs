//! What is held, by hash: found by all threads at once, and never more than there is room for.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// What is held, in shards with a lock each. Those who look share it, and nobody has it for longer than one
/// entry takes.
///
/// Where there is room for no more, one of the same shard goes: a hand goes round, spares what was looked
/// for since it came by the last time, and takes out what was not.
pub(super) struct Table<V> {
    shards: Box<[Line<V>]>,
    capacity: usize,
    held: AtomicUsize,
}

/// A shard in a line of the processor's cache of its own, so that two never share one.
#[derive(Debug)]
#[repr(align(64))]
struct Line<V>(RwLock<Shard<V>>);

#[derive(Debug)]
struct Shard<V> {
    entries: HashTable<Arc<Held<V>>>,
    /// Where the hand is.
    hand: usize,
}

/// One that is held, or was.
#[derive(Debug)]
pub(super) struct Held<V> {
    value: V,
    hash: u64,
    /// Whether it was looked for since the hand came by.
    used: AtomicBool,
}

impl<V> Table<V> {
    /// With room for `capacity`.
    pub(super) fn new(capacity: u64) -> Self {
        let shards = (0..shards(capacity)).map(|_| Line(RwLock::default()));
        Self {
            shards: shards.collect(),
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX),
            held: AtomicUsize::new(0),
        }
    }

    /// What is held under `hash` and the one that is looked for.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(&V) -> bool) -> Option<Arc<Held<V>>> {
        let shard = self.shard(hash).read();
        let shard = shard.unwrap_or_else(PoisonError::into_inner);
        let held = shard.entries.find(hash, |held| held.is(hash, &is_it))?;
        // Written once a round: a line that all only read, each core has for itself.
        if !held.used.load(Ordering::Relaxed) {
            held.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(held))
    }

    /// Holds `new`, in place of what is the same.
    pub(super) fn put(&self, new: Arc<Held<V>>, is_it: impl Fn(&V) -> bool) {
        let hash = new.hash;
        let mut shard = self.write(hash);
        let is_it = |held: &Arc<Held<V>>| held.is(hash, &is_it);
        match shard.entries.entry(hash, is_it, |held| held.hash) {
            Entry::Occupied(mut entry) => *entry.get_mut() = new,
            Entry::Vacant(entry) => {
                entry.insert(new);
                let held = self.held.fetch_add(1, Ordering::Relaxed);
                if held >= self.capacity && shard.push_out() {
                    self.held.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Holds it no more.
    pub(super) fn remove(&self, hash: u64, is_it: impl Fn(&V) -> bool) {
        let mut shard = self.write(hash);
        if let Ok(entry) = shard.entries.find_entry(hash, |held| held.is(hash, &is_it)) {
            entry.remove();
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard<V>> {
        &self.shards[shard_of(hash, self.shards.len())].0
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Shard<V>> {
        let shard = self.shard(hash).write();
        shard.unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many entries share a lock, and what is done while it is held takes no longer however many there are in
/// all.
const PER_SHARD: u64 = 256;

const MOST_SHARDS: u64 = 1 << 16;

/// Into how many shards so many entries go: a power of two.
pub(super) fn shards(entries: u64) -> usize {
    let shards = (entries / PER_SHARD).clamp(1, MOST_SHARDS);
    usize::try_from(shards.next_power_of_two()).unwrap_or(1)
}

/// In which of the shards a hash belongs. A shard goes by both ends of it, so this is its middle.
pub(super) fn shard_of(hash: u64, shards: usize) -> usize {
    usize::try_from(hash >> 24 & u64::from(u32::MAX)).unwrap_or_default() & (shards - 1)
}

impl<V> Shard<V> {
    /// Takes out one that was not looked for of late; whether there was any.
    fn push_out(&mut self) -> bool {
        let places = self.entries.num_buckets();
        // In the second round none has been looked for since the first.
        for _ in 0..2 * places {
            self.hand = (self.hand + 1) % places;
            let Ok(entry) = self.entries.get_bucket_entry(self.hand) else {
                continue;
            };
            if !entry.get().used.swap(false, Ordering::Relaxed) {
                entry.remove();
                return true;
            }
        }
        false
    }
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self {
            entries: HashTable::new(),
            hand: 0,
        }
    }
}

impl<V> Held<V> {
    /// To be held under `hash`.
    pub(super) fn new(hash: u64, value: V) -> Arc<Self> {
        Arc::new(Self {
            value,
            hash,
            used: AtomicBool::new(false),
        })
    }

    fn is(&self, hash: u64, is_it: impl Fn(&V) -> bool) -> bool {
        self.hash == hash && is_it(&self.value)
    }
}

impl<V> Deref for Held<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V> fmt::Debug for Table<V> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Table")
            .field("capacity", &self.capacity)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;

    use super::*;

    /// Numbers with a text each.
    struct Numbers {
        table: Table<(u32, u32)>,
        hasher: RandomState,
    }

    impl Numbers {
        fn new(capacity: u64) -> Self {
            Self {
                table: Table::new(capacity),
                hasher: RandomState::new(),
            }
        }

        fn find(&self, number: u32) -> Option<u32> {
            let hash = self.hasher.hash_one(number);
            let held = self.table.find(hash, |held| held.0 == number)?;
            Some(held.1)
        }

        fn put(&self, number: u32, value: u32) {
            let new = Held::new(self.hasher.hash_one(number), (number, value));
            self.table.put(new, |held| held.0 == number);
        }

        fn remove(&self, number: u32) {
            let hash = self.hasher.hash_one(number);
            self.table.remove(hash, |held| held.0 == number);
        }
    }

    #[test]
    fn all_are_held_that_there_is_room_for_and_no_more() {
        for capacity in [0_u32, 1, 7, 100, 5000] {
            let numbers = Numbers::new(u64::from(capacity));
            for number in 0..capacity {
                numbers.put(number, number);
            }
            assert!((0..capacity).all(|number| numbers.find(number) == Some(number)));
            for number in capacity..3 * capacity + 3 {
                numbers.put(number, number);
                assert_eq!(numbers.table.len(), capacity as usize);
            }
            let found = (0..3 * capacity + 3).filter(|number| numbers.find(*number).is_some());
            assert_eq!(found.count(), capacity as usize);
        }
    }

    #[test]
    fn what_is_looked_for_stays_when_others_have_to_go() {
        let numbers = Numbers::new(100);
        for number in 0..10_000 {
            numbers.put(number, number);
            for wanted in 0..10.min(number) {
                assert_eq!(numbers.find(wanted), Some(wanted), "after {number}");
            }
        }
    }

    #[test]
    fn those_of_one_hash_are_told_apart() {
        let table = Table::new(10);
        for number in 0..3 {
            table.put(Held::new(7, number), |held| *held == number);
        }
        table.remove(7, |held| *held == 1);
        let find = |number| table.find(7, |held| *held == number).is_some();
        assert_eq!([0, 1, 2].map(find), [true, false, true]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u32, u32),
        Remove(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..50_u32, any::<u32>()).prop_map(|(number, value)| Step::Put(number, value)),
            1 => (0..50_u32).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_was_put_there_last(
            capacity in 0..60_u64,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let numbers = Numbers::new(capacity);
            let mut expected = HashMap::new();
            for step in steps {
                match step {
                    Step::Put(number, value) => {
                        numbers.put(number, value);
                        expected.insert(number, value);
                    }
                    Step::Remove(number) => {
                        numbers.remove(number);
                        expected.remove(&number);
                    }
                }
                let mut held = 0;
                for number in 0..50 {
                    if let Some(found) = numbers.find(number) {
                        prop_assert_eq!(Some(&found), expected.get(&number));
                        held += 1;
                    }
                }
                prop_assert_eq!(held, numbers.table.len());
                prop_assert!(held as u64 <= capacity);
                if expected.len() as u64 <= capacity && capacity >= 50 {
                    prop_assert_eq!(held, expected.len());
                }
            }
        }
    }
}
