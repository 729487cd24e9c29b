//! An engine on one redb file. It never replaces a file that it cannot read.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition};

use super::engine::{Changes, Engine, Fault, Pairs, Snapshot, Table};

/// Keeps everything in one file, locked while it is open.
#[derive(Debug)]
pub(super) struct Redb {
    path: PathBuf,
    /// Absent after a fault, until the file could be opened again.
    database: RwLock<Option<Database>>,
    /// redb remembers an I/O error for ever: what met one must be opened again.
    failed: Arc<AtomicBool>,
}

/// Why the file of a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Its folder is not there and could not be made.
    #[error("the folder of the store {path} cannot be made: {source}", path = .path.display())]
    Folder {
        /// The file of the store.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the store {path} is in use by another process: stop that one, or give this one a file of its own",
        path = .path.display()
    )]
    Locked {
        /// The file of the store.
        path: PathBuf,
    },
    /// It is no store, or one that was changed behind our back.
    #[error(
        "the store {path} is damaged and was left as it is: restore it from a backup, or move it away to start with an empty one ({reason})",
        path = .path.display()
    )]
    Damaged {
        /// The file of the store.
        path: PathBuf,
        /// What the file system or the database said.
        reason: String,
    },
    /// The file system refused.
    #[error(
        "the store {path} cannot be opened: {source}; check that it can be read and written by this user and that the disk is not full",
        path = .path.display()
    )]
    Io {
        /// The file of the store.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Redb {
    /// Opens the file, or makes it, its folder too, for this user alone.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        if !path.exists() {
            make_folder(path)?;
            make_file(path)?;
        }
        Ok(Self {
            path: path.to_owned(),
            database: RwLock::new(Some(open_file(path)?)),
            failed: Arc::default(),
        })
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
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // The old handle holds the lock of the file, so it goes first.
        drop(database.take());
        *database = Some(open_file(&self.path)?);
        self.failed.store(false, Ordering::Release);
        Ok(())
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// The file is closed after a fault and not open again yet.
#[derive(Debug, thiserror::Error)]
#[error("the file is closed after an earlier error")]
struct Closed;

struct RedbSnapshot {
    transaction: ReadTransaction,
    failed: Arc<AtomicBool>,
}

impl RedbSnapshot {
    fn noted<T>(&self, outcome: Result<T, redb::Error>) -> Result<T, Fault> {
        outcome.map_err(|error| {
            self.failed.store(true, Ordering::Release);
            error.into()
        })
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
}

impl Snapshot for RedbSnapshot {
    fn get(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        self.noted(self.find(table, key))
    }

    fn scan(&self, table: Table, prefix: &str, limit: usize) -> Result<Pairs, Fault> {
        self.noted(self.pairs(table, prefix, limit))
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

fn definition(table: Table) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(table.name())
}

fn make_folder(path: &Path) -> Result<(), FileError> {
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| FileError::Folder {
            path: path.to_owned(),
            source,
        })
}

/// Makes an empty store beside `path` and moves it there whole, so that a stop half-way leaves no
/// file that looks like a damaged store.
fn make_file(path: &Path) -> Result<(), FileError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let io_error = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .map_err(io_error)?;
    let made = redb::Builder::new()
        .create_file(file)
        .map_err(redb::Error::from)
        .and_then(|database| make_tables(&database))
        .map_err(|error| io_error(io::Error::other(error)))
        // A link, because it never replaces what another process made meanwhile; a move where the
        // file system has no links.
        .and_then(|()| match std::fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(_) => std::fs::rename(&draft, path).map_err(io_error),
            Ok(()) => Ok(()),
        });
    // Gone already where it was moved.
    let _ = std::fs::remove_file(&draft);
    made
}

fn open_file(path: &Path) -> Result<Database, FileError> {
    let io_error = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let damaged = |reason: String| FileError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(io_error)?;
    // An empty file would become an empty store, but ours are never empty: this one was cut off.
    if file.metadata().map_err(io_error)?.len() == 0 {
        return Err(damaged("it is empty".to_owned()));
    }
    // A damaged header can make redb panic: that, too, is a damaged file. Every page is checked
    // when the last stop was unclean.
    let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Database, redb::Error> {
        let database = redb::Builder::new()
            .set_cache_size(CACHE)
            .create_file(file)?;
        make_tables(&database)?;
        Ok(database)
    }))
    .map_err(|_| damaged("its header makes no sense".to_owned()))?;
    opened.map_err(|error| match error {
        redb::Error::DatabaseAlreadyOpen => FileError::Locked {
            path: path.to_owned(),
        },
        // A file that ends too early or does not start like a store.
        redb::Error::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
            ) =>
        {
            damaged(source.to_string())
        }
        redb::Error::Io(source) => io_error(source),
        error => damaged(error.to_string()),
    })
}

/// Makes every table, so that reading one never has to ask whether it is there.
fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let reader = database.begin_read()?;
    let missing = |table: &Table| reader.open_table(definition(*table)).is_err();
    if !Table::ALL.iter().any(missing) {
        return Ok(());
    }
    drop(reader);
    let transaction = database.begin_write()?;
    for table in Table::ALL {
        transaction.open_table(definition(table))?;
    }
    transaction.commit()?;
    Ok(())
}

/// What redb may hold of the file in memory.
const CACHE: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn the_file_and_its_folder_are_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/store");
        let _engine = Redb::open(&path).unwrap();
        let folder = std::fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(folder.count(), 1, "no draft is left");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    #[test]
    fn a_file_in_use_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let _engine = Redb::open(&path).unwrap();
        let error = Redb::open(&path).unwrap_err();
        assert!(matches!(error, FileError::Locked { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let engine = Redb::open(&path).unwrap();
        let changes = (0..2000).map(|n| ((Table::Links, format!("{n}")), Some(vec![7; 100])));
        engine.commit(&changes.collect()).unwrap();
        drop(engine);
        let whole = std::fs::read(&path).unwrap();

        let mut swapped = whole.clone();
        swapped[..64].fill(b'x');
        let mut header = whole.clone();
        header[64..320].fill(0xff);
        for bytes in [
            &b"not a store at all"[..],
            &swapped,
            &header,
            &whole[..4096],
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Redb::open(&path).unwrap_err();
            assert!(matches!(error, FileError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()));
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "left as it is");
        }
    }
}
