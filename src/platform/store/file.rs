//! Makes and opens the file of a store. It never replaces a file that it cannot read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::engine::Table;
use super::trial::{self, Verdict};

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

/// Opens the file after looking at all of it; makes it where there is none, its folder too, for
/// this user alone.
pub(super) fn open(path: &Path) -> Result<Database, FileError> {
    if !path.exists() {
        make_folder(path)?;
        make_file(path)?;
    }
    check_file(path)?;
    reopen(path)
}

/// Whether the file at `path` begins as every store does. Locks and changes nothing.
pub(super) fn starts_like_a_store(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    let length = MAGIC.len() as u64;
    File::open(path)?.take(length).read_to_end(&mut start)?;
    Ok(start == MAGIC)
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
    let draft = draft_of(path);
    let io_error = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(io_error)?;
    let made = redb::Builder::new()
        .create_file(file)
        .map_err(redb::Error::from)
        .and_then(|database| make_tables(&database))
        .map_err(|error| io_error(io::Error::other(error)))
        .and_then(|()| match move_into_place(&draft, path) {
            // Another process has made one meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // There was none a moment ago: who can do no better risks that.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                std::fs::rename(&draft, path).map_err(io_error)
            }
            moved => moved.map_err(io_error),
        });
    // Gone already where it was moved.
    let _ = std::fs::remove_file(&draft);
    made
}

/// Where a file is made before it is moved to `path`.
pub(super) fn draft_of(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", uuid::Uuid::now_v7()));
    PathBuf::from(draft)
}

/// Makes the file `draft` appear at `path`, whole.
///
/// # Errors
/// When something is there already, or the file system refuses: [`io::ErrorKind::Unsupported`] where it can
/// do neither of the two that never replace what another process made meanwhile.
pub(super) fn move_into_place(draft: &Path, path: &Path) -> io::Result<()> {
    match std::fs::hard_link(draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Not every file system has links.
        Err(_) => move_to_nothing(draft, path),
        Ok(()) => Ok(()),
    }
}

fn move_to_nothing(draft: &Path, path: &Path) -> io::Result<()> {
    let moved = renameat_with(CWD, draft, CWD, path, RenameFlags::NOREPLACE);
    moved.map_err(|errno| match errno {
        Errno::INVAL | Errno::NOSYS | Errno::NOTSUP => io::Error::new(
            io::ErrorKind::Unsupported,
            "this file system puts no file in place without replacing what is there",
        ),
        errno => errno.into(),
    })
}

/// Reads the whole file without changing it: a start is the moment to hear of damage.
fn check_file(path: &Path) -> Result<(), FileError> {
    let file = open_plain(path)?;
    match guarded(path, || Ok(trial::check(file)?))? {
        Verdict::Whole => Ok(()),
        Verdict::Mended => Err(damaged(path, "its pages do not fit together")),
    }
}

/// Opens a file to read what is in it. Changes nothing in it, but has its lock meanwhile.
pub(super) fn look(path: &Path) -> Result<Database, FileError> {
    let file = open_plain(path)?;
    guarded(path, || {
        let database = trial::open(file)?;
        // In memory, where it is the store of an earlier version.
        make_tables(&database)?;
        Ok(database)
    })
}

/// Opens a file that was open before.
pub(super) fn reopen(path: &Path) -> Result<Database, FileError> {
    let file = open_plain(path)?;
    guarded(path, || {
        let database = redb::Builder::new()
            .set_cache_size(CACHE)
            .create_file(file)?;
        make_tables(&database)?;
        Ok(database)
    })
}

fn open_plain(path: &Path) -> Result<File, FileError> {
    let io_error = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(io_error)?;
    // An empty file would become an empty store, but ours are never empty: this one was cut off.
    if file.metadata().map_err(io_error)?.len() == 0 {
        return Err(damaged(path, "it is empty"));
    }
    Ok(file)
}

/// Opens a database, and says in our words why that failed.
fn guarded<T>(path: &Path, open: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, FileError> {
    let path = path.to_owned();
    // A damaged file can make redb panic.
    let Ok(opened) = catch_unwind(AssertUnwindSafe(open)) else {
        return Err(damaged(&path, "its contents make no sense"));
    };
    opened.map_err(|error| match error {
        redb::Error::DatabaseAlreadyOpen => FileError::Locked { path },
        // A file that ends too early or does not start like a store.
        redb::Error::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
            ) =>
        {
            damaged(&path, &source.to_string())
        }
        redb::Error::Io(source) => FileError::Io { path, source },
        error => damaged(&path, &error.to_string()),
    })
}

fn damaged(path: &Path, reason: &str) -> FileError {
    FileError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
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

/// A table in the file: text to bytes.
pub(super) fn definition(table: Table) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(table.name())
}

/// How the files of redb begin.
const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// What redb may hold of the file in memory.
const CACHE: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::engine::{Changes, Engine};
    use super::super::redb::Redb;
    use super::*;

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
    fn a_file_is_moved_only_to_where_nothing_is() {
        for moving in [move_into_place, move_to_nothing] {
            let folder = tempfile::tempdir().unwrap();
            let [draft, path] = ["draft", "path"].map(|name| folder.path().join(name));
            std::fs::write(&draft, "new").unwrap();
            moving(&draft, &path).unwrap();
            // Gone already, or one file with the other.
            let _ = std::fs::remove_file(&draft);
            std::fs::write(&draft, "newer").unwrap();
            let error = moving(&draft, &path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
        }
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
    fn a_file_that_was_never_closed_opens_with_all_that_was_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let engine = Redb::open(&path).unwrap();
        let copy = folder.path().join("copy");
        for round in 0..20 {
            let change = ((Table::Links, format!("{round:02}")), Some(vec![7; 5000]));
            engine.commit(&Changes::from([change])).unwrap();
            // What a kill would leave.
            std::fs::copy(&path, &copy).unwrap();
            let copied = Redb::open(&copy).unwrap();
            let pairs = copied.snapshot().unwrap();
            let pairs = pairs.scan(Table::Links, "", usize::MAX).unwrap();
            assert_eq!(pairs.len(), round + 1);
        }
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let whole = filled(&path);
        let mut swapped = whole.clone();
        swapped[..64].fill(b'x');
        let mut header = whole.clone();
        header[64..320].fill(0xff);
        for bytes in [
            &b""[..],
            b"not a store at all",
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

    #[test]
    fn a_flipped_bit_is_found_or_harmless() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let whole = filled(&path);
        let mut refused = 0;
        for position in (0..whole.len()).step_by(whole.len() / 200) {
            let mut flipped = whole.clone();
            flipped[position] ^= 1 << (position % 8);
            std::fs::write(&path, &flipped).unwrap();
            match Redb::open(&path) {
                Ok(engine) => {
                    let snapshot = engine.snapshot().unwrap();
                    let pairs = snapshot.scan(Table::Links, "", usize::MAX).unwrap();
                    assert_eq!(pairs.len(), 2000, "{position}");
                    assert!(pairs.iter().all(|(_, value)| *value == [7; 100]));
                }
                Err(error) => {
                    assert!(matches!(error, FileError::Damaged { .. }), "{error}");
                    assert_eq!(std::fs::read(&path).unwrap(), flipped, "left as it is");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0);
    }

    /// Makes a store with records at `path`; its bytes.
    fn filled(path: &Path) -> Vec<u8> {
        let engine = Redb::open(path).unwrap();
        let changes = (0..2000).map(|n| ((Table::Links, format!("{n}")), Some(vec![7; 100])));
        engine.commit(&changes.collect()).unwrap();
        drop(engine);
        std::fs::read(path).unwrap()
    }
}
