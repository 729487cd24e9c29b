//! How often short links were followed: added up in memory, written in batches.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::store::{self, Read, Store, Table};
use super::urls::Link;
use crate::id::LinkId;
use crate::telemetry::platform::Platform as Series;

/// The hits that are not written yet. At most a second of them is lost to a kill.
#[derive(Debug, Default)]
pub(super) struct Hits {
    pending: Mutex<HashMap<LinkId, Arc<Pending>>>,
    /// Held while a batch is written, so that who waits for it sees it written.
    flushing: tokio::sync::Mutex<()>,
    series: Series,
}

/// The hits of one link that are not written yet. Whoever holds it may count at any time.
#[derive(Debug, Default)]
pub(super) struct Pending(AtomicU64);

impl Hits {
    /// None yet. How many are not written is shown by `series`.
    pub(super) fn new(series: Series) -> Self {
        Self {
            series,
            ..Self::default()
        }
    }

    /// Where those of one link are counted.
    pub(super) fn of(&self, id: &LinkId) -> Arc<Pending> {
        let mut all = self.locked();
        match all.get(id) {
            Some(pending) => Arc::clone(pending),
            None => Arc::clone(all.entry(id.clone()).or_default()),
        }
    }

    /// Counts one.
    pub(super) fn count(&self, of: &Pending) {
        self.series.pending_hits.inc();
        of.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Those of one link that are not written yet.
    pub(super) fn pending(&self, id: &LinkId) -> u64 {
        let all = self.locked();
        all.get(id)
            .map_or(0, |pending| pending.0.load(Ordering::Relaxed))
    }

    /// Forgets those of a link that is gone: another may get its id.
    pub(super) fn forget(&self, id: &LinkId) {
        let gone = self.locked().get(id).map(|pending| pending.take());
        self.written(gone.unwrap_or_default());
    }

    /// Writes all that were counted so far.
    pub(super) async fn flush(&self, store: &Store) -> Result<(), store::Error> {
        let _flushing = self.flushing.lock().await;
        let batch = self.take();
        if batch.is_empty() {
            return Ok(());
        }
        let added = batch.clone();
        let written = store.write(move |tx| {
            for (id, hits) in added {
                match tx.get::<Link>(Table::Links, id.as_str()) {
                    Ok(Some(mut link)) => {
                        link.hits = link.hits.saturating_add(hits);
                        // Nobody remembers how many there were.
                        tx.put_unnoticed(Table::Links, id.as_str(), &link);
                    }
                    Ok(None) => {}
                    // Kept for the next time, they would hold up all others for ever.
                    Err(error @ store::Error::Damaged { .. }) => {
                        tracing::error!(%error, hits, "hits are lost: {error}");
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let written = written.await;
        if written.is_ok() {
            self.written(batch.into_values().sum());
        } else {
            for (id, hits) in batch {
                self.of(&id).0.fetch_add(hits, Ordering::Relaxed);
            }
        }
        written
    }

    /// All that were counted so far, in a batch to be written.
    fn take(&self) -> HashMap<LinkId, u64> {
        let mut batch = HashMap::new();
        self.locked().retain(|id, pending| {
            // What nobody holds, nobody counts in from now on.
            let is_held = Arc::get_mut(pending).is_none();
            let hits = pending.take();
            if hits > 0 {
                batch.insert(id.clone(), hits);
            }
            is_held
        });
        batch
    }

    /// So many are not pending any more.
    fn written(&self, hits: u64) {
        let hits = i64::try_from(hits).unwrap_or(i64::MAX);
        self.series.pending_hits.sub(hits);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<LinkId, Arc<Pending>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::TestPlatform;
    use super::*;

    #[tokio::test]
    async fn a_damaged_link_keeps_the_hits_of_no_other_from_being_written() {
        let platform = TestPlatform::new();
        let link = json!({"id": "good", "destinationURL": "https://a.example/"});
        assert_eq!(platform.call("url/Create", link).await.0, 200);
        let put = platform.store().write(|tx| {
            tx.put(Table::Links, "damaged", &"no link");
            Ok::<_, store::Error>(())
        });
        put.await.unwrap();
        let hits = Hits::default();
        for id in ["good", "damaged", "good"] {
            hits.count(&hits.of(&LinkId::parse(id).unwrap()));
        }
        hits.flush(platform.store()).await.unwrap();
        let view = platform.store().read().unwrap();
        let good: Option<Link> = view.get(Table::Links, "good").unwrap();
        assert_eq!(good.unwrap().hits, 2);
    }

    #[tokio::test]
    async fn who_holds_a_count_may_count_after_a_batch_was_written() {
        let platform = TestPlatform::new();
        let link = json!({"id": "a", "destinationURL": "https://a.example/"});
        assert_eq!(platform.call("url/Create", link).await.0, 200);
        let (hits, id) = (Hits::default(), LinkId::parse("a").unwrap());
        let held = hits.of(&id);
        for total in 1..=3 {
            hits.count(&held);
            assert_eq!(hits.pending(&id), 1);
            hits.flush(platform.store()).await.unwrap();
            assert_eq!(hits.pending(&id), 0);
            let view = platform.store().read().unwrap();
            let link: Option<Link> = view.get(Table::Links, "a").unwrap();
            assert_eq!(link.unwrap().hits, total);
        }
        assert_eq!(hits.locked().len(), 1);
        drop(held);
        hits.flush(platform.store()).await.unwrap();
        assert!(hits.locked().is_empty(), "it takes no room for ever");
    }
}
