//! The life of a record under a name, alike for apps and functions.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::store::{Read, Table};
use super::{EVERYTHING, Platform};
use crate::id::WorkloadId;

/// A record of an app or a function.
pub(super) trait Kept: Serialize + DeserializeOwned + Send + 'static {
    /// Where it is kept.
    const TABLE: Table;
    /// What it is called in errors.
    const KIND: &'static str;

    /// Where it runs.
    fn backend(&self) -> &str;

    /// It was changed just now.
    fn touch(&mut self);
}

/// The record called `name`.
pub(super) fn find<K: Kept>(platform: &Platform, name: &WorkloadId) -> Result<K, Error> {
    let record: Option<K> = platform.store.read()?.get(K::TABLE, name.as_str())?;
    record.ok_or(Error::NotFound(K::KIND))
}

/// Every record, by name.
pub(super) fn all<K: Kept>(platform: &Platform) -> Result<Vec<(WorkloadId, K)>, Error> {
    let records: Vec<(String, K)> = platform.store.read()?.scan(K::TABLE, "", EVERYTHING)?;
    Ok(records
        .into_iter()
        .filter_map(|(name, record)| Some((WorkloadId::parse(&name).ok()?, record)))
        .collect())
}

/// Adds a record under a name that is free, and gives it back.
pub(super) async fn insert<K: Kept>(
    platform: &Platform,
    name: WorkloadId,
    record: K,
) -> Result<K, Error> {
    let write = platform.store.write(move |tx| {
        if tx.get::<K>(K::TABLE, name.as_str())?.is_some() {
            return Err(Error::Taken("name"));
        }
        tx.put(K::TABLE, name.as_str(), &record);
        Ok(record)
    });
    write.await
}

/// Adds a record, or replaces one that runs elsewhere.
pub(super) async fn upsert<K: Kept>(
    platform: &Platform,
    name: WorkloadId,
    record: K,
) -> Result<(), Error> {
    let write = platform.store.write(move |tx| {
        let known: Option<K> = tx.get(K::TABLE, name.as_str())?;
        if known.is_none_or(|known| known.backend() != record.backend()) {
            tx.put(K::TABLE, name.as_str(), &record);
        }
        Ok(())
    });
    write.await
}

/// Changes the record as it is then: what others changed meanwhile stays.
pub(super) async fn change<K: Kept>(
    platform: &Platform,
    name: WorkloadId,
    change: impl FnOnce(&mut K) + Send + 'static,
) -> Result<(), Error> {
    let write = platform.store.write(move |tx| {
        let known: Option<K> = tx.get(K::TABLE, name.as_str())?;
        let mut record = known.ok_or(Error::NotFound(K::KIND))?;
        change(&mut record);
        record.touch();
        tx.put(K::TABLE, name.as_str(), &record);
        Ok(())
    });
    write.await
}

/// Removes the record.
pub(super) async fn remove<K: Kept>(platform: &Platform, name: WorkloadId) -> Result<(), Error> {
    let write = platform.store.write(move |tx| {
        let known: Option<K> = tx.get(K::TABLE, name.as_str())?;
        known.ok_or(Error::NotFound(K::KIND))?;
        tx.delete(K::TABLE, name.as_str());
        Ok(())
    });
    write.await
}
