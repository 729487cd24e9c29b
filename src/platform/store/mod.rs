//! The store of the platform: records under keys, read on the calling thread, written by one.
//!
//! Reads run on a snapshot. Writes are closures that one thread runs, several a commit, and that
//! are answered when they are durable; one that fails leaves nothing behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::telemetry::platform::Platform as Series;

mod backup;
mod engine;
mod file;
mod generations;
mod memory;
mod obstacle;
mod record;
mod redb;
mod trial;
mod writer;

use engine::{Engine, Fault, Pairs, Snapshot};
use generations::Generations;
use writer::{Job, Work};

pub use backup::BackupError;
pub(crate) use engine::Table;
pub use file::FileError;
pub(crate) use generations::Remembered;
pub(crate) use obstacle::obstacle;
pub(crate) use writer::Transaction;

/// Why a record could not be read or written. Nothing changed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    /// The file or the disk failed, and the store is being opened again.
    #[error("the store is not available")]
    Unavailable,
    /// More writes wait than the queue holds.
    #[error("too many writes wait")]
    Busy,
    /// A record is not what was written.
    #[error("the record {table}/{key} in {place} is damaged")]
    Damaged {
        /// The file.
        place: String,
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
    },
    /// The job itself panicked.
    #[error("a write panicked")]
    Panicked,
}

/// The store.
pub(crate) struct Store {
    engine: Arc<dyn Engine>,
    place: String,
    generations: Arc<Generations>,
    /// Absent only while the store is dropped.
    jobs: Option<SyncSender<Box<dyn Job>>>,
    /// Joined when the store is dropped, after the last job that was taken.
    writer: Option<JoinHandle<()>>,
    /// Whether no copy of it goes on.
    copies_stopped: AtomicBool,
}

/// Follows the claims to custom domains: told of the keys that changed and shown the store as it is then,
/// commit after commit, before the writes are answered. What it could not read it is told of again.
pub(crate) type Watch = Box<dyn Fn(&View<'_>, &BTreeSet<String>) -> Result<(), Error> + Send>;

/// What reading needs: of a snapshot, or of a write under way.
pub(crate) trait Read {
    /// The record under a key.
    fn get<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>, Error>;

    /// The first `limit` records whose key starts with `prefix`, in the order of their keys.
    fn scan<T: DeserializeOwned>(
        &self,
        table: Table,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, T)>, Error>;
}

/// How much of a file is looked at when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// All of it: a start is the moment to hear of damage.
    Whole,
    /// What is needed: another process had it open until now.
    Again,
}

impl Store {
    /// Opens the file at `path`, or one in memory where that is just [`IN_MEMORY`]. Its writes are counted
    /// in `series`.
    pub(crate) fn open(
        path: &Path,
        watch: Watch,
        look: Look,
        series: &Series,
    ) -> Result<Self, FileError> {
        if path == Path::new(IN_MEMORY) {
            return Ok(Self::on(Arc::new(memory::Memory::default()), watch, series));
        }
        let engine = match look {
            Look::Whole => redb::Redb::open(path)?,
            Look::Again => redb::Redb::open_again(path)?,
        };
        Ok(Self::on(Arc::new(engine), watch, series))
    }

    /// Closes the file, so that another process can open it. Until it is taken back, nothing is read and
    /// nothing is written. Waits for a commit that is under way.
    pub(crate) fn let_go(&self) {
        self.engine.let_go();
        self.generations.closed();
    }

    /// Opens the file again after that. Where it cannot be opened now, the writer tries again and again.
    pub(crate) async fn take_back(&self) {
        self.engine.take_back();
        // The writer alone opens what is closed, and at the latest for the next write.
        let opened = self.write(|_| Ok::<_, Error>(()));
        if let Err(error) = opened.await {
            tracing::error!(store = %self.place, %error, "{error}: it is opened as soon as it can be");
        }
        self.generations.opened();
    }

    /// Opens the file at `path`, which nobody else has open, to read what is in it.
    pub(crate) fn look(path: &Path, series: &Series) -> Result<Self, FileError> {
        let nobody_follows = Box::new(|_: &View<'_>, _: &BTreeSet<String>| Ok(()));
        let engine = Arc::new(redb::Redb::look(path)?);
        Ok(Self::on(engine, nobody_follows, series))
    }

    fn on(engine: Arc<dyn Engine>, watch: Watch, series: &Series) -> Self {
        let generations = Arc::<Generations>::default();
        let (jobs, queue) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new().name("store".to_owned()).spawn({
            let engine = Arc::clone(&engine);
            let generations = Arc::clone(&generations);
            let series = series.clone();
            move || writer::run(&engine, &queue, &generations, &watch, &series)
        });
        Self {
            place: engine.place(),
            engine,
            generations,
            jobs: Some(jobs),
            writer: Some(writer.expect("a process that starts can start a thread")),
            copies_stopped: AtomicBool::new(false),
        }
    }

    /// A view of the store as it is now.
    pub(crate) fn read(&self) -> Result<View<'_>, Error> {
        Ok(View {
            place: &self.place,
            snapshot: self.engine.snapshot().map_err(unavailable)?,
        })
    }

