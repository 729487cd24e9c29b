//! How often short links were followed: added up in memory, written in batches.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::store::{self, Read, Store, Table};
use super::urls::Link;
use crate::id::LinkId;
use crate::telemetry::platform::Platform as Series;

/// The hits that are not written yet. At most a second of them is lost to a kill.
#[derive(Debug, Default)]
pub(super) struct Hits {
    pending: Mutex<HashMap<LinkId, u64>>,
    /// Held while a batch is written, so that who waits for it sees it written.
    flushing: tokio::sync::Mutex<()>,
    series: Series,
}

impl Hits {
    /// None yet. How many are not written is shown by `series`.
    pub(super) fn new(series: Series) -> Self {
        Self {
            series,
            ..Self::default()
        }
    }

    /// Counts one.
    pub(super) fn count(&self, id: LinkId) {
        self.series.pending_hits.inc();
        *self.locked().entry(id).or_default() += 1;
    }

    /// Those of one link that are not written yet.
    pub(super) fn pending(&self, id: &LinkId) -> u64 {
        self.locked().get(id).copied().unwrap_or_default()
    }

    /// Forgets those of a link that is gone: another may get its id.
    pub(super) fn forget(&self, id: &LinkId) {
        let gone = self.locked().remove(id).unwrap_or_default();
        self.written(gone);
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
                match tx.get::<Link>(Table::Links, id.as_str()) {
                    Ok(Some(mut link)) => {
                        link.hits = link.hits.saturating_add(hits);
                        tx.put(Table::Links, id.as_str(), &link);
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
            let mut pending = self.locked();
            for (id, hits) in batch {
                *pending.entry(id).or_default() += hits;
            }
        }
        written
    }

    /// So many are not pending any more.
    fn written(&self, hits: u64) {
        let hits = i64::try_from(hits).unwrap_or(i64::MAX);
        self.series.pending_hits.sub(hits);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<LinkId, u64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
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
            hits.count(LinkId::parse(id).unwrap());
        }
        hits.flush(platform.store()).await.unwrap();
        let view = platform.store().read().unwrap();
        let good: Option<Link> = view.get(Table::Links, "good").unwrap();
        assert_eq!(good.unwrap().hits, 2);
    }
}
