//! A copy of a store as it is at one moment, made while it is read and written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::engine::{Changes, Engine, Fault, Page, Table};
use super::file::{self, FileError};
use super::redb::Redb;
use super::{Error, Store, unavailable};

/// Why a store could not be copied. What was there is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Something is there already, and a backup replaces nothing.
    #[error("{path} is there already: name a file that is not", path = .path.display())]
    Exists {
        /// The file of the copy.
        path: PathBuf,
    },
    /// The store itself cannot be read.
    #[error(
        "the store cannot be read: it is closed after an error, which the log names, or for another process"
    )]
    Store,
    /// The process ends.
    #[error("the ingress ends: the copy was stopped and removed")]
    Stopped,
    /// The copy cannot be made or written.
    #[error("the copy {path} cannot be written: {reason}", path = .path.display())]
    Copy {
        /// The file of the copy.
        path: PathBuf,
        /// What the file system or the database said.
        reason: String,
    },
}

/// Bytes of records that are in memory at once, and one record more.
const AT_ONCE: usize = 4 << 20;
/// Records that are read at once.
const PAGE: usize = 256;
/// Bytes that a record takes in memory beside its own.
const BESIDE: usize = 128;

impl Store {
    /// Copies all records as they are now to a new file at `path`, damaged ones too. Blocks: it takes as
    /// long as writing the file does. Gives how many records there are.
    ///
    /// # Errors
    /// When there is a file already, or one of the two fails.
    pub(crate) fn back_up(&self, path: &Path) -> Result<u64, BackupError> {
        if path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        if let Some(folder) = path.parent()
            && !folder.as_os_str().is_empty()
            && !folder.is_dir()
        {
            // Made here, a mistyped one would have a backup that nobody finds.
            let reason = format!("there is no folder {}", folder.display());
            let path = path.to_owned();
            return Err(BackupError::Copy { path, reason });
        }
        let draft = file::draft_of(path);
        let copied = self.copy(&draft).and_then(|records| {
            // Whole, or not there at all.
            file::move_into_place(&draft, path).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => exists(path),
                _ => failed(path, &error),
            })?;
            Ok(records)
        });
        // Of the draft nobody knows.
        let copied = copied.map_err(|error| error.at(path));
        // Gone already where it was moved.
        let _ = std::fs::remove_file(&draft);
        copied
    }

    /// Has copies that are under way fail, and all later ones.
    pub(crate) fn stop_copies(&self) {
        self.copies_stopped.store(true, Ordering::Relaxed);
    }

    fn copy(&self, draft: &Path) -> Result<u64, BackupError> {
        let snapshot = self
            .engine
            .snapshot()
            .map_err(|fault| no_store(unavailable(fault)))?;
        let copy = Redb::open(draft).map_err(|error| cannot_open(draft, error))?;
        let mut records = 0;
        let mut changes = Changes::new();
        let mut size = 0;
        for table in Table::ALL {
            let mut last = String::new();
            loop {
                if self.copies_stopped.load(Ordering::Relaxed) {
                    return Err(BackupError::Stopped);
                }
                let page = Page {
                    pairs: PAGE,
                    bytes: AT_ONCE - size,
                };
                let pairs = snapshot
                    .after(table, &last, page)
                    .map_err(|fault| no_store(unavailable(fault)))?;
                let Some((key, _)) = pairs.last() else { break };
                last.clone_from(key);
                records += pairs.len() as u64;
                for (key, value) in pairs {
                    size += key.len() + value.len() + BESIDE;
                    changes.insert((table, key), Some(value));
                }
                if size >= AT_ONCE {
                    commit(&copy, draft, &mut changes)?;
                    size = 0;
                }
            }
        }
        commit(&copy, draft, &mut changes)?;
        Ok(records)
    }
}

fn commit(copy: &Redb, path: &Path, changes: &mut Changes) -> Result<(), BackupError> {
    copy.commit(changes)
        .map_err(|fault: Fault| failed(path, &*fault))?;
    changes.clear();
    Ok(())
}

fn exists(path: &Path) -> BackupError {
    BackupError::Exists {
        path: path.to_owned(),
    }
}

