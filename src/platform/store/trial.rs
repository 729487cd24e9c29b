//! A look at a redb file that changes nothing in it: what would be written stays in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend};

/// Checks every page of `file` against its checksum, after what an unclean stop left to repair.
///
/// redb itself looks only at what it needs, and mends what it can: a key that was hit by a bit flip
/// would be a record that was never there, a root that was hit a store of a moment ago.
pub(super) fn check(file: File) -> Result<Verdict, DatabaseError> {
    let mut database = open(file)?;
    let whole = database.check_integrity()?;
    Ok(if whole {
        Verdict::Whole
    } else {
        Verdict::Mended
    })
}

/// Opens `file` as it is, mended in memory where an unclean stop left something to repair.
pub(super) fn open(file: File) -> Result<Database, DatabaseError> {
    let backend = Trial {
        file: FileBackend::new(file)?,
        changed: Mutex::default(),
    };
    let len = backend.file.len()?;
    backend.changed().len = len;
    Database::builder()
        .set_cache_size(CACHE)
        .create_with_backend(backend)
}

/// Every page is read once, so keeping many is of no use.
const CACHE: usize = 16 << 20;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every page is what was written.
    Whole,
    /// Only after something was given up.
    Mended,
}

/// Reads from a file, writes to memory.
#[derive(Debug)]
struct Trial {
    file: FileBackend,
    changed: Mutex<Changed>,
}

#[derive(Debug, Default)]
struct Changed {
    len: u64,
    /// Number of a block → the block.
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Trial {
    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as the file has it; zero where it ends.
    fn original(&self, block: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; BLOCK];
        let start = block * BLOCK as u64;
        let there = self.file.len()?.saturating_sub(start);
        let there = usize::try_from(there).unwrap_or(BLOCK).min(BLOCK);
        if there > 0 {
            self.file.read(start, &mut bytes[..there])?;
        }
        Ok(bytes)
    }
}

impl StorageBackend for Trial {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.changed();
        if offset + out.len() as u64 > changed.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (block, within, piece) in pieces(offset, out.len()) {
            let out = &mut out[piece];
            match changed.blocks.get(&block) {
                Some(bytes) => out.copy_from_slice(&bytes[within..within + out.len()]),
                None => out.copy_from_slice(&self.original(block)?[within..within + out.len()]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.changed().len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed();
        changed.len = changed.len.max(offset + data.len() as u64);
        for (block, within, piece) in pieces(offset, data.len()) {
            let data = &data[piece];
            let bytes = match changed.blocks.entry(block) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(self.original(block)?)
                }
            };
            bytes[within..within + data.len()].copy_from_slice(data);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

/// The blocks under a range: number, where in the block, and which part of the range.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % BLOCK as u64).unwrap_or_default();
        let piece = done..len.min(done + BLOCK - within);
        done = piece.end;
        Some((at / BLOCK as u64, within, piece))
    })
}

const BLOCK: usize = 4096;
