//! The life of a record under a name, and the calls about it that are alike for apps and functions.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::Error;
use super::fields::Fields;
use super::store::{Read, Table};
use super::{EVERYTHING, Platform, workload};
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

    /// As the API gives it.
    fn to_json(&self, platform: &Platform, name: &WorkloadId) -> Value;
}

/// The record whose name is in `field`.
pub(super) fn find<K: Kept>(
    platform: &Platform,
    fields: &Fields,
    field: &'static str,
) -> Result<(WorkloadId, K), Error> {
    let name = workload::known_name(fields, field, K::KIND)?;
    let record: Option<K> = platform.store.read()?.get(K::TABLE, name.as_str())?;
    record
        .map(|record| (name, record))
        .ok_or(Error::NotFound(K::KIND))
}

/// `Get {name}`, whatever it is called: the record as the API gives it.
pub(super) fn described<K: Kept>(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let (name, record) = find::<K>(platform, fields, "name")?;
    Ok(record.to_json(platform, &name))
}

/// `List`: every record as the API gives it, by name.
pub(super) fn list<K: Kept>(platform: &Platform) -> Result<Vec<Value>, Error> {
    let records: Vec<(String, K)> = platform.store.read()?.scan(K::TABLE, "", EVERYTHING)?;
    let described = |(name, record): &(String, K)| {
        let name = WorkloadId::parse(name).ok()?;
        Some(record.to_json(platform, &name))
    };
    Ok(records.iter().filter_map(described).collect())
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

/// `Update {name, …}` → `{}`. Changes the record as it is then: what others changed meanwhile stays.
pub(super) async fn update<K: Kept>(
    platform: &Platform,
    fields: &Fields,
    change: impl FnOnce(&mut K) + Send + 'static,
) -> Result<Value, Error> {
    let name = workload::known_name(fields, "name", K::KIND)?;
    let write = platform.store.write(move |tx| {
        let known: Option<K> = tx.get(K::TABLE, name.as_str())?;
        let mut record = known.ok_or(Error::NotFound(K::KIND))?;
        change(&mut record);
        record.touch();
        tx.put(K::TABLE, name.as_str(), &record);
        Ok(())
    });
    write.await.map(|()| json!({}))
}

/// `Delete {name}` → `{}`.
pub(super) async fn delete<K: Kept>(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let name = workload::known_name(fields, "name", K::KIND)?;
    let write = platform.store.write(move |tx| {
        let known: Option<K> = tx.get(K::TABLE, name.as_str())?;
        known.ok_or(Error::NotFound(K::KIND))?;
        tx.delete(K::TABLE, name.as_str());
        Ok(())
    });
    write.await.map(|()| json!({}))
}
