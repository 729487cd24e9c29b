//! An engine that forgets everything when it is dropped: for tests and trials.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use super::engine::{Changes, Engine, Fault, Page, Pairs, Snapshot, Table};

type Entries = BTreeMap<(Table, String), Vec<u8>>;

/// Keeps everything in memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    // Copied on a commit only where a snapshot of it is still held.
    entries: RwLock<Arc<Entries>>,
}

impl Engine for Memory {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Fault> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(MemorySnapshot(Arc::clone(&entries))))
    }

    fn commit(&self, changes: &Changes) -> Result<(), Fault> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let entries = Arc::make_mut(&mut entries);
        for (key, value) in changes {
            match value {
                Some(value) => entries.insert(key.clone(), value.clone()),
                None => entries.remove(key),
            };
        }
        Ok(())
    }

    fn heal(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn let_go(&self) {}

    fn take_back(&self) {}

    fn is_let_go(&self) -> bool {
        false
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

struct MemorySnapshot(Arc<Entries>);

impl Snapshot for MemorySnapshot {
    fn get(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.0.get(&(table, key.to_owned())).cloned())
    }

    fn scan(&self, table: Table, prefix: &str, limit: usize) -> Result<Pairs, Fault> {
        let start = Bound::Included((table, prefix.to_owned()));
        let pairs = self
            .0
            .range((start, Bound::Unbounded))
            .take_while(|((of, key), _)| *of == table && key.starts_with(prefix))
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()));
        Ok(pairs.collect())
    }

    fn after(&self, table: Table, key: &str, page: Page) -> Result<Pairs, Fault> {
        let start = Bound::Excluded((table, key.to_owned()));
        let pairs = self
            .0
            .range((start, Bound::Unbounded))
            .take_while(|((of, _), _)| *of == table)
            .map(|((_, key), value)| Ok((key.clone(), value.clone())));
        page.fill(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::contract;
    use super::*;

    #[test]
    fn memory_keeps_the_contract_of_an_engine() {
        contract::check(&Memory::default());
    }
}
