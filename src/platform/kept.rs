//! The life of a record under a name, and the calls about it that are alike for apps and functions.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::Error;
use super::fields::Fields;
use super::store::{self, Read, Table, Transaction};
use super::{EVERYTHING, Platform, workload};
use crate::closed::Closed;
use crate::id::WorkloadId;

/// A record of an app or a function.
pub(super) trait Kept: Serialize + DeserializeOwned + Send + 'static {
    /// Where it is kept.
    const TABLE: Table;
    /// What it is called in errors.
    const KIND: &'static str;

    /// Where it runs.
    fn backend(&mut self) -> &mut String;

    /// Whether it takes no requests for now.
    fn closed(&mut self) -> &mut Option<Closed>;

    /// It was changed just now.
    fn touch(&mut self);

    /// Lets go of what it has beside itself: it is about to be deleted.
    fn release(&self, _tx: &mut Transaction<'_>, _name: &WorkloadId) {}

    /// As the API gives it, with what `read` knows of it besides.
    fn to_json(
        &self,
        platform: &Platform,
        read: &impl Read,
        name: &WorkloadId,
    ) -> Result<Value, store::Error>;
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
    Ok(record.to_json(platform, &platform.store.read()?, &name)?)
}

/// `List`: every record as the API gives it, by name.
pub(super) fn list<K: Kept>(platform: &Platform) -> Result<Vec<Value>, Error> {
    let view = platform.store.read()?;
    let records: Vec<(String, K)> = view.scan(K::TABLE, "", EVERYTHING)?;
    let described = |(name, record): &(String, K)| {
        let name = WorkloadId::parse(name).ok()?;
        Some(record.to_json(platform, &view, &name))
    };
    let described: Result<_, store::Error> = records.iter().filter_map(described).collect();
    Ok(described?)
}

/// Adds a record under a name that is free, and gives it back as `finish` left it.
pub(super) async fn insert<K: Kept>(
    platform: &Platform,
    name: WorkloadId,
    mut record: K,
    finish: impl FnOnce(&mut K, &mut Transaction<'_>) -> Result<(), Error> + Send + 'static,
) -> Result<K, Error> {
    let write = platform.store.write(move |tx| {
        if tx.get::<K>(K::TABLE, name.as_str())?.is_some() {
            return Err(Error::Taken("name"));
        }
        finish(&mut record, tx)?;
        tx.put(K::TABLE, name.as_str(), &record);
        Ok(record)
    });
    write.await
}

/// Adds a record, or leads the one that is there to where this one runs.
pub(super) async fn upsert<K: Kept>(
    platform: &Platform,
    name: WorkloadId,
    mut record: K,
) -> Result<(), Error> {
    let write = platform.store.write(move |tx| {
        if let Some(mut known) = tx.get::<K>(K::TABLE, name.as_str())? {
            if known.backend() == record.backend() {
                return Ok(());
            }
            known.backend().clone_from(record.backend());
            known.touch();
            record = known;
        }
        tx.put(K::TABLE, name.as_str(), &record);
        Ok(())
    });
    write.await
}

/// `Update {name, …}` → `{}`. Changes the record as it is then: what others changed meanwhile stays.
pub(super) async fn update<K: Kept>(
    platform: &Platform,
    fields: &Fields,
    change: impl FnOnce(&mut K, &mut Transaction<'_>) -> Result<(), Error> + Send + 'static,
) -> Result<Value, Error> {
    let name = workload::known_name(fields, "name", K::KIND)?;
    update_named(platform, name, change)
        .await
        .map(|()| json!({}))
}

/// The same for the record under `name`.
pub(super) async fn update_named<K: Kept>(
    platform: &Platform,
    name: WorkloadId,
    change: impl FnOnce(&mut K, &mut Transaction<'_>) -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    let write = platform.store.write(move |tx| {
        let known: Option<K> = tx.get(K::TABLE, name.as_str())?;
        let mut record = known.ok_or(Error::NotFound(K::KIND))?;
        change(&mut record, tx)?;
        record.touch();
        tx.put(K::TABLE, name.as_str(), &record);
        Ok(())
    });
    write.await
}

/// `Delete {name}` → `{}`.
pub(super) async fn delete<K: Kept>(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let name = workload::known_name(fields, "name", K::KIND)?;
    let write = platform.store.write(move |tx| {
        let known: Option<K> = tx.get(K::TABLE, name.as_str())?;
        known.ok_or(Error::NotFound(K::KIND))?.release(tx, &name);
        tx.delete(K::TABLE, name.as_str());
        Ok(())
    });
    write.await.map(|()| json!({}))
}
