//! What tells a file that has changed from one that has not.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What changes when a file does, also where a link leads to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// That of a file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// How large the file is, in octets.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When the file was written last, in whole seconds since 1970.
    #[must_use]
    pub fn modified(&self) -> i64 {
        self.modified.0
    }
}
