//! What is in flight to each workload, whether or not its backend is in the cache.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hashbrown::HashTable;

use super::super::Workload;
use super::table;
use crate::telemetry::load::Load;
use crate::telemetry::metrics::Metrics;

/// The one load of each workload, for as long as somebody holds it: a backend that was pushed out of the
/// cache does not become idle by that. Locked only where the cache had no answer.
pub(super) struct Loads {
    shards: Box<[Mutex<Shard>]>,
    metrics: Arc<Metrics>,
}

/// With the hash of each.
type Shard = HashTable<(u64, Weak<Load>)>;

impl Loads {
    /// None yet, of about so many.
    pub(super) fn new(workloads: u64, metrics: Arc<Metrics>) -> Self {
        let shards = (0..table::shards(workloads)).map(|_| Mutex::default());
        Self {
            shards: shards.collect(),
            metrics,
        }
    }

    /// The load of `workload`, if anybody holds it.
    pub(super) fn find(&self, hash: u64, workload: &Workload) -> Option<Arc<Load>> {
        find(&self.shard(hash), hash, workload)
    }

    /// The load of `workload`.
    pub(super) fn of(&self, hash: u64, workload: &Workload) -> Arc<Load> {
        let mut shard = self.shard(hash);
        if let Some(load) = find(&shard, hash, workload) {
            return load;
        }
        if shard.len() == shard.capacity() {
            // Room for as many again, so that this is rare.
            shard.retain(|(_, load)| load.strong_count() > 0);
            let held = shard.len();
            shard.reserve(held.max(1), |(hash, _)| *hash);
        }
        let load = self.metrics.load(workload.kind.into(), workload.id);
        let held = (hash, Arc::downgrade(&load));
        shard.insert_unique(hash, held, |(hash, _)| *hash);
        load
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        let shard = self.shards[table::shard_of(hash, self.shards.len())].lock();
        shard.unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(shard: &Shard, hash: u64, workload: &Workload) -> Option<Arc<Load>> {
    let mut found = None;
    // One that nobody holds any more is none, though its place is still taken.
    shard.find(hash, |(its_hash, load)| {
        found = (*its_hash == hash).then(|| load.upgrade()).flatten();
        found.take_if(|load| !load.is_of(workload.kind.into(), &workload.id));
        found.is_some()
    });
    found
}

impl fmt::Debug for Loads {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Loads").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::WorkloadId;
    use crate::resolve::WorkloadKind;

    fn workload(id: &str) -> Workload {
        Workload {
            kind: WorkloadKind::App,
            id: WorkloadId::parse(id).unwrap(),
        }
    }

    #[test]
    fn counts_that_nobody_holds_are_forgotten() {
        let loads = Loads::new(0, Metrics::new());
        let held = loads.of(0, &workload("held"));
        for number in 0..1000 {
            let _given_up = loads.of(number, &workload(&format!("app-{number}")));
        }
        assert!(loads.shard(0).len() < 500);
        assert!(Arc::ptr_eq(&held, &loads.of(0, &workload("held"))));
    }

    #[test]
    fn workloads_of_one_hash_are_counted_apart() {
        let loads = Loads::new(0, Metrics::new());
        let one = loads.of(7, &workload("one"));
        let two = loads.of(7, &workload("two"));
        assert!(!Arc::ptr_eq(&one, &two));
        assert!(Arc::ptr_eq(&one, &loads.of(7, &workload("one"))));
        drop(two);
        assert!(loads.find(7, &workload("two")).is_none());
        assert!(loads.find(7, &workload("one")).is_some());
    }
}
