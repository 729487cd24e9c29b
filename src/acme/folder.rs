//! The folder that an account and its certificates are kept in. Nobody else may read it.
//!
//! `DIRECTORY/account.json`, `DIRECTORY/always/NAME.pem` and `DIRECTORY/on-demand/NAME.pem`: each a key
//! and the chain for it, so that the two are never of different orders.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::names::Name;

/// The folder of one directory. Once it is held, it is until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// What keeps other processes out.
    lock: OnceLock<File>,
}

/// Why a certificate is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shelf {
    /// It is configured.
    Always,
    /// Somebody asked for it.
    OnDemand,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Stored {
    /// The first name of it.
    pub(super) name: Name,
    /// Key and chain.
    pub(super) pem: Vec<u8>,
    /// When it was written.
    pub(super) written: Timestamp,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadFolder {
    /// It cannot be made, read or written.
    #[error("tls.acme.folder: `{path}` cannot be used: {source}")]
    Unusable {
        /// The folder or a file in it.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error("tls.acme.folder: another process uses `{0}`: each needs a folder of its own")]
    Taken(PathBuf),
}

/// Larger than any chain with its key.
const LARGEST_FILE: u64 = 1 << 20;

impl Folder {
    /// Makes the folder where there is none. Another process may hold it.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn open(root: &Path, directory: &str) -> Result<Self, BadFolder> {
        let path = root.join(directory);
        let unusable = |source| BadFolder::Unusable {
            path: path.clone(),
            source,
        };
        // Somebody else's things may be beside ours in `root`.
        create(root).map_err(unusable)?;
        for folder in [&path, &path.join("always"), &path.join("on-demand")] {
            create(folder)
                .and_then(|()| close(folder))
                .map_err(unusable)?;
        }
        Ok(Self {
            path,
            lock: OnceLock::new(),
        })
    }

    /// Takes hold of it against other processes, if that is not so yet.
    ///
    /// # Errors
    /// When it cannot be used, or another process holds it.
    pub(super) fn hold(&self) -> Result<(), BadFolder> {
        if self.is_held() {
            return Ok(());
        }
        let unusable = |source| BadFolder::Unusable {
            path: self.path.clone(),
            source,
        };
        let mut lock = private();
        lock.write(true).create(true).truncate(false);
        let lock = lock.open(self.path.join("lock")).map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.lock.get_or_init(|| lock);
                Ok(())
            }
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
                Err(BadFolder::Taken(self.path.clone()))
            }
            Err(error) => Err(unusable(error.into())),
        }
    }

    /// Whether it is held by this process.
    pub(super) fn is_held(&self) -> bool {
        self.lock.get().is_some()
    }

    /// The file of that name, if there is one.
    pub(super) fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(file)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a file: afterwards there is all of the new one, or all of the old one.
    pub(super) fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        write(&self.path.join(file), bytes)
    }

    /// Removes a file, if there is one.
    pub(super) fn remove(&self, file: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All certificates of a shelf, in the order of their names. What is no certificate is left alone.
    pub(super) fn stored(&self, shelf: Shelf) -> io::Result<Vec<Stored>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path.join(shelf.folder()))? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".pem"));
            let Some(name) = name.and_then(|name| Name::parse(&name.replacen('_', "*", 1)).ok())
            else {
                continue;
            };
            let about = entry.metadata()?;
            if !about.is_file() || about.len() > LARGEST_FILE {
                continue;
            }
            found.push(Stored {
                name,
                pem: fs::read(entry.path())?,
                written: Timestamp::try_from(about.modified()?).unwrap_or(Timestamp::MIN),
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Where messages say that it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Shelf {
    /// The file of a certificate.
    pub(super) fn file(self, name: &Name) -> String {
        format!(
            "{}/{}.pem",
            self.folder(),
            name.as_str().replacen('*', "_", 1)
        )
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnDemand => "on-demand",
        }
    }
}

/// Makes a folder that only we may enter.
fn create(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Shuts others out of a folder that was there already.
fn close(folder: &Path) -> io::Result<()> {
    let about = fs::metadata(folder)?;
    if about.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let fresh = path.with_extension("new");
    let mut options = private();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .open(&fresh)?;
    let written = file
        .set_permissions(fs::Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _removed = fs::remove_file(&fresh);
    }
    written?;
    // The name is kept by the folder, which has a life of its own.
    File::open(folder)?.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_we_may_read_what_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("acme");
        let open = root.join("acme.example");
        fs::create_dir_all(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let folder = Folder::open(&root, "acme.example").unwrap();
        folder.write("account.json", b"{}").unwrap();
        for private in [folder.path(), &folder.path().join("always")] {
            assert_eq!(mode(private), 0o700, "{}", private.display());
        }
        assert_eq!(mode(&folder.path().join("account.json")), 0o600);
        assert!(!folder.path().join("account.new").exists());
        assert_eq!(folder.read("account.json").unwrap().unwrap(), b"{}");
        folder.remove("account.json").unwrap();
        folder.remove("account.json").unwrap();
        assert!(folder.read("account.json").unwrap().is_none());
    }

    #[test]
    fn the_folder_belongs_to_one_process_once_it_is_held() {
        let temp = tempfile::tempdir().unwrap();
        let open = |directory| Folder::open(temp.path(), directory).unwrap();
        let (first, second) = (open("a"), open("a"));
        first.hold().unwrap();
        first.hold().unwrap();
        let taken = second.hold();
        assert!(matches!(taken, Err(BadFolder::Taken(_))), "{taken:?}");
        open("b").hold().unwrap();
        drop(first);
        second.hold().unwrap();
    }

    #[test]
    fn certificates_are_found_by_their_file_and_nothing_else_is() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(temp.path(), "a").unwrap();
        let name = |text| Name::parse(text).unwrap();
        for text in ["m3o.one", "*.m3o.app"] {
            let file = Shelf::Always.file(&name(text));
            folder.write(&file, text.as_bytes()).unwrap();
        }
        for other in [
            "always/README",
            "always/.pem",
            "always/a.new",
            "on-demand/b.test.pem",
        ] {
            folder.write(other, b"").unwrap();
        }
        let found = folder.stored(Shelf::Always).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|stored| (stored.name.as_str(), &*stored.pem))
            .collect();
        assert_eq!(
            found,
            [("*.m3o.app", &b"*.m3o.app"[..]), ("m3o.one", b"m3o.one")]
        );
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Folder::open(&file, "a").unwrap_err().to_string();
        assert!(error.contains("tls.acme.folder"), "{error}");
    }
}
