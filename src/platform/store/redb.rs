//! An engine on one redb file, opened again after a fault. Knows no records.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, ReadTransaction, ReadableDatabase};

use super::engine::{Changes, Engine, Fault, Page, Pairs, Snapshot, Table};
use super::file::{self, FileError, definition};

/// Keeps everything in one file, locked while it is open.
#[derive(Debug)]
pub(super) struct Redb {
    path: PathBuf,
    /// Absent after a fault, until the file could be opened again.
    database: RwLock<Option<Database>>,
    /// redb remembers an I/O error for ever: what met one must be opened again.
    failed: Arc<AtomicBool>,
    /// Another process has the file, or is to have it.
    let_go: AtomicBool,
}

impl Redb {
    /// Opens the file, or makes it, its folder too, for this user alone.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self::with(path, file::open(path)?))
    }

    /// Opens the file that another process has just closed; makes it where there is none.
    pub(super) fn open_again(path: &Path) -> Result<Self, FileError> {
        match path.exists() {
            true => Ok(Self::with(path, file::reopen(path)?)),
            false => Self::open(path),
        }
    }

    fn with(path: &Path, database: Database) -> Self {
        Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            failed: Arc::default(),
            let_go: AtomicBool::new(false),
        }
    }

    /// Opens the file to read what is in it, and changes nothing in it.
    pub(super) fn look(path: &Path) -> Result<Glance, FileError> {
        Ok(Glance(Self::with(path, file::look(path)?)))
    }

    fn swap(&self, database: Option<Database>) -> Option<Database> {
        let mut current = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, database)
    }

    /// Remembers that the database must be opened again.
    fn failed<E: Into<Fault>>(&self, error: E) -> Fault {
        self.failed.store(true, Ordering::Release);
        error.into()
    }
}

impl Engine for Redb {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Fault> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(Closed)?;
        let transaction = database.begin_read().map_err(|error| self.failed(error))?;
        Ok(Box::new(RedbSnapshot {
            transaction,
            failed: Arc::clone(&self.failed),
        }))
    }

    fn commit(&self, changes: &Changes) -> Result<(), Fault> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(Closed)?;
        commit(database, changes).map_err(|error| self.failed(error))
    }

    fn heal(&self) -> Result<(), Fault> {
        if !self.failed.load(Ordering::Acquire) || self.is_let_go() {
            return Ok(());
        }
        // The old handle holds the lock of the file, so it goes first. Opening may take long: who
        // reads meanwhile is told so, and does not wait.
        drop(self.swap(None));
        let database = file::reopen(&self.path)?;
        self.failed.store(false, Ordering::Release);
        self.swap(Some(database));
        Ok(())
    }

    fn let_go(&self) {
        self.let_go.store(true, Ordering::Release);
        // Waits for a commit that is under way. Snapshots that somebody still holds are of no use from
        // now on, and do not keep the file.
        drop(self.swap(None));
    }

    fn take_back(&self) {
        // As after a fault: where it cannot be opened now, that is tried again and again.
        self.failed.store(true, Ordering::Release);
        self.let_go.store(false, Ordering::Release);
    }

    fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::Acquire)
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// An engine on a file that is only looked at.
#[derive(Debug)]
pub(super) struct Glance(Redb);

impl Engine for Glance {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Fault> {
        self.0.snapshot()
    }

    fn commit(&self, _changes: &Changes) -> Result<(), Fault> {
        Err(Fault::from("the file is only looked at"))
    }

    /// Never: to open it again would be to open it for real.
    fn heal(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn let_go(&self) {
        self.0.let_go();
    }

    /// Never either.
    fn take_back(&self) {}

    fn is_let_go(&self) -> bool {
        self.0.is_let_go()
    }

    fn place(&self) -> String {
        self.0.place()
    }
}

/// The file is closed after a fault and not open again yet, or another process has it.
#[derive(Debug, thiserror::Error)]
#[error("the file is closed, after an earlier error or for another process")]
struct Closed;

struct RedbSnapshot {
    transaction: ReadTransaction,
    failed: Arc<AtomicBool>,
}

impl RedbSnapshot {
    /// Reads, and remembers that the database must be opened again where that fails.
    fn read<T>(&self, read: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Fault> {
        // A page that was damaged since the start can make redb panic.
        let outcome = catch_unwind(AssertUnwindSafe(read))
            .map_err(|_| Fault::from("a page makes no sense"))
            .and_then(|outcome| outcome.map_err(Fault::from));
        if outcome.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        outcome
    }

    fn find(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        let table = self.transaction.open_table(definition(table))?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn pairs(&self, table: Table, prefix: &str, limit: usize) -> Result<Pairs, redb::Error> {
        let table = self.transaction.open_table(definition(table))?;
        let mut pairs = Pairs::new();
        for pair in table.range(prefix..)? {
            let (key, value) = pair?;
            if pairs.len() == limit || !key.value().starts_with(prefix) {
                break;
            }
            pairs.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(pairs)
    }

    fn pairs_after(&self, table: Table, key: &str, page: Page) -> Result<Pairs, redb::Error> {
        let table = self.transaction.open_table(definition(table))?;
        let range = table.range::<&str>((Bound::Excluded(key), Bound::Unbounded))?;
        page.fill(range.map(|pair| {
            let (key, value) = pair?;
            Ok((key.value().to_owned(), value.value().to_vec()))
        }))
    }
}

impl Snapshot for RedbSnapshot {
    fn get(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        self.read(|| self.find(table, key))
    }

    fn scan(&self, table: Table, prefix: &str, limit: usize) -> Result<Pairs, Fault> {
        self.read(|| self.pairs(table, prefix, limit))
    }

    fn after(&self, table: Table, key: &str, page: Page) -> Result<Pairs, Fault> {
        self.read(|| self.pairs_after(table, key, page))
    }
}

fn commit(database: &Database, changes: &Changes) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for ((table, key), value) in changes {
        let mut table = transaction.open_table(definition(*table))?;
        match value {
            Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
            None => drop(table.remove(key.as_str())?),
        }
    }
    // redb's default durability: on disk when this returns.
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::engine::contract;
    use super::*;

    #[test]
    fn redb_keeps_the_contract_of_an_engine() {
        let folder = tempfile::tempdir().unwrap();
        contract::check(&Redb::open(&folder.path().join("a/b/store")).unwrap());
    }

    #[test]
    fn redb_keeps_the_contract_after_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Redb::open(&folder.path().join("store")).unwrap();
        let changes = |value: &str| {
            let value = Some(value.as_bytes().to_vec());
            Changes::from([((Table::Links, "kept".to_owned()), value)])
        };
        engine.commit(&changes("1")).unwrap();
        let snapshot = engine.snapshot().unwrap();
        engine.failed.store(true, Ordering::Release);
        engine.heal().unwrap();
        drop(snapshot);
        let value = |key| engine.snapshot().unwrap().get(Table::Links, key).unwrap();
        assert_eq!(value("kept").unwrap(), b"1");
        engine.commit(&changes("2")).unwrap();
        assert_eq!(value("kept").unwrap(), b"2");
        contract::check(&engine);
    }
}