    /// Runs `work` on the writer's thread and answers when what it changed is durable.
    ///
    /// # Errors
    /// Its own, or that of the store; nothing is changed then.
    pub(crate) async fn write<T, E>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.queue(work)?
            .await
            .unwrap_or_else(|_| Err(Error::Unavailable.into()))
    }

    /// As [`Store::write`], for the start of the process: it blocks.
    pub(crate) fn write_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let answer = self.queue(work)?;
        // On a thread of its own, since a thread with a runtime must not wait like this.
        let waited = std::thread::scope(|scope| scope.spawn(|| answer.blocking_recv()).join());
        waited
            .map_err(|_| Error::Panicked)?
            .map_err(|_| Error::Unavailable)?
    }

    fn queue<T, E>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, E>>, Error>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Work {
            work: Some(work),
            outcome: None,
            reply,
        });
        let jobs = self.jobs.as_ref().ok_or(Error::Unavailable)?;
        jobs.try_send(job).map_err(|_| Error::Busy)?;
        Ok(answer)
    }

    /// Rises with every write to the apps or functions, before that write is answered.
    pub(crate) fn generation(&self) -> u64 {
        self.generation_of(Remembered::Backends)
    }

    /// Rises with every write to what is remembered, before that write is answered. What was read under
    /// another generation is to be read again.
    pub(crate) fn generation_of(&self, what: Remembered) -> u64 {
        self.generations.now(what)
    }
}

#[cfg(test)]
impl Store {
    /// As [`Store::open`], where nobody follows.
    pub(crate) fn unwatched(path: &Path) -> Result<Self, FileError> {
        let nobody_follows = Box::new(|_: &View<'_>, _: &BTreeSet<String>| Ok(()));
        Self::open(path, nobody_follows, Look::Whole, &Series::default())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            // It panics nowhere that is not caught; if it did, there is nobody left to tell.
            let _ = writer.join();
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Store").field(&self.place).finish()
    }
}

/// One state of the store.
pub(crate) struct View<'a> {
    place: &'a str,
    snapshot: Box<dyn Snapshot>,
}

impl View<'_> {
    /// The first `limit` keys of a table, also those of damaged records.
    pub(crate) fn keys(&self, table: Table, limit: usize) -> Result<Vec<String>, Error> {
        self.keys_under(table, "", limit)
    }

    /// The first `limit` keys of a table that start with `prefix`, also those of damaged records.
    pub(crate) fn keys_under(
        &self,
        table: Table,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let pairs = self.snapshot.scan(table, prefix, limit);
        let pairs = pairs.map_err(unavailable)?;
        Ok(pairs.into_iter().map(|(key, _)| key).collect())
    }
}

impl View<'_> {
    /// Every record of a table but those that are damaged, which are logged and left as they are.
    pub(crate) fn scan_intact<T: DeserializeOwned>(
        &self,
        table: Table,
    ) -> Result<Vec<(String, T)>, Error> {
        let pairs = self.snapshot.scan(table, "", usize::MAX);
        Ok(intact(self.place, table, pairs.map_err(unavailable)?))
    }
}

impl Read for View<'_> {
    fn get<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>, Error> {
        let bytes = self.snapshot.get(table, key).map_err(unavailable)?;
        bytes
            .map(|bytes| open(self.place, table, key, &bytes))
            .transpose()
    }

    fn scan<T: DeserializeOwned>(
        &self,
        table: Table,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, T)>, Error> {
        let pairs = self.snapshot.scan(table, prefix, limit);
        let open_pair = |(key, bytes): (String, Vec<u8>)| {
            let value = open(self.place, table, &key, &bytes)?;
            Ok((key, value))
        };
        pairs
            .map_err(unavailable)?
            .into_iter()
            .map(open_pair)
            .collect()
    }
}

fn open<T: DeserializeOwned>(
    place: &str,
    table: Table,
    key: &str,
    bytes: &[u8],
) -> Result<T, Error> {
    record::open(table, key, bytes).map_err(|record::Damaged| Error::Damaged {
        place: place.to_owned(),
        table: table.name(),
        key: key.to_owned(),
    })
}

fn intact<T: DeserializeOwned>(place: &str, table: Table, pairs: Pairs) -> Vec<(String, T)> {
    let mut intact = Vec::with_capacity(pairs.len());
    for (key, bytes) in pairs {
        match open(place, table, &key, &bytes) {
            Ok(value) => intact.push((key, value)),
            Err(error) => tracing::error!(%error, "passed over: {error}"),
        }
    }
    intact
}

#[expect(clippy::needless_pass_by_value, reason = "fits `map_err`")]
fn unavailable(fault: Fault) -> Error {
    // The writer says more, once, when it opens the store again.
    tracing::warn!(error = %fault, "the store cannot be read: {fault}");
    Error::Unavailable
}

/// Stands for a path where nothing is to be kept.
pub(crate) const IN_MEMORY: &str = "memory";

/// Writes that may wait.
const QUEUE: usize = 1024;

#[cfg(test)]
mod tests;