fn failed(path: &Path, error: &dyn std::error::Error) -> BackupError {
    BackupError::Copy {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn cannot_open(path: &Path, error: FileError) -> BackupError {
    let reason = match error {
        FileError::Folder { source, .. } => format!("its folder cannot be made: {source}"),
        FileError::Locked { .. } => "another process has it open".to_owned(),
        FileError::Damaged { reason, .. } => reason,
        FileError::Io { source, .. } => source.to_string(),
    };
    BackupError::Copy {
        path: path.to_owned(),
        reason,
    }
}

impl BackupError {
    /// The same, of the file that was asked for.
    fn at(self, path: &Path) -> Self {
        match self {
            Self::Copy { reason, .. } => Self::Copy {
                path: path.to_owned(),
                reason,
            },
            Self::Exists { .. } | Self::Store | Self::Stopped => self,
        }
    }
}

fn no_store(_logged: Error) -> BackupError {
    BackupError::Store
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::Read;
    use super::*;

    fn put(store: &Store, table: Table, key: &str, value: &str) {
        let (key, value) = (key.to_owned(), value.to_owned());
        let written = store.write_blocking(move |tx| {
            tx.put(table, &key, &value);
            Ok(())
        });
        written.unwrap();
    }

    fn get(store: &Store, table: Table, key: &str) -> Option<String> {
        store.read().unwrap().get(table, key).unwrap()
    }

    #[test]
    fn a_copy_opens_as_the_store_that_it_is_of() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::unwatched(&folder.path().join("store")).unwrap();
        let large = "x".repeat(100_000);
        for number in 0..600 {
            put(&store, Table::Links, &format!("link-{number:03}"), "there");
        }
        for number in 0..60 {
            put(&store, Table::Apps, &format!("app-{number}"), &large);
        }
        put(&store, Table::Domains, "a.example/app-1", "claimed");

        let path = folder.path().join("copies/copy");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        assert_eq!(store.back_up(&path).unwrap(), 661);
        put(&store, Table::Apps, "app-1", "written later");

        let copy = Store::unwatched(&path).unwrap();
        assert_eq!(get(&copy, Table::Apps, "app-1"), Some(large));
        assert_eq!(get(&copy, Table::Links, "link-599").unwrap(), "there");
        assert!(get(&copy, Table::Domains, "a.example/app-1").is_some());
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "it holds what the store holds");
        let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "no draft is left");
    }

    #[test]
    fn what_is_there_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::unwatched(Path::new("memory")).unwrap();
        let path = folder.path().join("copy");
        std::fs::write(&path, "something").unwrap();
        let error = store.back_up(&path).unwrap_err();
        assert!(matches!(error, BackupError::Exists { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"something");
    }

    #[test]
    fn a_store_that_another_process_has_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::unwatched(&folder.path().join("store")).unwrap();
        store.engine.let_go();
        let error = store.back_up(&folder.path().join("copy")).unwrap_err();
        assert!(matches!(error, BackupError::Store), "{error}");
        assert!(error.to_string().contains("for another process"), "{error}");
    }

    #[test]
    fn a_copy_is_stopped_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::unwatched(Path::new("memory")).unwrap();
        store.stop_copies();
        let error = store.back_up(&folder.path().join("copy")).unwrap_err();
        assert!(matches!(error, BackupError::Stopped), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_copy_is_made_in_a_folder_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::unwatched(Path::new("memory")).unwrap();
        let missing = folder.path().join("missing");
        let error = store.back_up(&missing.join("copy")).unwrap_err();
        assert!(error.to_string().contains("there is no folder"), "{error}");
        assert!(!missing.exists());
    }

    #[test]
    fn a_copy_that_cannot_be_made_says_why() {
        let store = Store::unwatched(Path::new("memory")).unwrap();
        let error = store.back_up(Path::new("/dev/null/copy")).unwrap_err();
        assert!(matches!(error, BackupError::Copy { .. }), "{error}");
        let (text, begin) = (
            error.to_string(),
            "the copy /dev/null/copy cannot be written: ",
        );
        assert!(text.starts_with(begin), "{text}");
        assert!(!text.contains("store"), "{text}");
    }
}
