//! What would keep a store from being opened, as far as looking tells. Locks and changes nothing.

use std::path::Path;

use rustix::fs::{Access, access};

use super::IN_MEMORY;
use super::file::starts_like_a_store;

/// Why the store at `path` could not be opened or made by this user.
pub(crate) fn obstacle(path: &Path) -> Option<String> {
    if path == Path::new(IN_MEMORY) {
        return None;
    }
    if path.exists() {
        of_file(path)
    } else {
        of_folder(path)
    }
}

fn of_file(store: &Path) -> Option<String> {
    let shown = store.display();
    if store.is_dir() {
        return Some(format!("`{shown}` is a folder: the store is a file"));
    }
    if access(store, Access::READ_OK | Access::WRITE_OK).is_err() {
        return Some(format!(
            "`{shown}` may not be read and written by this user"
        ));
    }
    match starts_like_a_store(store) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "`{shown}` is no store: name another file, or move it away to start with an empty store"
        )),
        Err(error) => Some(format!("`{shown}` cannot be read: {error}")),
    }
}

fn of_folder(store: &Path) -> Option<String> {
    let folder = store.ancestors().skip(1).find(|folder| folder.exists());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let shown = folder.display();
    if !folder.is_dir() {
        return Some(format!(
            "`{shown}` is no folder, so no store can be made there"
        ));
    }
    // The bits of the folder do not tell who owns it, nor how it is mounted.
    access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .is_err()
        .then(|| {
            format!("`{shown}` may not be written to by this user, so no store can be made there")
        })
}
