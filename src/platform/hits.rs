//! How often short links were followed: added up in memory, written in batches.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::store::{self, Read, Store, Table};
use super::urls::Link;
use crate::id::LinkId;

/// The hits that are not written yet. At most a second of them is lost to a kill.
#[derive(Debug, Default)]
pub(super) struct Hits {
    pending: Mutex<HashMap<LinkId, u64>>,
    /// Held while a batch is written, so that who waits for it sees it written.
    flushing: tokio::sync::Mutex<()>,
}

impl Hits {
    /// Counts one.
    pub(super) fn count(&self, id: LinkId) {
        *self.locked().entry(id).or_default() += 1;
    }

    /// Those of one link that are not written yet.
    pub(super) fn pending(&self, id: &LinkId) -> u64 {
        self.locked().get(id).copied().unwrap_or_default()
    }

    /// Forgets those of a link that is gone: another may get its id.
    pub(super) fn forget(&self, id: &LinkId) {
        self.locked().remove(id);
    }

    /// Writes all that were counted so far.
    pub(super) async fn flush(&self, store: &Store) -> Result<(), store::Error> {
        let _flushing = self.flushing.lock().await;
        let batch = std::mem::take(&mut *self.locked());
        if batch.is_empty() {
            return Ok(());
        }
        let added = batch.clone();
        let written = store.write(move |tx| {
            for (id, hits) in added {
                if let Some(mut link) = tx.get::<Link>(Table::Links, id.as_str())? {
                    link.hits = link.hits.saturating_add(hits);
                    tx.put(Table::Links, id.as_str(), &link);
                }
            }
            Ok(())
        });
        let written = written.await;
        if written.is_err() {
            let mut pending = self.locked();
            for (id, hits) in batch {
                *pending.entry(id).or_default() += hits;
            }
        }
        written
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<LinkId, u64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
